"""The one place where words become tokens, for every stage alike.

A prompt is rendered once (chat template, plain template, or as it is) and tokenised; an answer is tokenised by
itself and *appended as tokens*. Sampled tokens are never decoded and tokenised again for the policy. So the tokens
of an answer are the same in supervised fine-tuning, in the reward model, and in evaluation.

Some tokenizers put a space before whatever they encode and drop one from whatever they decode. That is right where a
text begins, but an answer goes on behind its prompt: it is encoded and decoded behind an anchor, a character that no
answer melts into, which is taken off again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from plaudit.errors import TextError
from plaudit.recipe import Text
from plaudit.records import Message, Prompt

__all__ = ["Words"]


class Words:
    """A tokenizer with the recipe's templates and limits.

    Args:
        tokenizer: a Transformers tokenizer with an end token.
        text: templates and limits.
        context: tokens that the model can read at most; None if it sets no limit.
        stop_ids: further tokens that end an answer, such as those of the model's generation config.

    Raises:
        TextError: the template has no place for the prompt, or the tokenizer has no end token.
    """

    def __init__(self, tokenizer: Any, text: Text, *, context: int | None = None, stop_ids: Sequence[int] = ()) -> None:
        if text.template is not None and "{prompt}" not in text.template:
            raise TextError(f"text.template must hold {{prompt}}, found {text.template!r}")
        if "{reply}" not in text.turn:
            raise TextError(f"text.turn must hold {{reply}}, found {text.turn!r}")
        if tokenizer.eos_token_id is None:
            raise TextError("the tokenizer has no end-of-text token: set its eos_token")
        self.tokenizer = tokenizer
        self.text = text
        self.context = context
        self.end_id = int(tokenizer.eos_token_id)
        self.stop_ids = frozenset({self.end_id, *(int(token) for token in stop_ids)})
        self._special = frozenset(tokenizer.all_special_ids)
        self._two_segments = tokenizer.cls_token_id is not None and tokenizer.sep_token_id == self.end_id
        """An encoder's prompt keeps the end token, which stands between its two segments."""
        self._anchors = self._find_anchors()

    @property
    def start_ids(self) -> tuple[int, ...]:
        """What a text without a prompt begins with: the start token, or the end token where there is none."""
        start = self.tokenizer.bos_token_id
        return (self.end_id if start is None else int(start),)

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's tokens, templates included, as the model sees them before its answer.

        Raises:
            TextError: messages for a tokenizer without a chat template or with one that refuses them, or more tokens
                than allowed.
        """
        text, chat = self.prompt_text(prompt)
        ids = self._encode(text, special=not chat)
        if not chat and not self._two_segments and len(ids) > 1 and ids[-1] == self.end_id:
            ids = ids[:-1]  # some tokenizers end every text
        ids = self._cut(ids or self.start_ids)
        if len(ids) > self.text.max_prompt_tokens:
            raise TextError(
                f"prompt {prompt.id} has {len(ids)} tokens, more than text.max_prompt_tokens "
                f"{self.text.max_prompt_tokens}: {prompt.plain()[:60]!r}; raise that, or set text.cut_prompts "
                "(--cut-prompts) to read its end"
            )
        if self.context is not None and len(ids) >= self.context:
            raise TextError(
                f"prompt {prompt.id} has {len(ids)} tokens, but the model reads {self.context} with the answer: "
                f"{prompt.plain()[:60]!r}; set text.cut_prompts (--cut-prompts) to read its end"
            )
        return ids

    def prompt_text(self, prompt: Prompt) -> tuple[str, bool]:
        """The prompt's words, templates included, and whether the chat template has put the special tokens in.

        A text without `text.system` and `text.examples` is no chat: it is read as it is, or by `text.template`.

        Raises:
            TextError: messages for a tokenizer without a chat template or with one that refuses them.
        """
        if self._has_chat() and (prompt.messages is not None or self.text.system or self.text.examples):
            return self._chat_text(prompt), True
        return self._plain_text(prompt), False

    def _cut(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The prompt's end where the recipe allows that, behind the token that every prompt begins with."""
        most = self.text.max_prompt_tokens
        if self.context is not None:
            most = min(most, max(self.context // 2, self.context - self.text.max_answer_tokens))
        if not self.text.cut_prompts or len(ids) <= most:
            return ids
        first = ids[: int(ids[0] in self.start_ids)]
        return (*first, *ids[len(ids) - most + len(first) :])

    def answer_ids(self, answer: str, *, context_ids: Sequence[int] = (), ended: bool = True) -> tuple[int, ...]:
        """The answer's tokens behind its context; the end token is the last if the answer ended within the limits."""
        ids = (*self._encode_behind(context_ids, answer), *((self.end_id,) if ended else ()))
        return ids[: self.room_behind(context_ids)]

    def room_behind(self, context_ids: Sequence[int]) -> int:
        """Tokens that an answer may have there, at most."""
        most = self.text.max_answer_tokens
        return most if self.context is None else min(most, self.context - len(context_ids))

    def reply_text(self, reply: str) -> str:
        """What is said to the model between two of its answers, for people and in plain prompts."""
        return self.text.turn.replace("{reply}", reply)

    def reply_ids(self, context_ids: Sequence[int], answer_ids: Sequence[int], reply: str) -> tuple[int, ...]:
        """The tokens before the next answer: those of the turn before as they stand, and the reply's behind them.

        Nothing is rendered again, so that the next turn sees the very tokens that were sampled. The end token of the
        answer gives way to what stands between two turns in the chat template, or in `text.turn`.
        """
        spoken = [token for token in answer_ids if token not in self.stop_ids]
        before = (*context_ids, *spoken)
        if self._has_chat():
            return (*before, *self._encode(self._between(reply), special=False))
        return (*before, *self._encode_behind(before, self.reply_text(reply)))

    def gone_on(self, prompt: Prompt, answer: str, reply: str) -> Prompt:
        """The prompt of the next turn, for scorers and people; what the model sees is `reply_ids`."""
        if prompt.messages is None:
            return prompt.model_copy(update={"text": f"{prompt.text}{answer}{self.reply_text(reply)}"})
        said = (Message(role="assistant", content=answer), Message(role="user", content=reply))
        return prompt.model_copy(update={"messages": (*prompt.messages, *said)})

    def _between(self, reply: str) -> str:
        """What the chat template puts between an answer's last word and the next answer's first."""
        marker = "\ue000"  # of the private use area: no template writes it
        messages = [
            {"role": "user", "content": "."},
            {"role": "assistant", "content": marker},
            {"role": "user", "content": reply},
        ]
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return str(rendered).partition(marker)[2]

    def document_ids(self, text: str, max_tokens: int) -> list[tuple[int, ...]]:
        """A raw text with the end token, start token not included, cut into pieces that a model can read.

        Args:
            text: any.
            max_tokens: tokens of a piece at most; fewer where the model reads less together with the start token.
        """
        room = max_tokens if self.context is None else min(max_tokens, self.context - len(self.start_ids))
        ids = (*self._encode(text, special=False), self.end_id)
        pieces = [ids[start : start + room] for start in range(0, len(ids), room)]
        alone = len(pieces) > 1 and pieces[-1] == (self.end_id,)  # an end behind nothing teaches to say nothing
        return pieces[:-1] if alone else pieces

    def answer_text(self, context_ids: Sequence[int], answer_ids: Sequence[int]) -> str:
        """An answer's tokens as words, its end token left out; `answer_ids` of these words gives the tokens back."""
        body = [token for token in answer_ids if token not in self.stop_ids]
        if not self._anchors or self._begins(context_ids):
            return self._decode(body)
        _, anchor_ids = self._anchors[0]
        before, both = self._decode(anchor_ids), self._decode([*anchor_ids, *body])
        return both[len(before) :] if both.startswith(before) else self._decode(body)

    def split_text(self, text: str, tokens: int) -> tuple[str, str]:
        """The words of the first tokens of a text, and the rest of it; the cut never goes through a character.

        Raises:
            TextError: the text has no more tokens than that, so nothing would be left to answer.
        """
        ids = self._encode(text, special=False)
        if len(ids) <= tokens:
            raise TextError(f"a text of {len(ids)} tokens has no rest after a prompt of {tokens}: {text[:60]!r}")
        for count in (*range(tokens, 0, -1), *range(tokens + 1, len(ids))):
            head = self._decode(ids[:count])
            for shared in (head, head.lstrip()):
                if shared and text.startswith(shared):
                    return shared, text[len(shared) :]
        return self._decode(ids[:tokens]), self._decode(ids[tokens:])  # the tokenizer changes what it reads

    def _has_chat(self) -> bool:
        return self.text.template is None and bool(getattr(self.tokenizer, "chat_template", None))

    def _chat_text(self, prompt: Prompt) -> str:
        messages: list[dict[str, str]] = []
        if self.text.system:
            messages.append({"role": "system", "content": self.text.system})
        for question, answer in self.text.examples:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if prompt.messages is None:
            messages.append({"role": "user", "content": prompt.text or ""})
        else:
            messages += [{"role": message.role, "content": message.content} for message in prompt.messages]
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise TextError(
                f"the chat template refuses prompt {prompt.id}: {error}: {prompt.plain()[:60]!r}"
            ) from error

    def _plain_text(self, prompt: Prompt) -> str:
        if prompt.messages is not None and self.text.template is None:
            raise TextError(
                f"prompt {prompt.id} is a chat, but this tokenizer has no chat template: "
                "set text.template, such as 'Question: {prompt}\\nAnswer:'"
            )
        template = self.text.template or "{prompt}"
        parts = [self.text.system] if self.text.system else []
        parts += [template.replace("{prompt}", question) + answer for question, answer in self.text.examples]
        parts.append(template.replace("{prompt}", prompt.plain()))
        return "\n\n".join(parts)

    def _encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=special))

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _begins(self, context_ids: Sequence[int]) -> bool:
        """Whether what comes after these tokens is the beginning of a text."""
        return all(token in self._special for token in context_ids)

    def _encode_behind(self, context_ids: Sequence[int], text: str) -> tuple[int, ...]:
        if not self._begins(context_ids):
            for anchor, anchor_ids in self._anchors:
                ids = self._encode(anchor + text, special=False)
                if ids[: len(anchor_ids)] == anchor_ids:
                    return ids[len(anchor_ids) :]
        return self._encode(text, special=False)

    def _find_anchors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Characters to put before an answer, with their tokens; none for a tokenizer that adds and drops nothing."""
        found = []
        for anchor in (".", "=", "\n"):
            ids = self._encode(anchor, special=False)
            behind = [self._encode(anchor + probe, special=False) for probe in ("b", " b")]
            # a tokenizer of whole words melts both into one token, maybe the one that means "unknown"
            if all(both[: len(ids)] == ids and len(both) > len(ids) for both in behind):
                found.append((anchor, ids))
        plain = all(
            self._encode(anchor + probe, special=False)[len(ids) :] == self._encode(probe, special=False)
            and self._decode(self._encode(probe, special=False)) == probe
            for anchor, ids in found
            for probe in ("b", " b")
        )
        return [] if plain else found
