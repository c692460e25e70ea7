"""Models from a folder or by name, on the device and in the precision that suit the machine."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from plaudit.errors import ModelError
from plaudit.models.lstm import LstmConfig, LstmForCausalLM, LstmForSequenceClassification, LstmModel
from plaudit.models.network import head_of, is_encoder, new_head
from plaudit.models.packed import body_of
from plaudit.recipe import Adapter

__all__ = [
    "Machine",
    "adapted",
    "check_language",
    "check_language_head",
    "check_reward_model",
    "check_suits",
    "choose_machine",
    "context_of",
    "is_lstm",
    "load_language",
    "load_reward",
    "load_rewards",
    "load_tokenizer",
    "loading",
    "new_lstm_language",
    "new_lstm_reward",
    "new_reward",
    "quality_weights",
]

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where and how precisely to compute."""

    device: torch.device
    bf16: bool
    """Compute in bfloat16 under autocast; weights stay in fp32."""

    def computing(self) -> AbstractContextManager[Any]:
        """The context of every forward pass."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def describe(self) -> str:
        """For people: device and precision."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type.upper()
        return f"{name}, {'bfloat16 over fp32 weights' if self.bf16 else 'fp32'}"


def choose_machine(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Machine:
    """The device and precision to use; `auto` takes bfloat16 only where the hardware multiplies in it.

    Raises:
        ModelError: the device that was asked for is not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, present in there.items() if present)
    if not there[device]:
        raise ModelError(f"device {device} is not there; found {', '.join(name for name, ok in there.items() if ok)}")
    fast = {"cuda": device == "cuda" and torch.cuda.is_bf16_supported(), "cpu": _cpu_has_bf16(), "mps": False}[device]
    return Machine(device=torch.device(device), bf16=fast if precision == "auto" else precision == "bf16")


def _cpu_has_bf16() -> bool:
    """Hardware flags, not a timing: a choice that could differ between two runs would break equal bits."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextlib.contextmanager
def loading(path: str) -> Iterator[None]:
    """Turn whatever Transformers makes of a model that cannot be read into one error that says why.

    Raises:
        ModelError: there is no such folder or name, or what is there cannot be read.
    """
    if _is_no_name(path) and not Path(path).exists():
        raise ModelError(f"cannot load {path!r}: no such folder")
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()
        if Path(path).is_dir():
            raise ModelError(
                f"cannot load {path!r}: the folder is there, but its files are no model that can be read "
                f"({reason[0] if reason else type(error).__name__}); it holds {_holds(Path(path))}"
            ) from error
        raise ModelError(
            f"cannot load {path!r}: it is neither a Transformers folder nor a model name that can be fetched "
            f"({reason[0] if reason else type(error).__name__})"
        ) from error


def _is_no_name(path: str) -> bool:
    """Whether it can only be a folder: nothing on a hub is called so, or the folder above it is here."""
    parts = Path(path).parts
    local = len(parts) == 2 and Path(parts[0]).is_dir()
    return path.startswith((".", "~", "/")) or path.endswith("/") or len(parts) > 2 or local


def _holds(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"


def _refuse_missing(path: str, names: Collection[str]) -> None:
    """Transformers draws what is missing at random and goes on."""
    if names:
        raise ModelError(f"{path!r} lacks weights, which would be random: {', '.join(sorted(names)[:3])}")


_SCORING = ("ForSequenceClassification", "ForTokenClassification")


def load_tokenizer(path: str) -> Any:
    """A tokenizer from a folder or by name.

    Raises:
        ModelError: there is none, or it has no end token.
    """
    with loading(path):
        tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:  # an encoder's: [CLS] text [SEP]
        tokenizer.eos_token, tokenizer.bos_token = tokenizer.sep_token, tokenizer.bos_token or tokenizer.cls_token
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {path!r} has no end-of-text token: set eos_token in its folder")
    return tokenizer


def load_language(
    path: str, machine: Machine, *, checkpointing: bool = False, random: bool = False, seed: int = 0
) -> Any:
    """A causal language model in fp32, dropout off, from a folder or by name; `random` takes only its shape.

    Raises:
        ModelError: there is none, it is a reward model, or weights are missing.
    """
    with loading(path), torch.random.fork_rng():
        torch.manual_seed(seed)
        config = _config(path)
        kind = next(iter(config.architectures or ()), "")
        if kind.endswith(_SCORING) and not random:
            raise ModelError(
                f"{path!r} is a reward model or a classifier ({kind}), which writes nothing: name a language model"
            )
        if random:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        else:
            model, info = AutoModelForCausalLM.from_pretrained(
                path, config=config, dtype=torch.float32, output_loading_info=True
            )
            _refuse_missing(path, info["missing_keys"])
    return _ready(model, machine, checkpointing)


_LSTM_SIZE = 256
_NO_ADAPTER = "an LSTM has no layer that LoRA knows: take model.adapter away"
_NO_CHECKPOINTING = "an LSTM cannot recompute activations: set model.checkpointing to false"


def is_lstm(config: Any) -> bool:
    """Whether a model of this config is one of our LSTMs."""
    return isinstance(config, LstmConfig)


def check_suits(path: str, *, adapter: Adapter | None, checkpointing: bool) -> None:
    """Refuse what a model cannot do, its weights not read.

    Raises:
        ModelError: there is no such model, or it is an LSTM under LoRA or with recomputed activations.
    """
    with loading(path):
        config = AutoConfig.from_pretrained(path)
    wrong = [_NO_ADAPTER] * (adapter is not None) + [_NO_CHECKPOINTING] * checkpointing
    if is_lstm(config) and wrong:
        raise ModelError(f"{path!r}: {'; '.join(wrong)}")


def check_language(path: str, why: str) -> None:
    """Refuse an encoder where a language model is needed, its weights not read.

    Args:
        path: a model's folder or name.
        why: the setting that needs it, and what else could be done, for the message.

    Raises:
        ModelError: there is no such model, or it is an encoder.
    """
    with loading(path):
        config = AutoConfig.from_pretrained(path)
    if is_encoder(config):
        raise ModelError(f"{path!r} is an encoder ({config.model_type}), which writes nothing: {why}")


def check_language_head(path: str, *, lstm: bool) -> None:
    """Refuse a model whose head cannot go on writing from a reward model's trunk, its weights not read.

    Args:
        path: the language model.
        lstm: the trunk is a new LSTM, not that model's own.

    Raises:
        ModelError: there is no such model, it is an encoder, or an LSTM's states do not fit its head.
    """
    check_language(path, "reward.language is for decoders: set it to 0")
    config = AutoConfig.from_pretrained(path).get_text_config()
    if lstm and config.hidden_size != _LSTM_SIZE and not config.tie_word_embeddings:
        raise ModelError(
            f"{path!r} writes from states of width {config.hidden_size}, and an LSTM's have {_LSTM_SIZE}: set "
            "reward.language to 0, or reward.start to model"
        )


def check_reward_model(path: str) -> Any:
    """The config of a trained reward model, its weights not read.

    Raises:
        ModelError: there is none, it is a language model, or it has labels without a weight.
    """
    with loading(path):
        config = AutoConfig.from_pretrained(path)
    wrong = config.num_labels != len(quality_weights(config))
    kind = next(iter(config.architectures or ()), "")
    if wrong and kind.endswith(("ForCausalLM", "LMHeadModel")):
        raise ModelError(
            f"{path!r} is a language model ({kind}), which scores nothing: name a reward model, as `plaudit reward` "
            "trains"
        )
    if wrong:
        raise ModelError(
            f"{path!r} has {config.num_labels} labels; a reward model has one, or as many as the reward_weights in its "
            "config.json"
        )
    return config


def quality_weights(config: Any) -> list[float]:
    """The weight of each label in a reward model's reward."""
    return [float(weight) for weight in getattr(config, "reward_weights", None) or [1.0]]


def load_reward(path: str, machine: Machine, *, checkpointing: bool = False) -> tuple[Any, float, float]:
    """A trained reward model: the sequence classifier, and the gain and bias kept in its config.

    What `save_adapter` wrote is merged into its trunk.

    Raises:
        ModelError: there is none, or it has more than one label.
    """
    if _is_adapter(path):
        (model, gain, bias), *_ = load_rewards([path], machine)
        return _ready(model.merge_and_unload(), machine, checkpointing), gain, bias
    gain, bias = _scale(check_reward_model(path))
    return _ready(_classifier(path), machine, checkpointing), gain, bias


def load_rewards(paths: Sequence[str], machine: Machine) -> list[tuple[Any, float, float]]:
    """Several trained reward models, each with its gain and bias.

    Those that `save_adapter` wrote on one trunk are one model with an adapter for each, named by its place in `paths`.

    Raises:
        ModelError: one is not there, or has no trained head.
    """
    if not all(_is_adapter(path) for path in paths) or len({_trunk_of(path) for path in paths}) > 1:
        return [load_reward(path, machine) for path in paths]
    configs = [check_reward_model(path) for path in paths]
    trunk = _classifier(_trunk_of(paths[0]))
    for path in paths:
        if not PeftConfig.from_pretrained(path).modules_to_save:
            raise ModelError(f"{path!r} has no trained score head beside its adapter: its scores would be random")
    with loading(paths[0]), _without_pefts_own_warning():
        model = PeftModel.from_pretrained(trunk, paths[0], adapter_name="0")
        for place, path in enumerate(paths[1:], 1):
            model.load_adapter(path, adapter_name=str(place))
    return [(_ready(model, machine, checkpointing=False), *_scale(config)) for config in configs]


def _is_adapter(path: str) -> bool:
    """Whether a folder holds what `save_adapter` wrote, and no whole model."""
    return (Path(path) / _ADAPTER).exists()


_ADAPTER = "adapter_config.json"


def _trunk_of(path: str) -> str:
    """The model that an adapter belongs to; a path that begins with a dot is seen from the adapter's folder."""
    with loading(path):
        name = str(PeftConfig.from_pretrained(path).base_model_name_or_path)
    return str((Path(path) / name).resolve()) if name.startswith(".") else name


def _classifier(path: str) -> Any:
    with loading(path):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True
        )
    if info["missing_keys"]:
        raise ModelError(
            f"{path!r} has no trained score head, or not all of it: its scores would be random "
            f"({', '.join(sorted(info['missing_keys'])[:3])} missing)"
        )
    return model


def _scale(config: Any) -> tuple[float, float]:
    """Gain and bias."""
    return float(getattr(config, "reward_gain", 1.0)), float(getattr(config, "reward_bias", 0.0))


def new_reward(
    path: str,
    machine: Machine,
    *,
    seed: int,
    head_scale: float = 1.0,
    random: bool = False,
    checkpointing: bool = False,
    qualities: Mapping[str, float] | None = None,
) -> Any:
    """A sequence classifier with a fresh head, on a pretrained trunk or on one drawn at random.

    The trunk may be a decoder, whose head reads the last token, or an encoder (a masked language model), whose head
    reads what the model itself pools. Where a decoder's folder lacks weights that is an error; an encoder's pooler,
    which masked language models do not have, is drawn anew.

    Args:
        path: the trunk's folder or name.
        machine: where it goes.
        seed: of the head.
        head_scale: multiplies its weights.
        random: draw the trunk anew, too.
        checkpointing: compute activations again in the backward pass.
        qualities: what is judged apart, with weights; one label for each.

    Raises:
        ModelError: there is no such model, or its kind has no sequence classifier.
    """
    with loading(path), torch.random.fork_rng():
        torch.manual_seed(seed)
        config = _config(path)
        for name in [name for name in vars(config) if name.startswith("reward_")]:
            delattr(config, name)  # of another head, where the trunk is a reward model's
        config.update(_labels(qualities or {}))
        if random:
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        else:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                path,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a head of other labels, in whose place there will be a fresh one
            )
            own = (*(f"{name}." for name, _ in model.named_children() if name != model.base_model_prefix),)
            lacking = [name for name in info["missing_keys"] if "pooler." not in name]
            lacking += [name for name, *_ in info["mismatched_keys"]]
            _refuse_missing(path, [name for name in lacking if not name.startswith(own)])
    return _with_fresh_head(model, machine, seed, head_scale, checkpointing)


def _labels(qualities: Mapping[str, float]) -> dict[str, Any]:
    """What a config says of one label, or of several by name; a reward model to start from may have had others."""
    names = dict(enumerate(qualities or ["LABEL_0"]))
    weights = {"reward_weights": list(qualities.values())} if qualities else {}
    return {"id2label": names, "label2id": {name: i for i, name in names.items()}, **weights}


def new_lstm_language(tokenizer: Any, machine: Machine, *, seed: int, hidden: int = _LSTM_SIZE) -> Any:
    """An LSTM language model drawn at random for a tokenizer: about a million parameters with 2048 tokens.

    Its embeddings begin ten times as long as those of a reward model. Gates that hardly feel a token learn late: on the
    built-in world 120 steps came to 1.5 nats per token so, and to 5.2 otherwise.

    Args:
        tokenizer: gives the vocabulary.
        machine: where it goes.
        seed: of its weights.
        hidden: size D.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LstmConfig(
            vocab_size=len(tokenizer), hidden_size=hidden, initializer_range=0.5, **_special_ids(tokenizer)
        )
        model = LstmForCausalLM(config)
    return _ready(model, machine, checkpointing=False)


def _special_ids(tokenizer: Any) -> dict[str, Any]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}


def new_lstm_reward(
    tokenizer: Any,
    machine: Machine,
    *,
    seed: int,
    head_scale: float = 1.0,
    hidden: int = _LSTM_SIZE,
    qualities: Mapping[str, float] | None = None,
) -> Any:
    """An LSTM drawn at random for a tokenizer, with a head for one score.

    Args:
        tokenizer: gives the vocabulary.
        machine: where it goes.
        seed: of its weights.
        head_scale: multiplies those of the head.
        hidden: size D.
        qualities: what is judged apart, with weights; one label for each.
    """
    ids = _special_ids(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LstmConfig(vocab_size=len(tokenizer), hidden_size=hidden, **_labels(qualities or {}), **ids)
        model = LstmForSequenceClassification(config)
    return _with_fresh_head(model, machine, seed, head_scale, checkpointing=False)


def _with_fresh_head(model: Any, machine: Machine, seed: int, scale: float, checkpointing: bool) -> Any:
    head = head_of(model)
    fresh = new_head(head.in_features, bias=head.bias is not None, seed=seed, outputs=head.out_features)
    with torch.no_grad():
        fresh.weight.mul_(scale)
    head.load_state_dict(fresh.state_dict())
    return _ready(model, machine, checkpointing)


def adapted(model: Any, adapter: Adapter | None, *, seed: int, task: str = "CAUSAL_LM") -> Any:
    """The model under LoRA, or as it is where there are no settings for one.

    Args:
        model: a Transformers model.
        adapter: LoRA's settings.
        seed: of the small matrices.
        task: `CAUSAL_LM`, `SEQ_CLS` (the head is trained and saved too) or `FEATURE_EXTRACTION`.

    Raises:
        ModelError: the model is an LSTM, which has no layer that LoRA knows, or it has none of those named.
    """
    if adapter is None:
        return model
    if isinstance(body_of(model), LstmModel):
        raise ModelError(f"{type(model).__name__}: {_NO_ADAPTER}")
    targets = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=0.0,
        target_modules=targets,
        modules_to_save=_above_trunk(model) if task == "SEQ_CLS" else None,
        task_type=TaskType(task),
    )
    with torch.random.fork_rng(), _without_pefts_own_warning():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            layers = {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
            raise ModelError(
                f"model.adapter.targets {targets}: {type(model).__name__} has no such layers; its linear ones are "
                f"{', '.join(sorted(layers))}"
            ) from error


@contextlib.contextmanager
def _without_pefts_own_warning() -> Iterator[None]:
    """It asks Transformers by a name that a newer version gave up."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _above_trunk(model: Any) -> list[str]:
    """What of a classifier is not its trunk: the head, and what it reads through."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]


def context_of(config: Any) -> int | None:
    """Tokens that a model of this config reads at most, or None if it sets no limit."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if not limit:
        return None
    return int(limit) - 2 if "roberta" in text.model_type else int(limit)  # RoBERTa counts its places from 2


def _config(path: str, **changes: Any) -> Any:
    """A model's config with dropout off: old and new log-probabilities must come from one function."""
    config = AutoConfig.from_pretrained(path)
    for name, value in changes.items():
        setattr(config, name, value)
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name, value in part.to_dict().items():
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)
    return config


def _ready(model: Any, machine: Machine, checkpointing: bool) -> Any:
    for module in model.modules():  # those whose rate is not in the config
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if checkpointing:
        _recompute(model)
    if isinstance(body_of(model), LstmModel):
        # what was read stands in a file's memory, off the processor's stride, where matrix products round otherwise
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    model.to(machine.device)
    return model.train(checkpointing)


def _recompute(model: Any) -> None:
    """Compute activations again in the backward pass; newer versions of Transformers have another name for it."""
    try:
        if hasattr(model, "activation_checkpointing_enable"):
            model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise ModelError(
            f"{type(model).__name__} cannot recompute activations: set model.checkpointing to false"
        ) from error
