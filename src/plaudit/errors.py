"""Every error that Plaudit raises on purpose.

    PlauditError
    ├── RecordError    a record or a file of records is not what it claims to be
    ├── RecipeError    a setting is unknown, out of range, or contradicts another one
    ├── TextError      words cannot become tokens as asked (no template, prompt too long)
    ├── ModelError     a model cannot be loaded, or does not do what the stage needs
    ├── ShapeError     tensors that must agree in shape do not
    ├── NumberError    a loss, a reward or a gradient is NaN or infinite
    ├── ScorerError    a function or a service that grades answers fails, or does not answer as agreed
    └── RunError       a run folder is missing, finished, or belongs to another recipe

Each is also the standard error that it refines, so that plain `except ValueError` works. None has an
`__init__` of its own: errors cross process borders by pickle.
"""

from __future__ import annotations

__all__ = [
    "ModelError",
    "NumberError",
    "PlauditError",
    "RecipeError",
    "RecordError",
    "RunError",
    "ScorerError",
    "ShapeError",
    "TextError",
]


class PlauditError(Exception):
    """Base of every error that this library raises on purpose."""


class RecordError(PlauditError, ValueError):
    """A record, or a file of records, is not what it claims to be."""


class RecipeError(PlauditError, ValueError):
    """A setting is unknown, out of range, or contradicts another one."""


class TextError(PlauditError, ValueError):
    """Words cannot become tokens as asked."""


class ModelError(PlauditError, RuntimeError):
    """A model cannot be loaded, or cannot do what a stage needs of it."""


class ShapeError(PlauditError, ValueError):
    """Tensors that must agree in shape do not."""


class NumberError(PlauditError, ArithmeticError):
    """A loss, a reward or a gradient is NaN or infinite."""


class ScorerError(PlauditError, RuntimeError):
    """A function or a service that grades answers fails, or does not answer as agreed."""


class RunError(PlauditError, RuntimeError):
    """A run folder is missing, finished, or belongs to another recipe."""
