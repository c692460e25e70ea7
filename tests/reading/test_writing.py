"""What is written is read back equal, and nobody sees half a file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plaudit.errors import RecordError
from plaudit.reading import load, write_jsonl
from plaudit.recipe import Source
from plaudit.records import Demonstration, Document, Judgement, Prompt, Record, Scores

texts = st.text(min_size=1, max_size=12) | st.sampled_from(["好评\u2028\u0085", "👍🏽\r\n", "\ufeffx", "NaN", "\x00"])
prompts = st.builds(Prompt, text=texts, reference=st.none() | texts)
judgements = st.builds(
    lambda prompt, judged: Judgement(
        prompt=prompt, answers=tuple(a for a, _ in judged), verdict=Scores(scores=tuple(s for _, s in judged))
    ),
    prompts.map(lambda prompt: Prompt(text=prompt.text)),
    st.lists(st.tuples(texts, st.floats(-1e9, 1e9)), min_size=1, max_size=4),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".jsonl", ".jsonl.gz"]),
    documents=st.lists(st.builds(Document, text=texts), min_size=1, max_size=4),
    asked=st.lists(prompts, min_size=1, max_size=4, unique_by=lambda prompt: prompt.id),
    shown=st.lists(st.builds(Demonstration, prompt=prompts, answer=texts), min_size=1, max_size=4),
    judged=st.lists(judgements, min_size=1, max_size=4),
)
def test_reading_back_gives_equal_records(
    tmp_path: Path,
    suffix: str,
    documents: list[Document],
    asked: list[Prompt],
    shown: list[Demonstration],
    judged: list[Judgement],
):
    source = Source(path=str(tmp_path / f"a{suffix}"))
    assert write_jsonl(source.path, documents) == len(documents)
    assert load([source], "documents", seed=0) == documents
    write_jsonl(source.path, asked)
    assert load([source], "prompts", seed=0) == asked
    write_jsonl(source.path, shown)
    assert load([source], "demonstrations", seed=0) == shown
    write_jsonl(source.path, judged)
    assert load([source], "judgements", seed=0) == judged


def test_one_record_a_line_for_people_to_read(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [Document(text="书\n"), Document(text="b")])
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == '{"text": "书\\n"}\n{"text": "b"}\n'
    write_jsonl(tmp_path / "b.jsonl.gz", [Document(text="b")])
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()) == b'{"text": "b"}\n'
    assert (tmp_path / "b.jsonl.gz").read_bytes()[4:8] == bytes(4)  # no time inside: same records, same bytes


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [Document(text="old")])

    def broken(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        write_jsonl(path, [Document(text="new")])
    assert path.read_text() == '{"text": "old"}\n'
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_half_a_character_is_refused_by_number(tmp_path: Path):
    broken: list[Record] = [Prompt(text="a"), Prompt(text="half \ud83d")]
    with pytest.raises(RecordError, match=r"a\.jsonl: record 2 holds half a character, '\\ud83d'"):
        write_jsonl(tmp_path / "a.jsonl", broken)
    assert not list(tmp_path.iterdir())
