"""Trackers: what is logged can be read back, and a missing package is named with the extra that brings it."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import RecipeError
from plaudit.recipe import Tracking
from plaudit.runs.trackers import open_trackers


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw from a folder of event files."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_no_tracker_is_a_tracker_that_keeps_nothing(tmp_path):
    with open_trackers(Tracking(), tmp_path) as trackers:
        trackers.log("sft", 1, {"loss": 1.0})
    assert len(trackers) == 0
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    with open_trackers(Tracking(to=("tensorboard",)), tmp_path) as trackers:
        trackers.log("sft", 1, {"loss": 2.5})
        trackers.log("policy", 1, {"policy/reward": 0.25, "policy/kl": 1.0})
        trackers.log("policy", 2, {"policy/reward": 0.5})
    assert curves(tmp_path / "tensorboard" / "sft") == {"sft/loss": [(1, 2.5)]}
    assert curves(tmp_path / "tensorboard" / "policy") == {
        "policy/reward": [(1, 0.25), (2, 0.5)],
        "policy/kl": [(1, 1.0)],
    }


def test_a_stage_that_resumes_replaces_the_steps_it_makes_again(tmp_path):
    for first, value in ((1, 0.0), (3, 9.0)):  # interrupted after step 4, gone on from the checkpoint of step 2
        with open_trackers(Tracking(to=("tensorboard",)), tmp_path) as trackers:
            for step in range(first, 5):
                trackers.log("sft", step, {"loss": value})
    assert curves(tmp_path / "tensorboard" / "sft") == {"sft/loss": [(1, 0.0), (2, 0.0), (3, 9.0), (4, 9.0)]}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_named_with_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # what `import` sees where a package is not installed
    with pytest.raises(RecipeError, match=rf"tracking\.to: {name} .*pip install 'plaudit\[{name}\]'"):
        open_trackers(Tracking(to=(name,)), tmp_path)


class FakeRun:
    """Keeps what W&B or trackio would have been told."""

    def __init__(self, **asked: Any) -> None:
        self.asked = asked
        self.axes: dict[str, str | None] = {}
        self.logged: list[tuple[int | None, dict[str, float]]] = []
        self.finished = False

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged.append((step, metrics))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def started(monkeypatch):
    """Put fakes in place of both packages; the list holds every run that they start."""
    runs: list[FakeRun] = []

    def init(**asked: Any) -> FakeRun:
        runs.append(FakeRun(**asked))
        return runs[-1]

    for name in ("wandb", "trackio"):
        module = types.ModuleType(name)
        monkeypatch.setattr(module, "init", init, raising=False)
        monkeypatch.setitem(sys.modules, name, module)
    return runs


def test_wandb_draws_each_stage_over_its_own_steps_and_stays_offline(started, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.yaml").write_text("seed: 3\n")
    with open_trackers(Tracking(to=("wandb",), project="mine"), tmp_path / "demo") as trackers:
        trackers.log("sft", 7, {"loss": 2.0})
        trackers.log("policy", 1, {"policy/reward": 0.5})
    (run,) = started
    assert run.asked["mode"] == "offline"
    assert (run.asked["project"], run.asked["name"], run.asked["config"]) == ("mine", "demo", {"seed": 3})
    assert run.axes == {"sft/step": None, "sft/*": "sft/step", "policy/step": None, "policy/*": "policy/step"}
    assert run.logged == [
        (None, {"sft/step": 7, "sft/loss": 2.0}),
        (None, {"policy/step": 1, "policy/reward": 0.5}),
    ]
    assert run.finished


def test_wandb_goes_on_with_the_run_of_its_folder(started, tmp_path):
    for folder in ("one", "one", "two"):
        with open_trackers(Tracking(to=("wandb",)), tmp_path / folder) as trackers:
            trackers.log("sft", 1, {"loss": 1.0})
    first, again, other = (run.asked["id"] for run in started)
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_with_nothing_left_to_do_leaves_no_trace(name, started, tmp_path):
    open_trackers(Tracking(to=(name,)), tmp_path / "demo").close()
    assert started == []
    assert not (tmp_path / "demo").exists()


def test_trackio_gets_the_steps(started, tmp_path):
    with open_trackers(Tracking(to=("trackio",)), tmp_path / "demo") as trackers:
        trackers.log("sft", 7, {"loss": 2.0})
    (run,) = started
    assert run.asked["name"] == "demo-" + (tmp_path / "demo" / "tracking-id").read_text()
    assert run.asked["resume"] == "allow"
    assert run.logged == [(7, {"sft/loss": 2.0})]
    assert run.finished
