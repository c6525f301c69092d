"""A chat-completions client for an OpenAI-compatible server (vLLM, SGLang, a paid service): time-outs, retries, plain errors.

Standard library only. Redirects are refused (they would carry the key elsewhere), and servers on this machine are asked without a proxy.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from drive.core.errors import ConfigError, DriveError
from drive.core.seeds import numpy_rng

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # s of back-off: doubled after every try, cut and spread by up to a half
LONGEST_ASKED = 600.0  # s; a server that asks for a longer wait is taken at its word and given up
ANSWER_BYTES = 4 << 20  # more than this is no answer of a model


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str
    cut_off: bool  # it reached max_tokens
    prompt_tokens: int = 0
    completion_tokens: int = 0
    metered: bool = True  # False where the server told no usage


class AskFailed(Exception):
    """This request got no answer, after all retries; another one may."""


class Stopped(Exception):
    """The run ends; nothing more is asked."""


def check_url(base_url: str) -> str:
    """`base_url` without a slash at its end. Raises ConfigError unless it is a plain http(s) address without a password in it."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"teacher.base_url={base_url}: give an address such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("teacher.base_url: no user, password or query in the address, it is written into files; a key goes into teacher.api_key_env")
    return base_url.rstrip("/")


def key_from(variable: str | None) -> str:
    """The API key in the environment variable `variable`; empty where none is named. Raises ConfigError where it is not set."""
    if variable is None:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise ConfigError("teacher.api_key_env: give the name of an environment variable that holds the key, not the key itself")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"teacher.api_key_env={variable}: no such variable is set: export it, or give teacher.api_key_env=null for a server without a key")
    return key


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return None


class ChatClient:
    """Asks one model at one server; safe to use from several threads."""

    def __init__(self, base_url: str, model: str, key: str = "", timeout_s: float = 120.0, retries: int = 5, seed: int = 0) -> None:
        """Raises ConfigError on an address that is none."""
        self.base_url, self.model, self._key = check_url(base_url), model, key
        self.timeout_s, self.retries, self.seed = timeout_s, retries, seed
        self._stop = threading.Event()
        proxies = [urllib.request.ProxyHandler({})] if urlsplit(base_url).hostname in LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def stop(self) -> None:
        """No request begins after this, and waits between retries end."""
        self._stop.set()

    def check(self) -> None:
        """Ask the server which models it serves. Raises DriveError where there is no server, the key is wrong or the model is another.

        A server that has no such list passes.
        """
        try:
            status, _, body = self._send("/models", None)
        except (OSError, http.client.HTTPException) as error:
            raise DriveError(f"no server answers at {self.base_url} ({_why(error)}): start one, for example `vllm serve {self.model}`, or give teacher.base_url") from error
        self._refuse_fatal(status, body, listing=True)
        try:
            names = [str(entry["id"]) for entry in json.loads(body)["data"]] if status == 200 else []
        except (ValueError, KeyError, TypeError):
            return
        if names and self.model not in names:
            raise DriveError(f"{self.base_url} does not serve teacher.model={self.model}; it serves: {', '.join(names[:10])}")

    def ask(self, messages: list[dict[str, Any]], max_tokens: int, temperature: float, name: str) -> Answer:
        """The model's answer to `messages`; `name` makes its seed and the spread of its waits.

        Raises AskFailed when every try met 429, 5xx, a time-out or a broken answer, or the server refused this request; DriveError on what no
        request will ever survive (a wrong key, an unknown model); Stopped after `stop`.
        """
        rng = numpy_rng(self.seed, "ask", name)
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": int(rng.integers(1 << 31)),
        }
        data, fault = json.dumps(body).encode(), ""
        for attempt in range(self.retries + 1):
            if self._stop.is_set():
                raise Stopped
            wait = min(FIRST_WAIT * 2.0**attempt, LONGEST_WAIT) * rng.uniform(0.5, 1.0)
            try:
                status, headers, reply = self._send("/chat/completions", data)
                self._refuse_fatal(status, reply)
                if status == 200:
                    return _answer(reply)
                fault = f"status {status}: {self._message(reply)}"
                if status != 429 and status != 408 and status < 500:
                    raise AskFailed(fault)
                asked = _retry_after(headers.get("Retry-After"))
                if asked > LONGEST_ASKED:
                    raise AskFailed(f"{fault} (it asks to wait {asked:.0f} s)")
                wait = max(wait, asked)
            except (OSError, http.client.HTTPException, ValueError) as error:
                fault = _why(error)
            if attempt < self.retries and self._stop.wait(wait):
                raise Stopped
        raise AskFailed(f"{fault} ({self.retries + 1} tries)")

    def _send(self, path: str, data: bytes | None) -> tuple[int, Any, bytes]:
        """(status, headers, body) of one request; OSError or HTTPException where there is no whole reply."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "drive"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.base_url + path, data, headers)
        try:
            with self._opener.open(request, timeout=self.timeout_s) as reply:
                return reply.status, reply.headers, reply.read(ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read(ANSWER_BYTES)

    def _refuse_fatal(self, status: int, body: bytes, listing: bool = False) -> None:
        if status in (401, 403):
            raise DriveError(f"{self.base_url} refuses the key (status {status}: {self._message(body)}): name its variable with teacher.api_key_env=NAME")
        if 300 <= status < 400:
            raise DriveError(f"{self.base_url} points elsewhere (status {status}), which is not followed: give the address it means as teacher.base_url")
        if status == 404 and not listing:
            raise DriveError(f"{self.base_url}/chat/completions with teacher.model={self.model}: status 404: {self._message(body)}")

    def _message(self, body: bytes) -> str:
        """What the server says is wrong, short, on one line, without the key."""
        text = body.decode("utf-8", "replace")
        try:
            plain = json.loads(text)
            text = str(plain["error"]["message"] if isinstance(plain.get("error"), dict) else plain.get("message") or plain.get("detail") or text)
        except (ValueError, KeyError, AttributeError):
            pass
        text = text.replace(self._key, "***") if self._key else text
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200] or "no message"


def _answer(reply: bytes) -> Answer:
    """Raises ValueError on a reply that is no chat completion."""
    try:
        plain = json.loads(reply)
        choice = plain["choices"][0]
        text = choice["message"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is no text")
        cut_off = choice.get("finish_reason") == "length"
        usage = plain.get("usage") or {}
        counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"a reply that is no chat completion ({type(error).__name__}: {error})") from error
    known = [count for count in counts if type(count) is int and count >= 0]
    return Answer(text, cut_off, known[0], known[1]) if len(known) == 2 else Answer(text, cut_off, metered=False)


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, as a number or as a date; 0 where there is none."""
    if not value:
        return 0.0
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max((when - datetime.now(timezone.utc)).total_seconds(), 0.0)


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return "timed out" if isinstance(reason, TimeoutError) else " ".join(str(reason).split())[:200] or type(error).__name__
