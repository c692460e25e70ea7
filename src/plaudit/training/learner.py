"""The `Learner` seam and its embedded implementation: gradient steps on packed batches, in one process.

A minibatch is cut into pieces of at most `micro_tokens`; their summed gradients are divided by the summed
denominator afterwards, so that every split gives the same step.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from plaudit.batch import Batch, Loss, Needs, Outputs, select, split
from plaudit.errors import NumberError, RunError
from plaudit.models.load import Machine
from plaudit.models.network import Network
from plaudit.recipe import Optimiser

__all__ = ["Curvature", "Follower", "Learner", "ModelLearner", "Part", "epsilon_at", "forward", "learning_rate_at"]


@dataclass(frozen=True, slots=True)
class Part:
    """One term of a step: a batch, what to minimise on it, and its weight against the other terms."""

    batch: Any
    loss: Any
    weight: float = 1.0


class Learner(Protocol):
    """Anything that holds weights and moves them."""

    @property
    def full_precision(self) -> bool:
        """Whether it computes in fp32 or finer, so that what it says again it says to rounding."""
        ...

    def step(self, *parts: Part) -> dict[str, float]:
        """One optimiser step on the weighted sum of the parts' mean losses; returns their metrics."""
        ...

    def forward(self, batch: Batch, needs: Needs) -> Outputs:
        """What the model says of a batch, without gradient."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state."""
        ...

    def load(self, folder: Path) -> None:
        """Read them back."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """The trained tensors by name."""
        ...


@runtime_checkable
class Curvature(Protocol):
    """What a learner needs besides for natural gradients: its weights as one long vector, by group.

    Shape letter:  D weights of the group
    """

    def gradient(self, *parts: Part, group: str) -> Tensor:
        """[D] the gradient of the weighted sum of the parts' mean losses; nothing moves."""
        ...

    def fisher_product(self, part: Part, vector_D: Tensor, *, group: str) -> Tensor:
        """[D] how the gradient of a part's mean loss changes along a vector: its Hessian times the vector."""
        ...

    def add(self, vector_D: Tensor, *, group: str) -> None:
        """Move the group's weights."""
        ...

    def snapshot(self, *, group: str) -> list[Tensor]:
        """A copy of the group's weights."""
        ...

    def restore(self, weights: Sequence[Tensor], *, group: str) -> None:
        """Put the weights of a snapshot back, bit for bit."""
        ...


@runtime_checkable
class Follower(Protocol):
    """What a learner needs besides for soft actor-critic: slow copies of its critics."""

    def follow(self, rate: float) -> None:
        """Let the slow copies come nearer, by this share of the way."""
        ...


def learning_rate_at(step: int, steps: int, settings: Optimiser) -> float:
    """The learning rate of a step: a climb from 0 to the peak, then the decay.

    Args:
        step: counted from 0.
        steps: how many there will be.
        settings: peak, share of the steps spent climbing, how it falls and what is left of it.
    """
    climb = math.ceil(round(settings.warmup * steps, 6))  # 0.07 * 100 is a little more than 7
    if step < climb:
        return settings.learning_rate * (step + 1) / climb
    done = min(1.0, (step - climb) / max(1, steps - climb))
    match settings.decay:
        case "linear":
            left, floor = 1 - done, 0.0
        case "cosine":
            left, floor = (1 + math.cos(math.pi * done)) / 2, 0.1
        case "constant":
            return settings.learning_rate
    floor = floor if settings.floor is None else settings.floor
    return settings.learning_rate * (floor + (1 - floor) * left)


def epsilon_at(step: int, settings: Optimiser) -> float:
    """What a step adds to the root of the bias-corrected second moment, v / (1 - beta2^t).

        pytorch      epsilon
        tensorflow   epsilon / sqrt(1 - beta2^t)        t = step + 1

    TensorFlow adds epsilon before the correction of v: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, the end of
    section 2. Of the early steps, the second form is the shorter one.

    Args:
        step: counted from 0.
        settings: epsilon, beta2 and which form.
    """
    if settings.epsilon_form == "pytorch":
        return settings.epsilon
    return settings.epsilon / math.sqrt(1 - settings.beta2 ** (step + 1))


class ModelLearner:
    """AdamW with warm-up, decay and gradient clipping on a network in this process.

    Args:
        network: what is trained.
        settings: the optimiser's.
        steps: how many steps there will be, for the learning rate.
        machine: device and precision.
        micro_tokens: tokens in one forward pass.
        average: share of the steps, the last ones, whose weights `take_mean` averages.
    """

    def __init__(
        self,
        network: Network,
        settings: Optimiser,
        *,
        steps: int,
        machine: Machine,
        micro_tokens: int,
        average: float = 0.0,
    ) -> None:
        self.network = network
        self.settings = settings
        self.steps = steps
        self.machine = machine
        self.micro_tokens = micro_tokens
        self.done = 0
        self._last = math.ceil(round(average * steps, 6))
        self._mean: dict[str, Tensor] = {}
        self._groups = network.groups()
        self._optimiser = torch.optim.AdamW(
            [{"params": parameters, "name": name} for name, parameters in self._groups.items()],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over the weights, where the default makes a dozen
        )

    def step(self, *parts: Part, adversary: float = 0.0) -> dict[str, float]:
        """One optimiser step on the weighted sum of the parts' mean losses.

        Args:
            parts: what to minimise.
            adversary: train too against the shift of the embeddings that raises the loss most, to first order; its
                size is this share of their norm. The fast gradient method of Miyato et al. 2017,
                https://arxiv.org/abs/1605.07725, on the whole matrix.

        Returns:
            The parts' metrics, and `learning_rate` and `gradient_norm/GROUP` (before clipping).

        Raises:
            NumberError: a loss or a gradient is not finite; the weights have not moved.
        """
        self.network.train()
        rate = learning_rate_at(self.done, self.steps, self.settings)
        metrics: dict[str, float] = {}
        self._optimiser.zero_grad(set_to_none=True)
        with self._embeddings_open() if adversary else nullcontext():
            for part in parts:
                metrics |= self._add_gradient(part)
            if adversary:
                metrics["loss_under_attack"] = self._add_attacked_gradient(parts, adversary)
        for name, parameters in self._groups.items():
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
            if not bool(torch.isfinite(norm)):
                self._optimiser.zero_grad(set_to_none=True)
                raise NumberError(f"the gradient of {name} is {float(norm)} at step {self.done}; no weight has moved")
            metrics[f"gradient_norm/{name}"] = float(norm)
        for group in self._optimiser.param_groups:
            group["lr"], group["eps"] = rate, epsilon_at(self.done, self.settings)
        self._optimiser.step()
        self.done += 1
        self._note_weights()
        metrics["learning_rate"] = rate
        return metrics

    @torch.no_grad()
    def _note_weights(self) -> None:
        """Let the mean go over the weights after this step too, if it is one of the last ones."""
        count = self.done - (self.steps - self._last)
        if count < 1:
            return
        for name, tensor in self.network.trained().items():
            if count == 1:
                self._mean[name] = tensor.detach().clone()
            else:
                self._mean[name].lerp_(tensor, 1 / count)

    @torch.no_grad()
    def take_mean(self) -> None:
        """Put the mean of the weights after each of the last steps in the weights' place; where none is kept, nothing.

        Polyak & Juditsky 1992, https://doi.org/10.1137/0330046; of networks, Izmailov et al. 2018,
        https://arxiv.org/abs/1803.05407.
        """
        mine = self.network.trained()
        for name, mean in self._mean.items():
            mine[name].copy_(mean)

    @property
    def full_precision(self) -> bool:
        """Whether it computes in fp32 or finer."""
        return not self.machine.bf16

    def gradient(self, *parts: Part, group: str) -> Tensor:
        """[D] the gradient of the weighted sum of the parts' mean losses; nothing moves.

        Raises:
            NumberError: a loss is not finite.
        """
        return self._gradient(parts, group, self.machine)

    def _gradient(self, parts: Sequence[Part], group: str, machine: Machine) -> Tensor:
        self.network.train()
        self._optimiser.zero_grad(set_to_none=True)
        for part in parts:
            self._add_gradient(part, machine)
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._groups[group]]
        self._optimiser.zero_grad(set_to_none=True)
        return torch.cat([gradient.flatten() for gradient in found])

    def fisher_product(self, part: Part, vector_D: Tensor, *, group: str) -> Tensor:
        """[D] the Hessian of a part's mean loss times a vector, from two gradients a small way off on either side.

        No second derivative is taken, so that every attention kernel and every adapter serves. The way is a thousandth
        of the length of the weights: far enough for fp32, near enough for the third derivative not to count. In
        bfloat16 rounding would be most of the difference, so that these gradients are fp32 whatever the others are.
        """
        exact = dataclasses.replace(self.machine, bf16=False)
        length = torch.cat([p.detach().flatten() for p in self._groups[group]]).norm()
        reach = float(1e-3 * length / vector_D.norm().clamp(min=1e-30))
        kept = self.snapshot(group=group)
        found = []
        for side in (reach, -reach):
            self.add(side * vector_D, group=group)
            found.append(self._gradient([part], group, exact))
            self.restore(kept, group=group)
        return (found[0] - found[1]) / (2 * reach)

    @torch.no_grad()
    def add(self, vector_D: Tensor, *, group: str) -> None:
        """Move the group's weights."""
        parameters = self._groups[group]
        for parameter, piece in zip(parameters, vector_D.split([p.numel() for p in parameters]), strict=True):
            parameter.add_(piece.view_as(parameter))

    def follow(self, rate: float) -> None:
        """Let the slow copies that the network has come nearer to what they copy."""
        follow = getattr(self.network, "follow", None)
        if follow is None:
            raise RunError(f"{type(self.network).__name__} has no slow copies to follow")
        follow(rate)

    def snapshot(self, *, group: str) -> list[Tensor]:
        """A copy of the group's weights."""
        return [parameter.detach().clone() for parameter in self._groups[group]]

    @torch.no_grad()
    def restore(self, weights: Sequence[Tensor], *, group: str) -> None:
        """Put the weights of a snapshot back, bit for bit."""
        for parameter, kept in zip(self._groups[group], weights, strict=True):
            parameter.copy_(kept)

    @contextmanager
    def _embeddings_open(self) -> Iterator[None]:
        """Let the embeddings have a gradient, those too that stay as they are under an adapter."""
        matrix = self.network.embeddings()
        frozen = not matrix.requires_grad
        matrix.requires_grad_(True)
        try:
            yield
        finally:
            if frozen:
                matrix.requires_grad_(False)
                matrix.grad = None

    def _add_attacked_gradient(self, parts: Sequence[Part], size: float) -> float:
        """Add the gradient at embeddings that are shifted along their gradient, and shift them back; the loss there."""
        matrix = self.network.embeddings()
        if matrix.grad is None or not bool(matrix.grad.any()):
            return 0.0
        kept = matrix.detach().clone()
        with torch.no_grad():
            matrix.add_(matrix.grad, alpha=float(size * matrix.norm() / matrix.grad.norm()))
        try:
            return float(sum(part.weight * self._add_gradient(part)["loss"] for part in parts))
        finally:
            with torch.no_grad():
                matrix.copy_(kept)

    def _add_gradient(self, part: Part, machine: Machine | None = None) -> dict[str, float]:
        """Add the gradient of one part's mean loss to what is there, in the learner's precision or another's."""
        machine = machine or self.machine
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        before = [p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, float] = defaultdict(float)
        denominator = 0.0
        for micro in split(part.batch, self.micro_tokens):
            micro = on_device(micro, machine.device)
            with machine.computing():
                outputs = self.network.outputs(micro.tree, part.loss.needs)
            found = part.loss(outputs, micro)
            if not bool(torch.isfinite(found.total)):
                self._optimiser.zero_grad(set_to_none=True)
                raise NumberError(self._blame(micro, part.loss, float(found.total.detach())))
            if found.total.requires_grad:
                found.total.backward()
            denominator += found.denominator
            for name, (total, count) in found.metrics.items():
                sums[name] += float(total)
                counts[name] += count
        scale = part.weight / denominator if denominator else 0.0
        for parameter, old in zip(parameters, before, strict=True):
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
            if old is not None:
                parameter.grad = old if parameter.grad is None else parameter.grad.add_(old)
        return {name: sums[name] / counts[name] for name in sums if counts[name]}

    @torch.no_grad()
    def _blame(self, micro: Any, loss: Loss[Any], value: float) -> str:
        """Find the prompts whose own loss is not finite."""
        prompt_of = micro.tree.prompt_of_answers()
        guilty = []
        for p, name in enumerate(micro.tree.names):
            rows = [row for row, owner in enumerate(prompt_of) if owner == p]
            if not rows:
                continue
            alone = select(micro, rows)
            with self.machine.computing():
                outputs = self.network.outputs(alone.tree, loss.needs)
            if not bool(torch.isfinite(loss(outputs, alone).total)):
                guilty.append(name)
        where = f"prompt {', '.join(guilty[:5])}" if guilty else "several prompts together"
        return f"the loss is {value} at step {self.done}, because of {where}; no weight has moved"

    def forward(self, batch: Batch, needs: Needs) -> Outputs:
        """What the model says of a batch, without gradient, in evaluation mode."""
        return forward(self.network, batch, needs, machine=self.machine, micro_tokens=self.micro_tokens)

    def weights(self) -> Mapping[str, Tensor]:
        """The trained tensors by name."""
        return {name: tensor.detach() for name, tensor in self.network.trained().items()}

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors` and `optimiser.safetensors` into the folder."""
        save_file(
            {name: tensor.contiguous() for name, tensor in self.weights().items()}, folder / "weights.safetensors"
        )
        memory: dict[str, Tensor] = {"done": torch.tensor(self.done)}
        for name, tensor in self.network.trained().items():
            for key, value in self._optimiser.state.get(tensor, {}).items():
                memory[f"{name}:{key}"] = value.contiguous()
        memory |= {f"{name}:mean": mean for name, mean in self._mean.items()}
        save_file(memory, folder / "optimiser.safetensors")

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            RunError: the tensors are those of another network.
        """
        saved = load_file(folder / "weights.safetensors")
        mine = self.network.trained()
        if saved.keys() != mine.keys():
            strange = sorted(saved.keys() ^ mine.keys())
            raise RunError(f"{folder} holds the weights of another network: {', '.join(strange[:3])} differ")
        for name, tensor in mine.items():
            tensor.copy_(saved[name])
        memory = load_file(folder / "optimiser.safetensors")
        self.done = int(memory.pop("done"))
        self._optimiser.state.clear()
        self._mean.clear()
        for place, value in memory.items():
            name, _, key = place.rpartition(":")
            there = self._mean if key == "mean" else self._optimiser.state[mine[name]]
            there[name if key == "mean" else key] = value.to(mine[name].device)


@torch.no_grad()
def forward(network: Network, batch: Batch, needs: Needs, *, machine: Machine, micro_tokens: int) -> Outputs:
    """What a network says of a batch, without gradient, in evaluation mode, in pieces of `micro_tokens`."""
    network.eval()
    found = []
    for micro in split(batch, micro_tokens):
        with machine.computing():
            found.append(network.outputs(micro.tree.to(machine.device), needs))
    return _join(found)


def on_device(batch: Any, device: torch.device) -> Any:
    """The batch with its tree and tensors on a device."""
    if device.type == "cpu":
        return batch
    moved: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if hasattr(value, "to"):
            moved[field.name] = value.to(device)
    return dataclasses.replace(batch, **moved)


def _join(found: Iterable[Outputs]) -> Outputs:
    pieces = list(found)
    if len(pieces) == 1:
        return pieces[0]
    joined: dict[str, Tensor] = {}
    for field in dataclasses.fields(Outputs):
        values = [getattr(piece, field.name) for piece in pieces]
        if values[0] is None:
            continue
        if field.name in ("tie", "cut"):  # of the model, not of answers: all pieces have the same
            joined[field.name] = values[0]
            continue
        if values[0].dim() > 1:
            longest = max(value.shape[1] for value in values)
            behind = (0, 0) * (values[0].dim() - 2)
            values = [F.pad(value, (*behind, 0, longest - value.shape[1])) for value in values]
        joined[field.name] = torch.cat(values)
    return Outputs(**joined)
