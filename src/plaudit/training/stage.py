"""What every stage of gradient steps shares: the loop with its log, checkpoints, progress and interruption."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any, Protocol

import numpy as np

from plaudit.batch import TokenTree
from plaudit.runs import Run
from plaudit.runs.progress import progress, say
from plaudit.seeds import derive
from plaudit.training.learner import Learner

__all__ = ["Memory", "group_order", "minibatch_indices", "run_steps"]


class Memory(Protocol):
    """What a stage must remember besides the learner, as JSON values."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        ...


class _Nothing:
    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        del state


def run_steps(
    run: Run,
    stage: str,
    learner: Learner,
    steps: int,
    body: Callable[[int], dict[str, float] | None],
    *,
    save_every: int,
    memory: Memory | None = None,
    watch: str = "loss",
) -> None:
    """Run a stage's steps, from its latest checkpoint if there is one.

    Args:
        run: where log and checkpoints go.
        stage: its name.
        learner: what is saved and loaded.
        steps: how many there are in all.
        body: does one step and returns its metrics (None ends the stage early); every random draw in it must be a
            function of the step.
        save_every: steps between two checkpoints.
        memory: what else the stage must remember.
        watch: the metric that the progress bar shows.

    Raises:
        KeyboardInterrupt: somebody pressed Ctrl-C; the step under way was finished and saved first.
        RunError: the disk is full; the last checkpoint is still there.
    """
    memory = memory or _Nothing()
    first, spent = 0, 0.0
    checkpoint = run.latest(stage)
    if checkpoint is not None:
        learner.load(checkpoint.folder)
        memory.restore(checkpoint.state)
        first, spent = checkpoint.step, checkpoint.seconds
        say(f"{stage}: going on from step {first} of {steps}")
    run.rewind(stage, first)
    begun = time.perf_counter() - spent
    with _interruptible() as interrupted, progress(stage, steps, first) as advance:
        for step in range(first, steps):
            start = time.perf_counter()
            metrics = body(step)
            if metrics is None:
                if interrupted():
                    raise KeyboardInterrupt
                break
            run.log(stage, step, {f"{stage}/{k}": v for k, v in metrics.items()}, seconds=time.perf_counter() - start)
            advance(1, f"{watch} {metrics[watch]:.3f}" if watch in metrics else "")
            last = step + 1 == steps
            if interrupted() or ((step + 1) % save_every == 0 and not last):
                run.save(stage, step + 1, learner.save, memory.state(), seconds=time.perf_counter() - begun)
            if interrupted():
                raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that the step under way ends well; the second one acts at once."""
    pressed = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        del number, frame
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        say("interrupted: finishing this step and saving (press again to stop at once)")

    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def minibatch_indices(
    count: int, size: int, step: int, *, seed: int, opening: Sequence[int] | None = None
) -> list[int]:
    """Which of `count` items belong to a step: each epoch in an order of its own, without gaps between epochs.

    Args:
        count: of all items.
        size: of a step.
        step: counted from 0.
        seed: of the orders.
        opening: the order of the first epoch, where it is not drawn.
    """
    first, end = step * size, (step + 1) * size
    found: list[int] = []
    for epoch in range(first // count, -(-end // count)):
        order = opening if opening is not None and epoch == 0 else _epoch_order(count, epoch, seed)
        found += order[max(first - epoch * count, 0) : end - epoch * count]
    return found


def group_order(tree: TokenTree, seed: int) -> list[int]:
    """Answers in a random order of their prompts, those of one prompt side by side: they share its tokens."""
    rows: dict[int, list[int]] = {}
    for row, p in enumerate(tree.prompt_of_answers()):
        rows.setdefault(p, []).append(row)
    return [row for p in minibatch_indices(len(rows), len(rows), 0, seed=seed) for row in rows[p]]


@lru_cache(maxsize=4)
def _epoch_order(count: int, epoch: int, seed: int) -> tuple[int, ...]:
    return tuple(np.random.Generator(np.random.Philox(key=derive(seed, "order", epoch))).permutation(count).tolist())
