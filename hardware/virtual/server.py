"""The socket of a virtual arm, by which its scene is changed and looked at.

Requests and answers are lines of JSON. A client that watches cameras gets a line that
says which picture follows, and then its bytes; one that follows the objects gets a line
for each of their places.
"""

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.support.errors import UserError


@dataclass
class Client:
    """One that is connected."""

    connection: socket.socket
    received: bytes = b""
    pending: bytes = b""
    cameras: list[str] = field(default_factory=list)
    size: tuple[int, int] = (96, 128)
    follows: bool = False  # whether the objects' places are sent, instead of pictures
    period: float = 0.0  # s between two of them
    next: float = 0.0


class SceneServer:
    """Listens at a socket; one thread, with the selector of the service.

    No client is waited for: one that reads slowly misses pictures. `do` carries out
    one client's request, and gives the answer.
    """

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        do: Callable[[dict[str, Any], Client], dict[str, Any]],
    ):
        self.path, self._selector, self._do = path, selector, do
        self.clients: dict[socket.socket, Client] = {}
        if path.exists() and not path.is_socket():
            raise UserError(
                f"{path} is there already, and no virtual arm made it; choose another "
                "--port"
            )
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_name(path) as name:
            self._socket.bind(name)
        self._socket.listen()
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        for client in list(self.clients.values()):
            self._disconnect(client)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._socket)
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def show(
        self,
        now: float,
        picture: Callable[[str, tuple[int, int]], np.ndarray],
        objects: Callable[[], list[float]],
    ) -> None:
        """Send pictures and places to the clients for which they are due."""
        for client in list(self.clients.values()):
            if client.pending:
                self._flush(client)
            if not client.period or now < client.next:
                continue
            # A camera keeps its own rate; what it missed is gone.
            late = max(0.0, now - client.next) if client.next else 0.0
            client.next = now - late % client.period + client.period
            if client.pending:
                continue
            if client.follows:
                self._send(client, _line({"objects": objects(), "time": now}))
            for camera in client.cameras:
                image = picture(camera, client.size)
                head = {"camera": camera, "shape": image.shape, "time": now}
                self._send(client, _line(head) + image.tobytes())

    def _accept(self) -> None:
        connection, _ = self._socket.accept()
        connection.setblocking(False)
        client = Client(connection)
        self.clients[connection] = client
        self._selector.register(
            connection, selectors.EVENT_READ, lambda: self._receive(client)
        )

    def _disconnect(self, client: Client) -> None:
        self.clients.pop(client.connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.connection)
        client.connection.close()

    def _receive(self, client: Client) -> None:
        try:
            data = client.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect(client)
            return
        client.received += data
        while b"\n" in client.received:
            line, _, client.received = client.received.partition(b"\n")
            try:
                answer = self._do(json.loads(line), client)
            except (UserError, ValueError, TypeError, KeyError) as error:
                answer = {"error": str(error)}
            self._send(client, _line(answer))

    def _send(self, client: Client, data: bytes) -> None:
        client.pending += data
        self._flush(client)

    def _flush(self, client: Client) -> None:
        """Send what the client takes now: the arm waits for none."""
        try:
            while client.pending:
                sent = client.connection.send(client.pending)
                client.pending = client.pending[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._disconnect(client)


def is_served(port: Path) -> bool:
    """Whether a virtual arm runs at this port now; one that was killed does not."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX) as probe,
        short_name(socket_path(port)) as name,
    ):
        probe.connect(name)
        return True
    return False


def socket_path(port: Path) -> Path:
    """The socket of the virtual arm at `port`."""
    return port.with_name(port.name + ".scene")


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A socket's name may have about 100 bytes: go to its folder for long ones."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    with contextlib.chdir(path.parent):
        yield path.name


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
