"""The pages of docs/ keep what they promise: a page for each algorithm in both languages, recipes that load, links and
tests that are there. That no run logs a name without an entry is asked in `test_loop_algorithms.py`, and of a reward
model's in `test_reward_models.py`.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import pytest
import yaml
from benchmarks import study_pages

from plaudit.recipe import recipe_from
from plaudit.tuning import PARTS, Algorithm

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ALGORITHMS = DOCS / "algorithms"
PAGES = sorted(DOCS.rglob("*.md"))
ENGLISH = sorted(page for page in ALGORITHMS.glob("*.md") if not page.name.endswith(".zh.md"))
TWINS = [*ENGLISH, DOCS / "reward_models.md"]
SECTIONS = 9


def name_of(page: Path) -> str:
    """How a page is called in a test's name."""
    return page.relative_to(DOCS).as_posix()


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """The places that a page links to, pictures too, without those on the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [unquote(link.partition("#")[0]) for link in found if "://" not in link]


def outline(page: Path) -> dict[str, list[str]]:
    """What a page and its twin must share: headings, links, names, tables, the marker for figures, and code; of the
    blocks of formulas, in which there are words, only their number.
    """
    text, bare = page.read_text(encoding="utf-8"), prose(page)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return {
        "headings": re.findall(r"^(#+) ", bare, re.MULTILINE),
        "code": ["" if kind == "text" else re.sub(r"\s*#.*", "", code) for kind, code in blocks],
        "links": sorted(link.replace(".zh.md", ".md") for link in re.findall(r"\]\(([^)\s]+)\)", bare)),
        "names": sorted(set(re.findall(r"`([^`\n]+)`", bare))),
        "tables": [str(line.count("|")) for line in bare.splitlines() if line.startswith("|")],
        "markers": re.findall(r"<!-- \w+ -->", bare),
    }


def test_every_algorithm_has_its_page():
    assert set(PARTS) == set(get_args(Algorithm))
    assert {page.stem for page in ENGLISH} == set(PARTS) | {"README", "metrics"}
    for name in PARTS:
        page = ALGORITHMS / f"{name}.md"
        assert len(re.findall(r"^## ", prose(page), re.MULTILINE)) == SECTIONS, name
        assert prose(page).count("<!-- study -->") == 1, name
        assert f"algorithm: {name}\n" in page.read_text(encoding="utf-8")
        assert f"[{name}]({name}.md)" in prose(ALGORITHMS / "README.md")


@pytest.mark.parametrize("page", TWINS, ids=name_of)
def test_every_page_has_its_twin(page):
    twin = page.with_suffix(".zh.md")
    assert f"English | [中文]({twin.name})" in prose(page).splitlines()
    assert f"[English]({page.name}) | 中文" in prose(twin).splitlines()
    mine, theirs = outline(page), outline(twin)
    for each in (mine, theirs):
        each["links"] = [link for link in each["links"] if link != page.name]
    assert theirs == mine


def test_every_metric_that_is_explained_is_logged_somewhere():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    names = re.findall(r"^\| `([^`]+)` \|", (ALGORITHMS / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert names
    assert [name for name in names if f'"{re.sub("[A-Z]+.*$", "", name)}' not in source] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_is_named_is_there(page):
    for test, place in re.findall(r"\[`(test_\w+)`\]\(([^)\s]+)\)", prose(page)):
        body = ast.parse((page.parent / place).read_text(encoding="utf-8")).body
        assert test in {node.name for node in body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", ENGLISH, ids=name_of)
def test_every_recipe_loads(page):
    for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        recipe = recipe_from(yaml.safe_load(text))
        assert recipe.policy is not None
        assert recipe.policy.algorithm == page.stem


@pytest.mark.parametrize("page", ENGLISH, ids=name_of)
def test_every_picture_is_there_or_missed_aloud(page):
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", prose(page))
    assert pictures == ([f"{page.stem}.png"] if (ALGORITHMS / f"{page.stem}.png").exists() else [])


LABORATORY = {
    "algorithms": {
        "rloo, beta 1": {"objective": "E[r] - beta KL", "optimum_share": 0.9981, "worst_seed": 0.9712},
        "rloo, beta 0.3": {"objective": "E[r] - beta KL", "optimum_share": 0.99, "worst_seed": 0.98},
        "grpo, k3 in the loss, beta 1": {
            "objective": "the policy at which its expected step is 0; total variation",
            "optimum_share": 0.967,
            "worst_seed": 0.961,
            "share_of_j": 0.854,
        },
    }
}
WORLD = {
    "seeds": 5,
    "algorithms": {"rloo": {"gold_gain_sd": 1.234, "worst_gold_gain_sd": 0.987, "kl_nats": 4.56, "cpu_seconds": 123.4}},
}


def test_a_page_takes_up_what_the_studies_found():
    page = "before\n\n<!-- study -->\n\nafter\n"
    filled = study_pages.filled(page, "rloo", "en", LABORATORY, WORLD)
    assert "|  | `E[r] - beta KL` | 1 | 99.8% | 97.1% | 99.8% |\n" in filled
    assert "|  | `E[r] - beta KL` | 0.3, from 1 | 99.0% | 98.0% | 99.0% |\n" in filled
    assert "5 seeds (`python -m benchmarks.world_algorithms`): hidden taste +1.23 sd, +0.99 in the worst seed" in filled
    assert filled.startswith("before\n\n<!-- study -->\n\n")
    assert filled.endswith("\n\n<!-- /study -->\n\nafter\n")
    assert study_pages.filled(filled, "rloo", "en", LABORATORY, WORLD) == filled
    assert study_pages.filled(filled, "rloo", "en", {"algorithms": {}}, {"algorithms": {}}) == page.replace(
        "<!-- study -->", "<!-- study -->\n\n<!-- /study -->"
    )
    of_grpo = "| k3 在损失里，用一张 logits 表 | 期望步为 0 的策略（按总变差距离） | 1 | 96.7% | 96.1% | 85.4% |"
    assert of_grpo in study_pages.of_laboratory("grpo", "zh", LABORATORY)


@pytest.mark.parametrize("page", sorted(ALGORITHMS.glob("*.md")), ids=name_of)
def test_pages_say_what_the_studies_found(page):
    text = page.read_text(encoding="utf-8")
    found = (study_pages.read("algorithms"), study_pages.read("world_algorithms"))
    assert study_pages.MARKS[0] not in text or study_pages.filled(text, *study_pages.page_of(page), *found) == text


def test_the_page_of_benchmarks_names_every_script_and_every_result():
    folder = ROOT / "benchmarks"
    page = (folder / "README.md").read_text(encoding="utf-8")
    scripts = {p.stem for p in folder.glob("*.py") if 'if __name__ == "__main__"' in p.read_text(encoding="utf-8")}
    named = set(re.findall(r"benchmarks[./](\w+)(?:\.py)?[ `]", page))
    sides = {"reward_model_sides", "real_reward_trl"}  # which other scripts start
    assert named == scripts - sides
    assert set(re.findall(r"\(results/([\w.]+)\)", page)) == {p.name for p in (folder / "results").iterdir()}
    assert not [link for link in links(folder / "README.md") if not (folder / link).exists()]
