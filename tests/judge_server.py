"""A real HTTP server that speaks OpenAI's chat completions; what it says is a function of the test's own."""

import contextlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FENCE = re.compile(r"<answer (?:[AB] )?([0-9a-f]{16})>\n(.*?)\n</answer (?:[AB] )?\1>", re.DOTALL)


def answers(body):
    """What stands between the markers of a request, in order."""
    return [found[2] for found in FENCE.finditer(body["messages"][0]["content"])]


class Server:
    """`say(body)` gives a reply's text, or (status, headers, bytes). Everything that came is in `seen`, with its time."""

    def __init__(self, say, models=("tiny",)):
        self.say, self.models = say, models
        self.seen, self.headers, self.times = [], [], []
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        names = self.owner.models
        if isinstance(names, int):
            return self._answer(names, {}, b'{"error": {"message": "no"}}')
        self._answer(200, {}, json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.owner
        with owner.lock:
            owner.seen.append(body)
            owner.headers.append(dict(self.headers))
            owner.times.append(time.monotonic())
            owner.now += 1
            owner.most = max(owner.most, owner.now)
        try:
            said = owner.say(body)
        finally:
            with owner.lock:
                owner.now -= 1
        with contextlib.suppress(OSError):  # the client may have gone
            self._answer(*(said if isinstance(said, tuple) else (200, {}, completion(said))))

    def _answer(self, status, headers, data):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def completion(text, finish="stop"):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
                       "usage": {"prompt_tokens": 10, "completion_tokens": 3}}).encode()


@contextlib.contextmanager
def serving(say, **more):
    server = Server(say, **more)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
