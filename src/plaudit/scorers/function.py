"""A person's own Python function, named `file.py:function`, as a scorer."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import ScorerError
from plaudit.records import Group, Prompt
from plaudit.scorers.seam import Scores, arranged, pairs

__all__ = ["OwnFunctionScorer", "load_function"]


def load_function(path: str, *called_with: str) -> Callable[..., Any]:
    """The function that `file.py:function` names; the file is run once, as a module of its own.

    Args:
        path: the file, seen from the working directory, and the function's name.
        called_with: what each of its arguments will be, for messages.

    Raises:
        ScorerError: there is no such file or function, the file fails, or the function takes other arguments.
    """
    file, _, name = path.rpartition(":")
    if not Path(file).is_file():
        raise ScorerError(f"{path}: there is no file {file!r} here, in {Path.cwd()}")
    module_name = "plaudit_own_" + hashlib.sha256(str(Path(file).resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ScorerError(f"{path}: {file!r} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ScorerError(f"{path}: the file fails as it is loaded: {_said(error)}") from error
    function: Callable[..., Any] | None = getattr(module, name, None)
    if function is None or not callable(function):
        raise ScorerError(f"{path}: {file!r} holds no function {name!r}")
    try:
        inspect.signature(function).bind(*called_with)
    except TypeError as error:
        raise ScorerError(
            f"{path}: is called with {' and '.join(called_with)}, but takes other arguments: {error}"
        ) from error
    return function


class OwnFunctionScorer:
    """Scores answers with `function(prompt, answer text) -> number`, or with a batched one.

    Args:
        path: `file.py:function`.
        batch: the function takes a list of (prompt, answer text), and returns as many numbers.

    Raises:
        ScorerError: see `load_function`.
    """

    def __init__(self, path: str, *, batch: bool = False) -> None:
        self.path = path
        self.batch = batch
        called_with = ("a list of prompts with answers' texts",) if batch else ("a prompt", "an answer's text")
        self.function = load_function(path, *called_with)

    def score(self, groups: Sequence[Group]) -> Scores:
        """What the function says of each answer.

        Raises:
            ScorerError: it fails, or returns what is no number; names the prompt.
        """
        texts = [(prompt, answer.text) for prompt, answer in pairs(groups)]
        values = self._all_at_once(texts) if self.batch else [self._one(prompt, text) for prompt, text in texts]
        return Scores(value_PG=arranged(values, groups))

    def _one(self, prompt: Prompt, text: str) -> float:
        try:
            value = self.function(prompt, text)
        except (Exception, SystemExit) as error:
            raise ScorerError(f"{self.path}: {_said(error)}, on {_about(prompt, text)}") from error
        return self._number(value, prompt, text)

    def _all_at_once(self, texts: list[tuple[Prompt, str]]) -> list[float]:
        if not texts:
            return []
        where = f"{len(texts)} answers, the first to prompt {texts[0][0].id}"
        try:
            values = list(self.function(texts))
        except (Exception, SystemExit) as error:
            raise ScorerError(f"{self.path}: {_said(error)}, on {where}") from error
        if len(values) != len(texts):
            raise ScorerError(f"{self.path}: returned {len(values)} numbers for {where}")
        return [self._number(value, *text) for value, text in zip(values, texts, strict=True)]

    def _number(self, value: Any, prompt: Prompt, text: str) -> float:
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ScorerError(
                f"{self.path}: must return a number, returned {value!r:.60} for {_about(prompt, text)}"
            ) from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _about(prompt: Prompt, text: str) -> str:
    return f"an answer to prompt {prompt.id}: {text[:60]!r}"
