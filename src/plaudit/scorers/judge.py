"""A language model behind an OpenAI-compatible address that says which of two answers is better, asked both ways round.

Judges lean toward one place, mostly the first, whatever stands there; so only what they say in both orders counts:
Zheng et al. 2023, https://arxiv.org/abs/2306.05685.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from plaudit.errors import ScorerError
from plaudit.records import Preferred, Prompt
from plaudit.scorers.service import Service
from plaudit.scorers.surface import holds_chinese

__all__ = ["ChatJudge", "Opinion", "chat_address", "question", "verdict_in"]

_QUESTION = {
    "en": """\
Two assistants answered the same request. Say which answer is better for the person who asked: correct, helpful, to \
the point, and pleasant to read. Their order is by chance, and a longer answer is not better for being longer.

[Request]
{prompt}
[End of the request]
{reference}
[Answer A]
{first}
[End of answer A]

[Answer B]
{second}
[End of answer B]

Think as briefly as you can, and end with your verdict alone on the last line: [[A]] if A is better, [[B]] if B is \
better, [[C]] if they are equally good.""",
    "zh": """\
两个助手回答了同一个请求。请判断哪个回答对提问的人更好:正确、有用、切题、好读。两个回答的先后是随机的,更长并不等于更好。

[请求]
{prompt}
[请求结束]
{reference}
[回答 A]
{first}
[回答 A 结束]

[回答 B]
{second}
[回答 B 结束]

请尽量简短地思考,并在最后一行只写结论:A 更好写 [[A]],B 更好写 [[B]],一样好写 [[C]]。""",
}
_REFERENCE = {
    "en": "\n[A good answer, to compare with]\n{reference}\n[End of the good answer]\n",
    "zh": "\n[可供参考的好回答]\n{reference}\n[参考结束]\n",
}


def question(prompt: Prompt, first: str, second: str) -> str:
    """What a judge is asked, in Chinese where the prompt holds Chinese characters, else in English."""
    language = "zh" if holds_chinese(prompt.plain()) else "en"
    reference = _REFERENCE[language].replace("{reference}", prompt.reference) if prompt.reference else ""
    slots = {"prompt": prompt.plain(), "reference": reference, "first": first, "second": second}
    # one pass, so that braces in somebody's words stay words
    return re.sub(r"\{(prompt|reference|first|second)\}", lambda slot: slots[slot[1]], _QUESTION[language])


def verdict_in(reply: str) -> str | None:
    """`A`, `B` or `C` (a tie): the last one in double brackets, or the whole reply; None where it says neither."""
    marked = re.findall(r"\[\[([ABC])\]\]", reply)
    if marked:
        return str(marked[-1])
    alone = re.fullmatch(r"\W*([ABC])\W*", reply)
    return alone[1] if alone else None


def chat_address(url: str) -> str:
    """The address of chat completions below a server's, such as `http://127.0.0.1:8000/v1`; or that itself."""
    url = url.rstrip("/")
    return url if url.endswith("/chat/completions") else f"{url}/chat/completions"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a judge thinks of two answers."""

    preferred: Preferred
    steady: bool
    """It said the same in both orders; if not, they are a tie."""


class ChatJudge:
    """Compares answers by a chat model.

    Args:
        service: its `chat/completions`.
        model: the model's name there.
    """

    def __init__(self, service: Service, model: str) -> None:
        self.service = service
        self.model = model

    def compare(self, prompt: Prompt, first: str, second: str) -> Opinion | str:
        """The better answer if the judge prefers it in both orders, else a tie; or a reply that holds no verdict.

        Raises:
            ScorerError: the service cannot be reached in time, or its reply is not a chat completion.
        """
        replies = [self._ask(prompt, *order) for order in ((first, second), (second, first))]
        said = [verdict_in(reply) for reply in replies]
        if None in said:
            return replies[said.index(None)]
        straight = {"A": Preferred.FIRST, "B": Preferred.SECOND}.get(said[0] or "", Preferred.TIE)
        turned = {"A": Preferred.SECOND, "B": Preferred.FIRST}.get(said[1] or "", Preferred.TIE)
        return Opinion(straight if straight is turned else Preferred.TIE, steady=straight is turned)

    def _ask(self, prompt: Prompt, first: str, second: str) -> str:
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": question(prompt, first, second)}],
            "temperature": 0,
        }
        about = f"two answers to prompt {prompt.id}"
        reply: Any = self.service.post(request, about)
        try:
            content = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            found = json.dumps(reply)[:200]
            raise ScorerError(f"{self.service.url}: {about}: the reply is no chat completion: {found}") from error
        return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
