"""A client of a virtual arm's scene: lay the cube, look, pull a plug.

Somebody beside a real arm does these things by hand; tests, lessons and benchmarks do
them through this socket. No policy sees anything of it.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.support.errors import UserError

from ..cameras import FIRST_DRAWN, CameraConfig, virtual_camera
from ..clock import BUSY
from ..stream import Source
from .server import short_name, socket_path

ENDING = 20.0  # s that it may take to clean up on a busy computer
GREETING = "a virtual "  # what an arm says once it is there begins like this
# Not from here: with cameras comes what an arm does not need.
HOST = "from hardware.virtual.service import host; host()"


class SceneClient:
    """A connection to the scene of the virtual arm at `port`.

    Raises:
        UserError: no virtual arm runs there; or from a method, what it refused.
    """

    def __init__(self, port: str | Path):
        self._socket, self._file = open_connection(Path(port))

    def ask(self, **requests: Any) -> dict[str, Any]:
        """Carry out requests, in their order, and look."""
        self._socket.sendall(json.dumps(requests).encode() + b"\n")
        line = self._file.readline()
        if not line:
            raise UserError("the virtual arm has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"the virtual arm refuses: {answer['error']}")
        return answer

    def look(self) -> dict[str, Any]:
        """Everything to be seen: success, joints, objects, torque, witness."""
        return self.ask(look=True)

    def lay(self, scene: int) -> None:
        """Put the objects as in this scene."""
        self.ask(lay=scene)

    def put(self, joints: np.ndarray) -> None:
        """Put the arm at joint angles (6,) rad, by hand."""
        self.ask(put=[float(q) for q in joints])

    def faults(self, **switches: Any) -> None:
        """Turn fault switches; see `wire.Faults`."""
        self.ask(faults=switches)

    def close(self) -> None:
        """Disconnect."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> "SceneClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Numbers between the scenes that lie before the arms of a pair: half of those that a
# seed of an evaluation has.
OTHER_SCENES = 5_000


class Scenes:
    """The scenes of several virtual arms, each of which does the task by itself.

    Args:
        ports: of the arms.

    Raises:
        UserError: at one of them no virtual arm runs.
    """

    def __init__(self, ports: Sequence[str | Path]):
        with contextlib.ExitStack() as undo:
            self.clients = [undo.enter_context(SceneClient(port)) for port in ports]
            self._undo = undo.pop_all()

    def lay(self, scene: int) -> list[int]:
        """Put the objects of all; the number of the scene that lies before each."""
        numbers = [scene + i * OTHER_SCENES for i in range(len(self.clients))]
        for client, number in zip(self.clients, numbers, strict=True):
            client.lay(number)
        return numbers

    def done(self) -> bool:
        """Whether all have done the task."""
        return all(client.look()["success"] for client in self.clients)

    def close(self) -> None:
        """Disconnect."""
        self._undo.close()


def open_connection(port: Path) -> tuple[socket.socket, Any]:
    """Connect to the virtual arm at `port`: the socket, and a file of it.

    Raises:
        UserError: no virtual arm runs there.
    """
    path = socket_path(port)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_name(path) as name:
            connection.connect(name)
    except OSError as error:
        connection.close()
        raise UserError(
            f"no virtual arm at {port} ({error.strerror}); start one with: "
            f"act virtual --port {port}"
        ) from error
    return connection, connection.makefile("rb")


def subscribe(
    port: Path, request: dict[str, Any], what: str, seconds: float
) -> tuple[Any, Callable[[], None]]:
    """Ask a virtual arm for what it then sends by itself; may take so many seconds.

    Returns:
        The file that it comes by, and a function that ends it.

    Raises:
        UserError: no virtual arm runs there; it refused, or was silent.
    """
    connection, file = open_connection(port)

    def stop() -> None:
        file.close()
        connection.close()

    connection.settimeout(seconds)
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(file.readline() or b"{}")
    except OSError as error:
        answer = {"error": f"nothing came in {seconds:g} s ({error})"}
    if "error" in answer:
        stop()
        raise UserError(f"{what} of {port}: {answer['error']}")
    return file, stop


def _read_line(file: Any) -> dict[str, Any]:
    if line := file.readline():
        return json.loads(line)
    raise UserError("the virtual arm has ended")


def open_virtual_camera(name: str, config: CameraConfig) -> Source:
    """A camera of a virtual arm, free-running at its own rate."""
    port, camera = virtual_camera(config.source)
    name = camera or name
    wanted = {"cameras": [name], "size": config.size, "fps": config.fps}
    file, stop = subscribe(
        Path(port), {"watch": wanted}, f"camera '{name}'", FIRST_DRAWN
    )

    def take() -> tuple[np.ndarray, float]:
        head = _read_line(file)
        data = file.read(int(np.prod(head["shape"])))
        # A copy, because nobody may write to the bytes themselves.
        picture = np.frombuffer(data, np.uint8).reshape(head["shape"]).copy()
        return picture, float(head["time"])

    return take, stop


def open_object_poses(port: Path, rate: float, seconds: float) -> Source:
    """Poses of a virtual arm's objects (E,) float32, `rate` a second."""
    file, stop = subscribe(port, {"follow": rate}, "objects", seconds)

    def take() -> tuple[np.ndarray, float]:
        said = _read_line(file)
        return np.array(said["objects"], np.float32), float(said["time"])

    return take, stop


class VirtualArmProcess:
    """A virtual arm in a process of its own, for as long as the `with` block lasts.

    It ends with the program that started it, also if that is killed.

    Args:
        config: which arm, and where; its module has the `serve` that runs it.

    Raises:
        UserError: it did not start; with what it said.
    """

    def __init__(self, config: Any):
        self.config = config
        self.port = str(config.port)

    def __enter__(self) -> "VirtualArmProcess":
        kind = type(self.config)
        content = json.dumps(asdict(self.config) | {"port": self.port})
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOST, kind.__module__, kind.__name__, content],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,  # Ctrl-C is for who drives it: it has to land first
        )
        assert self._process.stdout
        said = ""
        for line in self._process.stdout:  # ends when the process does
            if line.startswith(GREETING):
                self.scene = SceneClient(self.port)
                return self
            said += line
        self._close()
        raise UserError(f"the virtual arm did not start: {said.strip()}")

    @property
    def running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def __exit__(self, *_: object) -> None:
        self.scene.close()
        by_itself = self._process.poll() is not None
        said = self._close()
        if by_itself:
            print(f"the virtual arm ended by itself: {said}", file=sys.stderr)
        elif BUSY in said:
            print(said, file=sys.stderr)
        for path in self.config.files:  # killed, it could not clean up itself
            path.unlink(missing_ok=True)

    def _close(self) -> str:
        """Its input ends, so it does; or it is killed. What it said meanwhile."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._process.stdout as output:
            return output.read().strip()
