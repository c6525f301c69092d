"""A small local server that speaks the chat-completions protocol as vLLM does: it looks at pictures and prompt, and answers as a test says."""

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

MODEL = "small-teacher"


@dataclass
class Reply:
    """What is sent back."""

    status: int = 200
    body: dict | bytes = b""
    headers: dict = field(default_factory=dict)
    delay: float = 0.0  # s before it is sent


def completion(text: str | None, prompt_tokens: int = 1000, completion_tokens: int = 100, finish: str = "stop", usage: bool = True) -> dict:
    """The body of a good reply."""
    total = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "model": MODEL, "choices": [choice], **({"usage": total} if usage else {})}


def error(status: int, message: str, **headers: str) -> Reply:
    """A refusal, in OpenAI's shape."""
    return Reply(status, {"error": {"message": message, "type": "error", "code": status}}, headers)


def prompt(body: dict) -> str:
    """The text of a request."""
    return "\n".join(part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text")


def pictures(body: dict) -> list[tuple[str, np.ndarray]]:
    """(media type, RGB pixels) of every picture of a request."""
    found = []
    for part in body["messages"][-1]["content"]:
        if part["type"] == "image_url":
            media, data = re.fullmatch(r"data:(image/\w+);base64,(.*)", part["image_url"]["url"]).groups()  # type: ignore[union-attr]
            found.append((media, np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))))
    return found


def hinted(body: dict) -> str:
    """The action that the request gives away."""
    return re.search(r"conclusion is '([^']+)'", prompt(body))[1]  # type: ignore[index]


def mark(body: dict) -> str:
    """The word that stands by the hint."""
    return re.search(r"Note (\w+),", prompt(body))[1]  # type: ignore[index]


def four_steps(action: str, why: str = "the road asks for it") -> str:
    """An answer that passes the checks where `action` is the right one."""
    return (
        "Scene: a straight two lane road by day\nObjects: what stands on the road ahead\n"
        f"Intentions: it stays where it is\nAction: {why}; therefore {action}."
    )


def good(body: dict, number: int) -> Reply:
    """A teacher that follows its hint."""
    return Reply(body=completion(four_steps(hinted(body))))


class TeacherServer:
    """`with TeacherServer(behaviour) as server:` serves on a free local port; `behaviour(body, number)` makes each reply."""

    def __init__(self, behaviour: Callable[[dict, int], Reply] = good, models: Reply | None = None) -> None:
        self.behaviour = behaviour
        self.models = models or Reply(body={"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        self.requests: list[dict] = []  # bodies, in the order of arrival
        self.keys: list[str | None] = []  # Authorization headers, of every request
        self.paths: list[str] = []
        self.busy = self.busiest = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "TeacherServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, body: dict) -> Reply:
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        try:
            reply = self.behaviour(body, number)
            time.sleep(reply.delay)
            return reply
        finally:
            with self._lock:
                self.busy -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._note()
                self._send(owner.models if self.path == "/v1/models" else error(404, "not found"))

            def do_POST(self) -> None:
                self._note()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(owner._answer(body) if self.path == "/v1/chat/completions" else error(404, "not found"))

            def _note(self) -> None:
                owner.keys.append(self.headers.get("Authorization"))
                owner.paths.append(self.path)

            def _send(self, reply: Reply) -> None:
                data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                try:
                    self.send_response(reply.status)
                    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **reply.headers}.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):  # whoever asked has gone
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
