"""Where the objects are, for policies that were trained with their poses.

No arm knows that by itself. Whatever does (a motion tracker, fiducial markers) sends
poses at its own rate; a thread keeps the newest, so that a control loop never waits,
and a pose that is too old is refused. One source is here:

    virtual:PORT    the scene of a virtual arm, which stands in for a tracker

In Python, `SafeRobot` takes any object with the methods of `Tracker`.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from act_minimal.support.errors import SettingError, UserError

from .clock import clock_of
from .stream import Stream

RATE = 100.0  # poses a second
STALE = 0.15  # s, as for an observation
FIRST = 60.0  # s that the first pose may take on a busy computer


class TrackerError(UserError):
    """A source of poses that cannot be opened, or says nothing new."""


def make_tracker(source: str) -> "Tracker | Trackers":
    """By its source; "virtual:LEFT,RIGHT" are two, one after the other.

    Raises:
        SettingError: there is no such kind of source.
    """
    kind, _, ports = source.partition(":")
    trackers = [Tracker(f"{kind}:{port}") for port in ports.split(",")]
    return Trackers(trackers) if len(trackers) > 1 else trackers[0]


class Trackers:
    """Several sources as one: their objects follow one another.

    Args:
        trackers: in order; each has the methods of a `Tracker`.
    """

    def __init__(self, trackers: "Sequence[Tracker]"):
        self.trackers = tuple(trackers)
        self.source = ",".join(one.source for one in trackers)

    def open(self) -> None:
        """Start all; see `Tracker.open`."""
        try:
            for one in self.trackers:
                one.open()
        except BaseException:
            self.close()
            raise

    def read(self) -> np.ndarray:
        """The newest poses of all objects, (E,) float32; see `Tracker.read`."""
        return np.concatenate([one.read() for one in self.trackers])

    def look(self) -> np.ndarray:
        """See `Tracker.look`."""
        return np.concatenate([one.look() for one in self.trackers])

    def close(self) -> None:
        """Stop all, whatever fails on the way."""
        with contextlib.ExitStack() as last:
            for one in self.trackers:
                last.callback(one.close)


class Tracker(Stream):
    """The newest poses of the objects.

    Args:
        source: virtual:<port of a virtual arm>.
        stale: s after which the newest poses are refused.

    Raises:
        SettingError: there is no such kind of source.
    """

    error = TrackerError
    newest_is = "poses are"

    def __init__(self, source: str, stale: float = STALE):
        kind, _, port = source.partition(":")
        if kind != "virtual" or not port:
            raise SettingError(
                f"objects is '{source}', expected virtual: and the port of a virtual "
                "arm, such as virtual:virtual_openarm"
            )
        super().__init__(f"objects {source}", stale)
        self.source, self.port = source, Path(port)

    def open(self) -> None:
        """Start it, and wait for the first poses.

        Raises:
            TrackerError: there is no object, or nothing comes.
            UserError: nobody is there.
        """
        if self._thread:
            return
        from .virtual.client import open_object_poses

        source = open_object_poses(self.port, RATE, FIRST)
        if not self.start(source, clock_of(self.port), FIRST):
            why = f" ({self.failure})" if self.failure else " in time"
            raise TrackerError(f"{self.name}: no poses came{why}")
        if self.newest is not None and not len(self.newest.content):
            self.close()
            raise TrackerError(f"{self.name}: there is no object")

    def read(self) -> np.ndarray:
        """Position (m) and quaternion (wxyz) of each object, (E,) float32.

        Raises:
            TrackerError: they are too old, or not open.
        """
        return self.newest_fresh().content

    def look(self) -> np.ndarray:
        """What `read` gives, also of one that is not open: it is opened for this."""
        if self._thread:
            return self.read()
        self.open()
        try:
            return self.read()
        finally:
            self.close()
