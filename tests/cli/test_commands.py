"""Every command: its help, what it passes on, its messages and its exit code."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import plaudit
from plaudit import recipe
from plaudit.cli import app
from plaudit.demo import demo_recipe
from plaudit.errors import NumberError
from plaudit.recipe import Recipe, Sampling, load_recipe

STAGES = ("language", "sft", "reward", "policy")
COMMANDS = [
    *([name] for name in ("demo", "init", "run", *STAGES, "sample", "score", "report", "chat")),
    *(["data"], ["data", "check"], ["evaluate"], ["evaluate", "policy"], ["evaluate", "reward"]),
    *(["export"], ["export", "reward"]),
]
WORLD = "world: {}\nmodel: {path: mine}\nsft: {epochs: 2}\n"


class Rooms:
    """Stands in for `plaudit.loop` and `plaudit.tasks`: keeps what it is asked, or raises what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fails: BaseException | None = None

    def run(self, recipe: Recipe, folder: Path, *, fresh: bool = False, only: str | None = None) -> dict[str, object]:
        self.calls.append(("run", {"recipe": recipe, "folder": folder, "fresh": fresh, "only": only}))
        if self.fails is not None:
            raise self.fails
        return {}

    def show_summary(self, folder: Path) -> None:
        self.calls.append(("show_summary", {"folder": folder}))

    def sample_file(
        self,
        model: Path,
        prompts: Path,
        out: Path,
        *,
        sampling: Sampling,
        answers: int,
        seed: int,
        best_by: Path | None = None,
        cut_prompts: bool = False,
    ) -> int:
        asked = {"model": model, "prompts": prompts, "out": out, "sampling": sampling, "answers": answers}
        self.calls.append(("sample_file", asked | {"seed": seed, "best_by": best_by, "cut_prompts": cut_prompts}))
        return 6

    def score_file(self, model: Path, answers: Path, out: Path, *, cut_prompts: bool = False) -> int:
        asked = {"model": model, "answers": answers, "out": out, "cut_prompts": cut_prompts}
        self.calls.append(("score_file", asked))
        return 3

    def evaluate_reward(
        self,
        model: Path,
        files: Sequence[Path],
        out: Path,
        *,
        answers: Path | None,
        by: Sequence[str],
        probes: int,
        cut_prompts: bool,
        skip_bad: bool,
        columns: Mapping[str, str] | None = None,
        quality: str | None = None,
    ) -> dict[str, Any]:
        asked = {"model": model, "files": list(files), "out": out, "answers": answers, "by": tuple(by)}
        asked |= {"probes": probes, "cut_prompts": cut_prompts, "skip_bad": skip_bad}
        asked |= {"columns": columns, "quality": quality}
        self.calls.append(("evaluate_reward", asked))
        return {"accuracy": 0.5}

    def show_reward_evaluation(self, found: dict[str, Any], out: Path) -> None:
        self.calls.append(("show_reward_evaluation", {"found": found, "out": out}))

    def export(self, model: Path, out: Path, to: str) -> float:
        self.calls.append(("export", {"model": model, "out": out, "to": to}))
        return -0.5


@pytest.fixture
def rooms(monkeypatch) -> Rooms:
    rooms = Rooms()
    for name in ("loop", "tasks"):
        monkeypatch.setattr(plaudit, name, rooms, raising=False)
    return rooms


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("loop", "run"),
        *(("tasks", name) for name in ("show_summary", "sample_file", "score_file", "export")),
        *(("tasks", name) for name in ("evaluate_reward", "show_reward_evaluation")),
    ],
)
def test_the_stand_in_has_the_signatures_of_the_real_ones(module, name):
    real = inspect.signature(getattr(importlib.import_module(f"plaudit.{module}"), name))
    ours = inspect.signature(getattr(Rooms(), name))
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in real.parameters.values()
    ]


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(WORLD)
    return path


def plaudit_(*words: object, columns: int = 160):
    """Run the command line in this process."""
    return CliRunner(env={"COLUMNS": str(columns), "TERM": "dumb"}).invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=lambda command: " ".join(command) or "plaudit")
def test_every_command_has_help(command):
    result = plaudit_(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("stage", STAGES)
def test_the_help_of_a_stage_shows_every_setting_with_its_default(stage):
    output = plaudit_(stage, "--help").output
    rows = {row.split()[1]: row for row in output.splitlines() if row.startswith(f"│ {stage}.")}
    names = [name for name, _, _ in recipe.settings(getattr(recipe, stage.capitalize()), f"{stage}.")]
    assert list(rows) == names
    default = getattr(recipe, stage.capitalize())().optimiser.learning_rate
    assert f" {default} " in rows[f"{stage}.optimiser.learning_rate"]
    assert "Step size at its peak." in rows[f"{stage}.optimiser.learning_rate"]


def test_the_help_of_run_shows_every_setting_there_is():
    output = plaudit_("run", "--help").output
    shown = [row.split()[1] for row in output.splitlines() if row.startswith("│ ") and len(row.split()) > 2]
    assert [name for name, _, _ in recipe.settings(Recipe) if name not in shown] == []


def test_a_narrow_terminal_loses_no_name():
    assert "policy.optimiser.learning_rate" in plaudit_("policy", "--help", columns=70).output


def test_run_goes_the_whole_road(rooms, recipe_file, tmp_path):
    result = plaudit_("run", recipe_file, "--out", tmp_path / "out", "--set", "sft.epochs=3", "--set", "seed=7")
    assert result.exit_code == 0, result.output
    (_, asked), (shown, folder) = rooms.calls
    assert asked == {
        "recipe": load_recipe(recipe_file, ["sft.epochs=3", "seed=7"]),
        "folder": tmp_path / "out",
        "fresh": False,
        "only": None,
    }
    assert (shown, folder) == ("show_summary", {"folder": tmp_path / "out"})


def test_the_run_folder_is_named_after_the_recipe(rooms, recipe_file):
    assert plaudit_("run", recipe_file, "--fresh").exit_code == 0
    assert rooms.calls[0][1]["folder"] == Path("runs/mine")
    assert rooms.calls[0][1]["fresh"] is True


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_alone(rooms, recipe_file, stage):
    assert plaudit_(stage, recipe_file).exit_code == 0
    (_, asked) = rooms.calls[0]
    assert (asked["only"], asked["folder"]) == (stage, Path("runs") / f"mine-{stage}")


def test_demo(rooms, tmp_path):
    result = plaudit_("demo", "--out", tmp_path, "--seed", 3, "--quick", "--threads", 2)
    assert result.exit_code == 0, result.output
    recipe = demo_recipe(seed=3, quick=True, threads=2)
    assert rooms.calls == [
        ("run", {"recipe": recipe, "folder": tmp_path, "fresh": False, "only": None}),
        ("show_summary", {"folder": tmp_path}),
    ]


def test_a_stage_alone_takes_what_another_made_in_place_of_making_it(rooms, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("world: {}\nsft: {}\ncollect: {}\nreward: {}\npolicy: {}\n")
    result = plaudit_(
        "policy", path, "--set", "scorers.mine={kind: model, path: made/reward-model}", "--set", "model.path=made/sft"
    )
    assert result.exit_code == 0, result.output
    recipe = rooms.calls[0][1]["recipe"]
    assert [recipe.sft, recipe.collect, recipe.reward] == [None] * 3
    assert recipe.scorers["mine"].path == "made/reward-model"
    assert plaudit_("policy", path).exit_code == 1  # which says that there is no reward


def test_an_unknown_setting_names_the_nearest_one(rooms, recipe_file):
    result = plaudit_("run", recipe_file, "--set", "polcy.kl.betta=0.1", "--set", "sft.epochs=-1")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "unknown setting polcy (did you mean policy?)" in result.stderr
    assert "sft.epochs: input should be greater than 0, found -1" in result.stderr
    assert "Traceback" not in result.stderr
    assert rooms.calls == []  # nothing has started


def test_a_recipe_that_is_not_there(rooms, tmp_path):
    result = plaudit_("run", tmp_path / "none.yaml")
    assert result.exit_code == 1
    assert "none.yaml: no such recipe; `plaudit init` writes one" in result.stderr


def test_an_error_of_ours_is_one_message(rooms, recipe_file):
    rooms.fails = NumberError("policy step 3: the reward of prompt 'p7' is nan")
    result = plaudit_("run", recipe_file)
    assert result.exit_code == 1
    assert result.stderr == "plaudit: policy step 3: the reward of prompt 'p7' is nan\n"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NotADirectoryError(20, "Not a directory", "plain/x"), "plain/x: Not a directory"),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device")]), "No space left on device"),
    ],
)
def test_what_the_system_refuses_is_one_message(rooms, recipe_file, error, says):
    rooms.fails = error
    result = plaudit_("run", recipe_file)
    assert result.exit_code == 1
    assert result.stderr.startswith("plaudit: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


def test_a_folder_is_no_recipe(rooms, tmp_path):
    result = plaudit_("run", tmp_path)
    assert result.exit_code == 1
    assert "cannot be read as a recipe: Is a directory" in result.stderr


def test_an_error_of_nobody_keeps_its_traceback(rooms, recipe_file):
    rooms.fails = ZeroDivisionError("a mistake of ours")
    assert isinstance(plaudit_("run", recipe_file).exception, ZeroDivisionError)


def test_ctrl_c_says_how_to_go_on(rooms, recipe_file, monkeypatch):
    rooms.fails = KeyboardInterrupt()
    monkeypatch.setattr(sys, "argv", ["/bin/plaudit", "run", "my recipe.yaml", "--fresh", "--set", "seed=1"])
    result = plaudit_("run", recipe_file)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "Stopped. Go on with: plaudit run 'my recipe.yaml' --set seed=1"


def test_a_command_line_that_cannot_be_read():
    result = plaudit_("rnu", "recipe.yaml")
    assert result.exit_code == 2
    assert "Did you mean 'run'" in result.stderr


def make_run(folder: Path, *models: str) -> Path:
    """A run folder with these models in it, as far as the command line looks."""
    for name in models:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(WORLD)
    return folder


@pytest.mark.parametrize(
    ("models", "options", "taken"),
    [
        (("language", "sft", "policy"), [], "policy"),
        (("language", "sft"), [], "sft"),
        (("language", "sft", "policy"), ["--stage", "sft"], "sft"),
    ],
)
def test_sample_takes_the_newest_model_of_a_run(rooms, tmp_path, models, options, taken):
    run, prompts = make_run(tmp_path / "run", *models), tmp_path / "prompts.txt"
    prompts.write_text("Once")
    result = plaudit_("sample", run, prompts, "--out", tmp_path / "o.jsonl", "--temperature", 0.5, *options)
    assert result.exit_code == 0, result.output
    assert rooms.calls == [
        (
            "sample_file",
            {
                "model": run / taken,
                "prompts": prompts,
                "out": tmp_path / "o.jsonl",
                "sampling": Sampling(temperature=0.5),  # so the options' defaults are the recipe's
                "answers": 1,
                "seed": 0,
                "best_by": None,
                "cut_prompts": False,
            },
        )
    ]
    assert "6 answers" in result.stdout


def test_the_best_answers_are_by_the_reward_model_of_a_run(rooms, tmp_path):
    run, prompts = make_run(tmp_path / "run", "policy", "reward-model"), tmp_path / "prompts.txt"
    prompts.write_text("Once")
    result = plaudit_("sample", run, prompts, "--out", tmp_path / "o.jsonl", "--answers", 4, "--best-by", run)
    assert result.exit_code == 0, result.output
    ((_, asked),) = rooms.calls
    assert (asked["model"], asked["best_by"], asked["answers"]) == (run / "policy", run / "reward-model", 4)


def test_a_model_folder_is_taken_as_it_is(rooms, tmp_path):
    run, answers = make_run(tmp_path / "run", "reward-model"), tmp_path / "answers.jsonl"
    answers.write_text("")
    for folder in (run, run / "reward-model"):
        assert plaudit_("score", folder, answers, "--out", tmp_path / "o.jsonl").exit_code == 0
    assert [asked["model"] for _, asked in rooms.calls] == [run / "reward-model"] * 2


def test_a_run_without_the_model(rooms, tmp_path):
    run, answers = make_run(tmp_path / "run", "sft"), tmp_path / "answers.jsonl"
    answers.write_text("")
    result = plaudit_("score", run, answers, "--out", tmp_path / "o.jsonl")
    assert result.exit_code == 1
    assert "run holds no model: there is no config.json in it, nor in reward-model below it" in result.stderr


def test_sampling_options_are_checked_before_anything_loads(rooms, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Once")
    result = plaudit_("sample", tmp_path, prompts, "--out", tmp_path / "o.jsonl", "--top-p", 1.5)
    assert result.exit_code == 2
    assert "--top-p" in result.stderr


def test_evaluate_reads_the_recipe_of_the_run(rooms, tmp_path):
    run = make_run(tmp_path / "run", "policy")
    assert plaudit_("evaluate", "policy", run).exit_code == 0
    asked = {"recipe": load_recipe(run / "config.yaml"), "folder": run, "fresh": False, "only": "evaluate"}
    assert rooms.calls == [("run", asked), ("show_summary", {"folder": run})]


def test_evaluate_reward_tests_the_runs_reward_model(rooms, tmp_path):
    run = make_run(tmp_path / "run", "reward-model")
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for file in (one, two):
        file.write_text("")
    assert plaudit_("evaluate", "reward", run, one, two).exit_code == 0
    out = run / "reward-model" / "evaluation"
    asked = {"model": run / "reward-model", "files": [one, two], "out": out, "answers": None, "by": ()}
    asked |= {"probes": 200, "cut_prompts": False, "skip_bad": False, "columns": {}, "quality": None}
    shown = ("show_reward_evaluation", {"found": {"accuracy": 0.5}, "out": out})
    assert rooms.calls == [("evaluate_reward", asked), shown]


def test_every_option_of_evaluate_reward(rooms, tmp_path):
    run, file, out = make_run(tmp_path / "run", "reward-model"), tmp_path / "one.jsonl", tmp_path / "out"
    file.write_text("")
    options = ["--by", "topic", "--by", "who", "--no-probes", "--answers", file, "--cut-prompts", "--skip-bad"]
    options += ["--column", "prompt=wish", "--column", "chosen=good", "--quality", "kind"]
    result = plaudit_("evaluate", "reward", run, file, "--out", out, *options)
    assert result.exit_code == 0, result.output
    (_, asked), _ = rooms.calls
    wanted = {"out": out, "answers": file, "by": ("topic", "who"), "probes": 0, "cut_prompts": True, "skip_bad": True}
    wanted |= {"columns": {"prompt": "wish", "chosen": "good"}, "quality": "kind"}
    assert asked == {"model": run / "reward-model", "files": [file], **wanted}


def test_evaluate_reward_needs_a_file(tmp_path):
    run = make_run(tmp_path / "run", "reward-model")
    assert plaudit_("evaluate", "reward", run).exit_code == 2
    assert plaudit_("evaluate", "reward", run, tmp_path / "none.jsonl").exit_code == 2


def test_export_says_what_to_add(rooms, tmp_path):
    run = make_run(tmp_path / "run", "reward-model")
    result = plaudit_("export", "reward", run, tmp_path / "out", "--to", "vllm")
    assert result.exit_code == 0, result.output
    assert rooms.calls == [("export", {"model": run / "reward-model", "out": tmp_path / "out", "to": "vllm"})]
    assert "the reward is its score -0.5" in result.stdout
    assert plaudit_("export", "reward", run, tmp_path / "out").exit_code == 2  # to whom?
    assert plaudit_("export", "reward", run, tmp_path / "out", "--to", "nobody").exit_code == 2


@pytest.mark.parametrize("command", [["evaluate", "policy"], ["report"], ["chat"]])
def test_a_folder_that_is_no_run(command, tmp_path):
    result = plaudit_(*command, tmp_path)
    assert result.exit_code == 1
    assert "is not a run folder: it has no config.yaml" in result.stderr


SLOW_RUN = """
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
import plaudit
from plaudit.cli import main
def run(*args, **kwargs):
    print("running", flush=True)
    time.sleep(60)
plaudit.loop = plaudit.tasks = types.SimpleNamespace(run=run)
sys.argv = ["plaudit", "run", sys.argv[1], "--fresh"]
main()
"""


def test_a_real_ctrl_c_ends_the_process_with_130(recipe_file):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, str(recipe_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["", f"Stopped. Go on with: plaudit run {recipe_file}"]


_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "used"), [({}, "3000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"GOMP_SPINCOUNT": "7"}, "7")]
)
def test_threads_soon_wait_asleep_unless_told_otherwise(given, used):
    script = """
import atexit, os, sys
atexit.register(lambda: print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules, file=sys.stderr))
sys.argv = ["plaudit", "--help"]
from plaudit.cli import main
main()
"""
    others = {name: value for name, value in os.environ.items() if name not in _WAITING}
    result = subprocess.run([sys.executable, "-c", script], env={**others, **given}, capture_output=True, text=True)
    assert result.stderr.split() == [used, "False"]  # torch reads it as it is loaded
