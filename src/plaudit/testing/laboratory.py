"""The exact laboratory: a task so small that every answer can be listed, so that expectations are sums.

    P prompts   S prefixes   V vocabulary   A answers   T tokens   B drawn answers   G answers of a group   D parameters

With 4 tokens, one of which ends the text, and at most 4 of them to an answer there are 121 answers and 40 prefixes.
A policy is a module whose call gives the log-probability of every next token after every prefix of every prompt,
`logp_PSV`. Then the objective

    J(pi) = mean over prompts of E[r] - beta KL(pi || ref)

its gradient, its optimum pi* ~ ref exp(r / beta), J* = beta log Z, and the expectation and the variance of any gradient
estimator are known to rounding. An estimator is a loss: a function from `Draws` to one number per drawn answer, whose
negative gradient is the step. To check one of your own:

    lab = make_laboratory(seed=0)
    policy = Table(lab, seed=1)

    def reinforce(draws):
        kl_BT = k1(draws.logp_BT, draws.ref_logp_BT)
        reward_BT = token_rewards(draws.reward_B, kl_BT, draws.mask_BT, beta=lab.beta)
        loss_BT = reinforce_loss(draws.logp_BT, reward_to_go(reward_BT, draws.mask_BT))
        return masked_sum(loss_BT, draws.mask_BT)

    compare(expected_gradient(lab, policy, reinforce), exact_gradient(lab, policy)).error    # 1e-16: unbiased

Everything is float64 on the CPU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plaudit.errors import RecipeError

__all__ = [
    "Comparison",
    "Critic",
    "Draws",
    "Estimator",
    "Laboratory",
    "Network",
    "Table",
    "TokenCritic",
    "compare",
    "exact_gradient",
    "expected_gradient",
    "imitate",
    "make_laboratory",
    "variance",
]

END = 0
"""The token that ends an answer."""

_TUPLES = 2**14  # tuples of answers looked at together


@dataclass(frozen=True, slots=True)
class Draws:
    """Sampled answers, with all that an estimator may look at."""

    prompt_B: Tensor
    """[B] which prompt."""
    answer_B: Tensor
    """[B] which answer, as a row of `Laboratory.token_AT`."""
    group_B: Tensor
    """[B] which group; answers of one group have one prompt."""
    state_BT: Tensor
    """[B, T] which prefix each token was chosen after; 0 on padding."""
    mask_BT: Tensor
    """[B, T] bool, the tokens of the answer, its end included."""
    logp_BTV: Tensor
    """[B, T, V] log-probabilities of every token that could have come; carries gradient."""
    logp_BT: Tensor
    """[B, T] of the token that came, 0 on padding; carries gradient."""
    old_logp_BT: Tensor
    """[B, T] of the token that came, under the policy that sampled it; without gradient, 0 on padding."""
    ref_logp_BTV: Tensor
    """[B, T, V] the reference's."""
    ref_logp_BT: Tensor
    """[B, T] the reference's, 0 on padding."""
    reward_B: Tensor
    """[B] reward of the whole answer."""


Estimator = Callable[[Draws], Tensor]
"""From draws to one loss per answer, [B]. A loss may depend on the answers of its own group, and on no other."""


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A task in which everything can be listed."""

    token_AT: Tensor
    """[A, T] all answers; 0 ends one, and pads it."""
    state_AT: Tensor
    """[A, T] the prefix after which each token is chosen; 0, the empty prefix, on padding."""
    mask_AT: Tensor
    """[A, T] bool, the tokens of the answer, its end included."""
    reward_PA: Tensor
    """[P, A] reward of each answer."""
    ref_PSV: Tensor
    """[P, S, V] log-probabilities of the reference."""
    prefix_SF: Tensor
    """[S, F] each prefix as one-hot tokens by position, for a network to read."""
    beta: float
    """Cost of one nat of KL divergence, in units of reward."""

    @property
    def prompts(self) -> int:
        """P."""
        return self.reward_PA.shape[0]

    @property
    def answers(self) -> int:
        """A."""
        return self.reward_PA.shape[1]

    def answer_logp(self, logp_PSV: Tensor) -> Tensor:
        """[P, A] log-probability of every answer; gradient flows into `logp_PSV`."""
        return self._answer_logp(logp_PSV).sum(-1)

    def objective(self, logp_PSV: Tensor) -> Tensor:
        """[P] E[r] - beta KL(pi || ref) for each prompt; gradient flows into `logp_PSV`."""
        logp_PA = self.answer_logp(logp_PSV)
        cost_PA = self.beta * (logp_PA - self.answer_logp(self.ref_PSV))
        return (logp_PA.exp() * (self.reward_PA - cost_PA)).sum(-1)

    def optimal_value(self) -> Tensor:
        """[P] J* = beta log sum over answers of ref exp(r / beta), the largest objective there is."""
        return self.beta * (self.answer_logp(self.ref_PSV) + self.reward_PA / self.beta).logsumexp(-1)

    def optimum(self) -> Tensor:
        """[P, S, V] log-probabilities of pi* ~ ref exp(r / beta), the policy that reaches J*."""
        return self.policy_of((self.answer_logp(self.ref_PSV) + self.reward_PA / self.beta).softmax(-1))

    def policy_of(self, probability_PA: Tensor) -> Tensor:
        """[P, S, V] log-probabilities of next tokens, from the probabilities of whole answers, all above 0."""
        states, vocabulary = self.ref_PSV.shape[1:]
        place_AT = self.state_AT * vocabulary + self.token_AT
        reached_PSV = _gathered(probability_PA.unsqueeze(-1) * self.mask_AT, place_AT, states * vocabulary)
        reached_PSV = reached_PSV.view_as(self.ref_PSV)
        return (reached_PSV / reached_PSV.sum(-1, keepdim=True)).log()

    def share(self, logp_PSV: Tensor) -> float:
        """How much of the way from the reference (0) to the optimum (1) a policy has gone, by J over all prompts."""
        start = self.objective(self.ref_PSV).sum()
        return float((self.objective(logp_PSV.detach()).sum() - start) / (self.optimal_value().sum() - start))

    def values(self, logp_PSV: Tensor) -> Tensor:
        """[P, S] what is still to be earned after each prefix on average, the cost of KL taken off."""
        kl_PAT = self._answer_logp(logp_PSV.detach()) - self._answer_logp(self.ref_PSV)
        to_go_PAT = self.reward_PA.unsqueeze(-1) - self.beta * kl_PAT.flip(-1).cumsum(-1).flip(-1)
        weight_PAT = self.answer_logp(logp_PSV.detach()).exp().unsqueeze(-1) * self.mask_AT
        states = self.ref_PSV.shape[1]
        earned_PS = _gathered(weight_PAT * to_go_PAT, self.state_AT, states)
        return earned_PS / _gathered(weight_PAT, self.state_AT, states)

    def _answer_logp(self, logp_PSV: Tensor) -> Tensor:
        """[P, A, T] of each token of each answer, 0 on padding."""
        place_AT = self.state_AT * logp_PSV.shape[-1] + self.token_AT
        logp_PAT = logp_PSV.flatten(1).index_select(1, place_AT.flatten()).view(-1, *place_AT.shape)
        return logp_PAT.masked_fill(~self.mask_AT, 0.0)

    def sample(self, logp_PSV: Tensor, group: int, generator: torch.Generator) -> Tensor:
        """[P, G] answers drawn for each prompt."""
        probability_PA = self.answer_logp(logp_PSV.detach()).exp()
        return torch.multinomial(probability_PA, group, replacement=True, generator=generator)

    def draws(self, logp_PSV: Tensor, answer_PG: Tensor, old_PSV: Tensor | None = None) -> Draws:
        """What an estimator sees of answers, [P, G], one group for each prompt; `old_PSV` sampled them if not pi."""
        prompt_B = torch.arange(self.prompts).repeat_interleave(answer_PG.shape[1])
        return self._draws(logp_PSV, logp_PSV if old_PSV is None else old_PSV, prompt_B, answer_PG.flatten(), prompt_B)

    def _draws(self, logp_PSV: Tensor, old_PSV: Tensor, prompt_B: Tensor, answer_B: Tensor, group_B: Tensor) -> Draws:
        state_BT, mask_BT = self.state_AT[answer_B], self.mask_AT[answer_B]
        token_BT1 = self.token_AT[answer_B].unsqueeze(-1)
        place_BT = prompt_B.unsqueeze(-1) * self.ref_PSV.shape[1] + state_BT
        logp_BTV, ref_logp_BTV = _rows(logp_PSV, place_BT), _rows(self.ref_PSV, place_BT)
        old_logp_BTV = _rows(old_PSV.detach(), place_BT)
        return Draws(
            prompt_B=prompt_B,
            answer_B=answer_B,
            group_B=group_B,
            state_BT=state_BT,
            mask_BT=mask_BT,
            logp_BTV=logp_BTV,
            logp_BT=logp_BTV.gather(-1, token_BT1).squeeze(-1).masked_fill(~mask_BT, 0.0),
            old_logp_BT=old_logp_BTV.gather(-1, token_BT1).squeeze(-1).masked_fill(~mask_BT, 0.0),
            ref_logp_BTV=ref_logp_BTV,
            ref_logp_BT=ref_logp_BTV.gather(-1, token_BT1).squeeze(-1).masked_fill(~mask_BT, 0.0),
            reward_B=self.reward_PA[prompt_B, answer_B],
        )


def _rows(x_PSV: Tensor, place_BT: Tensor) -> Tensor:
    """[B, T, V] the rows at places that count prompts and prefixes in one."""
    return x_PSV.flatten(0, 1).index_select(0, place_BT.flatten()).view(*place_BT.shape, -1)


def _gathered(x_PAT: Tensor, place_AT: Tensor, places: int) -> Tensor:
    """[P, places] the sums of what belongs to each place."""
    return x_PAT.new_zeros(len(x_PAT), places).index_add(1, place_AT.flatten(), x_PAT.flatten(1))


def make_laboratory(
    seed: int = 0, *, vocabulary: int = 4, length: int = 4, prompts: int = 3, beta: float = 1.0, offset: float = 1.0
) -> Laboratory:
    """A task with its own rewards and its own reference.

    Rewards like a favourite token of the prompt, dislike answers that do not end, and are mostly noise; for each
    prompt they have standard deviation 1 over the answers and mean offset x (-0.5, 0.5, 1.5, ...). The reference is not
    uniform.

    Args:
        seed: draws rewards and reference.
        vocabulary: V, the token that ends an answer included; 2 or more.
        length: T, the longest answer in tokens; 1 or more.
        prompts: P.
        beta: cost of one nat, in units of reward; above 0.
        offset: scale of the mean rewards, which a good baseline takes away.

    Raises:
        RecipeError: a number is out of range.
    """
    if vocabulary < 2 or length < 1 or prompts < 1 or not beta > 0:
        raise RecipeError(
            f"a laboratory needs vocabulary >= 2, length >= 1, prompts >= 1, beta > 0; "
            f"got {vocabulary}, {length}, {prompts}, {beta}"
        )
    generator = torch.Generator().manual_seed(seed)
    token_AT, state_AT, mask_AT, prefix_SF = _enumerate(vocabulary, length)
    favourite_P = torch.arange(prompts) % (vocabulary - 1) + 1
    liked_PA = (token_AT == favourite_P[:, None, None]).sum(-1)
    unended_A = ((token_AT != END) | ~mask_AT).all(-1)
    noise_PA = torch.randn(prompts, len(token_AT), generator=generator, dtype=torch.float64)
    raw_PA = 0.8 * noise_PA + 0.5 * liked_PA - 0.5 * unended_A
    centred_PA = raw_PA - raw_PA.mean(-1, keepdim=True)
    logit_PSV = torch.randn(prompts, len(prefix_SF), vocabulary, generator=generator, dtype=torch.float64)
    return Laboratory(
        token_AT=token_AT,
        state_AT=state_AT,
        mask_AT=mask_AT,
        reward_PA=centred_PA / raw_PA.std(-1, correction=0, keepdim=True)
        + offset * (torch.arange(prompts, dtype=torch.float64).unsqueeze(-1) - 0.5),
        ref_PSV=(0.7 * logit_PSV).log_softmax(-1),
        prefix_SF=prefix_SF,
        beta=beta,
    )


def _enumerate(vocabulary: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    words = range(END + 1, vocabulary)
    prefixes = [p for n in range(length) for p in itertools.product(words, repeat=n)]
    number = {prefix: s for s, prefix in enumerate(prefixes)}
    answers = [(*p, END) for p in prefixes] + list(itertools.product(words, repeat=length))
    token_AT = torch.tensor([[*a, *[END] * (length - len(a))] for a in answers])
    state_AT = torch.tensor([[number[a[:t]] if t < len(a) else 0 for t in range(length)] for a in answers])
    mask_AT = torch.arange(length) < torch.tensor([len(a) for a in answers]).unsqueeze(-1)
    prefix_SF = torch.zeros(len(prefixes), length, vocabulary, dtype=torch.float64)
    for s, prefix in enumerate(prefixes):
        for t in range(length):
            prefix_SF[s, t, prefix[t] if t < len(prefix) else END] = 1
    return token_AT, state_AT, mask_AT, prefix_SF.flatten(1)


class Table(nn.Module):
    """A policy with one logit for each prompt, prefix and token."""

    def __init__(self, lab: Laboratory, *, seed: int | None = None) -> None:
        """At the reference, or with a seed somewhere at random."""
        super().__init__()
        start_PSV = lab.ref_PSV if seed is None else torch.randn(lab.ref_PSV.shape, generator=_generator(seed)).double()
        self.logit_PSV = nn.Parameter(start_PSV.clone())

    def forward(self) -> Tensor:
        """[P, S, V] log-probabilities."""
        return self.logit_PSV.log_softmax(-1)


class _Tower(nn.Module):
    """Two hidden layers over the one-hot prompt and prefix."""

    def __init__(self, lab: Laboratory, outputs: int, hidden: int, seed: int) -> None:
        super().__init__()
        prompts, states = lab.ref_PSV.shape[:2]
        prompt_PSP = torch.eye(prompts, dtype=torch.float64).unsqueeze(1).expand(-1, states, -1)
        prefix_PSF = lab.prefix_SF.expand(prompts, -1, -1)
        self.input_PSF = torch.cat([prompt_PSP, prefix_PSF], -1)
        sizes = [self.input_PSF.shape[-1], hidden, hidden, outputs]
        generator = _generator(seed)
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=torch.float64) for a, b in itertools.pairwise(sizes))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)

    def hidden(self) -> Tensor:
        """[P, S, hidden] what the last layer reads."""
        x_PSF = self.input_PSF
        for layer in self.layers[:-1]:
            x_PSF = torch.tanh(layer(x_PSF))
        return x_PSF

    def forward(self) -> Tensor:
        output: Tensor = self.layers[-1](self.hidden())
        return output


class Network(nn.Module):
    """A policy that is a small neural network: what it learns after one prefix it does after others too."""

    def __init__(self, lab: Laboratory, *, seed: int, hidden: int = 64) -> None:
        """Somewhere at random; `imitate` brings it to a reference."""
        super().__init__()
        self.tower = _Tower(lab, lab.ref_PSV.shape[-1], hidden, seed)

    def forward(self) -> Tensor:
        """[P, S, V] log-probabilities."""
        logit_PSV: Tensor = self.tower()
        return logit_PSV.log_softmax(-1)


class Critic(nn.Module):
    """A small neural network that guesses what is still to be earned after each prefix."""

    def __init__(self, lab: Laboratory, *, seed: int, hidden: int = 64) -> None:
        """Somewhere at random."""
        super().__init__()
        self.tower = _Tower(lab, 1, hidden, seed)

    def forward(self) -> Tensor:
        """[P, S] values."""
        value_PS1: Tensor = self.tower()
        return value_PS1.squeeze(-1)


class TokenCritic(nn.Module):
    """A small neural network that guesses what every next token is worth."""

    def __init__(self, lab: Laboratory, *, seed: int, hidden: int = 64) -> None:
        """Somewhere at random, near 0."""
        super().__init__()
        self.tower = _Tower(lab, lab.ref_PSV.shape[-1], hidden, seed)
        last = self.tower.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.01)

    def forward(self) -> Tensor:
        """[P, S, V] values."""
        value_PSV: Tensor = self.tower()
        return value_PSV


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def imitate(policy: nn.Module, logp_PSV: Tensor, *, steps: int = 300, learning_rate: float = 1e-2) -> None:
    """Bring a policy to another one: supervised fine-tuning without sampling noise, equally after every prefix."""
    optimiser = torch.optim.Adam(policy.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        loss = (logp_PSV.exp() * (logp_PSV - policy())).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def exact_gradient(lab: Laboratory, policy: nn.Module) -> Tensor:
    """[D] the gradient of J, by enumeration."""
    return _flat(torch.autograd.grad(lab.objective(policy()).mean(), list(policy.parameters())))


def expected_gradient(
    lab: Laboratory,
    policy: nn.Module,
    estimator: Estimator,
    *,
    group: int | Sequence[int] = 1,
    old_PSV: Tensor | None = None,
) -> Tensor:
    """[D] the step an estimator takes on average: minus the expected gradient of its mean loss, by enumeration.

    The expectation goes over all A^G groups of answers of each prompt, and over prompts.

    Args:
        lab: the task.
        policy: any module whose call gives `logp_PSV`.
        estimator: one loss per drawn answer.
        group: G, how many answers of a prompt the estimator sees at a time; or the prompts of those it sees together,
            such as (0, 1, 2) for a batch with one answer of each: then the expectation goes over such batches only.
        old_PSV: log-probabilities of the policy that sampled the answers; the policy itself when left out.
    """
    logp_PSV: Tensor = policy()
    leaf_PSV = logp_PSV.detach().requires_grad_()
    sampled_PSV = leaf_PSV.detach() if old_PSV is None else old_PSV.detach()
    groups = [(prompt,) * group for prompt in range(lab.prompts)] if isinstance(group, int) else [tuple(group)]
    for prompts in groups:
        for answer_NG, weight_N in _tuples(lab, sampled_PSV, prompts):
            draws = _enumerated(lab, leaf_PSV, sampled_PSV, prompts, answer_NG)
            loss = (weight_N * estimator(draws).view_as(answer_NG).mean(-1)).sum() / len(groups)
            if loss.requires_grad:  # a loss may be constant
                loss.backward()
    toward_PSV = torch.zeros_like(leaf_PSV) if leaf_PSV.grad is None else -leaf_PSV.grad
    return _flat(torch.autograd.grad(logp_PSV, list(policy.parameters()), toward_PSV))


def variance(lab: Laboratory, policy: nn.Module, estimator: Estimator, *, group: int = 1) -> Tensor:
    """[P] how much an estimator's step scatters: the trace of its covariance for each prompt, by enumeration.

    Takes what `expected_gradient` does. The step is that of one group, its mean over G answers.
    """
    logp_PSV: Tensor = policy()
    parameters = list(policy.parameters())
    result = []
    for prompt in range(lab.prompts):
        jacobian_SVD = _jacobian(logp_PSV[prompt].flatten(), parameters)
        gram = jacobian_SVD @ jacobian_SVD.T
        square, mean_SV = torch.zeros((), dtype=torch.float64), torch.zeros(len(gram), dtype=torch.float64)
        for answer_NG, weight_N in _tuples(lab, logp_PSV.detach(), (prompt,) * group):
            step_N_SV = _steps(lab, logp_PSV.detach(), prompt, answer_NG, estimator)
            square += (weight_N * ((step_N_SV @ gram) * step_N_SV).sum(-1)).sum()
            mean_SV += weight_N @ step_N_SV
        result.append(square - mean_SV @ gram @ mean_SV)
    return torch.stack(result)


class Comparison(NamedTuple):
    """One gradient against another."""

    error: float
    """Norm of the difference over the norm of the exact gradient."""
    cosine: float
    """1 where both point the same way."""
    scale: float
    """Length of the estimate along the exact gradient, over its length."""

    @property
    def residual(self) -> float:
        """Norm of the difference over that of the exact gradient, once the estimate has the best length it can have."""
        return math.sqrt(max(0.0, 1 - self.cosine**2))


def compare(estimate_D: Tensor, exact_D: Tensor) -> Comparison:
    """How far an expected step lies from the exact gradient: error 0, cosine 1 and scale 1 where it is unbiased."""
    along = float(estimate_D @ exact_D)
    return Comparison(
        error=float((estimate_D - exact_D).norm() / exact_D.norm()),
        cosine=along / float(estimate_D.norm() * exact_D.norm()),
        scale=along / float(exact_D @ exact_D),
    )


def _tuples(lab: Laboratory, sampled_PSV: Tensor, prompts: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """All groups of answers, one for each of the prompts, some at a time, with their probabilities."""
    logp_GA = lab.answer_logp(sampled_PSV)[list(prompts)]
    member_G = torch.arange(len(prompts))
    for number_N in torch.arange(lab.answers ** len(prompts)).split(_TUPLES):
        answer_NG = number_N.unsqueeze(-1) // lab.answers**member_G % lab.answers
        yield answer_NG, logp_GA[member_G, answer_NG].sum(-1).exp()


def _enumerated(
    lab: Laboratory, logp_PSV: Tensor, old_PSV: Tensor, prompts: tuple[int, ...], answer_NG: Tensor
) -> Draws:
    prompt_B, group_B = torch.tensor(prompts).repeat(len(answer_NG)), torch.arange(len(answer_NG))
    return lab._draws(logp_PSV, old_PSV, prompt_B, answer_NG.flatten(), group_B.repeat_interleave(len(prompts)))


def _steps(lab: Laboratory, logp_PSV: Tensor, prompt: int, answer_NG: Tensor, estimator: Estimator) -> Tensor:
    """[N, S * V] the step of each group, as a gradient by the log-probabilities of the prompt."""
    draws = _enumerated(lab, logp_PSV.requires_grad_(), logp_PSV, (prompt,) * answer_NG.shape[1], answer_NG)
    loss_B = estimator(draws)
    (push_BTV,) = torch.autograd.grad(-loss_B.sum() / answer_NG.shape[1], draws.logp_BTV, materialize_grads=True)
    states, vocabulary = logp_PSV.shape[1:]
    place_BT = draws.group_B.unsqueeze(-1) * states + draws.state_BT
    step = torch.zeros(len(answer_NG) * states, vocabulary, dtype=torch.float64)
    return step.index_add(0, place_BT.flatten(), push_BTV.flatten(0, 1)).view(len(answer_NG), -1)


def _jacobian(output_N: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """[N, D] by one backward pass for each output."""
    rows = (torch.autograd.grad(output, parameters, retain_graph=True) for output in output_N)
    return torch.stack([_flat(row) for row in rows])


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
