"""A service over HTTP as a scorer: answers go out as JSON, in batches, and numbers come back.

Request, by POST; `messages` in place of `prompt` where the prompt is a chat, and no `reference` where there is none:

    {"answers": [{"prompt": "Why?", "answer": "Because.", "ended": "stopped", "reference": "So it is.", "about": {}}]}

`ended` is `stopped` (the answer ended by itself) or `cut` (it ran out of tokens). Reply, status 200, one number for
each answer in the same order, higher is better:

    {"scores": [0.7]}
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from plaudit.errors import ScorerError
from plaudit.records import Answer, Group, Prompt
from plaudit.scorers.seam import Scores, arranged, pairs

__all__ = ["HttpScorer", "Service", "bearer"]


def bearer(variable: str | None) -> str | None:
    """The token that an environment variable holds; nothing where no variable is named.

    Raises:
        ScorerError: the environment does not hold it, or holds what no header can carry.
    """
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise ScorerError(f"the environment does not hold {variable}, which should be the service's token")
    if not (token.isascii() and token.isprintable()):  # it is a secret: no message shows it
        raise ScorerError(f"the token in {variable} holds a line break or a character beyond ASCII: copy it again")
    return token


class Service:
    """JSON to one address and back, sent again where that may help.

    A timeout, a lost connection, and the statuses 429 and 5xx may pass: the request is sent again after `backoff`
    seconds, then twice that, and so on. Anything else is an error at once.

    Args:
        url: where it listens.
        timeout: seconds for the whole of a request, from connecting to the last byte of the reply.
        retries: times that a request is sent again.
        backoff: seconds before the first of them.
        token: sent as `Authorization: Bearer`.
        sleep: waits for so many seconds.

    Raises:
        ScorerError: the address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        retries: int = 3,
        backoff: float = 0.5,
        token: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            address = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError) as error:
            raise ScorerError(f"{url!r} is no address: {error}") from error
        if address.scheme not in ("http", "https") or not address.host or not 0 < (address.port or 80) < 2**16:
            raise ScorerError(f"{url!r} is no address of a service, such as http://127.0.0.1:8000/score")
        self.url = url
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff
        self._sleep = sleep
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self._certificates = httpx2.create_ssl_context()

    def post(self, request: Mapping[str, Any], about: str) -> Any:
        """The reply to a request, as plain JSON values; may be called from several threads.

        Args:
            request: plain JSON values.
            about: what the request is, for errors: `batch 2 of 3 (...)`.

        Raises:
            ScorerError: no reply in time, a status that is not 2xx, or a reply that is not JSON.
        """
        for turn in range(self.retries + 1):
            if turn:
                self._sleep(self.backoff * 2 ** (turn - 1))
            try:
                with ThreadPoolExecutor(1) as thread:  # in this one a notebook's own loop may be running
                    reply = thread.submit(asyncio.run, self._send(request)).result()
            except TimeoutError:
                wrong = f"no reply within {self.timeout:g} s"
            except httpx2.TransportError as error:
                wrong = f"no connection: {str(error) or type(error).__name__}"
            else:
                if reply.is_success:
                    return self._read(reply, about)
                wrong = f"status {reply.status_code}: {reply.text[:200]!r}"
                if reply.status_code != 429 and reply.status_code < 500:
                    raise ScorerError(f"{self.url}: {about}: {wrong}")
        times = f"{self.retries + 1} times" if self.retries else "once"
        raise ScorerError(f"{self.url}: {about}: {wrong} (tried {times})")

    def _read(self, reply: httpx2.Response, about: str) -> Any:
        try:
            return json.loads(reply.content)
        except (ValueError, RecursionError) as error:
            raise ScorerError(f"{self.url}: {about}: the reply is not JSON: {reply.text[:200]!r}") from error

    async def _send(self, request: Mapping[str, Any]) -> httpx2.Response:
        """The reply, or TimeoutError: a client's own limits are for each piece of it, and pieces may drip for hours."""
        async with (
            asyncio.timeout(self.timeout),
            httpx2.AsyncClient(timeout=None, headers=self._headers, verify=self._certificates) as client,
        ):
            return await client.post(self.url, json=request)


class HttpScorer:
    """Scores answers by a service; this module's head says what goes to and fro.

    Args:
        service: where it is.
        batch: answers in one request.
        concurrency: requests under way at once; the scores do not depend on it.
    """

    def __init__(self, service: Service, *, batch: int = 32, concurrency: int = 4) -> None:
        self.service = service
        self.batch = batch
        self.concurrency = concurrency

    def score(self, groups: Sequence[Group]) -> Scores:
        """What the service says of each answer.

        Raises:
            ScorerError: it cannot be reached in time, or replies with too few numbers, or with what is no number.
        """
        asked = pairs(groups)
        batches = [asked[start : start + self.batch] for start in range(0, len(asked), self.batch)]
        names = [
            f"batch {n} of {len(batches)} ({len(batch)} answers, the first to prompt {batch[0][0].id})"
            for n, batch in enumerate(batches, 1)
        ]
        with ThreadPoolExecutor(max_workers=self.concurrency) as threads:
            found = list(threads.map(self._of_batch, batches, names))
        return Scores(value_PG=arranged((value for values in found for value in values), groups))

    def _of_batch(self, batch: Sequence[tuple[Prompt, Answer]], about: str) -> list[float]:
        reply = self.service.post({"answers": [_as_json(prompt, answer) for prompt, answer in batch]}, about)
        where = f"{self.service.url}: {about}"
        scores = reply.get("scores") if isinstance(reply, dict) else None
        if not isinstance(scores, list):
            raise ScorerError(f'{where}: the reply must be {{"scores": [...]}}, found {json.dumps(reply)[:200]}')
        if len(scores) != len(batch):
            raise ScorerError(f"{where}: {len(scores)} scores came for {len(batch)} answers")
        for score, (prompt, answer) in zip(scores, batch, strict=True):
            if isinstance(score, bool) or not isinstance(score, int | float) or not _is_finite(score):
                raise ScorerError(
                    f"{where}: the score of an answer to prompt {prompt.id} is {score!r:.60}, which is no number: "
                    f"{answer.text[:60]!r}"
                )
        return [float(score) for score in scores]


def _is_finite(score: int | float) -> bool:
    try:
        return math.isfinite(score)
    except OverflowError:  # an integer beyond every float
        return False


def _as_json(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    asked = prompt.model_dump(mode="json", include={"text", "messages", "reference", "about"}, exclude_none=True)
    if "text" in asked:
        asked["prompt"] = asked.pop("text")
    return {**asked, "answer": answer.text, "ended": answer.ended.value}
