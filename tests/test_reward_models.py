"""The page about reward models says what the code does: its losses, settings, metrics, commands and figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from plaudit import loop
from plaudit.cli import app
from plaudit.recipe import Recipe, Reward, recipe_from, settings
from plaudit.records import Choice, Comparison, Judgement, Preferred, Prompt, Ranking, Scores, Thumb, Verdict
from plaudit.scoring import KINDS
from plaudit.training.judged import said_by

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"English": ROOT / "docs/reward_models.md", "Chinese": ROOT / "docs/reward_models.zh.md"}


def text_of(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def blocks_of(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of every table."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in prose_of(page).splitlines() if line[:1] == "|"]


# --- losses ---------------------------------------------------------------------------------------------------------


def judged(verdict: Verdict, k: int, prompt: str = "q") -> Judgement:
    return Judgement(prompt=Prompt(text=prompt, id=prompt), answers=tuple("abcd"[:k]), verdict=verdict)


RANKED, TIED = judged(Ranking(ranks=(2, 1, 3)), 3), judged(Ranking(ranks=(2, 1, 2)), 3)
CHOSEN = judged(Choice(best=1), 3)
BETTER = judged(Comparison(preferred=Preferred.FIRST), 2)
EQUAL = judged(Comparison(preferred=Preferred.TIE), 2)
MUCH_BETTER = judged(Comparison(preferred=Preferred.FIRST, strength=2.0), 2)
RATED, STAR = judged(Scores(scores=(4.0, 2.0), scale=(1, 5)), 2), judged(Scores(scores=(4.0,), scale=(1, 5)), 1)
THUMB = judged(Thumb(up=True), 1)
ROWS = {
    "ranking of K answers": [RANKED],
    "ranking with ties": [TIED],
    "ranking, with ties or without": [RANKED, TIED],
    "choice of the best of K": [CHOSEN],
    "comparison of two": [BETTER],
    "comparison that is a tie": [EQUAL],
    "comparison with a strength": [MUCH_BETTER],
    "scores of several answers": [RATED],
    "score of one answer": [STAR],
    "scores of one answer or several": [RATED, STAR],
    "thumb": [THUMB],
}
CLEAR = judged(Ranking(ranks=(1, 2)), 2, "clear")
"""Ties alone say nothing."""


def losses_on(page: str) -> list[list[str]]:
    """What was said, under which setting, the loss, and what the code calls it."""
    return [row for row in rows_of(page) if len(row) == 4 and re.fullmatch(r"none|`reward\.\w+: \w+`", row[1])]


def test_each_judgement_takes_the_loss_that_the_page_says():
    rows = losses_on("English")
    assert {row[0] for row in rows} == ROWS.keys()
    for what, setting, _, called in rows:
        given = {} if setting == "none" else yaml.safe_load(setting.strip("`").removeprefix("reward."))
        for one in ROWS[what]:
            found, _ = said_by([one, CLEAR], Reward.model_validate(given))
            assert f"`{found[0].said.words}`" == called, (what, setting)


def test_both_pages_have_the_losses_in_one_order():
    english, chinese = ([(row[1], row[3]) for row in losses_on(page)] for page in PAGES)
    assert chinese == english


@pytest.mark.parametrize("page", PAGES)
def test_every_formula_is_of_a_loss_that_there_is(page):
    (formulas,) = (block for block in blocks_of(page, "text") if block.startswith("pairs "))
    named = re.findall(r"^(\w[\w ]*?)  ", formulas, re.MULTILINE)
    called = {row[3].strip("`") for row in losses_on(page)}
    assert set(named) == called - {"pairs with the best"}  # which is `pairs`


# --- settings -------------------------------------------------------------------------------------------------------


def test_every_setting_that_is_named_is_there_and_none_is_missing():
    known = {name for name, _, _ in settings(Recipe)}
    known |= {name.rpartition(".")[0] for name in known}  # sections
    named = set(re.findall(r"`((?:reward|data|model)\.[a-z_.]+)(?:: \w+)?`", prose_of("English")))
    assert named - known == set()
    own = {name for name, _, _ in settings(Reward, "reward.") if not name.startswith("reward.optimiser.")}
    assert own - named == set()


@pytest.mark.parametrize("page", PAGES)
def test_the_recipe_loads(page):
    (text,) = blocks_of(page, "yaml")
    recipe = recipe_from(yaml.safe_load(text))
    assert recipe.reward is not None
    assert recipe.policy is None


def test_every_kind_of_scorer_is_in_the_table():
    kinds = [re.findall(r"`(\w+)`", row[1]) for row in rows_of("English") if len(row) == 3]
    assert {kind for row in kinds for kind in row} == KINDS.keys()


# --- metrics --------------------------------------------------------------------------------------------------------


def mixed(count: int) -> list[Judgement]:
    """Judgements of several kinds, each about a prompt of its own."""
    kinds = (RANKED, TIED, CHOSEN, BETTER, EQUAL, MUCH_BETTER, STAR, THUMB)
    prompts = [Prompt(text=f"say {n}", id=f"q {n}") for n in range(count)]
    return [kinds[n % len(kinds)].model_copy(update={"prompt": prompt}) for n, prompt in enumerate(prompts)]


def test_every_metric_of_the_stage_is_explained_and_the_others_are_not_there(own_road, tmp_path):
    """With every option that logs something; a part of a name in capitals stands for any word."""
    lines = "".join(json.dumps(one.to_json()) + "\n" for one in mixed(40))
    (tmp_path / "judgements.jsonl").write_text(lines, encoding="utf-8")
    reward = {"start": "model", "members": 2, "patience": 9, "look_every": 2}
    weights = dict.fromkeys(("centring", "language", "adversary", "negatives"), 0.1)
    data = {"judgements": [{"path": str(tmp_path / "judgements.jsonl")}]}
    recipe = recipe_from(
        own_road(language=None, sft=None, policy=None, data=data, reward={**reward, **weights, "length_debias": True})
    )
    loop.run(recipe, tmp_path / "run", only="reward")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["stage"] for row in rows} == {"reward", "reward-2"}
    logged = {re.sub(r"^reward(-\d+)?/", "", name) for row in rows for name in row}
    explained = re.findall(r"^\| `([^`]+)` \|", text_of("English"), re.MULTILINE)
    forms = {name: re.compile(re.sub(r"[A-Z]+", r"[^/]+", name)) for name in explained}
    assert {name for name in logged if not any(form.fullmatch(name) for form in forms.values())} == set()
    assert [name for name, form in forms.items() if not any(map(form.fullmatch, logged))] == []


# --- commands and figures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_are_there(page):
    code = "\n".join(blocks_of(page, "sh"))
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups if group.name}
    named = set(re.findall(r"^plaudit (\w+)", code, re.MULTILINE)) | set(re.findall(r"`plaudit (\w+)", prose_of(page)))
    assert "evaluate" in named
    assert named - known == set()
    assert [
        path for path in re.findall(r"^python (examples/\S+)", code, re.MULTILINE) if not (ROOT / path).exists()
    ] == []


def results_of(text: str) -> list[dict[str, Any]]:
    """The results that a piece of a page links to."""
    links = re.findall(r"\(\.\./benchmarks/results/(\w+\.json)\)", text)
    return [json.loads((ROOT / "benchmarks/results" / link).read_text(encoding="utf-8")) for link in links]


def numbers_in(found: Any) -> Iterator[float]:
    if isinstance(found, dict | list):
        for inner in found.values() if isinstance(found, dict) else found:
            yield from numbers_in(inner)
    elif isinstance(found, int | float):
        yield float(found)


def strangers(text: str) -> Sequence[str]:
    """The figures with a decimal point of which no result that the text links to has a number or a share."""
    found = [number for result in results_of(text) for number in numbers_in(result)]
    known = {f"{scale * number:.{places}f}" for number in found for scale in (1, 100) for places in (1, 2, 3, 4)}
    return [figure for figure in re.findall(r"\d+\.\d+", re.sub(r"\([^)]*/[^)]*\)", "", text)) if figure not in known]


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_in_the_result_beside_it(page):
    pieces = re.split(r"\n(?=\* |\||\n)", prose_of(page))
    measured = [piece for piece in pieces if results_of(piece)]
    assert len(measured) == 9
    assert [figure for piece in measured for figure in strangers(piece)] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_accuracies_is_that_of_the_results(page):
    rows = [row for row in rows_of(page) if len(row) == 6 and results_of(row[5])]
    assert len(rows) == 6
    for row in rows:
        (found,) = results_of(row[5])
        assert row[1] == f"{found['cases']:,}"
        shares = [found["accuracy"], *found["interval"], found["length_alone"]]
        shares += [found["trl"]["accuracy"]] if "trl" in found else []
        assert re.findall(r"\d+\.\d+", " ".join(row[2:5])) == [f"{100 * share:.1f}" for share in shares], row[0]


@pytest.mark.parametrize("page", PAGES)
def test_the_results_come_from_the_commands_on_the_page(page):
    commands = re.findall(r"^(python -m benchmarks\..*)$", "\n".join(blocks_of(page, "sh")), re.MULTILINE)
    assert set(commands) == {result["command"] for result in results_of(text_of(page))}
