"""A client for any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, `transformers serve`, and paid ones.

The API key is read from an environment variable and goes nowhere but into the request's header.
"""

from __future__ import annotations

import email.utils
import json
import os
import queue
import random
import threading
import time
from typing import NamedTuple

from pt_tools import stop
from pt_tools.errors import Usage

MAX_REPLY = 16 * 2**20  # bytes of one answer
MAX_WAIT_S = 600.0  # a server that asks for more patience than this has refused
BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
POLL_S = 0.2  # how often a waiting thread looks whether it should stop
TRY_AGAIN = {408, 409, 425, 429}  # and all 5xx
API_KEY_ENV = "OPENAI_API_KEY"


class Reply(NamedTuple):
    """What a model said, why it ended (stop, length, …), and the tokens of prompt and completion."""

    text: str
    finish: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0


class Failure(Exception):
    """A request that got no reply. `status` is the HTTP status, 0 where there was none."""

    def __init__(self, message, status=0):
        super().__init__(message)
        self.status = status


class Unreachable(Failure):
    """No usable answer after all retries: no connection, a timeout, too many requests, or an error of the server."""


class Refused(Failure):
    """The server will not answer this request, however often it is asked."""


class Chat:
    """A model behind `base_url` (without a path: /v1). Safe from threads.

    `model` None is the only model that the server lists. At most `concurrency` requests are in flight, `rate_per_minute`
    are started a minute (0: no limit), evenly. Connection errors, timeouts (`timeout_s` from sending to the last byte),
    408, 409, 425, 429 and 5xx are tried again up to `retries` times, after the server's Retry-After or an exponential
    pause with jitter out of `seed`; a 429 holds back all requests. Usage for a URL, key or model that cannot work.
    """

    def __init__(self, base_url, model=None, api_key_env=API_KEY_ENV, concurrency=8, rate_per_minute=0.0, retries=4,
                 timeout_s=120.0, seed=0):
        self.base_url = _base(base_url)
        self.concurrency, self.retries, self.timeout_s, self.seed = concurrency, retries, timeout_s, seed
        self._key = _key(api_key_env)
        self._key_env = api_key_env
        self._pace = _Pace(rate_per_minute)
        self._client = self._open()
        self.model = self._known_model(model)

    def complete(self, messages, **sampling):
        """The model's reply to `messages`; `sampling` goes to the server by its own names (temperature, max_tokens, …).

        Raises Unreachable, Refused, or Stopped when a stop was asked for while waiting.
        """
        return self._complete(messages, sampling, threading.Event())

    def complete_all(self, requests):
        """(index, Reply or Failure) of each (messages, sampling), as they come.

        Raises Stopped at once when a stop is asked for: its threads do not outlive the requests that they are in.
        """
        todo, done, halt = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
        for item in enumerate(requests):
            todo.put(item)
        for _ in range(min(self.concurrency, len(requests))):
            # Daemons: at exit nobody waits for a server that hangs.
            threading.Thread(target=self._work, args=(todo, done, halt), daemon=True).start()
        try:
            for _ in requests:
                index, result = _take(done)
                if isinstance(result, BaseException) and not isinstance(result, Failure):
                    raise result
                yield index, result
        finally:
            halt.set()

    def models(self):
        """Names of the server's models; None if it has no list. Raises Unreachable if nobody is there, Refused for a key.

        Not every server keeps this list well: any other status is not tried again, and says that there is none.
        """
        try:
            return self._request("GET", "/models", None, threading.Event(), _model_names)
        except Failure as error:
            if error.status in (0, 401, 403):
                raise
            return None

    def close(self):
        self._client.close()

    def explain(self, failure):
        """One line for who runs the command: what is wrong with URL, key or model."""
        if failure.status in (401, 403):
            had = "refuses the API key in" if self._key else "wants an API key; put it into the environment variable"
            return f"the server {self.base_url} {had} {self._key_env} ({failure})"
        return f"the server {self.base_url} does not answer: {failure}"

    # --- one request -----------------------------------------------------------------------------

    def _work(self, todo, done, halt):
        while not halt.is_set():
            try:
                index, (messages, sampling) = todo.get_nowait()
            except queue.Empty:
                return
            try:
                result = self._complete(messages, sampling, halt)
            except BaseException as error:  # Stopped too: the waiting thread raises it
                result = error
            done.put((index, result))

    def _complete(self, messages, sampling, halt):
        body = {"model": self.model, "messages": messages, **sampling}
        return self._request("POST", "/chat/completions", json.dumps(body).encode(), halt, _reply)

    def _request(self, method, path, body, halt, read):
        """`read` of the answer's JSON, tried again as the class says."""
        jitter = random.Random(f"{self.seed} {path} {body}")
        for attempt in range(self.retries + 1):
            self._pace.turn(halt)
            try:
                return read(self._send(method, path, body, halt))
            except _Again as again:
                failure = again
            wait_s = failure.wait_s
            if wait_s is None:
                wait_s = min(MAX_BACKOFF_S, BACKOFF_S * 2**attempt) * jitter.uniform(0.5, 1.0)
            if wait_s > MAX_WAIT_S:
                raise Unreachable(f"{failure}; the server asks to wait {wait_s:.0f} s", failure.status)
            if attempt == self.retries or (failure.status and method == "GET"):
                break
            if failure.status == 429:  # too many requests: none of them had better go on
                self._pace.hold(wait_s)
            _pause(wait_s, halt)
        raise Unreachable(f"{failure} ({attempt + 1} attempts)", failure.status)

    def _send(self, method, path, body, halt):
        """The JSON value of one answer. Raises _Again or Refused."""
        import httpx2

        deadline, data = time.monotonic() + self.timeout_s, bytearray()
        try:
            with self._client.stream(method, self.base_url + path, content=body) as response:
                for block in response.iter_bytes():
                    data += block
                    if len(data) > MAX_REPLY:
                        raise Refused(f"the server answered with more than {MAX_REPLY} bytes")
                    if time.monotonic() > deadline:
                        raise _Again(f"no whole answer in {self.timeout_s:g} s")
                    if halt.is_set():
                        raise Unreachable("no longer wanted")
        except httpx2.TimeoutException:
            raise _Again(f"no answer in {self.timeout_s:g} s") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _Again(f"{type(error).__name__}: {error}") from None
        if response.status_code != 200:
            self._raise_status(response, bytes(data))
        try:
            return json.loads(bytes(data))
        except (ValueError, RecursionError):
            raise _Again("the answer is no JSON", response.status_code) from None

    def _raise_status(self, response, data):
        status = response.status_code
        message = f"HTTP {status}{self._without_key(_error_text(data))}"
        if status in TRY_AGAIN or status >= 500:
            raise _Again(message, status, _retry_after(response.headers.get("retry-after")))
        raise Refused(message, status)

    def _without_key(self, text):
        return text.replace(self._key, "…") if self._key else text

    # --- the beginning ---------------------------------------------------------------------------

    def _open(self):
        import httpx2

        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "pt-tools"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        direct = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}  # never through a proxy
        limits = httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        try:
            return httpx2.Client(headers=headers, timeout=self.timeout_s, limits=limits, mounts=direct)
        except ValueError:  # its own message may show the key
            raise Usage(f"{self._key_env} or a proxy variable holds what no header or URL can hold") from None

    def _known_model(self, model):
        """`model`, or the only one there is. Usage if nobody answers: better now than after thousands of retries."""
        try:
            names = self.models()
        except Failure as failure:
            raise Usage(self.explain(failure)) from None
        if model:  # not looked up: servers know more names than they list
            return model
        if names is None or len(names) != 1:
            shown = f"has several models ({', '.join(names[:8])})" if names else "lists no models"
            raise Usage(f"the server {self.base_url} {shown}; name the one to ask")
        return names[0]


class _Again(Exception):
    """A failure that may pass: in `wait_s` seconds if the server said so."""

    def __init__(self, message, status=0, wait_s=None):
        super().__init__(message)
        self.status, self.wait_s = status, wait_s


class _Pace:
    """When the next request may start: so many a minute, evenly, and none while the server wants rest."""

    def __init__(self, per_minute):
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def hold(self, seconds):
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def turn(self, halt):
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + self._gap_s
                    return
                wait_s = self._next - now
            _pause(min(wait_s, POLL_S), halt)


def _pause(seconds, halt):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop.check()
        if halt.wait(min(left, POLL_S)):
            raise Unreachable("no longer wanted")


def _take(done):
    while True:
        stop.check()
        try:
            return done.get(timeout=POLL_S)
        except queue.Empty:
            pass


def _base(url):
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise Usage(f"{url!r} is no http:// or https:// address of a server") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Usage("the server's address must not hold a user, a password, a query or a fragment; "
                    "a key belongs into an environment variable")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def _key(name):
    key = os.environ.get(name, "").strip()
    if not key and name != API_KEY_ENV:
        raise Usage(f"the environment variable {name}, which should hold the API key, is not set")
    return key


def _reply(answer):
    try:
        choice = answer["choices"][0]
        text = choice["message"].get("content")
        finish, usage = choice.get("finish_reason"), answer.get("usage") or {}
        if not isinstance(text, (str, type(None))):
            raise TypeError
        return Reply(text or "", finish, *(int(usage.get(f"{part}_tokens") or 0) for part in ("prompt", "completion")))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise _Again("the answer is no chat completion", 200) from None


def _model_names(answer):
    try:
        return [str(model["id"]) for model in answer["data"]]
    except (KeyError, TypeError):
        raise Refused("the list of models cannot be read", 200) from None


def _error_text(data):
    """": what the server says about its error", cut to a line."""
    try:
        found = json.loads(data)
        found = found.get("error", found.get("detail", found.get("message", "")))
        found = found.get("message", found) if isinstance(found, dict) else found
    except (ValueError, AttributeError, RecursionError):
        found = data[:2000].decode("utf-8", "replace")
    text = " ".join(str(found).split())[:300]
    return f": {text}" if text else ""


def _retry_after(value):
    """Seconds that a Retry-After header asks for (a number, or an HTTP date); None without one that can be read."""
    if not value:
        return None
    try:
        seconds = float(value) if value.strip()[0].isdigit() else (
            email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, seconds)
