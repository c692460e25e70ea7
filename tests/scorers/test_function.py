"""A function of the user's own: found and checked before work, and its errors name the prompt."""

from __future__ import annotations

import pytest

from plaudit.errors import NumberError, ScorerError
from plaudit.records import Prompt
from plaudit.scorers import OwnFunctionScorer
from plaudit.scorers.seam import group_of_texts

GROUPS = [
    group_of_texts(Prompt(text="why", id="p"), [("so", True), ("", False)]),
    group_of_texts(Prompt(text="who", id="q", reference="me"), [("meow", True)]),
]


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "rules.py").write_text(text, "utf-8")
        return "rules.py"

    return write


def test_it_takes_the_prompt_and_the_words(file):
    path = file("def grade(prompt, answer):\n    return len(answer) + 10 * (prompt.reference is not None)\n")
    assert OwnFunctionScorer(f"{path}:grade").score(GROUPS).value_PG == ((2.0, 0.0), (14.0,))


def test_or_all_of_them_at_once(file):
    path = file("import numpy\ndef grade(pairs):\n    return numpy.array([len(answer) for _, answer in pairs])\n")
    scorer = OwnFunctionScorer(f"{path}:grade", batch=True)
    assert scorer.score(GROUPS).value_PG == ((2.0, 0.0), (4.0,))
    assert scorer.score([]).value_PG == ()


def test_a_file_may_hold_classes_and_be_named_twice(file):
    path = file(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Rule:\n    word: str\n    def __call__(self, prompt, answer):\n"
        "        return answer.count(self.word)\n"
        "first, second = Rule('o'), Rule('e')\n"
    )
    assert OwnFunctionScorer(f"{path}:first").score(GROUPS).flat() == [1.0, 0.0, 1.0]
    assert OwnFunctionScorer(f"{path}:second").score(GROUPS).flat() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("def grade(prompt, answer): return 1", "grad", r"rules\.py:grad: 'rules\.py' holds no function 'grad'"),
        ("grade = 3", "grade", "holds no function"),
        ("import nothing_of_that_name", "grade", "fails as it is loaded: ModuleNotFoundError: No module named"),
        ("def grade(", "grade", "fails as it is loaded: SyntaxError"),
        ("raise SystemExit(3)", "grade", "fails as it is loaded: SystemExit: 3"),
        ("def grade(answer): return 1", "grade", "is called with a prompt and an answer's text, but takes other"),
    ],
)
def test_what_is_wrong_is_known_before_work_starts(file, text, name, says):
    with pytest.raises(ScorerError, match=says):
        OwnFunctionScorer(f"{file(text)}:{name}")


def test_a_file_that_is_not_there():
    with pytest.raises(ScorerError, match=r"none\.py:f: there is no file 'none\.py' here, in "):
        OwnFunctionScorer("none.py:f")


@pytest.mark.parametrize(
    ("body", "batch", "says"),
    [
        ("{'a': 1}[x[1]]", False, r"rules\.py:grade: KeyError: 'so', on an answer to prompt p: 'so'"),
        ("'good'", False, r"must return a number, returned 'good' for an answer to prompt p: 'so'"),
        ("None", False, "must return a number, returned None"),
        ("10**400", False, "must return a number, returned 1000"),
        ("exit(3)", False, r"SystemExit: 3, on an answer to prompt p: 'so'"),
        ("1 / 0", True, "ZeroDivisionError: division by zero, on 3 answers, the first to prompt p"),
        ("[1, 2]", True, "returned 2 numbers for 3 answers, the first to prompt p"),
        ("[1, 2, 'x']", True, "returned 'x' for an answer to prompt q: 'meow'"),
    ],
)
def test_what_goes_wrong_names_the_prompt(file, body, batch, says):
    path = file(f"def grade({'x' if batch else '*x'}):\n    return {body}\n")
    with pytest.raises(ScorerError, match=says):
        OwnFunctionScorer(f"{path}:grade", batch=batch).score(GROUPS)


def test_nan_is_refused_by_the_seam(file):
    path = file("def grade(prompt, answer):\n    return float('nan')\n")
    scores = OwnFunctionScorer(f"{path}:grade").score(GROUPS)
    with pytest.raises(NumberError, match="the reward of answer 0 to prompt p is nan: 'so'"):
        scores.check(GROUPS)
