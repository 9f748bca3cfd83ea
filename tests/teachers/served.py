"""A hand-written server that speaks as much of vLLM's protocol as a teacher needs."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from tests.tiny import char_tokenizer

DROP = 0
BLOCK = 4
"""Tokens to a block of the fake's prefix cache."""


def value(ids: list[int], i: int, token: int) -> float:
    """What the fake says of a token after `ids[:i]`: it depends on all that came before."""
    return -1.0 - ((7 * sum(ids[:i]) + 3 * token) % 45) / 10


@dataclass
class Fake:
    """A hand-written server that speaks as much of vLLM's protocol as is needed."""

    tokenizer: str
    models: list[str] = field(default_factory=lambda: ["tiny"])
    max_len: int = 256
    cap: int = 20
    faults: list[int] = field(default_factory=list)
    """Statuses of the next requests for log-probs; DROP hangs up."""
    key: str | None = None
    shift: float = 0.0
    """Added to every log-prob: makes logits of them."""
    mute: bool = False
    """Answers like a server that knows no prompt_logprobs."""
    other_ids: bool = False
    no_tokenize: bool = False
    scores_chosen: bool = False
    """Whether it gives log-probs of chosen tokens, as vLLM's V2 model runner does."""
    off: float = 0.0
    """Added to those."""
    blocks: set[tuple[int, ...]] = field(default_factory=set)
    """What is in its prefix cache: sequences up to the end of a block."""
    read: int = 0
    """Tokens that went through its model for chosen log-probs."""
    sent: int = 0
    """Bytes of its answers."""
    connections: int = 0
    hang_up: float = 0.0
    """Seconds after which it closes an idle connection; 0: never."""
    seconds: float = 0.0
    asked: int = 0
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    lie: Callable[[BaseHTTPRequestHandler, int, Any], bool] | None = None
    """Answers in the place of the fake, and says whether it has."""

    def models_card(self) -> tuple[int, Any]:
        cards = [{"id": m, "root": self.tokenizer, "max_model_len": self.max_len} for m in self.models]
        return 200, {"object": "list", "data": cards}

    def tokenize(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.no_tokenize:
            return 404, {"detail": "Not Found"}
        ids = char_tokenizer()(body["prompt"], add_special_tokens=False)["input_ids"]
        return 200, {"tokens": ids[::-1] if self.other_ids else ids}

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        ids, k = body["prompt"], body["prompt_logprobs"]
        assert body["max_tokens"] == 1
        with self.lock:
            self.asked += 1
            fault = self.faults.pop(0) if self.faults else 200
        if fault != 200:
            return fault, {"error": {"message": "on purpose"}}
        if body["model"] not in self.models:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if k > self.cap:
            said = f"Requested prompt logprobs of {k}, which is greater than max allowed: {self.cap}"
            return 400, {"error": {"message": said}}
        time.sleep(self.seconds * (ids[0] % 3))
        rows = [None, *(self.row(ids, i, k) for i in range(1, len(ids)))]
        return 200, {"choices": [{"index": 0, "text": "x"} | ({} if self.mute else {"prompt_logprobs": rows})]}

    def generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Answer as `/inference/v1/generate` of vLLM does, whose V2 model runner scores chosen tokens."""
        ids, p = body["token_ids"], body["sampling_params"]
        with self.lock:
            fault = self.faults.pop(0) if self.faults else 200
        if fault != 200:
            return fault, {"error": {"message": "on purpose"}}
        if not self.scores_chosen:
            return 400, {"error": {"message": "prompt_logprob_token_ids requires the V2 model runner"}}
        rows, start = p["prompt_logprob_token_ids"], p["prompt_logprob_start"]
        if len(rows[0]) > self.cap:
            said = f"Requested {len(rows[0])} token ids per row in prompt_logprob_token_ids, "
            return 400, {"error": {"message": f"{said}which is greater than max allowed: {self.cap}."}}
        assert len(rows) == len(ids) - 1 - start
        ends = [n for n in range(BLOCK, len(ids), BLOCK) if tuple(ids[:n]) in self.blocks]
        cached = 0 if p["skip_reading_prefix_cache"] else max(ends, default=0)
        with self.lock:
            self.read += len(ids) - cached
            self.blocks |= {tuple(ids[:n]) for n in range(BLOCK, len(ids) + 1, BLOCK)}
        if cached > start:  # the places that it did not read it cannot score: vLLM leaves all of them out
            return 200, {"choices": [], "prompt_token_id_logprobs": None}
        found = [[value(ids, start + 1 + i, t) + self.off for t in row] for i, row in enumerate(rows)]
        with io.BytesIO() as buffer:
            np.save(buffer, np.array(found, dtype=np.float32))
            return 200, {"choices": [], "prompt_token_id_logprobs": base64.b64encode(buffer.getvalue()).decode()}

    def row(self, ids: list[int], i: int, k: int) -> dict[str, Any]:
        best = sorted(range(45), key=lambda t: (-value(ids, i, t), t))[:k]
        return {str(t): {"logprob": value(ids, i, t) - 3 * (k > 0) + self.shift} for t in [ids[i], *best]}


def handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            fake.connections += 1
            if fake.hang_up:
                self.connection.settimeout(fake.hang_up)

        def do_GET(self) -> None:
            self.answer(*fake.models_card())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if fake.key and self.headers["Authorization"] != f"Bearer {fake.key}":
                self.answer(401, {"error": "Unauthorized"})
                return
            with fake.lock:
                fake.busy += 1
                fake.busiest = max(fake.busiest, fake.busy)
            try:
                paths = {"/tokenize": fake.tokenize, "/inference/v1/generate": fake.generate}
                self.answer(*paths.get(self.path, fake.complete)(body))
            finally:
                with fake.lock:
                    fake.busy -= 1

        def answer(self, status: int, content: Any) -> None:
            if fake.lie and fake.lie(self, status, content):
                return
            if status == DROP:
                self.close_connection = True
                return
            data = json.dumps(content).encode()
            fake.sent += len(data)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class Listener(ThreadingHTTPServer):
    """Says nothing of clients that gave up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Running:
    """A fake that listens; can be closed and opened again on its port."""

    def __init__(self, fake: Fake) -> None:
        self.fake, self.port = fake, 0
        self.open()

    def open(self) -> None:
        self.server = Listener(("127.0.0.1", self.port), handler(self.fake))
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
