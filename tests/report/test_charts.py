"""Pictures: roles in place of colours, ids of their own, and numbers that lie where they are drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from plaudit.report.charts import (
    Bin,
    Picture,
    _moving_average,
    _Ticks,
    _wilson,
    draw_calibration,
    draw_curve,
    draw_distance,
    draw_spread,
)
from plaudit.report.curves import Curve, Line


def line(n: int = 50, name: str = "policy/reward") -> Line:
    return Line(name=name, word="m.reward", colour="blue", x=tuple(range(n)), y=tuple(i % 7 + i / 10 for i in range(n)))


def every_picture() -> list[Picture]:
    bins = [Bin(0.55, 0.5, 100), Bin(0.75, 0.7, 60), Bin(0.95, 1.0, 3)]
    return [
        draw_curve("a", Curve(word="m.reward", lines=(line(), line(5, "b")), guide=3.0)),
        draw_curve("b", Curve(word="m.reward", lines=(line(1),))),
        draw_distance("c", Curve(word="m.reward.distance", lines=(line(),)), tuple(range(50))),
        draw_calibration(bins),
        draw_spread("reward", [1.0, 2.0, 2.5], [2.0, 2.0, 2.0]),
    ]


@pytest.mark.parametrize("picture", every_picture(), ids=lambda picture: picture.id)
def test_a_picture_is_clean(picture):
    root = ElementTree.fromstring(picture.svg)
    assert root.tag == "svg"
    assert set(root.attrib) == {"viewBox", "aria-hidden", "focusable"}
    assert not re.search(r"#[0-9a-f]{6}|http|font-family|<metadata|<style", picture.svg)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert all(name.startswith(f"{picture.id}-") for name in ids)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', picture.svg)) <= {(i, "") for i in ids} | {
        ("", i) for i in ids
    }


def test_the_axis_has_a_word_that_can_change_its_language():
    picture = draw_curve("a", Curve(word="m.reward", lines=(line(),)))
    words = [e for e in ElementTree.fromstring(picture.svg).iter("text") if "data-t" in e.attrib]
    assert [(e.attrib["data-t"], e.text) for e in words] == [("axis.step", "step")]


def test_the_page_finds_a_point_where_it_is_drawn():
    picture = draw_curve("a", Curve(word="m.reward", lines=(line(20),)))  # short: one line, without an average
    left, top, right, bottom = picture.hover["box"]
    (x0, x1), (y0, y1) = picture.hover["xlim"], picture.hover["ylim"]
    x = left + (7 - x0) / (x1 - x0) * (right - left)
    y = bottom - (line(20).y[7] - y0) / (y1 - y0) * (bottom - top)
    drawn = re.findall(r"([\d.]+) ([\d.]+)", max(re.findall(r' d="(M[^"]+)"', picture.svg), key=len))
    assert (float(drawn[7][0]), float(drawn[7][1])) == pytest.approx((x, y), abs=0.06)


def test_a_level_line_lies_in_the_middle():
    flat = Line(name="n", word="", colour="slate", x=(0, 1, 2), y=(2e-4,) * 3)
    low, high = draw_curve("a", Curve(word="", lines=(flat,))).hover["ylim"]
    assert (low, high) == pytest.approx((0, 4e-4))


def test_a_long_run_is_thinned_and_says_which_steps():
    picture = draw_distance("d", Curve(word="m.reward.distance", lines=(line(1000),)), tuple(range(1000)))
    assert len(picture.hover["x"]) == len(picture.hover["labels"]) == 143  # pieces of ceil(1000 / 160) = 7
    assert picture.hover["labels"][-1] == "999"


def test_moving_average_by_hand():
    # 36 points: half a window is 36 // 24 = 1, so means of three, of two at the ends
    y = tuple(float(i * i) for i in range(36))
    smooth = _moving_average(y)
    assert smooth[0] == pytest.approx((0 + 1) / 2)
    assert smooth[3] == pytest.approx((4 + 9 + 16) / 3)
    assert smooth[35] == pytest.approx((34**2 + 35**2) / 2)
    assert _moving_average(y[:35]) is not None
    assert _moving_average(y[:35]) == y[:35]


def test_wilson_interval_by_hand():
    # 8 of 10, z = 1.96: centre (0.8 + 0.19208) / 1.38416 = 0.71674, half 1.96 / 1.38416 * sqrt(0.016 + 0.009604)
    assert _wilson(0.8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert _wilson(0.8, 0) == (0.8, 0.8)


@pytest.mark.parametrize(
    ("locs", "text"),
    [
        ([0.0, 0.25, 0.5], ["0.00", "0.25", "0.50"]),
        ([-2.0, 0.0, 2.0], ["−2", "0", "2"]),
        ([0.0, 20000.0, 40000.0], ["0k", "20k", "40k"]),
        ([0.0, 0.0001, 0.0002], ["0", "0.0001", "0.0002"]),
    ],
)
def test_ticks_share_their_decimals(locs, text):
    assert _Ticks().format_ticks(locs) == text
