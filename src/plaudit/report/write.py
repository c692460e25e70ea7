"""Write the report: one HTML file with all of its data, pictures, styles and script in it.

Answers are untrusted text. They reach the page only as JSON with `<`, `>` and `&` escaped, and from there only
as text nodes; everything else goes through a template that escapes. As a second wall the page carries a content
security policy that allows its own script by hash and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from plaudit import __version__
from plaudit.report.curves import curves
from plaudit.report.folder import Row, RunFolder, number, read_folder
from plaudit.report.headline import headline
from plaudit.report.lineage import layout, read_lineage
from plaudit.report.view import Card, Label, flat, name_of_stage, reward_view, seconds_text, spreads, stage_views
from plaudit.report.words import WORDS, Say

__all__ = ["render", "write_report"]

_PAGE = Path(__file__).parent / "page"
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
    page = render(read_folder(folder))
    path = folder / "report.html"
    aside = folder / f".report.html.{os.getpid()}"
    try:
        aside.write_bytes(page.encode("utf-8", errors="replace"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def render(folder: RunFolder) -> str:
    """The page as text."""
    stages = curves(folder.metrics, kl_target=_kl_target(folder.recipe))
    made = read_lineage(folder.lineage)
    script = (_PAGE / "report.js").read_text(encoding="utf-8")
    views = stage_views(stages)
    reward = reward_view(folder)
    spread = spreads(folder.evaluation)
    evaluation, samples = _fitting(folder.evaluation), _fitting(folder.samples)
    cards = [card for view in views for card in (*view.main, *view.rest)] + list(spread)
    if reward and reward.calibration:
        cards.append(reward.calibration)
    data = {
        "words": WORDS,
        "charts": {card.picture.id: card.picture.hover for card in cards},
        "evaluation": evaluation,
        "samples": samples,
    }
    page = (
        _environment()
        .get_template("report.html")
        .render(
            title=folder.path.resolve().name,
            version=__version__,
            head=headline(folder, stages, made),
            stages=views,
            reward=reward,
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
            style=Markup((_PAGE / "report.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=_hash(script),
            icon=base64.b64encode((_PAGE / "icon.svg").read_bytes()).decode("ascii"),
            data=Markup(embed(data)),
        )
    )
    return page.strip() + "\n"


def embed(value: Any) -> str:
    """JSON that cannot end the `<script>` element that holds it, and that any encoder can write."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=float)
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found.group()):04x}", text)


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


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(say=_say, say_as=_say_as, Say=Say, picture=_picture)
    return environment


def _say(label: Label, tag: str = "span") -> Markup:
    """An element that shows a text of the house, and can change its language; a name from the run stays itself."""
    if isinstance(label, str):
        return Markup("<code>{}</code>").format(label)
    return Markup('<{tag} data-t="{key}"{values}>{text}</{tag}>').format(
        tag=tag, key=label.key, values=_values(label), text=label.english()
    )


def _say_as(attribute: str, label: Say) -> Markup:
    """An attribute that shows a text of the house."""
    form = '{attribute}="{text}" data-ta="{attribute}" data-tk="{key}"{values}'
    return Markup(form).format(attribute=attribute, text=label.english(), key=label.key, values=_values(label))


def _values(label: Say) -> Markup:
    if not label.values:
        return Markup()
    return Markup(' data-v="{}"').format(json.dumps(label.values, ensure_ascii=False))


def _picture(card: Card) -> Markup:
    return Markup(card.picture.svg)  # made by charts, which takes no text from a run


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
