"""Pictures as small SVG: matplotlib draws, and the page's style sheet colours what it drew.

Every colour that goes into matplotlib stands for a role of the page (`--blue`, `--ink`); the finished SVG names
the role, so one picture serves light, dark and print. Only words of the house go into a picture, never text
from a run. The numbers behind a picture travel beside it for the page's tooltips.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, MaxNLocator, PercentFormatter

from plaudit.report.curves import Curve, Line, thin
from plaudit.report.numerals import count, percent, short
from plaudit.report.words import english

__all__ = ["Bin", "Picture", "draw_best_of", "draw_calibration", "draw_curve", "draw_distance", "draw_spread"]

_ROLES = ("blue", "orange", "gold", "purple", "teal", "slate", "ink", "ink-soft", "line", "card")
_COLOUR = {role: f"#0{index:x}c0de" for index, role in enumerate(_ROLES)}
_WIDTH, _HEIGHT = 380, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 44
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "plaudit",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _COLOUR["line"],
    "axes.linewidth": 1,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.xmargin": 0.02,
    "axes.ymargin": 0.09,
    "grid.color": _COLOUR["line"],
    "grid.linewidth": 1,
    "text.color": _COLOUR["ink-soft"],
    "axes.labelcolor": _COLOUR["ink-soft"],
    "axes.labelsize": 12,
    "xtick.color": _COLOUR["line"],
    "ytick.color": _COLOUR["line"],
    "xtick.labelcolor": _COLOUR["ink-soft"],
    "ytick.labelcolor": _COLOUR["ink-soft"],
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.major.pad": 6,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture, and the numbers behind it as plain JSON values."""

    id: str
    svg: str
    hover: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs to which the reward model gave about the same chance: what it said, and how often it was right."""

    predicted: float
    observed: float
    count: float


def draw_curve(id: str, curve: Curve) -> Picture:
    """Lines over steps. A long line is drawn twice: pale as it was logged, bold as a moving average."""
    lines = [thin(line) for line in curve.lines]
    with _axes() as (figure, axes):
        for line in lines:
            smooth = _moving_average(line.y)
            colour = _COLOUR[line.colour]
            if smooth != line.y:
                axes.plot(line.x, line.y, color=colour, linewidth=1, alpha=0.32)
            axes.plot(line.x, smooth, color=colour, linewidth=2)
            axes.plot(line.x[-1:], smooth[-1:], "o", color=colour, markersize=5, markeredgecolor=_COLOUR["card"])
        if curve.guide is not None:
            axes.axhline(curve.guide, color=_COLOUR["ink-soft"], linewidth=1.2, linestyle=(0, (4, 3)))
        _centre_level(axes, [y for line in lines for y in line.y])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        _label(axes, "axis.step")
        return _finish(id, figure, axes, [_hover(line) for line in lines], lines[0].x)


def draw_distance(id: str, curve: Curve, steps: Sequence[float]) -> Picture:
    """Reward against distance, one dot a step, early ones pale; `steps` are for the tooltips."""
    line = curve.lines[0]
    far, good = thin(replace(line, x=tuple(steps), y=line.x), 160), thin(replace(line, x=tuple(steps)), 160)
    line, labels = replace(line, x=far.y, y=good.y), [count(step) for step in far.x]
    with _axes() as (figure, axes):
        axes.plot(line.x, line.y, color=_COLOUR[line.colour], linewidth=1, alpha=0.25)
        shades = np.linspace(0.22, 1.0, len(line.x))
        colours = [to_rgba(_COLOUR[line.colour], float(shade)) for shade in shades]
        _centre_level(axes, line.y)
        axes.scatter(line.x, line.y, s=25, c=colours, linewidths=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _label(axes, "axis.distance")
        return _finish(id, figure, axes, [_hover(line)], line.x, labels=labels, nearest="xy")


def draw_calibration(bins: Sequence[Bin]) -> Picture:
    """What the reward model said against what people chose, with 95 % intervals, above the number of pairs."""
    low = 0.0 if min(found.predicted for found in bins) < 0.5 else 0.5
    with _axes(height=340, bottom=104) as (figure, axes):
        axes.plot([low, 1], [low, 1], color=_COLOUR["ink-soft"], linewidth=1.2, linestyle=(0, (4, 3)))
        for found in bins:
            lowest, highest = _wilson(found.observed, found.count)
            axes.plot([found.predicted] * 2, [lowest, highest], color=_COLOUR["blue"], linewidth=1.6, alpha=0.45)
        x, y = [found.predicted for found in bins], [found.observed for found in bins]
        axes.plot(x, y, color=_COLOUR["blue"], linewidth=1.4, alpha=0.6)
        axes.plot(x, y, "o", color=_COLOUR["blue"], markersize=7, markeredgecolor=_COLOUR["card"], markeredgewidth=1.2)
        axes.set_xlim(low - 0.02, 1.02)
        axes.set_ylim(min(low, *y) - 0.02, 1.03)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.tick_params(labelbottom=False, bottom=False)
        below = figure.add_axes(_rectangle(340, top=340 - 98, bottom=_BOTTOM), sharex=axes)
        below.patch.set_visible(False)
        width = 0.7 * min((after - before for before, after in pairwise(x)), default=0.05)
        below.bar(x, [found.count for found in bins], width=max(width, 0.008), color=_COLOUR["slate"], alpha=0.55)
        below.set_yticks([])
        below.grid(False)
        below.tick_params(labelbottom=True, bottom=True)
        below.xaxis.set_major_locator(MaxNLocator(5))
        below.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _label(below, "axis.predicted")
        lines: list[dict[str, Any]] = [
            {"word": "rm.observed", "name": "", "colour": "blue", "y": y, "text": [percent(value) for value in y]},
            {"word": "rm.pairs", "name": "", "colour": "slate", "text": [count(found.count) for found in bins]},
        ]
        labels = [percent(value) for value in x]
        return _finish("calibration", figure, axes, lines, x, labels=labels, formatted=True)


def draw_spread(name: str, before: Sequence[float], after: Sequence[float]) -> Picture:
    """How the answers' grades are spread, before and after tuning, as two outlines over the same bins."""
    both = np.asarray([*before, *after], dtype=np.float64)
    edges = np.histogram_bin_edges(both, bins=min(28, max(6, round(math.sqrt(len(before) or 1)))))
    heights = [np.histogram(side, edges)[0] for side in (before, after)]
    with _axes() as (figure, axes):
        for height, colour, side in zip(heights, ("orange", "blue"), (before, after), strict=True):
            axes.stairs(height, edges, fill=True, color=_COLOUR[colour], alpha=0.22)
            axes.stairs(height, edges, color=_COLOUR[colour], linewidth=1.8)
            if len(side):
                axes.axvline(float(np.mean(side)), color=_COLOUR[colour], linewidth=1.4, linestyle=(0, (2, 2)))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        _label(axes, f"axis.{name}")
        centres = [float(value) for value in (edges[:-1] + edges[1:]) / 2]
        lines = [
            {"word": word, "name": "", "colour": colour, "y": [int(value) for value in height]}
            for height, colour, word in zip(heights, ("orange", "blue"), ("before", "after"), strict=True)
        ]
        labels = [f"{short(low)} … {short(high)}" for low, high in pairwise(edges)]
        return _finish(f"spread-{name}", figure, axes, lines, centres, labels=labels)


def draw_best_of(
    id: str, counts: Sequence[int], means: Sequence[float], intervals: Sequence[tuple[float, float]], colour: str
) -> Picture:
    """The best of n answers, each doubling of n one step to the right, with 95 % intervals."""
    x = list(range(len(counts)))
    with _axes() as (figure, axes):
        lows, highs = zip(*intervals, strict=True)
        axes.fill_between(x, lows, highs, color=_COLOUR[colour], alpha=0.18, linewidth=0)
        axes.plot(x, means, color=_COLOUR[colour], linewidth=2)
        axes.plot(x, means, "o", color=_COLOUR[colour], markersize=6, markeredgecolor=_COLOUR["card"])
        _centre_level(axes, [*lows, *highs])
        axes.set_xticks(x, [count(n) for n in counts])
        _label(axes, "axis.best")
        lines: list[dict[str, Any]] = [{"word": id, "name": "", "colour": colour, "y": list(means)}]
        return _finish(id.replace(".", "-"), figure, axes, lines, x, labels=[f"n = {count(n)}" for n in counts])


@contextmanager
def _axes(height: int = _HEIGHT, bottom: int = _BOTTOM) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        axes = figure.add_axes(_rectangle(height, top=_TOP, bottom=bottom))
        axes.patch.set_visible(False)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_Ticks())
        yield figure, axes


def _rectangle(height: int, *, top: int, bottom: int) -> tuple[float, float, float, float]:
    """The box of an axes in matplotlib's words, from margins in pixels."""
    return _LEFT / _WIDTH, bottom / height, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, (height - top - bottom) / height


def _centre_level(axes: Axes, values: Sequence[float]) -> None:
    """A level line lies in the middle, and its axis does not magnify nothing."""
    if min(values) == max(values):
        half = abs(values[0]) or 1.0
        axes.set_ylim(values[0] - half, values[0] + half)


def _label(axes: Axes, word: str) -> None:
    """Name the x axis; `_clean` turns the group's id into the key of the word."""
    label = axes.set_xlabel(word, labelpad=5)
    label.set_gid(f"word:{word}")


class _Ticks(Formatter):
    """Numbers along an axis, all with the decimals that their distance asks for."""

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The texts of all numbers of an axis."""
        gap = min((high - low for low, high in pairwise(sorted(values))), default=0) or 1.0
        largest = max((abs(value) for value in values), default=0)
        if largest >= 1e7 or largest < 1e-3:
            texts = [f"{value:.6g}" if abs(value) > gap / 1e6 else "0" for value in values]
        elif largest >= 10_000:
            texts = [f"{value / 1000:,.{_decimals(gap / 1000)}f}k" for value in values]
        else:
            texts = [f"{value:.{_decimals(gap)}f}" for value in values]
        return [text.replace("-", "\N{MINUS SIGN}") for text in texts]

    def __call__(self, value: float, pos: int | None = None) -> str:
        """The text of one number."""
        return self.format_ticks([value])[0]


def _decimals(gap: float) -> int:
    """Decimals that tell numbers apart which lie `gap` apart: 0.25 needs two."""
    return next((places for places in range(6) if abs(round(gap, places) - gap) < gap * 1e-3), 6)


def _moving_average(y: tuple[float, ...]) -> tuple[float, ...]:
    """Centred mean over up to 17 points, fewer at the ends; a line under 36 points stays as it is."""
    half = min(8, len(y) // 24) if len(y) >= 36 else 0
    if half == 0:
        return y
    sums = np.cumsum([0.0, *y])
    index = np.arange(len(y))
    first, last = np.maximum(index - half, 0), np.minimum(index + half, len(y) - 1)
    means = (sums[last + 1] - sums[first]) / (last - first + 1)
    return tuple(float(value) for value in means)


def _wilson(share: float, pairs: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if pairs <= 0:
        return share, share
    z2 = 1.96**2
    centre = (share + z2 / (2 * pairs)) / (1 + z2 / pairs)
    half = 1.96 / (1 + z2 / pairs) * math.sqrt(max(0.0, share * (1 - share) / pairs + z2 / (4 * pairs**2)))
    return centre - half, centre + half


def _hover(line: Line) -> dict[str, Any]:
    return {"word": line.word, "name": line.name, "colour": line.colour, "x": list(line.x), "y": list(line.y)}


def _finish(
    id: str,
    figure: Figure,
    axes: Axes,
    lines: list[dict[str, Any]],
    x: Sequence[float],
    *,
    labels: Sequence[str] = (),
    nearest: str = "x",
    formatted: bool = False,
) -> Picture:
    """Draw, and note where the data's coordinates lie in the picture."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    box, height = axes.get_window_extent(), round(figure.get_figheight() * 72)
    hover = {
        "x": list(x),
        "lines": lines,
        "labels": list(labels),
        "nearest": nearest,
        "box": [round(value, 2) for value in (box.x0, height - box.y1, box.x1, height - box.y0)],
        "xlim": list(axes.get_xlim()),
        "ylim": list(axes.get_ylim()),
    }
    if formatted:
        hover["formatted"] = True
    return Picture(id=id, svg=_clean(buffer.getvalue(), id, height), hover=hover)


_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_BY_COLOUR = {colour: f"var(--{role})" for role, colour in _COLOUR.items()}
_ROLE = re.compile("|".join(_BY_COLOUR))


def _clean(svg: str, id: str, height: int) -> str:
    """Matplotlib's file as an element of a page: no size, no name spaces, ids of its own, roles for colours."""
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', svg))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        _clean_element(element, used, id)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"viewBox": f"0 0 {_WIDTH} {height}", "aria-hidden": "true", "focusable": "false"})
    text = re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))
    return re.sub(r"<(g|defs)\s*/>", "", text)


def _clean_element(element: ElementTree.Element, used: set[str], id: str) -> None:
    name = element.attrib.pop("id", "")
    element.tag = element.tag.removeprefix(_SVG)
    if name in used:
        element.set("id", f"{id}-{name}")
    if name.startswith("word:"):
        for text in element.iter():
            if text.tag.endswith("text"):
                text.set("data-t", name.removeprefix("word:"))
                text.text = english(name.removeprefix("word:"))
    if _HREF in element.attrib:
        element.set("href", element.attrib.pop(_HREF).replace("#", f"#{id}-"))
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{id}-"))
    for where in ("d", "x", "y"):
        if where in element.attrib:
            rounded = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found.group()):.1f}", element.attrib[where])
            element.set(where, " ".join(rounded.split()))
    if element.attrib.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "style" in element.attrib:
        style = _ROLE.sub(lambda found: _BY_COLOUR[found.group()], element.attrib["style"])
        if element.tag == "text":
            style = re.sub(r"font(-family)?:[^;]*;?", "", style).strip(" ;")
        element.set("style", style)
