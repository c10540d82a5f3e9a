"""The door of a virtual arm's room: people come in by a socket, ask, and look on.

Wishes and answers are lines of JSON. Who watches cameras gets a line that says which
picture follows, and then its bytes; who follows the objects gets a line for each of
their places. Every arm's room has such a door, whatever its bus.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from act_minimal.errors import UserError


@dataclass
class Visitor:
    """Somebody in the room."""

    connection: socket.socket
    heard: bytes = b""
    pending: bytes = b""
    cameras: list[str] = field(default_factory=list)
    size: tuple[int, int] = (96, 128)
    follows: bool = False
    """Whether the objects' places are sent, instead of pictures."""
    period: float = 0.0
    next: float = 0.0

    def watch(self, cameras: list[str], size: tuple[int, int], fps: float) -> None:
        """From now on show these cameras' pictures, (H, W), so many a second."""
        self.cameras, self.size, self.period = cameras, size, 1.0 / fps

    def follow(self, fps: float) -> None:
        """From now on say where the objects are, so many times a second."""
        self.follows, self.period = True, 1.0 / fps


class Door:
    """Listens at a socket; one thread, with the selector of whoever serves.

    Nobody is waited for: who is slow to look misses pictures.

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
        self,
        now: float,
        picture: Callable[[str, tuple[int, int]], np.ndarray],
        objects: Callable[[], list[float]],
    ) -> None:
        """Send pictures and places to those for whom they are due."""
        for visitor in list(self.visitors.values()):
            if visitor.pending:
                self._flush(visitor)
            if not visitor.period or now < visitor.next:
                continue
            # A camera keeps its own rate; what it missed is gone.
            late = max(0.0, now - visitor.next) if visitor.next else 0.0
            visitor.next = now - late % visitor.period + visitor.period
            if visitor.pending:
                continue
            if visitor.follows:
                self._say(visitor, _line({"objects": objects(), "time": now}))
            for camera in visitor.cameras:
                image = picture(camera, visitor.size)
                head = {"camera": camera, "shape": image.shape, "time": now}
                self._say(visitor, _line(head) + image.tobytes())

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
            self._say(visitor, _line(answer))

    def _say(self, visitor: Visitor, data: bytes) -> None:
        visitor.pending += data
        self._flush(visitor)

    def _flush(self, visitor: Visitor) -> None:
        """Send what the other side takes now: the arm waits for nobody."""
        try:
            while visitor.pending:
                sent = visitor.connection.send(visitor.pending)
                visitor.pending = visitor.pending[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._leave(visitor)


class Service(Protocol):
    """A virtual arm that can be served."""

    def run(self) -> None:
        """Serve until it is told to stop."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


def serve_until_ended(make: Callable[[], Service], greeting: str) -> None:
    """Serve a virtual arm until its room is told to stop, or this program is.

    Ctrl-C, SIGTERM, and the end of its terminal (SIGHUP) end it in the same way: port,
    room and clock are gone afterwards.

    Args:
        make: opens the arm's port.
        greeting: printed once it is open.
    """
    ended = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    # One that is ignored (nohup) stays so.
    here = [s for s in ended if s and signal.getsignal(s) is not signal.SIG_IGN]
    for number in here:
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        service = make()
        try:
            print(greeting, flush=True)
            service.run()
        finally:
            for number in (*here, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # a second one: it ends already
            service.close()


def is_served(port: Path) -> bool:
    """Whether a virtual arm runs at this port now; one that was killed does not."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX) as knock,
        short_name(room_path(port)) as name,
    ):
        knock.connect(name)
        return True
    return False


def room_path(port: Path) -> Path:
    """The socket of the room of the virtual arm at `port`."""
    return port.with_name(port.name + ".room")


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A socket's name may have about 100 bytes: go to its folder for long ones."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        yield path.name
    finally:
        os.chdir(here)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
