"""Answering a file, scoring a file, talking, and the table, on a run folder whose models were drawn at random."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plaudit.errors import ModelError, NumberError, PlauditError, RecordError, RunError, TextError
from plaudit.evaluation.reward import read_judged
from plaudit.loop.ground import Ground
from plaudit.models.load import choose_machine
from plaudit.models.save import save_model
from plaudit.recipe import Sampling, Text, recipe_from
from plaudit.records import Prompt
from plaudit.runs import Run
from plaudit.scorers import load_scorer
from plaudit.scorers.ensemble import save_ensemble
from plaudit.scorers.seam import group_of_texts
from plaudit.scoring import ByFunction, ByLength, ByModel
from plaudit.tasks import (
    Chat,
    evaluate_reward,
    export,
    label_file,
    sample_file,
    score_file,
    show_reward_evaluation,
    show_summary,
)
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.worlds import world


@pytest.fixture(scope="module")
def run(own_road: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a template of its own."""
    folder = tmp_path_factory.mktemp("tasks") / "run"
    folder.mkdir()
    road = recipe_from(own_road(text={"template": "q: {prompt}\na:"}))
    (folder / "config.yaml").write_text(yaml.safe_dump(road.model_dump(mode="json")))
    (folder / "lineage.json").write_text("[]")
    for seed, name in enumerate(("sft", "policy")):
        save_model(tiny_model("llama", seed=seed), folder / name, tiny_tokenizer())
    save_model(
        tiny_model("llama", reward=True), folder / "reward-model", tiny_tokenizer(), reward_gain=2.0, reward_bias=0.5
    )
    return folder


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sampled(run: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    prompts = write(run.parent / "prompts.jsonl", {"prompt": "say 1"}, {"prompt": "say 2"})
    given: dict[str, Any] = {"sampling": Sampling(max_tokens=6), "answers": 2, "seed": 0, **options}
    count = sample_file(run / "policy", prompts, out, **given)
    lines = read(out)
    assert count == len(lines)
    return lines


def test_a_file_is_answered(run, tmp_path):
    lines = sampled(run, tmp_path / "new" / "answers.jsonl")
    assert [line["prompt"]["text"] for line in lines] == ["say 1", "say 1", "say 2", "say 2"]
    assert all(line["ended"] in ("stopped", "cut") and 0 < line["tokens"] <= 6 and line["logp"] < 0 for line in lines)
    assert len({line["answer"] for line in lines}) > 1


def test_the_same_seed_gives_the_same_answers(run, tmp_path):
    first = sampled(run, tmp_path / "a.jsonl")
    assert sampled(run, tmp_path / "b.jsonl") == first
    assert sampled(run, tmp_path / "c.jsonl", seed=1) != first
    more = sampled(run, tmp_path / "d.jsonl", answers=3)
    assert more[:2] == first[:2]  # more answers are more, not others


def test_the_best_of_the_answers_can_be_kept_alone(run, tmp_path):
    every = sampled(run, tmp_path / "a.jsonl", answers=5)
    best = sampled(run, tmp_path / "b.jsonl", answers=5, best_by=run / "reward-model")
    score_file(run / "reward-model", tmp_path / "a.jsonl", tmp_path / "scores.jsonl")
    scores = [line["scores"][0] for line in read(tmp_path / "scores.jsonl")]
    assert best == [every[max(range(first, first + 5), key=scores.__getitem__)] for first in (0, 5)]


def test_the_template_of_the_models_own_run_is_used(run, tmp_path):
    """A model elsewhere is read without one, whatever file lies beside it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.yaml").write_text("theme: dark\n")
    (elsewhere / "policy").symlink_to(run / "policy")
    greedy = Sampling(max_tokens=6, temperature=0)
    here, there = (
        sampled(folder, tmp_path / f"{n}.jsonl", sampling=greedy, answers=1)
        for n, folder in enumerate((run, elsewhere))
    )
    asked = sampled_as(run, "q: say 1\na:", tmp_path / "asked.jsonl", elsewhere)
    assert here[0]["answer"] == asked
    assert here[0]["answer"] != there[0]["answer"]


def test_a_member_reads_by_its_runs_template_and_so_does_a_recipe_elsewhere(own_road, run, tmp_path, monkeypatch):
    """Members lie a folder deeper; a recipe may name the model or its run, and has templates of its own."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "reward-model").rename(tmp_path / "run" / "member-1")
    (tmp_path / "run" / "reward-model").mkdir()
    member = (tmp_path / "run" / "member-1").rename(tmp_path / "run" / "reward-model" / "member-1")
    rows = write(tmp_path / "answers.jsonl", {"prompt": "say 1", "answers": ["1", "2"], "scores": [1, 2]})
    wanted = pytest.approx(scores_of(run, [("1", True), ("2", True)]), abs=1e-5)

    score_file(member, rows, tmp_path / "a.jsonl")
    monkeypatch.chdir(member)
    score_file(Path(), rows, tmp_path / "b.jsonl")
    assert [read(tmp_path / name)[0]["scores"] for name in ("a.jsonl", "b.jsonl")] == [wanted, wanted]
    groups = [group_of_texts(Prompt(text="say 1"), [("1", True), ("2", True)])]
    for n, folder in enumerate((run, run / "reward-model", member)):
        road = recipe_from(own_road(reward=None, scorers={"m": {"kind": "model", "path": str(folder)}}))
        assert Ground(road, Run(tmp_path / f"new-{n}", road)).scorer().score(groups).flat() == wanted
    long = [group_of_texts(Prompt(text="say 1" * 99), [("1", True)])]
    scorers = {"m": {"kind": "model", "path": str(run)}}
    for cut in (True, False):
        text = {"template": "{prompt}", "cut_prompts": cut}
        road = recipe_from(own_road(reward=None, scorers=scorers, text=text))
        with contextlib.nullcontext() if cut else pytest.raises(TextError, match="cut_prompts"):
            Ground(road, Run(tmp_path / f"cut-{cut}", road)).scorer().score(long)
    label_file(rows, tmp_path / "c.jsonl", {"m": ByModel(kind="model", path=str(run))}, gives="scores")
    assert read(tmp_path / "c.jsonl")[0]["verdict"]["scores"] == wanted


def sampled_as(run: Path, words: str, out: Path, folder: Path) -> str:
    prompts = write(out.with_suffix(".in.jsonl"), {"prompt": words})
    sample_file(folder / "policy", prompts, out, sampling=Sampling(max_tokens=6, temperature=0), answers=1, seed=0)
    return str(read(out)[0]["answer"])


def scores_of(run: Path, texts: list[tuple[str, bool]]) -> list[float]:
    text = Text(template="q: {prompt}\na:")
    scorer = load_scorer(run / "reward-model", choose_machine(), text)
    return scorer.score_texts([(Prompt(text="say 1"), texts)])


def test_judged_answers_are_scored_in_their_order(run, tmp_path):
    file = write(tmp_path / "j.jsonl", {"prompt": "say 1", "chosen": "1.", "rejected": "2."})
    assert score_file(run / "reward-model", file, tmp_path / "o.jsonl") == 2
    (line,) = read(tmp_path / "o.jsonl")
    assert line["answers"] == ["1.", "2."]
    assert line["scores"] == pytest.approx(scores_of(run, [("1.", True), ("2.", True)]), abs=1e-5)


def test_demonstrations_are_scored(run, tmp_path):
    file = write(tmp_path / "d.jsonl", *({"prompt": f"say {n}", "completion": "1."} for n in range(40)))
    assert score_file(run / "reward-model", file, tmp_path / "o.jsonl") == 40
    assert [line["prompt"]["text"] for line in read(tmp_path / "o.jsonl")] == [f"say {n}" for n in range(40)]


def test_a_sampled_answer_that_was_cut_is_scored_without_its_end(run, tmp_path):
    rows = [{"prompt": {"text": "say 1"}, "answer": "1.", "ended": ended} for ended in ("stopped", "cut")]
    assert score_file(run / "reward-model", write(tmp_path / "s.jsonl", *rows), tmp_path / "o.jsonl") == 2
    found = [line["scores"][0] for line in read(tmp_path / "o.jsonl")]
    assert found == pytest.approx(scores_of(run, [("1.", True), ("1.", False)]), abs=1e-5)
    assert found[0] != found[1]


def test_what_was_sampled_can_be_scored(run, tmp_path):
    sampled(run, tmp_path / "a.jsonl")
    assert score_file(run / "reward-model", tmp_path / "a.jsonl", tmp_path / "o.jsonl") == 4


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": {"text": "a"}, "answer": 3, "ended": "cut"}], r"a\.jsonl:1: answer: needs a text \(found 3\)"),
        ([{"prompt": {"text": "a"}, "answer": "b", "ended": "now"}], r"a\.jsonl:1: ended: needs one of stopped"),
        ([{"prompt": {"txt": "a"}, "answer": "b", "ended": "cut"}], r"a\.jsonl:1: prompt: .*txt"),
        ([{"prompt": "a"}], r"a\.jsonl:1: row: gives prompts, which have no answer"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": 3}], r"a\.jsonl:2: "),
    ],
)
def test_a_file_that_cannot_be_scored(run, tmp_path, rows, says):
    with pytest.raises(RecordError, match=says):
        score_file(run / "reward-model", write(tmp_path / "a.jsonl", *rows), tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()


def test_a_score_that_is_no_number(tmp_path):
    broken = tiny_model("llama", reward=True)
    broken.score.weight.data[:] = float("nan")
    save_model(broken, tmp_path / "grader", tiny_tokenizer())
    file = write(tmp_path / "j.jsonl", {"prompt": "say 1", "chosen": "1.", "rejected": "2."})
    with pytest.raises(NumberError, match=r"gives the answers to prompt \w+ the scores \[nan, nan\]"):
        score_file(tmp_path / "grader", file, tmp_path / "o.jsonl")


def test_a_chat_prompt_without_a_template_is_named(own_files, tmp_path):
    file = write(tmp_path / "p.jsonl", {"prompt": [{"role": "user", "content": "hello"}]})
    with pytest.raises(PlauditError, match="no chat template"):
        sample_file(own_files / "model", file, tmp_path / "o.jsonl", sampling=Sampling(), answers=1, seed=0)


def judged_file(path: Path) -> Path:
    rows = ({"prompt": f"say {n}", "chosen": f"{n}.", "rejected": "z" * (1 + n % 3), "subset": n % 2} for n in range(8))
    return write(path, *rows)


def trusted(run: Path, files: list[Path], out: Path, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"answers": None, "by": (), "probes": 4, "cut_prompts": False, "skip_bad": False}
    return evaluate_reward(run / "reward-model", files, out, **given | options)


def test_a_reward_model_is_tested(run, tmp_path, capsys):
    answers = tmp_path / "answers.jsonl"
    sampled(run, answers)
    found = trusted(run, [judged_file(tmp_path / "j.jsonl")], tmp_path / "new" / "out", answers=answers)
    assert json.loads((tmp_path / "new" / "out" / "evaluation.json").read_text()) == found
    assert "<!doctype html>" in (tmp_path / "new" / "out" / "report.html").read_text()
    assert (found["pairs"], found["answers"], found["cut_answers"]) == (8, 16, 0)
    assert set(found["groups"]["subset"]) == {"0", "1"}
    show_reward_evaluation(found, tmp_path)
    shown = capsys.readouterr().out
    assert "pairs ordered as people did" in shown
    assert "best of 2 (KL 0.19)" in shown


def test_the_raw_score_is_tested_and_the_best_of_n_is_of_the_reward(run, tmp_path):
    """The run's reward model has gain 2 and bias 0.5."""
    file = write(tmp_path / "j.jsonl", {"prompt": "say 1", "chosen": "1.", "rejected": "2."})
    rows = [{"prompt": {"text": "say 1"}, "answer": answer, "ended": "stopped"} for answer in ("1.", "2.")]
    found = trusted(run, [file], tmp_path, answers=write(tmp_path / "a.jsonl", *rows))
    first, second = scores_of(run, [("1.", True), ("2.", True)])
    (row,) = found["calibration"]
    assert row["predicted"] == pytest.approx(1 / (1 + math.exp(-abs(first - second) / 2)), abs=1e-5)
    best = found["best_of_n"]["curve"]
    assert [row["score"] for row in best] == pytest.approx([(first + second) / 2, max(first, second)], abs=1e-5)


def test_answers_that_are_read_in_part_are_counted(run, tmp_path):
    """The recipe's limit is 24 tokens, one a letter, the end token among them."""
    file = write(tmp_path / "j.jsonl", {"prompt": "say 1", "chosen": "a" * 24, "rejected": "b" * 23})
    found = trusted(run, [file], tmp_path, probes=0)
    assert (found["answers"], found["cut_answers"]) == (2, 1)


def test_a_long_prompt_is_refused_or_cut(run, tmp_path):
    file = write(tmp_path / "j.jsonl", {"prompt": "long " * 9, "chosen": "1.", "rejected": "2."})
    with pytest.raises(TextError, match=r"more than text\.max_prompt_tokens"):
        trusted(run, [file], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert trusted(run, [file], tmp_path / "out", cut_prompts=True)["pairs"] == 1
    assert score_file(run / "reward-model", file, tmp_path / "s.jsonl", cut_prompts=True) == 2
    sampling = Sampling(max_tokens=3)
    with pytest.raises(TextError, match=r"raise that, or set text\.cut_prompts \(--cut-prompts\) to read its end"):
        sample_file(run / "policy", file, tmp_path / "x.jsonl", sampling=sampling, answers=1, seed=0)
    assert sample_file(
        run / "policy", file, tmp_path / "x.jsonl", sampling=sampling, answers=1, seed=0, cut_prompts=True
    )


def test_a_column_that_no_row_has_splits_nothing(run, tmp_path):
    file = write(tmp_path / "j.jsonl", {"prompt": "say 1", "chosen": "1.", "rejected": "2.", "topic": "numbers"})
    assert trusted(run, [file], tmp_path / "out", by=("topic", "annotator"))["pairs"] == 1
    with pytest.raises(RecordError, match="--by topik: no row has such a column"):
        trusted(run, [file], tmp_path / "out", by=("topik",))


def test_a_reward_model_is_tested_by_a_quality_that_it_has(run, tmp_path):
    file = write(tmp_path / "j.jsonl", {"prompt": "say 1", "chosen": "1.", "rejected": "2."})
    with pytest.raises(RecordError, match=r"--quality kind: .*reward-model scores nothing apart"):
        trusted(run, [file], tmp_path / "out", quality="kind")
    plain = trusted(run, [file], tmp_path / "out")
    shutil.copytree(run, tmp_path / "run")
    model = tiny_model("llama", reward=True)  # the very same weights
    model.config.id2label, model.config.reward_weights = {0: "harmful"}, [-1.0]
    save_model(model, tmp_path / "run" / "reward-model", tiny_tokenizer())
    with pytest.raises(RecordError, match=r"--quality kind: .*reward-model scores harmful"):
        trusted(tmp_path / "run", [file], tmp_path / "out", quality="kind")
    by_quality = trusted(tmp_path / "run", [file], tmp_path / "out", quality="harmful")
    assert by_quality["accuracy"] == plain["accuracy"] == 1 - trusted(tmp_path / "run", [file], tmp_path)["accuracy"]


def test_what_is_read_is_never_written_over(run, tmp_path):
    prompts = write(tmp_path / "p.jsonl", {"prompt": "say 1"})
    with pytest.raises(RecordError, match=r"p\.jsonl is the file that is read: name another"):
        sample_file(run / "policy", prompts, tmp_path / "x" / ".." / "p.jsonl", sampling=Sampling(), answers=1, seed=0)
    answers = write(tmp_path / "a.jsonl", {"prompt": "say 1", "chosen": "1.", "rejected": "2."})
    before = answers.read_bytes()
    with pytest.raises(RecordError, match="is the file that is read"):
        score_file(run / "reward-model", answers, answers)
    with pytest.raises(RecordError, match="is the file that is read"):
        label_file(answers, answers, {"length": ByLength(kind="length", target=3)})
    assert answers.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("folder", "is a folder: name a file"),
        ("x.csv", r"what is written are JSON lines, which a \.csv file does not hold"),
        ("file/x.jsonl", "cannot be written: (Not a directory|File exists)"),
    ],
)
def test_where_nothing_can_be_written_is_found_before_the_work(run, tmp_path, out, says):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    answers = write(tmp_path / "a.jsonl", {"prompt": "say 1", "chosen": "1.", "rejected": "2."})
    with pytest.raises(RecordError, match=says):
        score_file(tmp_path / "no model", answers, tmp_path / out)


def test_lines_are_gzipped_where_their_name_says_so(run, tmp_path):
    sampled_to, scored_to = tmp_path / "s.jsonl.gz", tmp_path / "scores.jsonl.gz"
    prompts = write(tmp_path / "p.jsonl", {"prompt": "say 1"})
    sample_file(run / "policy", prompts, sampled_to, sampling=Sampling(max_tokens=6), answers=2, seed=0)
    assert score_file(run / "reward-model", sampled_to, scored_to) == 2
    labels = tmp_path / "labels.jsonl.gz"
    label_file(sampled_to, labels, {"length": ByLength(kind="length", target=3)}, gives="scores")
    for file in (sampled_to, scored_to, labels):
        assert gzip.decompress(file.read_bytes()).decode().endswith("}\n")


def test_a_broken_line_of_what_was_sampled_is_named(run, tmp_path):
    file = tmp_path / "s.jsonl"
    sampled(run, file)
    file.write_bytes(file.read_bytes() + b'{"prompt": "half')
    with pytest.raises(RecordError, match=r"cannot read answers:\n.*s\.jsonl:5: not JSON"):
        score_file(run / "reward-model", file, tmp_path / "out.jsonl")


def test_two_prompts_under_one_id_are_refused(run, tmp_path):
    """Their answers would be ranked as answers to the first."""
    rows = [
        {"prompt": {"text": text, "id": "1"}, "answers": answers, "verdict": {"kind": "ranking", "ranks": [1, 2]}}
        for text, answers in (("Name a colour.", ["red", "blue"]), ("Name a fruit.", ["apple", "pear"]))
    ]
    file = write(tmp_path / "ids.jsonl", *rows)
    with pytest.raises(RecordError, match=r"(?s)cannot read answers.*ids.jsonl:2: prompt.id: '1' is another prompt's"):
        label_file(file, tmp_path / "out.jsonl", {"length": ByLength(kind="length", target=3)})
    with pytest.raises(RecordError, match=r"(?s)cannot tell prompts apart, 1 problems.*ids.jsonl:2: prompt.id: '1' is"):
        read_judged(file)
    ended = [{"prompt": one["prompt"], "answer": "red", "ended": "stopped"} for one in rows]
    with pytest.raises(RecordError, match=r"(?s)cannot read answers.*another prompt's"):
        score_file(run / "reward-model", write(tmp_path / "sampled.jsonl", *ended), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_facts_of_the_rows_make_no_other_prompt(tmp_path):
    rows = [
        {"prompt": {"text": "p", "id": "1", "about": {"n": n}}, "answers": [f"{n}", f"{n}{n}"], "best": 0}
        for n in (1, 2)
    ]
    file = write(tmp_path / "facts.jsonl", *rows)
    assert label_file(file, tmp_path / "out.jsonl", {"length": ByLength(kind="length", target=3)}) == 1
    assert len(read(tmp_path / "out.jsonl")[0]["answers"]) == 4


def test_labels_that_were_interrupted_are_gone_on_with_for_the_same_answers_only(run, tmp_path, capsys):
    """And for the same function: what it said before its file changed is not its judgement."""
    rows = [{"prompt": f"q{n}", "chosen": "a", "rejected": "bb"} for n in range(60)]
    answers, code, out = write(tmp_path / "a.jsonl", *rows), tmp_path / "fn.py", tmp_path / "out.jsonl"
    scorers = {"f": ByFunction(kind="function", path=f"{code}:f")}

    def falls_at(last, sign):
        code.write_text(
            f"def f(prompt, answer):\n    assert prompt.text != 'q{last}'\n    return {sign} * len(answer)\n"
        )

    falls_at(50, 1)
    with pytest.raises(PlauditError):
        label_file(answers, out, scorers)
    falls_at("none", -1)
    assert label_file(answers, out, scorers) == 60
    assert {tuple(row["verdict"]["ranks"]) for row in read(out)} == {(1, 2)}
    falls_at(50, 1)
    with pytest.raises(PlauditError):
        label_file(answers, out, scorers)
    shorter = write(answers, *rows[10:40])
    assert "going on behind 32 judgements" in capsys.readouterr().err
    assert label_file(shorter, out, scorers) == 30
    assert "going on" not in capsys.readouterr().err


def test_one_answer_a_prompt_has_no_best(run, tmp_path):
    sampled(run, tmp_path / "a.jsonl", answers=1)
    with pytest.raises(RecordError, match="best of n needs two or more answers"):
        trusted(run, [judged_file(tmp_path / "j.jsonl")], tmp_path, answers=tmp_path / "a.jsonl")


def test_in_a_world_the_best_of_n_has_its_gold(run, tmp_path):
    there = world("reviews")
    prompts = there.prompts(3, 0)
    home = tmp_path / "run"
    home.mkdir()
    long = {"max_prompt_tokens": 200, "max_answer_tokens": 200}
    recipe = recipe_from({"world": {}, "text": {**long, "cut_prompts": True}})
    (home / "config.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    (home / "lineage.json").write_text("[]")
    (home / "reward-model").symlink_to(run / "reward-model")
    rows = [
        {"prompt": prompt.to_json(), "answer": answer, "ended": "stopped"}
        for prompt in prompts
        for answer in there.answers(prompt, 2, 0)
    ]
    answers = write(tmp_path / "a.jsonl", *rows)
    found = trusted(home, [judged_file(tmp_path / "j.jsonl")], tmp_path, answers=answers, probes=0)
    golds = [there.gold(prompt, answer) for prompt in prompts for answer in there.answers(prompt, 2, 0)]
    assert found["best_of_n"]["curve"][0]["gold"] == pytest.approx(sum(golds) / 6)


def test_a_reward_model_is_exported_with_its_runs_template(run, tmp_path):
    assert export(run / "reward-model", tmp_path / "out", "vllm") == 0.5
    assert "q: why?" in (tmp_path / "out" / "README.md").read_text()


def test_a_talk_with_two_models(run):
    pair = Chat(run)
    before, after = pair.answer("hello")
    assert before != after
    assert Chat(run).answer("hello") == (before, after)
    assert pair.answer("hello") != (before, after)  # said again, it is another turn


def test_a_talk_needs_a_tuned_model(run, tmp_path):
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    with pytest.raises(RunError, match="holds no tuned model yet"):
        Chat(tmp_path)


def test_before_the_first_stage_is_the_recipes_own_model(run, tmp_path, own_files):
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (tmp_path / "sft").symlink_to(run / "policy")
    before, after = Chat(tmp_path).answer("hello")
    assert before != after


def test_the_table_is_shown(tmp_path, capsys):
    (tmp_path / "summary.json").write_text(json.dumps({"gold_win_rate": 0.8, "gold_win_rate_interval": [0.7, 0.9]}))
    show_summary(tmp_path)
    shown = capsys.readouterr().out
    assert "80.0 %  (70.0 to 90.0)" in shown
    assert f"Report: {tmp_path / 'report.html'}" in shown


def test_no_table_no_summary(tmp_path):
    with pytest.raises(RunError, match=r"summary\.json"):
        show_summary(tmp_path)


def test_several_reward_models_say_where_they_are_apart(tmp_path):
    for m in range(2):
        save_model(tiny_model(reward=True, seed=m), tmp_path / "rm" / f"member-{m}", tiny_tokenizer())
    how = {"combine": "mean", "caution": 1.0, "reward_gain": 1.0, "reward_bias": 0.0}
    save_ensemble(tmp_path / "rm", ["member-0", "member-1"], **how)
    rows = tmp_path / "answers.jsonl"
    rows.write_text('{"prompt": "why", "output": ["so", "because"]}\n', "utf-8")
    assert score_file(tmp_path / "rm", rows, tmp_path / "out.jsonl") == 2
    alone = []
    for m in range(2):
        score_file(tmp_path / "rm" / f"member-{m}", rows, tmp_path / "one.jsonl")
        (line,) = [json.loads(text) for text in (tmp_path / "one.jsonl").read_text("utf-8").splitlines()]
        assert "disagreement" not in line
        alone.append(line["scores"])
    (line,) = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    pairs = list(zip(*alone, strict=True))
    assert line["scores"] == pytest.approx([(a + b) / 2 for a, b in pairs], abs=1e-5)
    assert line["disagreement"] == pytest.approx([abs(a - b) / 2 for a, b in pairs], abs=1e-5)
    with pytest.raises(ModelError, match=r"holds several reward models.*export .*member-0, .*member-1$"):
        export(tmp_path / "rm", tmp_path / "out", "vllm")
    assert export(tmp_path / "rm" / "member-1", tmp_path / "out", "vllm") == 0.0
