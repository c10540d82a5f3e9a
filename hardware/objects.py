"""Where the objects are, for policies that were trained with their poses.

No arm knows that by itself. Whatever does (a motion tracker, fiducial markers) sends
poses at its own rate; a thread keeps the newest, so that a control loop never waits,
and a pose that is too old is refused. One source is here:

    virtual:PORT    the room of a virtual arm, which stands in for a tracker

Another is a class with the same three methods.
"""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.errors import SettingError, UserError

from .clock import Arrivals, Clock, clock_of

RATE = 100.0  # poses a second
STALE = 0.15  # s, as for an observation
FIRST = 60.0  # s that the first pose may take on a busy computer


class TrackerError(UserError):
    """A source of poses that cannot be opened, or says nothing new."""


class Tracker:
    """The newest poses of the objects.

    Args:
        source: virtual:<port of a virtual arm>.
        stale: s after which the newest poses are refused.

    Raises:
        SettingError: there is no such kind of source.
    """

    def __init__(self, source: str, stale: float = STALE):
        kind, _, port = source.partition(":")
        if kind != "virtual" or not port:
            raise SettingError(
                f"objects is '{source}', expected virtual: and the port of a virtual "
                "arm, such as virtual:virtual_openarm"
            )
        self.source, self.port, self.stale = source, Path(port), stale
        self._latest: tuple[np.ndarray, float, float] | None = None
        self._error, self._clock = "", Clock()
        self._fresh = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def open(self) -> None:
        """Start it, and wait for the first poses.

        Raises:
            TrackerError: there is no object, or nothing comes.
            UserError: nobody is there.
        """
        if self._thread:
            return
        from .so100.emulator.room import enter

        self._stopping, self._error, self._latest = False, "", None
        self._fresh.clear()
        connection, file = enter(self.port)
        self._clock = clock_of(self.port)
        connection.settimeout(FIRST)
        connection.sendall(json.dumps({"follow": RATE}).encode() + b"\n")
        self._thread = threading.Thread(
            target=self._gather, args=(connection, file), daemon=True, name="objects"
        )
        self._thread.start()
        if not self._fresh.wait(FIRST) or self._latest is None:
            self.close()
            raise TrackerError(
                f"objects {self.source}: no poses came{self._why() or ' in time'}"
            )
        if not len(self._latest[0]):
            self.close()
            raise TrackerError(f"objects {self.source}: there is no object")

    def read(self) -> np.ndarray:
        """Position (m) and quaternion (wxyz) of each object, (E,) float32.

        Raises:
            TrackerError: they are too old, or not open.
        """
        if self._latest is None:
            raise TrackerError(f"objects {self.source}: not open")
        self._clock.wait_for_news(
            self._fresh, lambda: not self._error and self._age() > self.stale
        )
        poses, age = self._latest[0], self._age()
        if age > self.stale:
            raise TrackerError(
                f"objects {self.source}: the newest poses are {age:.2f} s old, "
                f"expected at most {self.stale} s{self._why()}"
            )
        return poses

    def _age(self) -> float:
        assert self._latest is not None
        return self._clock.age(*self._latest[1:])

    def look(self) -> np.ndarray:
        """What `read` gives, also of one that is not open: it is opened for this."""
        if self._thread:
            return self.read()
        self.open()
        try:
            return self.read()
        finally:
            self.close()

    def close(self) -> None:
        """Stop it."""
        self._stopping = True
        if self._thread:
            self._thread.join(timeout=2.0)
        self._thread = self._latest = None

    def _why(self) -> str:
        return f" ({self._error})" if self._error else ""

    def _gather(self, connection: Any, file: Any) -> None:
        try:
            answer = json.loads(file.readline() or b"{}")
            if "error" in answer:
                raise TrackerError(answer["error"])
            arrivals = Arrivals(self._clock)
            while not self._stopping:
                said = json.loads(file.readline() or b"null")
                if said is None:
                    raise TrackerError("the virtual arm has ended")
                poses = np.array(said["objects"], np.float32)
                when = float(said["time"])
                self._latest = poses, when, arrivals.held(when)
                self._fresh.set()
        except (OSError, ValueError, UserError) as error:
            self._error = str(error) or type(error).__name__
            self._fresh.set()
        finally:
            file.close()
            connection.close()
