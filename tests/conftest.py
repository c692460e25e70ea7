"""What every test shares: one thread for each worker, no network, no caches outside the test's own folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from plaudit.demo import demo_recipe
from plaudit.recipe import Recipe, recipe_from

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The built-in model is kept in a folder of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAUDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


Reply = Callable[[Any], tuple[int, Any] | None]
"""From a request's JSON to a status and what is sent back: JSON values, or bytes as they are; None hangs up."""


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], str]]:
    """`serve(reply)`: a real HTTP server on a free port of this machine, until the test ends; gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(reply: Reply) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                answer = reply(json.loads(content) | {"_authorization": self.headers["Authorization"]})
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, body = answer
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has gone
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/score"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def tiny_road() -> Recipe:
    """The demo's recipe, as small as a road can be: about 3 CPU seconds."""
    tokens = {"sampling": {"max_tokens": 10}}
    given = demo_recipe(quick=True, threads=1).model_dump(mode="json")
    changes: dict[str, dict[str, Any]] = {
        "world": {"documents": 64, "demonstrations": 16, "prompts": 16, "held_out": 6},
        "language": {"steps": 4, "minibatch": 4},
        "sft": {"minibatch": 4},
        "collect": {"prompts": 8, "answers_per_prompt": 3, **tokens},
        "reward": {"minibatch": 4, "epochs": 2.0, "normalise_on": 8},
        "policy": {"steps": 3, "prompts_per_round": 4, "answers_per_prompt": 2, **tokens},
        "evaluate": {"prompts": 6, **tokens},
    }
    for section, values in changes.items():
        given[section] = {**given[section], **values}
    return recipe_from({**given, "save_every": 2})


@pytest.fixture(scope="session")
def own_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: `model`, and a file of each kind; what people liked are answers without a `z`."""
    from plaudit.testing.tiny import tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("own")
    tiny_model("llama").save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    questions = [f"say {number}" for number in range(40)]
    files: dict[str, list[dict[str, Any]]] = {
        "documents": [{"text": f"say {n} and {n + 1}. then {n + 2}."} for n in range(12)],
        "demonstrations": [{"prompt": q, "completion": f"{q[4:]} it is."} for q in questions[:20]],
        "judgements": [
            {"prompt": q, "chosen": f"{q[4:]}.", "rejected": f"{'z' * (1 + n % 3)}."} for n, q in enumerate(questions)
        ],
        "prompts": [{"prompt": q} for q in questions],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def own_road(own_files: Path) -> Callable[..., dict[str, Any]]:
    """`own_road(**changes)`: what a recipe file for the user's folder says, all stages in it, about 1 CPU second."""

    def given(**changes: Any) -> dict[str, Any]:
        tokens = {"sampling": {"max_tokens": 8}}
        road: dict[str, Any] = {
            "threads": 1,
            "save_every": 2,
            "model": {"path": str(own_files / "model")},
            "text": {"max_prompt_tokens": 24, "max_answer_tokens": 24},
            "data": {"held_out": 0.2}
            | {
                kind: [{"path": str(own_files / f"{kind}.jsonl")}]
                for kind in ("documents", "demonstrations", "judgements", "prompts")
            },
            "language": {"steps": 2, "minibatch": 4, "max_tokens": 32},
            "sft": {"minibatch": 8},
            "reward": {"minibatch": 8, "normalise_on": 8, "optimiser": {"learning_rate": 0.01}},
            "policy": {"steps": 2, "prompts_per_round": 4, "answers_per_prompt": 2, **tokens},
            "evaluate": {"prompts": 4, **tokens},
        }
        for name, value in changes.items():
            both = isinstance(value, dict) and isinstance(road.get(name), dict)
            road[name] = {**road[name], **value} if both else value
        return road

    return given
