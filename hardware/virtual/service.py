"""The process behind a virtual arm: its buses, its physics, its cameras, its clients.

One thread does it all, so that nothing has to be locked. Its time stands still while a
busy computer holds it up; clients read it from a file (`clock.ArmTime`). What belongs
to one arm's protocol is in its `emulator.service`.
"""

import _thread
import contextlib
import importlib
import json
import os
import selectors
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.support.errors import UserError
from act_minimal.support.validation import check_settings

from ..clock import ArmTime, clock_path
from .scene import VirtualScene
from .server import Client, SceneServer, socket_path


class VirtualConfig:
    """What the settings of all virtual arms share."""

    port: Path

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def clocks(self) -> list[Path]:
        """Files in which clients find its time."""
        return [clock_path(self.port)]

    @property
    def files(self) -> list[Path]:
        """Everything that it makes; gone when it has ended."""
        return [self.port, socket_path(self.port), *self.clocks]


class VirtualService:
    """Runs a virtual arm until `stopped`.

    Args:
        config: which, and where.
        arm: the emulated one; its `step` lets `seconds` of physics pass in its `data`,
            and its `witness` sees them.
        scene: what is around it.

    Raises:
        UserError: this system lacks what it needs, or the place is taken.
    """

    def __init__(self, config: VirtualConfig, arm: Any, scene: VirtualScene):
        if os.name != "posix":
            raise UserError(
                "a virtual arm needs pseudo-terminals, and sockets with names, which "
                "this system lacks; use Linux, macOS, or WSL"
            )
        self.arm, self.scene, self.stopped = arm, scene, False
        self.requests: dict[str, Callable[[Any], object]] = {
            "forget": self._forget,
            "look": lambda _: None,  # every answer tells what is to be seen
            "stop": self._stop,
        }
        """Name -> what carries it out; a client asks for several in one line."""
        self.selector = selectors.SelectSelector()  # waits to the microsecond
        with contextlib.ExitStack() as undo:
            undo.callback(self.selector.close)
            self.open_buses(undo)
            self.time = ArmTime(config.clocks)
            undo.callback(self.time.close)
            path = socket_path(config.port)
            self._server = SceneServer(path, self.selector, self._do)
            undo.callback(self._server.close)
            self._undo = undo.pop_all()
        self._then = self.time.pass_on()

    def close(self) -> None:
        self.remove_port()  # first: nobody shall find a port that is not served
        self._undo.close()

    # ------------------------------------------------------------ of each protocol

    def open_buses(self, undo: contextlib.ExitStack) -> None:
        """Open the buses and make the port; `undo` gets what takes them back."""
        raise NotImplementedError

    def remove_port(self) -> None:
        """Remove the port if it is still this arm's."""
        raise NotImplementedError

    def answer(self, now: float) -> float | None:
        """Send the motors' answers that are due by now, s; when the next one is."""
        raise NotImplementedError

    def look(self) -> dict[str, Any]:
        """What is to be seen of this arm alone: its joints, its motors' torque."""
        raise NotImplementedError

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        try:
            while not self.stopped:
                self.wait(self.turn() - self.time.now())
        finally:
            self.scene.close()

    def turn(self) -> float:
        """Let time pass up to now, and send what is due; when to come again, s."""
        now = self.time.pass_on()
        while self._then + self.arm.seconds <= now:
            self.arm.step()
            self.scene.watch(self.arm.data)
            self._then += self.arm.seconds
        self.answer(now)
        self._server.show(now, self.picture, self._objects)
        due, step = self.answer(self.time.now()), self._then + self.arm.seconds
        return step if due is None else min(step, due)

    def wait(self, seconds: float) -> None:
        for key, _ in self.selector.select(max(0.0, seconds)):
            key.data()

    # ------------------------------------------------------------ clients

    def _do(self, request: dict[str, Any], client: Client) -> dict[str, Any]:
        for name, value in request.items():
            if name == "watch":
                height, width = value["size"]
                size = int(height), int(width)
                for camera in value["cameras"]:
                    self.picture(camera, size)  # refuses one that there is not
                client.cameras, client.size = value["cameras"], size
                client.period = 1.0 / value["fps"]
            elif name == "follow":
                client.follows, client.period = True, 1.0 / float(value)
            elif name in self.requests:
                self.requests[name](value)
            else:
                raise UserError(f"a virtual arm knows no '{name}'")
        return {
            **self.look(),
            "success": bool(self.scene.success),
            "objects": self._objects(),
            "state": self.arm.data.qpos.tolist(),
            "witness": self.arm.witness.to_json(),
            "time": self.time.now(),
        }

    def _forget(self, _: Any) -> None:
        self.arm.witness = type(self.arm.witness)()

    def _stop(self, _: Any) -> None:
        self.stopped = True

    def _objects(self) -> list[float]:
        return self.scene.objects(self.arm.data.qpos)

    def picture(self, camera: str, size: tuple[int, int]) -> np.ndarray:
        """What a camera sees now, (H, W, 3) uint8; UserError if there is none."""
        return self.scene.picture(camera, size, self.arm.data.qpos)


def serve_until_ended(make: Callable[[], VirtualService], greeting: str) -> None:
    """Serve a virtual arm until a client stops it, or this program is stopped.

    Ctrl-C, SIGTERM, and the end of its terminal (SIGHUP) end it in the same way: port,
    socket and clock are gone afterwards. The greeting is printed once it is open.
    """
    with contextlib.suppress(OSError):  # where it may: motors never wait for a CPU
        os.nice(-10)
    ended = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    # One that is ignored (nohup) stays so.
    signals = [s for s in ended if s and signal.getsignal(s) is not signal.SIG_IGN]
    for number in signals:
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        service = make()
        try:
            print(greeting, flush=True)
            service.run()
        finally:
            for number in (*signals, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # a second one: it ends already
            service.close()


def host() -> None:
    """Serve the arm that the command line describes, until this program's input ends.

    Input is a pipe from who started it: however that program ends, the pipe does, too.
    """
    module, kind, content = sys.argv[1:]
    emulator = importlib.import_module(module)
    settings = json.loads(content)
    config = getattr(emulator, kind)(**settings | {"port": Path(settings["port"])})

    # Whatever the shell said (nohup, &): an ignored signal would interrupt nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait() -> None:
        while os.read(0, 1):
            pass
        _thread.interrupt_main()

    threading.Thread(target=wait, daemon=True).start()
    emulator.serve(config)
