"""A service as a scorer, against real servers on this machine: what goes to and fro, patience, and clear errors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from threading import Event, Lock, Thread
from typing import Any

import pytest

from plaudit.errors import ScorerError
from plaudit.records import Message, Prompt
from plaudit.scorers import HttpScorer, Service
from plaudit.scorers.seam import group_of_texts
from plaudit.scorers.service import bearer

GROUPS = [
    group_of_texts(Prompt(text="why", id="p", reference="so it is", about={"n": 1}), [("so", True), ("", False)]),
    group_of_texts(Prompt(messages=(Message(role="user", content="谁"),), id="q"), [("我", True)]),
]


def by_length(request: Any) -> tuple[int, Any]:
    return 200, {"scores": [len(one["answer"]) for one in request["answers"]]}


def test_what_goes_to_and_fro(serve):
    seen: list[Any] = []

    def reply(request: Any) -> tuple[int, Any]:
        seen.append(request)
        return by_length(request)

    scores = HttpScorer(Service(serve(reply), token="secret")).score(GROUPS)
    scores.check(GROUPS)
    assert scores.value_PG == ((2.0, 0.0), (1.0,))
    (request,) = seen
    assert request["_authorization"] == "Bearer secret"
    assert request["answers"] == [
        {"prompt": "why", "reference": "so it is", "about": {"n": 1}, "answer": "so", "ended": "stopped"},
        {"prompt": "why", "reference": "so it is", "about": {"n": 1}, "answer": "", "ended": "cut"},
        {"messages": [{"role": "user", "content": "谁"}], "about": {}, "answer": "我", "ended": "stopped"},
    ]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
@pytest.mark.parametrize("concurrency", [1, 5])
def test_batches_come_back_in_order(serve, batch, concurrency):
    groups = [group_of_texts(Prompt(text=str(n)), [("x" * k, True) for k in range(n)]) for n in range(5)]
    sizes: list[int] = []
    lock = Lock()

    def reply(request: Any) -> tuple[int, Any]:
        with lock:
            sizes.append(len(request["answers"]))
        return by_length(request)

    scorer = HttpScorer(Service(serve(reply)), batch=batch, concurrency=concurrency)
    assert scorer.score(groups).value_PG == tuple(tuple(float(k) for k in range(n)) for n in range(5))
    assert (sum(sizes), max(sizes), len(sizes)) == (10, min(batch, 10), -(-10 // batch))


def test_a_notebook_whose_own_loop_runs_may_ask_too(serve):
    service = Service(serve(lambda request: (200, {"heard": request["said"]})))

    async def cell() -> Any:
        return service.post({"said": "hello"}, "a cell")

    assert asyncio.run(cell()) == {"heard": "hello"}


def test_no_answers_no_request(serve):
    assert HttpScorer(Service(serve(lambda request: (500, {})))).score([]).value_PG == ()


@pytest.mark.parametrize("trouble", [(503, {}), (500, b"oh"), (429, {}), None])
def test_what_may_pass_is_tried_again_after_longer_and_longer_waits(serve, trouble):
    turns: list[Any] = []
    waits: list[float] = []

    def reply(request: Any) -> tuple[int, Any] | None:
        turns.append(request)
        return trouble if len(turns) <= 2 else by_length(request)

    service = Service(serve(reply), retries=2, backoff=0.5, sleep=waits.append)
    assert HttpScorer(service).score(GROUPS).flat() == [2.0, 0.0, 1.0]
    assert waits == [0.5, 1.0]


def test_one_that_answers_late_is_given_up(serve):
    over = Event()
    asked: list[Any] = []

    def reply(request: Any) -> tuple[int, Any]:
        asked.append(request)
        over.wait(10)
        return by_length(request)

    service = Service(serve(reply), timeout=0.1, retries=1, sleep=lambda seconds: None)
    with pytest.raises(
        ScorerError, match=r"/score: batch 1 of 1 \(3 answers, the first to prompt p\): no reply within"
    ):
        HttpScorer(service).score(GROUPS)
    over.set()
    assert len(asked) == 2


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_one_that_drips_is_given_up(head):
    """Byte after byte, in the reply's head or in its body: each comes soon, the whole never does."""
    over = Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            line, _ = server.accept()
            with line, contextlib.suppress(OSError):  # whoever asked has gone
                line.sendall(head)
                while not over.wait(0.02):
                    line.sendall(b"H")

        Thread(target=drip, daemon=True).start()
        service = Service(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=0.3, retries=0)
        with pytest.raises(ScorerError, match=r"no reply within 0\.3 s \(tried once\)"):
            service.post({}, "batch 1 of 1")
        over.set()


def test_one_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        with pytest.raises(ScorerError, match=rf"^{url}: batch 1 of 1 .*: no connection: .* \(tried once\)"):
            HttpScorer(Service(url, retries=0)).score(GROUPS)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, {"scores": [1, 2]}, r"batch 1 of 1 \(3 answers, the first to prompt p\): 2 scores came for 3 answers"),
        (200, {"scores": [1, 2, 3, 4]}, "4 scores came for 3 answers"),
        (200, b'{"scores": [1, NaN, 3]}', "the score of an answer to prompt p is nan, which is no number: ''"),
        (200, b'{"scores": [1, 2, Infinity]}', "prompt q is inf"),
        (200, {"scores": [1, 2, None]}, "prompt q is None, which is no number: '我'"),
        (200, {"scores": [1, "2", 3]}, "prompt p is '2'"),
        (200, {"scores": [1, True, 3]}, "prompt p is True"),
        (200, {"score": 1}, r'the reply must be {"scores": \[...\]}, found {"score": 1}'),
        (200, [1, 2, 3], r"found \[1, 2, 3\]"),
        (200, b"<html>hello", "the reply is not JSON: '<html>hello'"),
        (200, b"\xff\xfe", "the reply is not JSON"),
        (200, b"[" * 100_000, "the reply is not JSON"),
        (200, b'{"scores": [1, 2, 1' + b"0" * 400 + b"]}", "prompt q is 1000"),
        (400, {"error": "bad prompt"}, "status 400: .*bad prompt"),
        (302, b"", "status 302"),
        (500, b"oh dear", r"status 500: 'oh dear' \(tried 2 times\)"),
    ],
)
def test_a_reply_that_is_not_as_agreed(serve, status, body, says):
    url = serve(lambda request: (status, body))
    with pytest.raises(ScorerError, match=says) as caught:
        HttpScorer(Service(url, retries=1, backoff=0)).score(GROUPS)
    assert str(caught.value).startswith(f"{url}: batch 1 of 1")


def test_a_mistake_of_ours_is_not_sent_again(serve):
    asked: list[Any] = []

    def reply(request: Any) -> tuple[int, Any]:
        asked.append(request)
        return 404, {}

    with pytest.raises(ScorerError, match="status 404"):
        HttpScorer(Service(serve(reply), retries=5)).score(GROUPS)
    assert len(asked) == 1


def test_the_token_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("JUDGE_TOKEN", "abc")
    assert bearer("JUDGE_TOKEN") == "abc"
    assert bearer(None) is None
    monkeypatch.delenv("JUDGE_TOKEN")
    with pytest.raises(ScorerError, match="the environment does not hold JUDGE_TOKEN"):
        bearer("JUDGE_TOKEN")


@pytest.mark.parametrize("token", ["abc\ndef", "tökén"])
def test_a_token_that_no_header_carries_is_refused_unshown(monkeypatch, token):
    monkeypatch.setenv("JUDGE_TOKEN", token)
    with pytest.raises(ScorerError, match="the token in JUDGE_TOKEN holds a line break") as caught:
        bearer("JUDGE_TOKEN")
    assert token[:3] not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:80x/", "http://[::1", "http://localhost:99999/", "http://", "ftp://a/", "localhost:80"]
)
def test_what_is_no_address_is_refused_before_it_is_asked(url):
    with pytest.raises(ScorerError, match="is no address"):
        Service(url)
