"""The whole road: what it leaves behind, equal bits, interruption anywhere, and what it must never do."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from plaudit import loop
from plaudit.errors import NumberError, PlauditError, RecipeError, RunError
from plaudit.loop import road
from plaudit.models.load import choose_machine
from plaudit.recipe import Recipe, recipe_from
from plaudit.records import Comment, Judgement, Prompt, Ranking, Scores
from plaudit.runs import Run
from plaudit.scorers import EnsembleScorer, load_scorer
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.worlds import ReviewWorld

MODELS = ("language", "sft", "reward-model", "policy")
GRADER = {"mine": {"kind": "model", "path": "nowhere/grader"}}
Road = Callable[..., dict[str, Any]]


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes as long as a tiny road."""
    monkeypatch.setattr(road, "write_report", lambda folder: (folder / "report.html").touch())


@pytest.fixture(scope="module")
def done(tiny_road: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny road, with a cache of its own, never changed by a test."""
    folder = tmp_path_factory.mktemp("roads") / "done"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAUDIT_CACHE", str(folder.parent / "cache"))
        loop.run(tiny_road, folder)
    return folder


def graded_by(folder: Path) -> dict[str, Any]:
    """What a recipe says to be graded by a reward model that is there."""
    return {"mine": {"kind": "model", "path": str(folder)}}


def bits(folder: Path, models: Iterable[str] = MODELS) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
        for name in models
        if (folder / name).exists()
    }


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The metrics, times left out."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def stages(folder: Path) -> list[str]:
    return [entry["stage"] for entry in json.loads((folder / "lineage.json").read_text(encoding="utf-8"))]


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder: when it was changed, and what is in it."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    """The recipe with values of some sections replaced."""
    given = recipe.model_dump(mode="json")
    for name, value in sections.items():
        given[name] = {**given[name], **value} if isinstance(value, dict) and given[name] else value
    return recipe_from(given)


# What a road leaves behind


def test_the_run_folder_holds_what_the_plan_of_the_house_says(done):
    assert stages(done) == ["language", "sft", "collect", "reward", "policy", "evaluate"]
    there = {path.name for path in done.iterdir()} - {".lock"}
    assert there == {
        "config.yaml", "environment.json", "metrics.jsonl", "samples.jsonl", "judgements.jsonl", "evaluation.json",
        "evaluation.jsonl", "lineage.json", "summary.json", "report.html", *MODELS,
    }  # fmt: skip
    steps = [(line["stage"], line["step"]) for line in numbers(done)]
    assert steps == [
        *(("language", step) for step in range(4)),
        *(("sft", step) for step in range(4)),
        *(("reward", step) for step in range(4)),
        *(("policy", step) for step in range(3)),
    ]
    assert len((done / "judgements.jsonl").read_text(encoding="utf-8").splitlines()) == 8
    assert len((done / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()) == 6


def test_an_ensemble_climbs_its_lower_bound_and_goes_on_after_an_interruption(
    tiny_road, tmp_path, no_report, monkeypatch, done
):
    monkeypatch.setenv("PLAUDIT_CACHE", str(done.parent / "cache"))
    recipe = changed(tiny_road, reward={"members": 3, "bootstrap": True, "combine": "lower", "caution": 0.5})
    loop.run(recipe, tmp_path / "straight")
    made = tmp_path / "straight" / "reward-model"
    how = json.loads((made / "ensemble.json").read_text(encoding="utf-8"))
    assert (how["members"], how["combine"]) == (["member-1", "member-2", "member-3"], "lower")
    assert len(set(bits(made, how["members"]).values())) == 3
    logged = {(line["stage"], line["step"]) for line in numbers(tmp_path / "straight")}
    assert {(stage, 0) for stage in ("reward", "reward-2", "reward-3")} < logged
    policy = [line for line in numbers(tmp_path / "straight") if line["stage"] == "policy"]
    assert all(line["policy/reward/disagreement"] > 0 for line in policy)
    found = json.loads((made / "evaluation.json").read_text(encoding="utf-8"))
    assert {"accuracy", "expected_calibration_error"} < found.keys()

    save = Run.save

    def falls(self, stage, *args, **kwargs):
        save(self, stage, *args, **kwargs)
        if stage == "reward-2":
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", falls)
    with pytest.raises(KeyboardInterrupt):
        loop.run(recipe, tmp_path / "cut")
    monkeypatch.setattr(Run, "save", save)
    loop.run(recipe, tmp_path / "cut")
    assert bits(tmp_path / "cut" / "reward-model", how["members"]) == bits(made, how["members"])
    assert bits(tmp_path / "cut", ["policy"]) == bits(tmp_path / "straight", ["policy"])
    assert sorted(map(str, numbers(tmp_path / "cut"))) == sorted(map(str, numbers(tmp_path / "straight")))


def test_the_summary_holds_the_table(done):
    summary = json.loads((done / "summary.json").read_text(encoding="utf-8"))
    assert {
        "gold_win_rate", "gold_win_rate_interval", "kl_nats", "distinct_2_before", "distinct_2_after",
        "parse_share_before", "parse_share_after", "reward_accuracy", "seconds_by_stage", "peak_memory_mb",
        "gold_win_rate_of_before_against_itself", "sft_held_out_nats_per_token",
    } <= summary.keys()  # fmt: skip
    assert list(summary["seconds_by_stage"]) == stages(done)


def test_the_models_are_plain_folders_of_transformers(done):
    for name in ("language", "sft", "policy"):
        assert AutoModelForCausalLM.from_pretrained(done / name).config.vocab_size > 0
        assert AutoTokenizer.from_pretrained(done / name).eos_token_id is not None
    reward = AutoModelForSequenceClassification.from_pretrained(done / "reward-model")
    assert reward.config.num_labels == 1
    assert reward.config.reward_gain != 1.0  # normalised on the reference's answers
    assert bits(done)["policy"] != bits(done)["sft"] != bits(done)["language"]


def test_the_recipe_that_is_kept_is_the_recipe(done, tiny_road):
    kept = yaml.safe_load((done / "config.yaml").read_text(encoding="utf-8"))
    assert recipe_from(kept) == tiny_road


# Equal bits


def test_the_same_seed_gives_the_same_bits(done, tiny_road, tmp_path, monkeypatch, no_report):
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path / "cache"))
    loop.run(tiny_road, tmp_path / "again")
    assert bits(tmp_path / "again") == bits(done)
    assert numbers(tmp_path / "again") == numbers(done)
    for name in ("judgements.jsonl", "samples.jsonl", "evaluation.jsonl", "evaluation.json"):
        assert (tmp_path / "again" / name).read_bytes() == (done / name).read_bytes(), name


def test_another_seed_takes_the_built_in_model_and_gives_other_bits(done, tiny_road, tmp_path, monkeypatch, no_report):
    monkeypatch.setenv("PLAUDIT_CACHE", str(done.parent / "cache"))
    loop.run(changed(tiny_road, seed=1), tmp_path / "other")
    mine, theirs = bits(tmp_path / "other"), bits(done)
    assert mine["language"] == theirs["language"]
    assert all(mine[name] != theirs[name] for name in MODELS[1:])
    assert {line["stage"] for line in numbers(tmp_path / "other")} == {"sft", "reward", "policy"}  # no language steps
    lineage = json.loads((tmp_path / "other" / "lineage.json").read_text(encoding="utf-8"))
    assert lineage[0]["from"] == ["the built-in model, trained before"]


def test_gold_is_only_watched(done, tiny_road, tmp_path, monkeypatch, no_report):
    """Training gets the annotators' rankings; whatever the yardstick says on the way changes no weight."""
    monkeypatch.setenv("PLAUDIT_CACHE", str(done.parent / "cache"))
    monkeypatch.setattr(ReviewWorld, "gold", lambda self, prompt, answer: -float(len(answer)))
    loop.run(tiny_road, tmp_path / "blind")
    assert bits(tmp_path / "blind") == bits(done)
    assert (tmp_path / "blind" / "judgements.jsonl").read_bytes() == (done / "judgements.jsonl").read_bytes()
    quiet = [{k: v for k, v in line.items() if k != "policy/gold"} for line in numbers(tmp_path / "blind")]
    before = [{k: v for k, v in line.items() if k != "policy/gold"} for line in numbers(done)]
    assert quiet == [line for line in before if line["stage"] != "language"]


# Interruption

KILLED_OVER_AND_OVER = """
import json, os, signal, sys
from pathlib import Path
from plaudit import loop
from plaudit.loop import road
from plaudit.recipe import recipe_from

folder, recipe = sys.argv[1], recipe_from(json.loads(sys.argv[2]))
road.write_report = lambda folder: (folder / "report.html").touch()

def writes(event, args):
    if event == "open":
        path, mode, flags = args
        return isinstance(path, str) and folder in path and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir") and (
        folder in os.fspath(args[0]) or not os.path.isabs(os.fspath(args[0]))  # rmtree goes by relative names
    )

def killed_at(moment):
    left = moment
    def hook(event, args):
        nonlocal left
        left -= writes(event, args)
        if left == 0:
            left = moment  # os.kill is an event too
            os.kill(os.getpid(), signal.SIGKILL)
    return hook

ends = []
for moment in [*json.loads(sys.argv[3]), None]:
    child = os.fork()
    if child == 0:
        if moment is not None:
            sys.addaudithook(killed_at(moment))
        loop.run(recipe, Path(folder))
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    metrics = Path(folder, "metrics.jsonl")
    if metrics.exists() and moment is not None:
        with metrics.open("a") as file:
            file.write('{"stage": "policy", "st')  # torn in the middle of a line
print(json.dumps(ends))
"""


def test_killed_over_and_over_it_ends_with_the_same_bits(done, tiny_road, tmp_path):
    """SIGKILL right before the n-th change of the run folder, in every stage; then the same call to the end."""
    moments = [14, 25, 27, 21, 26, 14]
    script = [sys.executable, "-c", KILLED_OVER_AND_OVER]
    result = subprocess.run(
        [*script, str(tmp_path / "killed"), tiny_road.model_dump_json(), json.dumps(moments)],
        env={**os.environ, "PLAUDIT_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [-signal.SIGKILL] * len(moments) + [0]
    assert bits(tmp_path / "killed") == bits(done)
    assert numbers(tmp_path / "killed") == numbers(done)
    assert stages(tmp_path / "killed") == stages(done)
    for name in ("judgements.jsonl", "samples.jsonl", "evaluation.jsonl", "evaluation.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (done / name).read_bytes(), name


def test_ctrl_c_saves_and_says_how_to_go_on(own_road, tmp_path, no_report):
    recipe = tmp_path / "mine.yaml"
    road = own_road(reward=None, policy=None, sft=None, language={"steps": 400}, save_every=500)
    recipe.write_text(yaml.safe_dump(road))
    words = ["run", str(recipe), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-c", "from plaudit.cli import main; main()", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        for _ in range(1200):
            if metrics.exists() and process.poll() is None:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == f"Stopped. Go on with: plaudit {' '.join(words)}"
    (checkpoint,) = (tmp_path / "run" / "checkpoints" / "language").iterdir()
    assert int(checkpoint.name) == len(numbers(tmp_path / "run")) < 400


def test_a_finished_run_is_never_changed(done, tiny_road):
    before = everything(done)
    summary = loop.run(tiny_road, done)
    assert summary == json.loads((done / "summary.json").read_text(encoding="utf-8"))
    assert everything(done) == before


def test_a_report_that_is_missing_is_written(done, tiny_road, tmp_path, no_report):
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "summary.json"):
        (tmp_path / "run" / name).write_bytes((done / name).read_bytes())
    loop.run(tiny_road, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()


# The folder belongs to one recipe, one process, and to nobody else


def test_a_changed_recipe_is_refused_with_the_differences(done, tiny_road):
    before = everything(done)
    other = changed(tiny_road, seed=3, policy={"kl": {"beta": 0.5}})
    with pytest.raises(RunError, match=r"policy\.kl\.beta was 0\.15 and is 0\.5; seed was 0 and is 3.*--fresh"):
        loop.run(other, done)
    assert everything(done) == before


def test_a_recipe_that_failed_before_anything_was_done_may_be_changed(own_road, tmp_path, no_report):
    road = own_road(reward=None, policy=None, language=None)
    with pytest.raises(PlauditError, match="nowhere"):
        loop.run(recipe_from({**road, "model": {"path": "nowhere"}}), tmp_path / "run")
    loop.run(recipe_from(road), tmp_path / "run")
    assert stages(tmp_path / "run") == ["sft", "evaluate"]


def test_two_processes_do_not_share_a_folder(tiny_road, tmp_path):
    held = Run(tmp_path / "run", tiny_road)
    with pytest.raises(RunError, match="another process is working in"):
        loop.run(tiny_road, tmp_path / "run", fresh=True)
    held.close()


def test_fresh_drops_nothing_before_the_new_recipe_is_known_to_work(own_road, tmp_path, no_report):
    folder = tmp_path / "run"
    loop.run(recipe_from(own_road(reward=None, policy=None, language=None)), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wrong = own_road(reward=None, policy=None)
    wrong["data"]["demonstrations"] = [{"path": str(tmp_path / "nofile.jsonl")}]
    with pytest.raises(PlauditError, match=r"nofile\.jsonl: no such file"):
        loop.run(recipe_from(wrong), folder, fresh=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_fresh_drops_the_run_and_nothing_else(own_road, tmp_path, no_report):
    folder = tmp_path / "run"
    loop.run(recipe_from(own_road(reward=None, policy=None, language=None)), folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "sft.writing").mkdir()  # left by a process that was killed
    loop.run(recipe_from(own_road(reward=None, policy=None, sft=None)), folder, fresh=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert stages(folder) == ["language"]
    assert not any((folder / name).exists() for name in ("sft", "sft.writing", "evaluation.json"))


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("policy/mine.txt", "x", r"holds policy, which a run would write over"),
        ("config.yaml", "theme: dark\n", r"config\.yaml is not the recipe of a run"),
        ("config.yaml", "{", r"config\.yaml is not the recipe of a run"),
    ],
)
def test_a_folder_that_is_no_run_is_left_alone(tiny_road, tmp_path, name, text, says, fresh):
    folder = tmp_path / "project"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(text)
    before = everything(folder)
    with pytest.raises(RunError, match=says):
        loop.run(tiny_road, folder, fresh=fresh)
    assert everything(folder) == before


def test_a_file_is_no_folder(tiny_road, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="is a file"):
        loop.run(tiny_road, tmp_path / "run", fresh=True)


# One stage, and evaluation again


def test_one_stage_alone(own_road, tmp_path, no_report):
    loop.run(recipe_from(own_road()), tmp_path / "run", only="sft")
    assert stages(tmp_path / "run") == ["sft", "evaluate"]
    reward = recipe_from(own_road(reward={"start": str(tmp_path / "run" / "sft"), "minibatch": 8}))
    summary = loop.run(reward, tmp_path / "reward", only="reward")
    assert stages(tmp_path / "reward") == ["reward"]
    assert summary["reward_accuracy"] > 0.9  # no answer with a `z`
    policy = recipe_from(own_road(reward=None, scorers=graded_by(tmp_path / "reward" / "reward-model")))
    loop.run(policy, tmp_path / "policy", only="policy")
    assert stages(tmp_path / "policy") == ["policy", "evaluate"]


@pytest.mark.parametrize(("only", "says"), [("sfft", "no stage 'sfft'"), ("collect", "has no collect section")])
def test_a_stage_that_is_not_there(own_road, tmp_path, only, says):
    with pytest.raises(RecipeError, match=says):
        loop.run(recipe_from(own_road()), tmp_path / "run", only=only)
    assert not (tmp_path / "run").exists()


def test_evaluate_again_gives_the_same_numbers(own_road, tmp_path, no_report):
    recipe = recipe_from(own_road(reward=None, policy=None, language=None))
    first = loop.run(recipe, tmp_path / "run")
    (tmp_path / "run" / "evaluation.jsonl").unlink()
    again = loop.run(recipe, tmp_path / "run", only="evaluate")
    times = {"seconds_by_stage", "cpu_seconds_by_stage", "peak_memory_mb"}
    assert {k: v for k, v in again.items() if k not in times} == {k: v for k, v in first.items() if k not in times}
    assert (tmp_path / "run" / "evaluation.jsonl").exists()
    assert stages(tmp_path / "run") == ["sft", "evaluate"]


def test_an_unfinished_run_is_not_evaluated(own_road, tmp_path, no_report, monkeypatch):
    """It would get a summary, and so count as finished."""
    recipe = recipe_from(own_road(language=None))
    monkeypatch.setattr(
        "plaudit.loop.policy.train_policy", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt())
    )
    with pytest.raises(KeyboardInterrupt):
        loop.run(recipe, tmp_path / "run")
    with pytest.raises(RunError, match=r"not finished \(policy to do\)"):
        loop.run(recipe, tmp_path / "run", only="evaluate")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_evaluate_needs_something_to_compare(own_road, tmp_path, no_report):
    recipe = recipe_from(own_road(reward=None, policy=None, sft=None))
    loop.run(recipe, tmp_path / "run")
    with pytest.raises(RunError, match="nothing to compare"):
        loop.run(recipe, tmp_path / "run", only="evaluate")
    with pytest.raises(RunError, match="does not start another"):
        loop.run(recipe, tmp_path / "run", only="evaluate", fresh=True)
    with pytest.raises(RunError, match="needs a run that is there"):
        loop.run(recipe, tmp_path / "none", only="evaluate")


# Every way that a recipe can go


def policy_lines(folder: Path) -> list[dict[str, Any]]:
    return [line for line in numbers(folder) if line["stage"] == "policy"]


def test_adapters_in_all_stages(own_road, tmp_path, no_report):
    """LoRA: plain folders come out, layers that no adapter touches stay, and the reference is the adapter off."""
    adapter = {"rank": 2, "targets": ["q_proj", "down_proj"]}
    road = own_road(model={"adapter": adapter, "checkpointing": True}, policy={"critic": "shared"})
    loop.run(recipe_from(road), tmp_path / "run")
    start = load_file(Path(road["model"]["path"]) / "model.safetensors")
    for before, after in (("language", "sft"), ("sft", "policy")):
        old, new = (load_file(tmp_path / "run" / name / "model.safetensors") for name in (before, after))
        assert start.keys() == old.keys() == new.keys()
        moved = {name.split(".")[-2] for name in old if not old[name].equal(new[name])}
        assert moved == {"q_proj", "down_proj"}
    grader = load_file(tmp_path / "run" / "reward-model" / "model.safetensors")
    assert "score.weight" in grader
    assert policy_lines(tmp_path / "run")[0]["policy/kl"] == pytest.approx(0, abs=1e-4)  # nothing has moved yet
    assert policy_lines(tmp_path / "run")[1]["policy/kl"] != pytest.approx(0, abs=1e-6)


def test_a_head_that_begins_at_nothing_calls_all_answers_equal(own_road, tmp_path, no_report):
    nothing = {"start": "model", "head_scale": 0, "normalise_on": 0, "optimiser": {"learning_rate": 1e-9}}
    road = own_road(language=None, sft=None, policy=None, reward=nothing)
    loop.run(recipe_from(road), tmp_path / "run")
    first = next(line for line in numbers(tmp_path / "run") if line["stage"] == "reward")
    assert first["reward/loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_members_under_an_adapter_share_one_trunk(own_road, tmp_path, no_report):
    road = own_road(model={"adapter": {"rank": 2}}, language=None, reward={"members": 2, "combine": "lower"})
    summary = loop.run(recipe_from(road), tmp_path / "run")
    assert {"reward_after", "kl_nats"} <= summary.keys()
    made = tmp_path / "run" / "reward-model"
    assert {path.name for path in made.iterdir() if path.is_dir()} == {"trunk", "member-1", "member-2"}
    assert not list(made.glob("member-*/model.safetensors"))
    assert all(line["policy/reward/disagreement"] > 0 for line in policy_lines(tmp_path / "run"))
    scorer = load_scorer(made, choose_machine(), recipe_from(road).text)
    assert isinstance(scorer, EnsembleScorer)
    assert scorer.members[0].network.model is scorer.members[1].network.model
    kept = json.loads((made / "member-1" / "config.json").read_text(encoding="utf-8"))
    assert scorer.members[0].gain == kept["reward_gain"] != 1.0


def test_what_a_reward_model_learned_from_is_kept_with_its_ties_and_cuts(own_road, tmp_path):
    said = [
        judgement
        for n in range(40)
        for judgement in (
            Judgement(prompt=Prompt(text=f"say {n}"), answers=("a", "b"), verdict=Ranking(ranks=(1, 1 + n % 2))),
            Judgement(
                prompt=Prompt(text=f"say {n}"), answers=("a",), verdict=Scores(scores=(1 + n % 3,), scale=(1, 3))
            ),
            Judgement(prompt=Prompt(text=f"say {n}"), answers=("a",), verdict=Comment(text="hm")),
        )
    ]
    path = tmp_path / "said.jsonl"
    path.write_text("".join(one.model_dump_json() + "\n" for one in said), encoding="utf-8")
    reward = {"start": "model", "members": 2, "grades": 3}
    road = own_road(language=None, sft=None, policy=None, reward=reward)
    road["data"]["judgements"] = [{"path": str(path)}]
    loop.run(recipe_from(road), tmp_path / "run")
    made = tmp_path / "run" / "reward-model"
    learned = json.loads((made / "evaluation.json").read_text(encoding="utf-8"))["learned"]
    seen = learned["judgements"]["grade"]
    assert learned["judgements"] == {"pairs and ties": seen, "grade": seen}
    assert learned["left_out"] == {"a comment": seen}
    for name in ("member-1", "member-2"):
        assert learned[name] == json.loads((made / name / "config.json").read_text(encoding="utf-8"))["reward_scales"]
        assert learned[name]["cuts"] == sorted(learned[name]["cuts"])
        assert len(learned[name]["cuts"]) == 2
    assert learned["member-1"]["tie"] != learned["member-2"]["tie"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "What it learned from" in page
    assert "judgements.pairs and ties" in page


def test_checkpointing_of_activations_changes_no_result(own_road, tmp_path, no_report):
    for name, on in (("kept", False), ("recomputed", True)):
        loop.run(recipe_from(own_road(model={"checkpointing": on}, language=None, sft=None,
                                      reward={"start": "model"})), tmp_path / name)  # fmt: skip
    one, other = numbers(tmp_path / "kept"), numbers(tmp_path / "recomputed")
    assert [line.keys() for line in one] == [line.keys() for line in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine.pop("stage") == theirs.pop("stage")
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_several_minibatches_epochs_and_an_adaptive_beta(own_road, tmp_path, no_report):
    settings = {"minibatch": 4, "epochs": 3, "kl": {"beta": 0.1, "target": 2.0, "horizon": 40}}
    loop.run(recipe_from(own_road(language=None, policy={**settings, "steps": 3})), tmp_path / "run")
    lines = policy_lines(tmp_path / "run")
    assert lines[0]["policy/beta"] == 0.1
    assert lines[1]["policy/beta"] < lines[0]["policy/beta"]  # less KL than the target: cheaper
    assert lines[0]["policy/kl_to_old"] > 0  # later epochs learn from answers of an older policy
    assert {"policy/value_loss", "policy/explained_variance"} <= lines[0].keys()


def test_leave_one_out_without_a_critic_and_greedy_evaluation(own_road, tmp_path, no_report):
    road = own_road(language=None, policy={"algorithm": "rloo"}, evaluate={"decoding": "greedy"})
    summary = loop.run(recipe_from(road), tmp_path / "run")
    assert "policy/value_loss" not in policy_lines(tmp_path / "run")[0]
    assert "reward_win_rate" in summary
    assert "reward_win_rate_of_before_against_itself" not in summary  # greedy against greedy is a tie


def test_beam_search_a_random_trunk_and_a_cut_reward(own_road, tmp_path, no_report):
    road = own_road(
        language=None,
        reward={"start": "random"},
        policy={"cut_reward": -3.0, "entropy": 0.01},
        evaluate={"decoding": "beam", "beams": 2},
    )
    loop.run(recipe_from(road), tmp_path / "run")
    (trunk, sft) = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("reward-model", "sft"))
    name = next(name for name in sft if name.endswith("q_proj.weight"))
    assert (trunk[name] - sft[name]).abs().mean() > 0.05  # not the same start
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert {sample["reward"] for sample in samples if sample["ended"] == "cut"} == {-3.0}


def test_a_reward_model_with_another_tokenizer_is_given(own_road, tmp_path, no_report):
    """The policy's words go to a grader that reads them in its own way; the critic starts from the policy."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["it is"])
    tokenizer.save_pretrained(tmp_path / "grader")
    grader = tiny_model("llama", reward=True, vocab_size=len(tokenizer), hidden_size=16)
    grader.save_pretrained(tmp_path / "grader")
    road = own_road(language=None, reward=None, scorers=graded_by(tmp_path / "grader"))
    loop.run(recipe_from(road), tmp_path / "run")
    assert stages(tmp_path / "run") == ["sft", "policy", "evaluate"]
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text(encoding="utf-8"))
    assert str(tmp_path / "grader") in lineage[1]["from"]


def test_documents_longer_than_the_context_are_cut_into_pieces(own_road, own_files, tmp_path, no_report):
    """A model with learned positions has none beyond its context."""
    tiny_model("gpt2").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "so long and on and on " * 20}) + "\n")
    road = own_road(sft=None, reward=None, policy=None, model={"path": str(tmp_path / "model")})
    road["data"] = {"documents": [{"path": str(tmp_path / "long.jsonl")}]}
    road["language"] = {"steps": 1, "minibatch": 2, "max_tokens": 512}
    loop.run(recipe_from(road), tmp_path / "run")
    assert stages(tmp_path / "run") == ["language"]


def test_the_built_in_model_is_made_from_the_users_own_documents(own_road, tmp_path, no_report):
    """Its tokenizer keeps their characters whole, its context holds prompt and answer, its seed is the recipe's."""
    texts = [{"text": f"第{n}回,话说宝玉见了黛玉,笑道:这个妹妹我曾见过的。"} for n in range(40)]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    road = own_road(sft=None, model={"path": "builtin", "vocabulary": 512}, language={"steps": 1})
    road["text"] = {"max_prompt_tokens": 150, "max_answer_tokens": 100}
    road["data"]["documents"] = [{"path": str(tmp_path / "documents.jsonl")}]
    road["reward"]["start"] = "model"
    loop.run(recipe_from(road), tmp_path / "run")
    assert stages(tmp_path / "run") == ["language", "reward", "policy", "evaluate"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "language")
    assert len(tokenizer.tokenize("黛玉笑道")) <= 4
    assert len(tokenizer) <= 512
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "language")
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 250
    loop.run(recipe_from(road | {"seed": 1}), tmp_path / "other", only="language")
    assert bits(tmp_path / "run", ["language"]) != bits(tmp_path / "other", ["language"])


# Bad input is named before work is lost


def write(path: Path, rows: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [{"path": str(path)}]


CHATS = [{"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": "yes"}]}
         for n in range(20)]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"path": "nowhere/model"}}, r"cannot load 'nowhere/model'"),
        ({"reward": {"start": "nowhere/trunk"}}, r"cannot load 'nowhere/trunk'"),
        ({"reward": {"start": "lstm", "language": 0.5}}, r"states of width 32, and an LSTM's have 256"),
        ({"reward": None, "scorers": GRADER}, r"cannot load 'nowhere/grader'"),
        (
            {"reward": None, "scorers": {"mine": {"kind": "model", "path": "MODEL"}}},
            r"is a language model \(LlamaForCausalLM\)",
        ),
        (
            {"reward": None, "scorers": {"mine": {"kind": "chrf"}}},
            r"scorers\.mine: prompt \w+ has no reference, .*'say",
        ),
        ({"reward": None, "scorers": {"mine": {"kind": "function", "path": "no.py:f"}}}, r"no file 'no\.py'"),
        (
            {"reward": None, "scorers": {"mine": {"kind": "similarity", "path": "no/encoder"}}},
            r"cannot load 'no/encoder'",
        ),
        ({"policy": {"prompts_per_round": 40}}, r"data\.prompts: a round takes 40 prompts .* but there are 3\d"),
        ({"data": {"held_out": 0.0001}}, r"data\.prompts: data\.held_out 0\.0001 keeps none of 40 prompts"),
        ({"text": {"max_prompt_tokens": 4}}, r"prompt \w+ has \d tokens, more than text\.max_prompt_tokens 4"),
        (
            {"prompts": [{"prompt": str(n) + "a" * 69} for n in range(30)], "text": {"max_prompt_tokens": 100}},
            r"prompt \w+ has 7[12] tokens, but the model reads 64",
        ),
        ({"prompts": [{"prompt": [{"role": "user", "content": f"{n}"}]} for n in range(30)]}, r"no chat template"),
        ({"demonstrations": CHATS}, r"no chat template.* set text\.template"),
        (
            {"judgements": [{"prompt": f"say {n}", "answer_a": "x", "answer_b": "y"} for n in range(9)]},
            r"judgements\.jsonl",
        ),
        (
            {"judgements": [{"prompt": f"{n}", "output_1": "x", "output_2": "y", "label": 3} for n in range(9)]},
            r"judgements\.jsonl:1: label",
        ),
        (
            {"judgements": [{"prompt": f"{n}", "response1": "x", "response2": "y", "annotator1": 0} for n in range(9)]},
            r"data\.judgements: none of \d to train on says which answer is better",
        ),
        ({"prompts": []}, r"prompts\.jsonl.* holds no row that can be read"),
    ],
)
def test_bad_input_stops_before_any_stage(own_road, own_files, tmp_path, changes, says):
    road = own_road()
    for kind in ("prompts", "demonstrations", "judgements"):
        if kind in changes:
            road["data"][kind] = write(tmp_path / f"{kind}.jsonl", changes[kind])
    sections = {name: value for name, value in changes.items() if name in Recipe.model_fields}
    for name, value in sections.items():
        road[name] = {**road.get(name, {}), **value} if isinstance(value, dict) else value
    if road.get("scorers", GRADER)["mine"].get("path") == "MODEL":
        road["scorers"] = graded_by(own_files / "model")
    with pytest.raises(PlauditError, match=says):
        loop.run(recipe_from(road), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_reward_that_is_no_number_stops_before_the_policy_moves(own_road, tmp_path, no_report):
    """The error names the prompt; what was done before is kept, and the same call comes to the same error."""
    grader = tiny_model("llama", reward=True)
    grader.score.weight.data[:] = float("nan")
    grader.save_pretrained(tmp_path / "grader")
    tiny_tokenizer().save_pretrained(tmp_path / "grader")
    recipe = recipe_from(own_road(language=None, reward=None, scorers=graded_by(tmp_path / "grader")))
    for _ in range(2):
        with pytest.raises(NumberError, match=r"the reward of answer 0 to prompt \w+ is nan"):
            loop.run(recipe, tmp_path / "run")
    assert stages(tmp_path / "run") == ["sft"]
    assert policy_lines(tmp_path / "run") == []
