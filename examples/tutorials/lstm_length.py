"""An LSTM that is rewarded for length learns to write longer: REINFORCE, whole, in one page.

    python examples/tutorials/lstm_length.py

First a small LSTM learns to write from sentences such as "the cat sees the old dog and the bird likes the cat". Then it
is tuned: it writes 64 texts, each earns a tenth of its number of words, and every text is made likelier or less likely
by how much more it earned than the other 63 did (REINFORCE with a leave-one-out baseline, Kool et al. 2019,
https://openreview.net/forum?id=r1lgTGL5DE). It finds out that one can always go on with "and". A cost for each nat of
KL keeps it near to where it started: with BETA = 0 it ends twice as far away, its texts are no longer for that, and the
sentences begin to repeat themselves.

Shape letters:  B texts   T tokens   V vocabulary
"""

from __future__ import annotations

import copy
import random

import torch
from torch import Tensor, nn

from plaudit.advantages import leave_one_out
from plaudit.kl import k1
from plaudit.losses import masked_sum, mean_of, negative_log_likelihood, reinforce_loss, token_log_probs, token_portion

WORDS = ["<end>", "the", "and", "old", "small", "cat", "dog", "bird", "fox", "sees", "likes", "hears"]
END, LONGEST = 0, 40
BETA = 0.05  # cost of a nat, where a word earns 0.1


class Writer(nn.Module):
    """A language model: each word from those before it. The end token also stands in front, as the first input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(WORDS), 48)
        self.lstm = nn.LSTM(48, 48, batch_first=True)
        self.head = nn.Linear(48, len(WORDS))

    def logits(self, text_BT: Tensor) -> Tensor:
        """[B, T, V] for every word of the texts the logits that predict it: those of one place earlier."""
        before_BT = torch.cat([torch.full_like(text_BT[:, :1], END), text_BT[:, :-1]], 1)
        state_BTD, _ = self.lstm(self.embed(before_BT))
        logits_BTV: Tensor = self.head(state_BTD)
        return logits_BTV

    @torch.no_grad()
    def write(self, texts: int, generator: torch.Generator) -> Tensor:
        """[B, T] texts, one word at a time, each padded with end tokens."""
        word_B1, memory, words = torch.full((texts, 1), END), None, []
        ended_B1 = torch.zeros(texts, 1, dtype=torch.bool)
        for _ in range(LONGEST):
            state_B1D, memory = self.lstm(self.embed(word_B1), memory)
            chance_BV = self.head(state_B1D[:, 0]).softmax(-1)
            word_B1 = torch.multinomial(chance_BV, 1, generator=generator).masked_fill(ended_B1, END)
            words.append(word_B1)
            ended_B1 |= word_B1 == END
        return torch.cat(words, 1)


def mask_of(text_BT: Tensor) -> Tensor:
    """[B, T] bool: a text's words and the end token behind them; nothing of what pads."""
    ends_BT = (text_BT == END).long()
    return ends_BT.cumsum(1) - ends_BT == 0


def sentence(draw: random.Random) -> list[str]:
    """A sentence of the small language; one in three goes on with `and`."""

    def thing() -> list[str]:
        return ["the", *draw.choice([[], ["old"], ["small"]]), draw.choice(WORDS[5:9])]

    more = ["and", *sentence(draw)] if draw.random() < 1 / 3 else []
    return [*thing(), draw.choice(WORDS[9:]), *thing(), *more]


def learn_language(writer: Writer) -> float:
    """Maximum likelihood on 2,000 sentences; the last loss, in nats a word."""
    draw = random.Random(0)
    optimiser = torch.optim.Adam(writer.parameters(), lr=1e-2)
    loss = torch.zeros(())
    for _ in range(120):
        texts = [torch.tensor([WORDS.index(word) for word in sentence(draw)][: LONGEST - 1]) for _ in range(32)]
        text_BT = torch.nn.utils.rnn.pad_sequence([nn.functional.pad(t, (0, 1)) for t in texts], batch_first=True)
        loss_BT = negative_log_likelihood(writer.logits(text_BT), text_BT)
        loss = mean_of([token_portion(loss_BT, mask_of(text_BT))])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def tune(writer: Writer, steps: int) -> None:
    """Policy gradient toward longer texts."""
    reference, generator = copy.deepcopy(writer), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(writer.parameters(), lr=3e-3)
    one_group_B = torch.zeros(64, dtype=torch.long)
    for step in range(steps):
        text_BT = writer.write(64, generator)
        mask_BT = mask_of(text_BT)
        logp_BT = token_log_probs(writer.logits(text_BT), text_BT)
        with torch.no_grad():
            ref_logp_BT = token_log_probs(reference.logits(text_BT), text_BT)
        words_B = (text_BT != END).sum(1).float()
        kl_B = masked_sum(k1(logp_BT.detach(), ref_logp_BT), mask_BT)
        advantage_B = leave_one_out(words_B / 10 - BETA * kl_B, one_group_B)
        loss_BT = reinforce_loss(logp_BT, advantage_B[:, None].expand_as(logp_BT))
        optimiser.zero_grad()
        masked_sum(loss_BT, mask_BT).mean().backward()
        nn.utils.clip_grad_norm_(writer.parameters(), 1.0)
        optimiser.step()
        if step % 10 == 0:
            kl = round(float(kl_B.mean()), 1) + 0.0  # not -0.0
            print(f"step {step:2d}: {words_B.mean():4.1f} words, {kl:4.1f} nats from the start")


def show(when: str, writer: Writer) -> None:
    """How long 500 texts are, and the first of them."""
    text_BT = writer.write(500, torch.Generator().manual_seed(2))
    print(f"{when}: {(text_BT != END).sum(1).float().mean():.1f} words on average, such as")
    print("   " + " ".join(WORDS[word] for word in text_BT[0] if word != END))


def main() -> None:
    """Learn the language, show it, tune, show it again."""
    torch.set_num_threads(1)  # more threads only wait for one another on work this small
    torch.manual_seed(0)
    writer = Writer()
    print(f"language learned: {learn_language(writer):.2f} nats a word")
    show("before", writer)
    tune(writer, 41)
    show("after", writer)


if __name__ == "__main__":
    main()
