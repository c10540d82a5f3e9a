"""The door of a virtual arm's room: people come in by a socket, ask, and look on.

Wishes and answers are lines of JSON. Who watches cameras gets a line that says which
picture follows, and then its bytes.
"""

import contextlib
import json
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.errors import UserError

from ...so100.emulator.service import _short_name


@dataclass
class Visitor:
    """Somebody in the room."""

    connection: socket.socket
    heard: bytes = b""
    cameras: list[str] = field(default_factory=list)
    size: tuple[int, int] = (96, 128)
    period: float = 0.0
    next: float = 0.0


class Door:
    """Listens at a socket; one thread, with the selector of whoever serves.

    Args:
        path: of the socket.
        selector: that the server waits with; its keys hold what to call.
        do: carries out one visitor's wish, and answers.
    """

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        do: Callable[[dict[str, Any], Visitor], dict[str, Any]],
    ):
        self.path, self._selector, self._do = path, selector, do
        self.visitors: dict[socket.socket, Visitor] = {}
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short_name(path) as name:
            self._socket.bind(name)
        self._socket.listen()
        selector.register(self._socket, selectors.EVENT_READ, self._knock)

    def close(self) -> None:
        """Send everybody home, and leave nothing behind."""
        for visitor in list(self.visitors.values()):
            self._leave(visitor)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._socket)
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def show(
        self, now: float, picture: Callable[[str, tuple[int, int]], np.ndarray]
    ) -> None:
        """Send pictures to those whose cameras are due."""
        for visitor in list(self.visitors.values()):
            if not visitor.period or now < visitor.next:
                continue
            # A camera keeps its own rate; what it missed is gone.
            late = max(0.0, now - visitor.next) if visitor.next else 0.0
            visitor.next = now - late % visitor.period + visitor.period
            for camera in visitor.cameras:
                image = picture(camera, visitor.size)
                head = {"camera": camera, "shape": image.shape, "time": now}
                self._say(visitor, json.dumps(head).encode() + b"\n" + image.tobytes())

    def _knock(self) -> None:
        connection, _ = self._socket.accept()
        connection.setblocking(False)
        visitor = Visitor(connection)
        self.visitors[connection] = visitor
        self._selector.register(
            connection, selectors.EVENT_READ, lambda: self._asked(visitor)
        )

    def _leave(self, visitor: Visitor) -> None:
        self.visitors.pop(visitor.connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(visitor.connection)
        visitor.connection.close()

    def _asked(self, visitor: Visitor) -> None:
        try:
            data = visitor.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._leave(visitor)
            return
        visitor.heard += data
        while b"\n" in visitor.heard:
            line, _, visitor.heard = visitor.heard.partition(b"\n")
            try:
                answer = self._do(json.loads(line), visitor)
            except (UserError, ValueError, TypeError, KeyError) as error:
                answer = {"error": str(error)}
            self._say(visitor, json.dumps(answer).encode() + b"\n")

    def _say(self, visitor: Visitor, data: bytes) -> None:
        try:
            visitor.connection.setblocking(True)
            visitor.connection.settimeout(1.0)
            visitor.connection.sendall(data)
            visitor.connection.setblocking(False)
        except OSError:
            self._leave(visitor)
