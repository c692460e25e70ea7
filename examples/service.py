"""A scoring service in thirty lines: `python examples/service.py 8765`, then score_http.yaml.

It gets {"answers": [{"prompt", "answer", "ended", "reference"?, "about"}, ...]} by POST, and replies {"scores": [...]}:
one number for each answer, in order, higher is better.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def score(answer: str) -> float:
    """The share of different words: a mind of its own, in place of your model."""
    words = answer.lower().split()
    return len(set(words)) / len(words) if words else 0.0


class Handler(BaseHTTPRequestHandler):
    """Answers a POST."""

    def do_POST(self) -> None:
        """Score the answers of one request."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"scores": [score(one["answer"]) for one in asked["answers"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
