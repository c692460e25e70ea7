"""Sources into records: shuffled, limited, mixed, cut, split; and everything wrong said at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import RecordError, TextError
from plaudit.reading import held_out, load
from plaudit.recipe import Source
from plaudit.records import Demonstration, Document, Judgement, Prompt, Scores, Thumb

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def lines(name: str, rows: Sequence[Any]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return lines


def numbered(write: Write, name: str, count: int, **settings: Any) -> Source:
    path = write(f"{name}.jsonl", [{"text": f"{name}{number}"} for number in range(count)])
    return Source(path=str(path), **settings)


def texts(sources: Sequence[Source], seed: int = 0) -> list[str]:
    return [document.text for document in load(sources, "documents", seed=seed)]


def words(text: str, count: int) -> tuple[str, str]:
    """A stand-in for a tokenizer: one token a word, with the space before it."""
    place = -1
    for _ in range(count):
        place = text.find(" ", place + 1)
        if place < 0:
            return text, ""
    return text[:place], text[place:]


def test_limit_takes_the_first_and_reads_no_further(write: Write):
    path = write("a.jsonl", [{"text": "a"}, {"text": "b"}, 7])
    assert texts([Source(path=str(path), limit=2)]) == ["a", "b"]
    with pytest.raises(RecordError, match=r"a\.jsonl:3: row: needs an object or a text \(found 7\)"):
        texts([Source(path=str(path), limit=3)])


def test_shuffle_is_a_function_of_the_seed_and_limits_after(write: Write):
    whole = numbered(write, "a", 50)
    shuffled = whole.model_copy(update={"shuffle": True})
    first = texts([shuffled], seed=1)
    assert first != texts([whole])
    assert sorted(first) == sorted(texts([whole]))
    assert texts([shuffled], seed=1) == first
    assert texts([shuffled], seed=2) != first
    assert texts([shuffled.model_copy(update={"limit": 7})], seed=1) == first[:7]


def test_equal_weights_take_everything_spread_evenly(write: Write):
    sources = [numbered(write, "a", 2), numbered(write, "b", 4)]
    # places of a: 1/4 3/4; of b: 1/8 3/8 5/8 7/8
    assert texts(sources) == ["b0", "a0", "b1", "b2", "a1", "b3"]
    assert texts(sources[:1]) == ["a0", "a1"]


def test_weights_are_shares_of_the_mixture(write: Write):
    sources = [numbered(write, "a", 10, weight=0.1), numbered(write, "b", 100, weight=0.3)]
    # a is the smallest for its weight: all 10 of it, and 0.3 / 0.1 * 10 = 30 of b, the first
    found = texts(sources)
    assert Counter(text[0] for text in found) == {"a": 10, "b": 30}
    assert [text for text in found if text[0] == "b"] == [f"b{number}" for number in range(30)]
    assert Counter(text[0] for text in found[:20]) == {"a": 5, "b": 15}
    assert len(set(found)) == 40


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.1, 0.3, 0.7, 1.0, 2.0])), min_size=2, max_size=4))
def test_a_mixture_repeats_nothing_and_uses_one_source_whole(parts: list[tuple[int, float]]):
    from plaudit.reading.loading import _mix

    mixed = _mix([[(k, n) for n in range(size)] for k, (size, _) in enumerate(parts)], [w for _, w in parts])
    taken = Counter(source for source, _ in mixed)
    assert len(set(mixed)) == len(mixed)
    assert any(taken[k] == size for k, (size, _) in enumerate(parts))
    if len({weight for _, weight in parts}) > 1:
        rounds = [(taken[k] / weight, 1 / weight) for k, (_, weight) in enumerate(parts)]
        most = max(done for done, _ in rounds)
        assert all(done > most - slack - 1e-9 for done, slack in rounds)  # floors lose less than one record each


def test_all_bad_rows_of_all_sources_at_once(write: Write):
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    one = write("one.jsonl", [good, {**good, "chosen": None}, good, {**good, "rejected": 7}])
    two = write("two.jsonl", [good] + [{"prompt": "p", "chosen": "a"}] * 30)
    with pytest.raises(RecordError) as caught:
        load([Source(path=str(one)), Source(path=str(two), format="preference")], "judgements", seed=0)
    lines = str(caught.value).splitlines()
    assert lines[0] == "cannot read judgements, 32 problems in 35 rows:"
    assert lines[1].endswith("one.jsonl:2: chosen: needs a text (found null)")
    assert lines[2].endswith("one.jsonl:4: rejected: needs a text (found 7)")
    assert lines[3].endswith("two.jsonl:2: rejected: missing (the row has prompt, chosen)")
    assert lines[-1] == "  ... and 12 more"


def test_a_bad_field_goes_by_the_name_in_the_file(write: Write):
    path = write("a.jsonl", [{"q": "Hi", "rating": {"all": "five"}, "a": "Hello"}])
    columns = {"prompt": "q", "answer": "a", "score": "rating.all"}
    with pytest.raises(RecordError, match=r"a\.jsonl:1: rating\.all: needs a finite number \(found \"five\"\)"):
        load([Source(path=str(path), columns=columns)], "judgements", seed=0)


def test_a_bad_line_stays_in_its_place_among_bad_rows(write: Write):
    path = write("a.jsonl", [{"text": ""}, {"text": "b"}, {"text": "c"}])
    path.write_text(path.read_text() + '{"text"\n{"text": 5}\n')
    with pytest.raises(RecordError, match=r"(?s)a\.jsonl:1: text.*a\.jsonl:4: not JSON.*a\.jsonl:5: text"):
        load([Source(path=str(path), shuffle=True)], "documents", seed=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"format": "prefrence"}, "did you mean preference"),
        ({"columns": {"promt": "q"}}, r"no format knows the name promt \(did you mean prompt\?\)"),
        ({"columns": {"text": "txet"}}, r"no row has txet, which text should be \(did you mean text\?\)"),
        ({"prompt_tokens": 2}, "prompt_tokens makes prompts and demonstrations, not documents"),
        ({"split": "test"}, "a file has no splits"),
        ({"end": "b", "columns": {"prompt": "text"}}, "`end` and `prompt_tokens` are for raw text"),
        ({"end": "a"}, r"a\.jsonl:1: text: .*at least 1 character"),
    ],
)
def test_settings_that_make_no_sense(write: Write, settings: dict[str, Any], says: str):
    source = Source(path=str(write("a.jsonl", [{"text": "a"}])), **settings)
    with pytest.raises(RecordError, match=says):
        load([source], "documents", seed=0)


def test_scores_get_the_scale_of_their_file(write: Write):
    rows = [{"prompt": "p", "answer": "a", "score": 2}, {"prompt": "q", "answer": "b", "score": 5}]
    path = str(write("rated.jsonl", rows))
    rated = load([Source(path=path, scale=(1, 5))], "judgements", seed=0)
    assert [one.verdict for one in rated] == [Scores(scores=(s,), scale=(1.0, 5.0)) for s in (2.0, 5.0)]
    with pytest.raises(RecordError, match=r":2: .*the score 5 is not on the scale from 1 to 4"):
        load([Source(path=path, scale=(1, 4))], "judgements", seed=0)
    thumbs = str(write("thumbs.jsonl", [{"prompt": "p", "completion": "a", "label": True}]))
    with pytest.raises(RecordError, match="row: `scale` is for scores, but the row has none"):
        load([Source(path=thumbs, scale=(1, 5))], "judgements", seed=0)


def test_judgements_are_about_the_quality_of_their_file(write: Write):
    path = str(write("kind.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}]))
    (one,) = load([Source(path=path, quality="kind")], "judgements", seed=0)
    assert one.quality == "kind"
    texts = str(write("texts.jsonl", [{"prompt": "p"}]))
    with pytest.raises(RecordError, match="row: `quality` is for judgements, but the row holds none"):
        load([Source(path=texts, quality="kind")], "judgements", seed=0)


def test_nothing_to_read(write: Write):
    with pytest.raises(RecordError, match="no source to read prompts from"):
        load([], "prompts", seed=0)
    with pytest.raises(RecordError, match=r"a\.jsonl: holds no row"):
        load([Source(path=str(write("a.jsonl", [])))], "prompts", seed=0)
    tie = {"prompt": "p", "response 1": "a", "response 2": "b", "label": 2}
    with pytest.raises(RecordError, match=r"b\.jsonl: no row gives demonstrations"):
        load([Source(path=str(write("b.jsonl", [tie])))], "demonstrations", seed=0)
    with pytest.raises(RecordError, match="unknown kind 'answers'"):
        load([Source(path="x.jsonl")], "answers", seed=0)  # type: ignore[call-overload]


def test_raw_text_becomes_prompt_and_reference(write: Write):
    path = write("a.jsonl", [{"text": "one two three four END"}, "five six END", {"text": "seven"}])
    source = Source(path=str(path), prompt_tokens=2, end=" END")
    assert load([source], "prompts", seed=0, split_text=words) == [
        Prompt(text="one two", reference=" three four"),
        Prompt(text="five six"),
        Prompt(text="seven"),
    ]
    with pytest.raises(RecordError, match="prompt_tokens needs a tokenizer: pass split_text"):
        load([source], "prompts", seed=0)
    assert load([source.model_copy(update={"limit": 1})], "demonstrations", seed=0, split_text=words) == [
        Demonstration(prompt=Prompt(text="one two"), answer=" three four")
    ]
    with pytest.raises(RecordError, match="of which no demonstrations can be made"):
        load([source], "demonstrations", seed=0, split_text=words)


def test_a_text_too_short_to_cut_is_named_with_its_line(write: Write):
    def short(text: str, tokens: int) -> tuple[str, str]:
        raise TextError(f"a text of 1 tokens has no rest after a prompt of {tokens}: {text!r}")

    path = write("a.jsonl", [{"text": "seven"}])
    with pytest.raises(RecordError, match=r"a\.jsonl:1: .*no rest after a prompt of 2: 'seven'"):
        load([Source(path=str(path), prompt_tokens=2)], "prompts", seed=0, split_text=short)


def test_judged_texts_serve_as_raw_text(write: Write):
    source = Source(path=str(write("a.jsonl", [{"review": "good book", "label": 1}])), columns={"text": "review"})
    assert load([source], "documents", seed=0) == [Document(text="good book")]
    (judgement,) = load([source], "judgements", seed=0)
    assert (judgement.answers, judgement.verdict) == (("good book",), Thumb(up=True))
    cut = source.model_copy(update={"prompt_tokens": 1})
    assert load([cut], "prompts", seed=0, split_text=words) == [Prompt(text="good", reference=" book")]
    ended = source.model_copy(update={"end": " book"})
    assert load([ended], "judgements", seed=0)[0].answers == ("good",)


def test_text_files_by_lines_paragraphs_or_whole(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\n")
    found = {unit: texts([Source(path=str(tmp_path / "a.txt"), format=unit)]) for unit in ("auto", "lines", "whole")}
    assert found == {"auto": ["one\ntwo", "three"], "lines": ["one", "two", "three"], "whole": ["one\ntwo\n\nthree"]}


def test_a_prompt_comes_once_and_an_id_means_one_prompt(write: Write):
    pair = {"instruction": "p", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 2}
    path = write("a.jsonl", [pair, pair, {**pair, "instruction": "q"}])
    assert [prompt.text for prompt in load([Source(path=str(path))], "prompts", seed=0)] == ["p", "q"]
    judgements = load([Source(path=str(path))], "judgements", seed=0)
    assert [judgement.annotator for judgement in judgements] == ["annotator1", "annotator2"] * 3
    clash = [Prompt(text="a", id="1").to_json(), Prompt(text="b", id="2").to_json(), Prompt(text="c", id="1").to_json()]
    with pytest.raises(RecordError, match=r"b\.jsonl:3: prompt\.id: '1' is another prompt's, at .*b\.jsonl:1"):
        load([Source(path=str(write("b.jsonl", clash)))], "prompts", seed=0)
    same = [Prompt(text="a", id="1", about={"book": book}).to_json() for book in ("It", "Emma")]
    with pytest.raises(RecordError, match="'1' is another prompt's"):
        load([Source(path=str(write("c.jsonl", same)))], "prompts", seed=0)


PROMPTS = [Prompt(text=f"prompt {number}") for number in range(2000)]


def test_held_out_by_hand():
    # `printf 'held out\0a' | sha256sum` begins c05b, so a stands at 0xc05b / 0x10000 = 0.751; b begins e6a3: 0.901
    a, b = Prompt(text="A", id="a"), Prompt(text="B", id="b")
    assert held_out([b, a], 0.7) == ([b, a], [])
    assert held_out([b, a], 0.8) == ([b], [a])
    assert held_out([b, a], 0.91) == ([], [b, a])


def test_held_out_meets_its_share_and_keeps_the_order():
    train, held = held_out(PROMPTS, 0.1)
    assert 160 <= len(held) <= 240  # 200 expected, standard deviation 13
    places = {prompt.id: place for place, prompt in enumerate(PROMPTS)}
    for side in (train, held):
        found = [places[prompt.id] for prompt in side]
        assert found == sorted(found)
    assert {prompt.id for prompt in train} | {prompt.id for prompt in held} == set(places)
    assert len(train) + len(held) == len(PROMPTS)


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(30)), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
def test_a_prompt_is_on_one_side_whatever_comes_with_it(order: list[int], size: int, low: float, high: float):
    low, high = sorted((low, high))
    held = {prompt.id for prompt in held_out(PROMPTS[:30], low)[1]}
    chosen = [PROMPTS[number] for number in order[:size]]
    demonstrations = [Demonstration(prompt=prompt, answer=answer) for prompt in chosen for answer in "ab"]
    train, out = held_out(demonstrations, low)
    assert {one.prompt.id for one in out} == held & {prompt.id for prompt in chosen}
    assert not {one.prompt.id for one in out} & {one.prompt.id for one in train}
    assert held <= {prompt.id for prompt in held_out(PROMPTS[:30], high)[1]}


def test_held_out_of_other_records():
    documents = [Document(text=f"text {number}") for number in range(500)]
    train, held = held_out(documents, 0.5)
    assert 200 < len(held) < 300
    assert not {one.text for one in train} & {one.text for one in held}
    with pytest.raises(RecordError, match=r"must lie in \[0, 1\], found 1\.5"):
        held_out(documents, 1.5)
    with pytest.raises(RecordError, match="a Thumb has no prompt"):
        held_out([Thumb(up=True)], 0.5)


def test_the_same_words_are_held_out_of_every_kind():
    judged = [
        Judgement.parse({"prompt": prompt.to_json(), "answers": ["a", "b"], "verdict": {"kind": "choice", "best": 0}})
        for prompt in PROMPTS[:200]
    ]
    held = {judgement.prompt.id for judgement in held_out(judged, 0.3)[1]}
    assert held == {prompt.id for prompt in held_out(PROMPTS[:200], 0.3)[1]}
