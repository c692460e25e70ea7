"""The loop of every stage: checkpoints, interruption, going on with the same bits."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from itertools import count

import pytest
import torch

from plaudit.batch import pack
from plaudit.errors import RunError
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Optimiser, Recipe
from plaudit.runs import Run
from plaudit.testing.tiny import tiny_model
from plaudit.training.learner import ModelLearner, Part
from plaudit.training.objectives import LanguageLoss, TextBatch
from plaudit.training.stage import minibatch_indices, run_steps

CPU = Machine(device=torch.device("cpu"), bf16=False)
RECIPE = Recipe.model_validate({"world": {}})
STEPS = 7
TEXTS = [((1, 3), [(4 + i, 5, 2)]) for i in range(10)]


class Tally:
    """A stage's memory: what it has seen."""

    def __init__(self):
        self.seen = 0

    def state(self):
        return {"seen": self.seen}

    def restore(self, state):
        self.seen = state["seen"]


class Stage:
    """A small stage that can be begun again; `trouble` happens inside a step."""

    def __init__(self, folder, *, trouble=None, at=-1, save_every=2, steps=STEPS):
        self.trouble, self.at, self.save_every, self.steps = trouble, at, save_every, steps
        self.run = Run(folder, RECIPE)
        settings = Optimiser(learning_rate=1e-2, warmup=0.3)
        network = LanguageNetwork(tiny_model())
        self.learner = ModelLearner(network, settings, steps=STEPS, machine=CPU, micro_tokens=64)
        self.tally = Tally()
        self.begun: list[int] = []

    def body(self, step):
        self.begun.append(step)
        chosen = [TEXTS[i] for i in minibatch_indices(len(TEXTS), 4, step, seed=1)]
        metrics = self.learner.step(Part(TextBatch(tree=pack(chosen)), LanguageLoss()))
        self.tally.seen += 1
        self.run.keep_samples("test", step, [{"answer": f"line\u2028{step}\x85end"}])
        if step == self.at and self.trouble is not None:
            return self.trouble(metrics)
        return {**metrics, "seen": float(self.tally.seen)}

    def go(self):
        try:
            run_steps(
                self.run, "test", self.learner, self.steps, self.body, save_every=self.save_every, memory=self.tally
            )
        finally:
            self.run.close()
        return self

    def weights(self):
        return {name: tensor.clone() for name, tensor in self.learner.weights().items()}


def lines(folder, name):
    text = (folder / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.split("\n")[:-1]]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Weights and logs of a stage that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    weights = Stage(folder).go().weights()
    return weights, lines(folder, "metrics.jsonl"), lines(folder, "samples.jsonl")


def check_same(stage, folder, straight):
    weights, metrics, samples = straight
    for name, tensor in stage.weights().items():
        assert torch.equal(tensor, weights[name])
    assert lines(folder, "metrics.jsonl") == metrics
    assert lines(folder, "samples.jsonl") == samples


def press_once(metrics):
    signal.raise_signal(signal.SIGINT)
    return metrics | {"seen": 4.0}


def press_twice(metrics):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("the second Ctrl-C acts at once")


def fall(metrics):
    raise RuntimeError("power cut")


def test_a_stage_logs_every_step(straight):
    _, metrics, samples = straight
    assert [line["step"] for line in metrics] == list(range(STEPS))
    assert [line["test/seen"] for line in metrics] == list(range(1, STEPS + 1))
    assert {"stage", "step", "test/loss", "test/learning_rate", "test/gradient_norm/policy"} < metrics[0].keys()
    assert len(samples) == STEPS


def test_ctrl_c_finishes_the_step_and_saves(tmp_path, straight):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path, trouble=press_once, at=3, save_every=100).go()
    assert signal.getsignal(signal.SIGINT) is before
    assert len(lines(tmp_path, "metrics.jsonl")) == 4  # steps 0 to 3, the interrupted one too
    again = Stage(tmp_path).go()
    assert again.begun == [4, 5, 6]
    check_same(again, tmp_path, straight)


def test_a_second_ctrl_c_acts_at_once(tmp_path, straight):
    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path, trouble=press_twice, at=3).go()
    again = Stage(tmp_path).go()
    assert again.begun == [2, 3, 4, 5, 6]
    check_same(again, tmp_path, straight)


def test_ctrl_c_in_the_last_step_loses_nothing(tmp_path, straight):
    weights, _, samples = straight
    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path, trouble=press_once, at=STEPS - 1).go()
    again = Stage(tmp_path).go()
    assert again.begun == []
    for name, tensor in again.weights().items():
        assert torch.equal(tensor, weights[name])
    assert lines(tmp_path, "samples.jsonl") == samples


@pytest.mark.parametrize("at", [0, 1, 2, 4, 5, 6])
def test_a_fall_anywhere_leaves_the_last_checkpoint(tmp_path, straight, at):
    with pytest.raises(RuntimeError, match="power cut"):
        Stage(tmp_path, trouble=fall, at=at).go()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "test", "step": 6, "se')  # the line under way was torn
    again = Stage(tmp_path).go()
    assert again.begun[0] == min(at - at % 2, STEPS - 1)
    check_same(again, tmp_path, straight)


def test_a_stage_that_ends_early_keeps_what_it_has(tmp_path):
    stage = Stage(tmp_path, trouble=lambda metrics: None, at=3).go()
    assert stage.begun == [0, 1, 2, 3]
    assert len(lines(tmp_path, "metrics.jsonl")) == 3
    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path / "other", trouble=lambda metrics: signal.raise_signal(signal.SIGINT), at=3).go()


def test_a_full_disk_is_said_and_the_last_checkpoint_stays(tmp_path, straight, monkeypatch):
    """What safetensors says when a disk is full is no OSError."""
    from safetensors import SafetensorError

    stage, calls = Stage(tmp_path), count()
    save = stage.learner.save

    def full(folder):
        if next(calls) == 1:
            (folder / "weights.safetensors").write_bytes(b"torn")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save(folder)

    monkeypatch.setattr(stage.learner, "save", full)
    with pytest.raises(
        RunError, match=r"the disk of .* is full \(\d+ MiB free\): make room and start the same command"
    ):
        stage.go()
    assert stage.begun == [0, 1, 2, 3]
    again = Stage(tmp_path).go()
    assert again.begun == [2, 3, 4, 5, 6]
    check_same(again, tmp_path, straight)


def test_it_runs_outside_the_main_thread_too(tmp_path, straight):
    stage = Stage(tmp_path)
    thread = threading.Thread(target=stage.go)
    thread.start()
    thread.join()
    check_same(stage, tmp_path, straight)


@pytest.mark.parametrize(("items", "size"), [(10, 3), (4, 4), (3, 7), (5, 1)])
def test_every_epoch_sees_every_item_once(items, size):
    drawn = [i for step in range(items * 2) for i in minibatch_indices(items, size, step, seed=5)]
    assert len(drawn) == 2 * items * size
    epochs = [tuple(drawn[start : start + items]) for start in range(0, len(drawn), items)]
    assert all(Counter(epoch) == Counter(range(items)) for epoch in epochs)
    if items > 4:
        assert len(set(epochs)) > 1  # each in an order of its own
        assert minibatch_indices(items, items, 0, seed=5) != minibatch_indices(items, items, 0, seed=6)


def test_the_first_epoch_may_have_a_given_order():
    """The step that reaches into the second epoch too takes the last of it: all are seen before one is seen twice."""
    opening = [4, 2, 0, 1, 3]
    drawn = [i for step in range(5) for i in minibatch_indices(5, 2, step, seed=5, opening=opening)]
    assert drawn[:5] == opening
    assert drawn[5:] == minibatch_indices(5, 5, 1, seed=5)
