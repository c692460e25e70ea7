"""One self-contained HTML page: styles, script, words and numbers in it; nothing is loaded from anywhere.

Whatever comes from a run or a file is untrusted text. It reaches the page as JSON with `<`, `>` and `&` escaped, or
through a template that escapes. As a second wall the page carries a content security policy that allows its own script
by hash and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from plaudit import __version__
from plaudit.report.view import Card, Label
from plaudit.report.words import WORDS, Say

__all__ = ["embed", "page"]

_PAGE = Path(__file__).parent / "page"


def page(template: str, *, title: str, sections: Sequence[str], data: Mapping[str, Any], **values: Any) -> str:
    """A page as text.

    Args:
        template: one that extends `frame.html`.
        title: of the page.
        sections: ids of its parts, for the bar; each has the word `nav.ID`.
        data: what the script reads, beside the words: `charts` by id, and more.
        values: what the template asks for.
    """
    script = (_PAGE / "report.js").read_text(encoding="utf-8")
    text = (
        _environment()
        .get_template(template)
        .render(
            title=title,
            sections=sections,
            version=__version__,
            style=Markup((_PAGE / "report.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=_hash(script),
            icon=base64.b64encode((_PAGE / "icon.svg").read_bytes()).decode("ascii"),
            data=Markup(embed({"words": WORDS, **data})),
            **values,
        )
    )
    return text.strip() + "\n"


def embed(value: Any) -> str:
    """JSON that cannot end the `<script>` element that holds it, and that any encoder can write."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=float)
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found.group()):04x}", text)


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
