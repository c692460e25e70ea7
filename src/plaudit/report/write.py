"""Write the report: one HTML file with all of its data, pictures, styles and script in it.

Answers are untrusted text. They reach the page only as JSON with `<`, `>` and `&` escaped, and from there only
as text nodes; everything else goes through a template that escapes. As a second wall the page carries a content
security policy that allows its own script by hash and loads nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from plaudit.report.curves import curves
from plaudit.report.folder import Row, RunFolder, number, read_folder
from plaudit.report.frame import page
from plaudit.report.headline import headline
from plaudit.report.lineage import layout, read_lineage
from plaudit.report.view import flat, name_of_stage, reward_view, seconds_text, spreads, stage_views

__all__ = ["render", "write_report"]

_ROWS = 10_000
_LETTERS = 24_000_000
"""A browser of samples holds at most so many rows, and about so many characters of JSON."""


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder from the files that are there, and return its path.

    A file that is missing or torn is named in the report; an unfinished run reports too. The same folder gives
    the same bytes.

    Raises:
        RunError: there is no such folder.
    """
    text = render(read_folder(folder))
    path = folder / "report.html"
    aside = folder / f".report.html.{os.getpid()}"
    try:
        aside.write_bytes(text.encode("utf-8", errors="replace"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def render(folder: RunFolder) -> str:
    """The page as text."""
    stages = curves(folder.metrics, kl_target=_kl_target(folder.recipe))
    made = read_lineage(folder.lineage)
    views = stage_views(stages)
    reward = reward_view(folder)
    rewarded = ("reward",) if folder.trains_reward else ()
    spread = spreads(folder.evaluation)
    evaluation, samples = _fitting(folder.evaluation), _fitting(folder.samples)
    cards = [card for view in views for card in (*view.main, *view.rest)] + list(spread)
    if reward and reward.calibration:
        cards.append(reward.calibration)
    data = {
        "charts": {card.picture.id: card.picture.hover for card in cards},
        "evaluation": evaluation,
        "samples": samples,
    }
    return page(
        "report.html",
        title=folder.path.resolve().name,
        sections=("headline", "curves", *rewarded, "compare", "samples", "lineage", "recipe"),
        data=data,
        head=headline(folder, stages, made),
        stages=views,
        reward=reward,
        rewarded=rewarded,
        spreads=spread,
        judge="gold" if any(card.picture.id == "spread-gold" for card in spread) else "reward",
        evaluation=(len(evaluation), len(folder.evaluation)),
        samples=(len(samples), len(folder.samples)),
        made=[(line, name_of_stage(line.stage), seconds_text(line.seconds)) for line in made],
        graph=layout(made),
        recipe=_yaml_lines(folder.recipe_text),
        environment=flat(folder.environment),
        absent=folder.absent,
        notes=folder.notes,
    )


def _kl_target(recipe: Row) -> float | None:
    place: Any = recipe
    for name in ("policy", "kl", "target"):
        place = place.get(name) if isinstance(place, dict) else None
    return number(place)


def _fitting(rows: Sequence[Row]) -> list[Row]:
    """The rows, or as many of them, evenly chosen, as a page can hold."""
    letters = sum(len(json.dumps(row, ensure_ascii=False)) for row in rows)
    most = min(_ROWS, len(rows), int(len(rows) * _LETTERS / max(letters, 1)))
    return [rows[index * len(rows) // most] for index in range(most)]


def _yaml_lines(text: str) -> Markup:
    """A recipe with its names and comments marked, line by line."""

    def line(text: str) -> Markup:
        found = re.match(r"(\s*(?:- )?)([\w.-]+)(:)(?=\s|$)(.*)$", text)
        if text.lstrip().startswith("#"):
            return Markup('<span class="remark">{}</span>').format(text)
        if found is None:
            return escape(text)
        return Markup('{}<span class="key">{}</span>{}{}').format(*found.groups())

    return Markup("\n").join(line(each) for each in text.rstrip().split("\n"))
