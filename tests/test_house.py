"""The house keeps its plan: imports point down, nothing heavy loads early, and the two READMEs say the same.

Docstrings of public names are ruff's rule D1; the shape of the code is measured here.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from plaudit.cli import app
from plaudit.recipe import load_recipe, recipe_from
from plaudit.tuning import PARTS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "plaudit"
TESTS = ROOT / "tests"
OUTSIDE = {"", "__main__", "testing"}  # the package itself and its door; `testing` stands beside the house
ANYBODY = {"errors", "records", "recipe"}  # read by everybody above their own floor; `recipe` also by its own
HEAVY = {"torch", "transformers", "peft", "datasets", "matplotlib", "pandas", "numpy"}
CODE_LINES_OF_A_FUNCTION = 80
LINES_OF_A_FILE = 700


def plan() -> dict[str, tuple[int, int]]:
    """Each room's floor and row in the table of ARCHITECTURE.md; those of one row may use one another."""
    rooms: dict[str, tuple[int, int]] = {}
    rows = re.findall(r"^\| (\d) \| (`.*?`) \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    for row, (floor, names) in enumerate(rows):
        rooms |= {name.rstrip("/"): (int(floor), row) for name in re.findall(r"`(.*?)`", names)}
    return rooms


ROOMS = plan()


def module_name(path: Path) -> str:
    """`src/plaudit/losses/pairwise.py` is `losses.pairwise`; a package is its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Every module of ours that a source imports, wherever it stands, with the line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("plaudit."):
                    yield node.lineno, alias.name.removeprefix("plaudit.")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "plaudit":
            base = (node.module or "").removeprefix("plaudit").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                yield node.lineno, inner if inner in MODULES else base


def upward(here: str, source: str) -> list[str]:
    """The imports of a module that do not point down."""
    room = here.partition(".")[0]
    if room in OUTSIDE or room not in ROOMS:
        return []
    floor, row = ROOMS[room]
    wrong = []
    for line, module in imported(source):
        there = module.partition(".")[0]
        if there == room or not there:
            continue
        their_floor, their_row = ROOMS.get(there, (99, -1))
        if their_floor >= floor and their_row != row and not (there in ANYBODY and floor >= their_floor):
            wrong.append(f"{here}:{line} imports {module}: from floor {floor} to floor {their_floor}")
    return wrong


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    assert upward(name, MODULES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("here", "line", "fine"),
    [
        ("losses.pairwise", "from plaudit.batch import Batch", True),  # one row
        ("losses.pairwise", "from plaudit import recipe", True),  # anybody may
        ("losses.pairwise", "import plaudit.reading.files", False),  # another row of the same floor
        ("records", "from plaudit.recipe import Recipe", False),
        ("runs.trackers", "from plaudit.models.load import load", False),
        ("loop", "from plaudit.cli import main", False),
        ("loop", "from plaudit.testing import FakeScorer", False),  # tests are no part of the house
        ("text", "if TYPE_CHECKING:\n    from plaudit.loop import run", False),
    ],
)
def test_the_rule_itself(here, line, fine):
    assert (upward(here, line) == []) is fine


def test_every_room_is_on_the_plan():
    rooms = {name.partition(".")[0] for name in MODULES} - OUTSIDE
    assert rooms - ROOMS.keys() == set()


def test_no_module_imports_itself_by_way_of_others():
    uses = {
        name: {module for _, module in imported(path.read_text(encoding="utf-8"))} & MODULES.keys() - {name, ""}
        for name, path in MODULES.items()
    }
    assert cycle(uses) == []


def cycle(uses: Mapping[str, set[str]]) -> list[str]:
    """Modules that nobody can load first: those left when all whose needs are met have been taken away."""
    left = dict(uses)
    while ready := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in ready:
            del left[name]
    return sorted(left)


def test_a_cycle_is_found():
    assert cycle({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": set()}) == ["a", "b"]


def loaded_by(*words: str) -> set[str]:
    """The top-level packages that a Python process has loaded at its end."""
    script = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); " + " ".join(words)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in result.stderr.split()}


def test_import_plaudit_is_light():
    assert loaded_by("import plaudit, plaudit.records, plaudit.recipe") & HEAVY == set()


@pytest.mark.parametrize("command", [[], ["run"], ["demo"], ["data", "check"], ["evaluate", "reward"]])
def test_help_is_light(command):
    words = ["plaudit", *command, "--help"]
    assert loaded_by(f"sys.argv = {words!r}; from plaudit.cli import main; main()") & HEAVY == set()


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_every_module_says_what_it_is_and_what_it_offers(name):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    offers = [target for node in tree.body for target in assigned(node)]
    if not name.rpartition(".")[2].startswith("_") and MODULES[name].name != "__init__.py":
        assert "__all__" in offers


def assigned(node: ast.stmt) -> list[str]:
    """The names that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_too_long(name):
    source = MODULES[name].read_text(encoding="utf-8")
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = {f"{function.name}:{function.lineno}": code_lines(source, function) for function in functions}
    assert {where: n for where, n in lengths.items() if n > CODE_LINES_OF_A_FUNCTION} == {}
    assert len(source.splitlines()) <= LINES_OF_A_FILE


def code_lines(source: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function that hold code: no blanks, comments or docstring."""
    lines: set[int] = set()
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in quiet:
            lines.update(range(token.start[0], token.end[0] + 1))
    if ast.get_docstring(function) is not None:
        lines -= set(range(function.body[0].lineno, (function.body[0].end_lineno or 0) + 1))
    return len(lines & set(range(function.lineno, (function.end_lineno or 0) + 1)))


def test_code_lines_by_hand():
    source = 'def f(x):\n    """Doc.\n\n    More."""\n    # why\n\n    y = (x +\n         1)\n    return y\n'
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert code_lines(source, function) == 4  # def, y = (x +, 1), return


def test_tests_mirror_the_package():
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.glob("*/test_*.py")}
    assert {folder for folder in folders if not (PACKAGE / folder).is_dir()} == set()
    alone = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")} - {"house", "docs"}
    known = {name.rpartition(".")[2] for name in MODULES} - {""}
    known |= {page.stem for page in (ROOT / "docs").glob("*.md")}  # what a page says is tested too,
    known |= {folder.name for folder in (ROOT / "examples").iterdir() if folder.is_dir()}  # and what an example prints
    known |= {path.stem for path in (ROOT / "benchmarks").glob("*.py")}  # and what a study's figures rest on
    strangers = {name for name in alone if not any(f"{name}_".startswith(f"{module}_") for module in known)}
    assert strangers == set()


@pytest.mark.parametrize("room", sorted({name.partition(".")[0] for name in MODULES} - OUTSIDE - {"errors"}))
def test_every_room_has_tests(room):
    assert list(TESTS.glob(f"{room}/test_*.py")) + list(TESTS.glob(f"test_{room}.py"))


def outline(readme: str) -> dict[str, list[str]]:
    """What two READMEs in two languages must share: depth of headings, code, pictures, links, rows of tables."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        "headings": re.findall(r"^(#+) ", prose, re.MULTILINE),
        "code": [re.sub(r"\s*#.*", "", block) for block in blocks],
        "commands": sorted(re.findall(r"`([^`\n]+)`", prose)),
        "pictures": re.findall(r"!\[.*?\]\((.*?)\)", prose),
        "links": sorted(
            link.replace(".zh.md", ".md") for link in re.findall(r"\]\((.*?)\)", prose) if "README" not in link
        ),
        "tables": [str(line.count("|")) for line in prose.splitlines() if line.startswith("|")],
    }


def test_the_chinese_readme_says_the_same():
    assert outline("README.zh.md") == outline("README.md")


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_the_two_commands_come_first(readme):
    first = blocks(readme, "sh")[0].splitlines()
    assert [line.partition("#")[0].strip() for line in first][:2] == ["make demo", "make test"]


def blocks(readme: str, language: str) -> list[str]:
    """The code of one language in a README."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_recipes_of_the_readme_load():
    recipes = blocks("README.md", "yaml")
    assert recipes
    for text in recipes:
        recipe_from(yaml.safe_load(text))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_load(path, monkeypatch, tmp_path):
    monkeypatch.setenv("PLAUDIT_DATA", str(tmp_path))
    load_recipe(path)


def test_the_python_of_the_readme_imports_what_is_offered():
    code = "\n".join(blocks("README.md", "python"))
    taken = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in taken if (node.module or "").startswith("plaudit.")]
    assert ours
    for node in ours:
        offers = exported(MODULES[(node.module or "").removeprefix("plaudit.")].read_text(encoding="utf-8"))
        assert {alias.name for alias in node.names} <= offers


def exported(source: str) -> set[str]:
    """The names in a module's `__all__`."""
    values = [
        node.value for node in ast.parse(source).body if "__all__" in assigned(node) and isinstance(node, ast.Assign)
    ]
    return {name for value in values for name in ast.literal_eval(value)}


def test_the_commands_of_the_readme_exist():
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups if group.name}
    named = re.findall(r"^plaudit (\w+)", "\n".join(blocks("README.md", "sh")), re.MULTILINE)
    assert named
    assert set(named) - known == set()


def test_the_table_of_algorithms_is_true():
    """ARCHITECTURE.md says of every algorithm what `PARTS` has it made of."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## The algorithms")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    found = {row[0].strip("`"): row[1:] for row in rows[1:]}
    expected = {
        name: [
            parts.baseline + (", from each token on" if parts.to_go else ""),
            parts.normalise,
            parts.objective if parts.update == "gradient" else parts.update,
            parts.reduction,
            f"{parts.where}, {parts.estimator}",
        ]
        for name, parts in PARTS.items()
        if parts.rounds
    }
    assert found == expected
