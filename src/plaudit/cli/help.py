"""`--help` of a command, with a table of the settings that it reads."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["with_settings"]


def with_settings(*names: str) -> type[TyperCommand]:
    """A kind of command whose help ends with the settings of these sections of a recipe, or of all."""

    class WithSettings(TyperCommand):
        """A command whose help ends with a table of settings."""

        def format_help(self, ctx: Any, formatter: Any) -> None:
            """Write the usual help, then the table."""
            super().format_help(ctx, formatter)
            _print_settings(names)

    return WithSettings


def _print_settings(names: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    from plaudit.cli.catalogue import as_yaml, below, kinds_of_scorers, leaves
    from plaudit.recipe import Recipe

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("setting", no_wrap=True, header_style="dim")
    table.add_column("default", overflow="fold", header_style="dim")
    table.add_column("meaning", overflow="fold", header_style="dim")
    for section in below(Recipe):
        if names and section.name not in names:
            continue
        if section.inner is None:
            table.add_row(section.name, as_yaml(section.default), section.meaning)
            continue
        for name, setting in leaves(section.inner, f"{section.name}.", section.default):
            table.add_row(name, as_yaml(setting.default), setting.meaning)
    if not names or "scorers" in names:
        for kind, own in kinds_of_scorers():
            table.add_row(f"scorers.NAME.kind: {kind.name}" if kind.name else "scorers.NAME", "", kind.meaning)
            for setting in own:
                table.add_row(f"  .{setting.name}", setting.shown(), setting.meaning)
    title = "Settings of a --scorer" if names == ("scorers",) else "Settings, in the recipe or by --set name=value"
    Console(markup=False).print(Panel(table, title=title, title_align="left", border_style="dim"))
