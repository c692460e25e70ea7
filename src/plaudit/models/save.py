"""Models into plain folders: written aside and then renamed, each with its tokenizer."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from plaudit.models.lstm import LstmModel
from plaudit.models.packed import bare, body_of
from plaudit.runs.folder import reporting_full_disk

__all__ = ["Setting", "change_config", "save_adapter", "save_model"]

Setting: TypeAlias = float | int | Mapping[str, float | list[float]] | None
"""What a model folder's `config.json` can be told besides."""


def save_model(model: Any, folder: Path, tokenizer: Any, **config: Setting) -> None:
    """Write a plain Transformers folder, aside and then renamed; an adapter is merged into a copy first.

    A sequence classifier gets a pad token that no text ends with, because Transformers reads the score at the last
    token that is not pad; without such a token it gets none, and Transformers takes one text at a time.

    Args:
        config: further values for `config.json`, such as the gain and bias of a reward model and its `reward_scales`.

    Raises:
        RunError: the disk is full; what was in the folder is still there.
    """
    merged = copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
    with _written(folder, model, tokenizer, config) as aside:
        merged.save_pretrained(aside)
        if isinstance(body_of(model), LstmModel):
            (aside / "README.md").write_text(_HOW_TO_LOAD.format(model=type(model).__name__), encoding="utf-8")


def save_adapter(model: Any, folder: Path, tokenizer: Any, *, trunk: str, **config: Setting) -> None:
    """Write what a classifier under an adapter has learned, its head included, and nothing of its trunk.

    It is PEFT's own folder, with the classifier's config and the tokenizer beside it.

    Args:
        trunk: where the trunk will be, such as `../trunk`, as seen from the folder.
        config: as for `save_model`.

    Raises:
        RunError: the disk is full; what was in the folder is still there.
    """
    model.peft_config[model.active_adapter].base_model_name_or_path = trunk
    with _written(folder, model, tokenizer, config) as aside:
        model.save_pretrained(aside, save_embedding_layers=False)  # the trunk keeps them
        _sort_targets(aside / "adapter_config.json")
        bare(model).config.save_pretrained(aside)
        (aside / "README.md").write_text(_HOW_TO_PUT_ON.format(trunk=trunk), encoding="utf-8")


def _sort_targets(path: Path) -> None:
    """Put what PEFT keeps as a set in an order, so that the same run writes the same bytes."""
    config = json.loads(path.read_text("utf-8"))
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


@contextlib.contextmanager
def _written(folder: Path, model: Any, tokenizer: Any, config: Mapping[str, Setting]) -> Iterator[Path]:
    """A folder to write a model into, aside, which then gets its tokenizer and its name."""
    if isinstance(getattr(bare(model), "score", None), nn.Module):  # an encoder takes its padding from the mask alone
        tokenizer = _with_pad_apart(tokenizer)
        config = {"pad_token_id": tokenizer.pad_token_id, **config}
    aside = folder.with_name(folder.name + ".writing")
    shutil.rmtree(aside, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with reporting_full_disk(folder.parent):
        yield aside
        tokenizer.save_pretrained(aside)
        if config:
            change_config(aside, **config)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


_HOW_TO_LOAD = """# An LSTM

Transformers has no such model of its own. Where Plaudit is installed, import it first:

```python
import plaudit.models.lstm
from plaudit.models.lstm import {model}

model = {model}.from_pretrained("path/to/this/folder")
```

From then on Transformers' Auto classes know the folder too. Other software, such as vLLM, cannot load it.
"""


_HOW_TO_PUT_ON = """# An adapter and a head

What was learned on the trunk in `{trunk}`, as PEFT writes it. Without Plaudit:

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

folder = "path/to/this/folder"
trunk = AutoModelForSequenceClassification.from_pretrained(folder + "/{trunk}")
model = PeftModel.from_pretrained(trunk, folder)
```
"""


def change_config(folder: Path, **values: Setting) -> None:
    """Set further values in a model folder's `config.json`, written aside and renamed."""
    path = folder / "config.json"
    aside = path.with_name("config.json.writing")
    aside.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}, indent=2), encoding="utf-8")
    aside.rename(path)


def _with_pad_apart(tokenizer: Any) -> Any:
    """A copy of the tokenizer whose pad token never ends a text: its own, one made for padding, start, byte 0xFF."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    for_padding = [id_ for id_, token in sorted(tokenizer.added_tokens_decoder.items()) if "pad" in str(token).lower()]
    no_text = [vocabulary[name] for name in ("<0xFF>", "\u00ff") if name in vocabulary]  # this byte is in no UTF-8
    no_text = [id_ for id_ in no_text if tokenizer.decode([id_]) == "\ufffd"]
    apart = copy.deepcopy(tokenizer)
    for id_ in (tokenizer.pad_token_id, *for_padding, tokenizer.bos_token_id, *no_text):
        if id_ is not None and id_ != tokenizer.eos_token_id:
            apart.pad_token = tokenizer.convert_ids_to_tokens(id_)
            return apart
    apart.pad_token = None
    return apart
