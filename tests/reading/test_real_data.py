"""Real files of other projects, where they are: counts, and the published shares of "longer wins"."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.reading import load
from plaudit.reading.check import check_file
from plaudit.recipe import Source
from plaudit.records import Scores, Thumb

SCORE = {"prompt": "source", "answer": "system_output", "score": "scores.overall"}
TALK = SCORE | {"score": "scores.engagingness"}


@pytest.mark.parametrize(
    ("file", "columns", "read_as", "count", "longer_wins"),
    [
        # 0.448 if the last turns are compared; five dialogues part before that, and we compare all that follows
        ("preferences/hh_harmless_base.jsonl.gz", {}, "hh", 1849, (1849, 0.449)),
        ("preferences/autoj_testdata_pairwise.jsonl.gz", {}, "labelled-pair-tie", 1047, (795, 0.713)),
        ("preferences/llmbar_natural.json", {}, "labelled-pair", 98, (98, 0.577)),
        ("preferences/llmbar_adv_gptinst.json", {}, "labelled-pair", 91, (91, 0.121)),
        ("preferences/llmbar_adv_gptout.json", {}, "labelled-pair", 47, (47, 0.447)),
        ("preferences/llmbar_adv_manual.json", {}, "labelled-pair", 46, (46, 0.185)),
        ("preferences/faireval_processed.json", {}, "labelled-pair", 64, (64, 0.594)),
        ("preferences/llmeval2_processed.json", {}, "labelled-pair", 200, (200, 0.613)),
        ("preferences/oasst1_rank_zh.json", {}, "best-first", 558, (558, 0.774)),
        ("preferences/dpo_zh_demo.json", {}, "sharegpt-preference", 233, (233, 0.635)),
        ("preferences/dpo_en_demo.json", {}, "sharegpt-preference", 248, (248, 0.435)),
        ("preferences/kto_en_demo.json", {}, "thumb-messages", 296, None),
        ("ratings/sfres_ratings.json.gz", SCORE, "scored-answer", 1181, None),
        ("ratings/topical_chat_ratings.json", TALK, "scored-answer", 270, None),
        ("sentiment/amazon_book_reviews_en.jsonl.gz", {}, "labelled-text", 4803, None),
        ("sentiment/book_reviews_zh.jsonl.gz", {}, "labelled-text", 3119, None),
        ("sentiment/sst_train_trees.txt.gz", {}, "text", 8544, None),
        ("text/tinystories_sample.jsonl.gz", {}, "text", 824, None),
        ("text/tang_poems_zh.jsonl.gz", {"text": "content"}, "text", 8336, None),
        ("sft/alpaca_en_demo.json.gz", {}, "instruction", 804, None),
        ("sft/alpaca_zh_demo.json.gz", {}, "instruction", 803, None),
        ("prompts/belle_eval_set_zh.jsonl.gz", {"reference": "std_answer"}, "prompt", 1000, None),
        ("prompts/cvalues_prompts_zh.jsonl", {}, "prompt", 664, None),
        ("prompts/oasst_prompts_en_250.jsonl", {}, "text", 250, None),
    ],
)
def test_what_is_in_it(
    shared: Path, file: str, columns: dict[str, str], read_as: str, count: int, longer_wins: tuple[int, float] | None
):
    report = check_file(shared / file, columns=columns)
    assert report.problems == ()
    assert (report.format, report.rows, report.records) == (read_as, count, count)
    folder = file.split("/")[0]
    kinds = {"sft": "demonstrations", "prompts": "prompts", "text": "documents"}
    assert report.kind == ("documents" if read_as == "text" else kinds.get(folder, "judgements"))
    found = report.longer_wins
    assert (None if found is None else (found.items, round(found.share, 3))) == longer_wins


def test_three_annotators_and_answers_that_are_not_texts(shared: Path):
    report = check_file(shared / "crossannotations/pandalm_testset_v1.json")
    assert (report.rows, report.records, report.annotators) == (811, 3 * 805, 3)
    assert len(report.problems) == 6
    assert str(report.problems[0]).endswith("pandalm_testset_v1.json:1742: response1: needs a text (found true)")
    # published: 0.669 over 720, with the six `true` counted as texts of four letters, all shorter and all better
    found = report.longer_wins
    assert found is not None
    assert found.items == 720 - 6
    assert found.share * found.items == pytest.approx(0.669 * 720, abs=0.5)


def test_rankings_of_two_to_eight(shared: Path):
    report = check_file(shared / "preferences/oasst1_rank_zh.json")
    assert report.answers == {2: 313, 3: 182, 4: 52, 5: 10, 8: 1}
    assert check_file(shared / "preferences/llmeval2_processed.json").same_answers == 1


def test_ties_and_oddities(shared: Path):
    assert check_file(shared / "preferences/autoj_testdata_pairwise.jsonl.gz").ties == 1047 - 795
    reviews = Source(path=str(shared / "sentiment/amazon_book_reviews_en.jsonl.gz"))
    judgements = load([reviews], "judgements", seed=0)
    assert any("&amp;" in one.answers[0] for one in judgements)  # never changed
    assert len({one.prompt.id for one in judgements}) > 4500  # so that held_out can split them
    assert 0 < sum(isinstance(one.verdict, Thumb) and one.verdict.up for one in judgements) < 4803


def test_a_table_with_fields_over_lines_and_one_empty(shared: Path):
    report = check_file(shared / "sentiment/chnsenticorp_hotel_zh.csv.gz", columns={"text": "review"})
    assert (report.format, report.rows, report.records) == ("labelled-text", 7766, 7765)
    assert [str(problem).rsplit("/", 1)[1] for problem in report.problems] == [
        "chnsenticorp_hotel_zh.csv.gz:6376: review: is empty"
    ]


def test_scores_keep_their_scale(shared: Path):
    rated = load([Source(path=str(shared / "ratings/sfres_ratings.json.gz"), columns=SCORE)], "judgements", seed=0)
    scores = {one.verdict.scores[0] for one in rated if isinstance(one.verdict, Scores)}
    assert (min(scores), max(scores)) == (1.0, 6.0)


def test_what_no_format_fits_is_said_not_guessed(shared: Path):
    for file in ("preferences/oasst_tree_format_sample.jsonl.gz", "crossannotations/qags_mturk_cnndm.jsonl.gz"):
        (problem,) = check_file(shared / file).problems
        assert "no format has the columns" in problem.text


def test_several_real_sources_mix_into_prompts(shared: Path):
    sources = [
        Source(path=str(shared / "prompts/cvalues_prompts_zh.jsonl"), shuffle=True, limit=100, weight=1.0),
        Source(path=str(shared / "prompts/oasst_prompts_en_250.jsonl"), weight=2.0),
    ]
    prompts = load(sources, "prompts", seed=3)
    chinese = sum(any("\u4e00" <= letter <= "\u9fff" for letter in prompt.plain()) for prompt in prompts)
    assert (len(prompts), chinese) == (300, 100)  # all 100 Chinese ones, and 2 of 250 English ones for each
