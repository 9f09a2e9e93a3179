"""A receiver of alerts in this process."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver(ThreadingHTTPServer):
    """Keeps the posts, and answers with what stands in `answers` first, then with 204.

    Attributes:
        posts: Headers and body of each, when it came.
        answers: Status and headers, or None to cut the connection.
        checks: Headers of posts without alerts, which are not among the others.
        check_status: What those get.
    """

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.posts: list[tuple[dict[str, str], bytes, float]] = []
        self.answers: list[tuple[int, dict[str, str]] | None] = []
        self.checks: list[dict[str, str]] = []
        self.check_status = 204
        self.url = f"webhook:http{'s' if context else ''}://127.0.0.1:{self.server_port}/alerts"

    @property
    def alerts(self) -> list[dict]:
        return [alert for _, body, _ in self.posts for alert in json.loads(body)["alerts"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: tuple[int, dict[str, str]] | None
        if json.loads(body) == {"alerts": []}:
            self.server.checks.append(dict(self.headers))
            answer = (self.server.check_status, {})
        else:
            self.server.posts.append((dict(self.headers), body, time.monotonic()))
            answer = self.server.answers.pop(0) if self.server.answers else (204, {})
        if answer is None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
            self.connection.close()
            self.close_connection = True
            return
        self.send_response(answer[0])
        for name, value in {"Content-Length": "0", **answer[1]}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def serving(server: Receiver) -> Iterator[Receiver]:
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
