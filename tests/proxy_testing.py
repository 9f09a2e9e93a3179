"""Proxies before servers that fail as networks and busy servers do."""

import contextlib
import socket
import struct
import threading
from abc import abstractmethod
from types import TracebackType
from typing import TypeVar

_Proxy = TypeVar("_Proxy", bound="_Listening")


class _Listening:
    """What accepts connections on the loopback interface, each served by a thread."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._ended = threading.Event()

    def __enter__(self: _Proxy) -> _Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    @abstractmethod
    def _serve(self, client: socket.socket) -> None:
        """Serves a connection to its end."""


class Wire(_Listening):
    """Passes octets on in both directions, whatever the protocol, until it is cut or stalls.

    Attributes:
        port: Where it listens on the loopback interface.
    """

    def __init__(self, server: int) -> None:
        super().__init__(server)
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._open: set[socket.socket] = set()

    def cut(self) -> None:
        """Resets all connections, and those that come."""
        self._is_cut = True
        for one in tuple(self._open):
            _reset(one)

    def stall(self) -> None:
        """Keeps connections, and those that come, and holds back what they send."""
        self._flows.clear()

    def mend(self) -> None:
        """Passes octets on again."""
        self._is_cut = False
        self._flows.set()

    def _serve(self, client: socket.socket) -> None:
        if self._is_cut:
            _reset(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._server))
        except OSError:
            _reset(client)
            return
        self._open |= {client, server}
        back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        back.start()
        self._pass_on(client, server)
        back.join()
        self._open -= {client, server}
        client.close()
        server.close()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := one.recv(65536):
                self._flows.wait()
                other.sendall(octets)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)


class Proxy(_Listening):
    """Passes requests on, each by a connection of its own to the server, unless a fault is due.

    Attributes:
        port: Where it listens on the loopback interface.
        fault: What happens to a request: `refuse` (the connection ends before an answer), `reset`, `stall` (no answer
            until the client goes), `429`, `503`, `slow` (the answer comes half a second later); empty: nothing.
        faults_left: To so many requests, then no more; a negative number: to all.
        authorization: What the header of this name has to say; all other requests get 401.
    """

    def __init__(self, server: int) -> None:
        super().__init__(server)
        self.fault, self.faults_left = "", 0
        self.authorization: str | None = None

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while request := _message(client):
                fault = self.fault if self.faults_left else ""
                if self.authorization is not None and self.authorization != _authorization(request):
                    fault = "401"
                elif fault:
                    self.faults_left -= 1
                if fault == "refuse":
                    return
                if fault == "reset":
                    _reset(client)
                    return
                if fault == "stall":
                    client.recv(1)
                    return
                if fault == "slow":
                    self._ended.wait(0.5)
                client.sendall(_refusal(fault) if fault.isdecimal() else self._answer(request))

    def _answer(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._server)) as server:
            server.sendall(request)
            return _message(server)


def _reset(connection: socket.socket) -> None:
    """Ends a connection so that the other side's next call fails."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _refusal(status: str) -> bytes:
    reason = "credentials are wrong" if status == "401" else "too much to do"
    body = f'{{"error":{{"type":"fault","reason":"{reason}"}},"status":{status}}}'.encode()
    head = (
        f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\nX-elastic-product: Elasticsearch\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _authorization(request: bytes) -> str:
    for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"authorization":
            return value.strip().decode()
    return ""


def _message(connection: socket.socket) -> bytes:
    """A request or an answer, whole; empty if the connection has ended. It tells the length of its body, if any."""
    octets = b""
    while b"\r\n\r\n" not in octets:
        more = connection.recv(65536)
        if not more:
            return b""
        octets += more
    head, _, body = octets.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    rest = int(lines.get(b"content-length", b"0")) - len(body)
    pieces = [octets]
    while rest > 0:
        pieces.append(connection.recv(65536))
        if not pieces[-1]:
            return b""
        rest -= len(pieces[-1])
    return b"".join(pieces)
