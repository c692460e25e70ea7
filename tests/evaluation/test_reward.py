"""Testing a scorer on files: what is read, what is scored, what comes out."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from plaudit.errors import NumberError, RecordError
from plaudit.evaluation.reward import Judged, best_of_answers, examine, held_out, measure, read_judged, score_judged
from plaudit.records import Answer, Comparison, Ended, Group, Judgement, Preferred, Prompt
from plaudit.scorers import FunctionScorer, Scores

DATA = Path(os.environ.get("PLAUDIT_DATA", "data"))
LENGTH = FunctionScorer(lambda prompt, answer: float(len(answer)))


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def pair(prompt, chosen, rejected, **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


class Counting:
    """A scorer by length that counts what it was asked, and has no score for some answers."""

    def __init__(self, *failing):
        self.asked = []
        self.failing = failing

    def score(self, groups):
        self.asked += [answer.text for group in groups for answer in group.answers]
        values = [
            tuple(math.nan if answer.text in self.failing else float(len(answer.text)) for answer in group.answers)
            for group in groups
        ]
        failed = {(g, k): "no" for g, row in enumerate(values) for k, value in enumerate(row) if math.isnan(value)}
        return Scores(value_PG=tuple(values), failed=failed)


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_row_keeps_its_facts(tmp_path):
    file = write(tmp_path / "pairs.jsonl", pair("p", "a", "b", id=7, subset="easy", source="web", long="x" * 99))
    (item,) = read_judged(file, ["source", "long"])
    assert item.judgement.verdict == Comparison(preferred=Preferred.FIRST)
    assert item.facts == {"file": "pairs.jsonl", "id": "7", "subset": "easy", "source": "web"}
    assert item.correct is None


def test_one_prompt_may_be_in_two_subsets(tmp_path):
    """RewardBench asks the same in several; a file to train on is refused for less."""
    file = write(tmp_path / "two.jsonl", pair("p", "a", "b", subset="one"), pair("p", "c", "d", subset="two"))
    assert [item.facts["subset"] for item in read_judged(file)] == ["one", "two"]


def test_rows_on_one_line_keep_their_own_facts(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([pair("p", "a", "b", subset="one"), pair("q", "a", "b", subset="two")]))
    assert [item.facts["subset"] for item in read_judged(path)] == ["one", "two"]


def test_each_annotator_is_a_judgement(tmp_path):
    row = {"instruction": "p", "input": "", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 0}
    found = read_judged(write(tmp_path / "three.jsonl", row))
    assert [item.judgement.annotator for item in found] == ["annotator1", "annotator2"]


def test_facts_of_the_prompt_count_too(tmp_path):
    prompt = {"text": "p", "id": "p", "about": {"language": "zh"}}
    row = {"prompt": prompt, "answers": ["a", "b"], "verdict": {"kind": "choice", "best": 0}}
    (item,) = read_judged(write(tmp_path / "own.jsonl", row))
    assert item.facts["language"] == "zh"


def test_bad_rows_are_named_or_left_out(tmp_path, capsys):
    file = write(tmp_path / "bad.jsonl", pair("p", "a", "b"), pair("p", True, "b"), [1])
    with pytest.raises(RecordError, match=r"2 problems in .*\n.*bad.jsonl:3: row: needs an object.*\n.*bad.jsonl:2"):
        read_judged(file)
    assert len(read_judged(file, skip_bad=True)) == 1
    assert "2 rows cannot be read and are left out" in capsys.readouterr().err


def test_a_file_without_judgements_is_refused(tmp_path):
    with pytest.raises(RecordError, match="row: a prompt judges nothing"):
        read_judged(write(tmp_path / "p.jsonl", {"prompt": "p"}))
    with pytest.raises(RecordError, match="holds no judgement"):
        read_judged(write(tmp_path / "none.jsonl"))


# --- scoring --------------------------------------------------------------------------------------------------------


def test_columns_and_what_was_judged_can_be_said(tmp_path):
    """As a recipe's source says them; `by` goes by the file's own names."""
    rows = [{"wish": "p", "good": "aa", "bad": "b", "level": "easy"}]
    path = write(tmp_path / "own.jsonl", *rows)
    with pytest.raises(RecordError, match=r"own\.jsonl: row: no format has the columns"):
        read_judged(path)
    columns = {"prompt": "wish", "chosen": "good", "rejected": "bad"}
    (item,) = read_judged(path, ("level",), columns=columns, quality="kind")
    assert (item.judgement.prompt.text, item.judgement.answers, item.judgement.quality) == ("p", ("aa", "b"), "kind")
    assert item.facts["level"] == "easy"
    with pytest.raises(RecordError, match=r"own\.jsonl: columns: no row has goods, which chosen should be \(did you"):
        read_judged(path, columns={**columns, "chosen": "goods"})
    with pytest.raises(RecordError, match=r"columns: no format knows the name promt \(did you mean prompt\?\)"):
        read_judged(path, columns={"promt": "question"})


def test_what_several_judged_is_scored_once(tmp_path):
    row = {"instruction": "p", "response1": "aa", "response2": "b", "annotator1": 1, "annotator2": 2, "annotator3": 1}
    scorer = Counting()
    scored, failed = score_judged(scorer, read_judged(write(tmp_path / "t.jsonl", row)))
    assert scorer.asked == ["aa", "b"]
    assert [own.scores for _, own in scored] == [(2.0, 1.0)] * 3
    assert failed == 0


def test_lone_scores_of_a_prompt_are_compared_with_each_other(tmp_path):
    """As in training; what their rows say alike is still there to split by."""
    rows = [
        {"prompt": "p", "answer": answer, "score": score, "subset": "easy", "category": answer}
        for answer, score in (("aaa", 3), ("b", 1), ("cc", 2))
    ]
    judged = read_judged(write(tmp_path / "lone.jsonl", *rows, {**rows[0], "prompt": "q"}))
    found = examine(LENGTH, judged, probes=0)
    assert (found["judgements"], found["pairs"], found["accuracy"]) == (2, 3, 1.0)
    assert held_out(LENGTH, [item.judgement for item in judged])["pairs"] == 3
    whole, _ = score_judged(LENGTH, judged)
    assert whole[0][0].facts["subset"] == "easy"
    assert "category" not in whole[0][0].facts


def test_judgements_with_an_answer_without_score_are_left_out_and_counted(tmp_path):
    judged = read_judged(write(tmp_path / "f.jsonl", pair("p", "aa", "b"), pair("q", "x", "y")))
    found = examine(Counting("y"), judged, probes=0)
    assert (found["judgements"], found["failed"]) == (1, 1)
    with pytest.raises(RecordError, match="none of 2 judgements has scores"):
        examine(Counting("b", "y"), judged, probes=0)


class Torn:
    """Two models that are scored together: by their mean they like the longer answer, by `few` the shorter one."""

    def score(self, groups):
        def of(make):
            return tuple(tuple(make(len(answer.text)) for answer in group.answers) for group in groups)

        return Scores(
            value_PG=of(float),
            parts={"few": of(lambda n: -2.0 * n)},
            members=(of(float), of(float)),
            member_parts={"few": (of(lambda n: -1.0 * n), of(lambda n: -3.0 * n))},
            used_PG=of(lambda n: -float(n)),
        )


def test_an_ensemble_is_asked_about_the_quality_that_was_judged():
    verdict = Comparison(preferred=Preferred.FIRST)
    whole, few = (
        Judged(judgement=Judgement(prompt=Prompt(text="p"), answers=("aaa", "b"), verdict=verdict, quality=quality))
        for quality in (None, "few")
    )
    ((_, first), (_, second)), _ = score_judged(Torn(), [whole, few])
    assert (first.scores, first.members, first.used) == ((3.0, 1.0), ((3.0, 1.0), (3.0, 1.0)), (-3.0, -1.0))
    assert (second.scores, second.members, second.used) == ((-6.0, -2.0), ((-3.0, -1.0), (-9.0, -3.0)), ())
    found = measure([first, second])
    assert (found["pairs"], found["accuracy"]) == (2, 0.5)
    assert (found["used"]["pairs"], found["used"]["accuracy"]) == (1, 0.0)
    assert found["disagreement"] == {"right": 0.0, "wrong": 2.0}  # gaps 2, 2; and -2, -6


def test_a_score_that_is_no_number_is_refused(tmp_path):
    judged = read_judged(write(tmp_path / "n.jsonl", pair("p", "aa", "b")))
    with pytest.raises(NumberError, match="is inf"):
        examine(FunctionScorer(lambda prompt, answer: math.inf), judged)


def test_where_nothing_is_ordered_that_is_what_is_found(tmp_path):
    rows = [{"prompt": f"{n}", "completion": "a" * n, "label": bool(n % 2)} for n in range(1, 5)]
    found = examine(LENGTH, read_judged(write(tmp_path / "thumbs.jsonl", *rows)))
    assert found["pairs"] == 0
    assert {probe["answers"] for probe in found["probes"].values()} == {2}  # those with a thumb up
    same = read_judged(write(tmp_path / "same.jsonl", pair("p", "aa", "aa"), pair("q", "aa", "b")))
    assert {name: examine(LENGTH, same, probes=0)[name] for name in ("pairs", "accuracy", "against_themselves")} == {
        "pairs": 1,
        "accuracy": 1.0,
        "against_themselves": 1,
    }


# --- what comes out -------------------------------------------------------------------------------------------------


def test_everything_about_a_scorer_that_counts_characters(tmp_path):
    rows = [
        *(pair(f"Say {n}.", f"This is the long answer {n}.", "Short.", subset="alpacaeval-easy") for n in range(6)),
        *(pair(f"Say {n}.", f"Brief {n}.", "This one is far too long.", subset="donotanswer") for n in range(6, 10)),
    ]
    found = examine(LENGTH, read_judged(write(tmp_path / "l.jsonl", *rows)))
    json.dumps(found, allow_nan=False)
    assert found["accuracy"] == found["length"]["longer_wins"] == 0.6
    assert found["length"]["prefers_longer"] == 1.0
    subsets = {name: part["accuracy"] for name, part in found["groups"]["subset"].items()}
    assert subsets == {"donotanswer": 0.0, "alpacaeval-easy": 1.0}
    assert set(found["groups"]) == {"subset"}  # all in one file, all of two answers
    assert found["rewardbench"]["sections"] == {"Chat": 1.0, "Safety": 0.0}
    assert found["probes"]["said_twice"]["wins"] == 1.0
    assert found["order_swap"]["consistent"] == 1.0
    assert not {"ties", "thumbs", "agreement", "failed", "rewardbench_2", "best_of_n"} & set(found)
    assert not {"probes", "order_swap"} & set(examine(LENGTH, read_judged(tmp_path / "l.jsonl"), probes=0))


def test_files_of_the_second_benchmark(tmp_path):
    rows = [
        {"id": "1", "prompt": "p", "chosen": ["aaaa"], "rejected": ["b", "bb", "bbb"], "subset": "Math"},
        {"id": "2", "prompt": "q", "chosen": ["a"], "rejected": ["b", "bb", "bbb"], "subset": "Math"},
        {"id": "tied:0", "prompt": "r", "chosen": ["aaa", "aaaa"], "rejected": ["b"], "subset": "Ties"},
        {"id": "ref:0", "prompt": "s", "chosen": ["aaa"], "rejected": ["b"], "subset": "Ties"},
    ]
    found = examine(LENGTH, read_judged(write(tmp_path / "v2.jsonl", *rows)), probes=0)
    # Ties: within 1, apart 2 both: all accurate, both margins hold; tanh(2 / 1 - 1)
    expected = {"Math": 0.5, "Ties": pytest.approx(1 + 0.01 * math.tanh(1))}
    assert found["rewardbench_2"]["subsets"] == expected
    assert found["pairs"] == 3 + 3 + 2 + 1
    assert "rewardbench" not in found


def group(name, *texts):
    answers = tuple(Answer(text=text, token_ids=(), logps=(), ended=Ended.STOPPED, seed=0) for text in texts)
    return Group(prompt=Prompt(text=name), context_ids=(), answers=answers)


def test_best_of_answers():
    groups = [group("p", "a", "bb", "ccc", "dddd"), group("q", "a", "a", "a", "a", "bbbbb")]
    found = best_of_answers(LENGTH, groups, gold=lambda prompt, answer: -len(answer))
    assert (found["prompts"], found["answers"]) == (2, 4)
    assert [row["n"] for row in found["curve"]] == [1, 2, 4]
    assert found["curve"][2]["score"] == pytest.approx((4 + (4 * 5 + 1) / 5) / 2)
    assert found["curve"][2]["gold"] == pytest.approx(-found["curve"][2]["score"])
    with pytest.raises(RecordError, match="1 of 2 prompts have one: sample with --answers 16"):
        best_of_answers(LENGTH, [*groups[:1], group("r", "a")])
    with pytest.raises(RecordError, match="0 of 0"):
        best_of_answers(LENGTH, [])


# --- real files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "pairs", "longer"),
    [
        ("preferences/llmbar_natural.json", 98, 0.577),
        ("preferences/llmbar_adv_gptinst.json", 91, 0.121),
        ("preferences/llmeval2_processed.json", 200, 0.613),
        ("preferences/autoj_testdata_pairwise.jsonl.gz", 795, 0.713),
    ],
)
def test_longer_wins_on_real_files(file, pairs, longer):
    path = DATA / file
    if not path.exists():
        pytest.skip(f"no {file}: set PLAUDIT_DATA to a folder that has it")
    found = examine(LENGTH, read_judged(path), probes=0)
    assert found["pairs"] + found.get("against_themselves", 0) == pairs
    assert found["accuracy"] == pytest.approx(longer, abs=0.02)  # theirs counts equal lengths another way
    assert found["accuracy"] == pytest.approx(found["length"]["longer_wins"])
