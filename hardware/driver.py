"""What the drivers of all arms share: observations, ticks, and how an arm is let go."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from act_minimal.control import Observation

from .cameras import Camera, Frame
from .clock import Clock, Ticker, ask_patiently
from .errors import BusError

AnyBus = TypeVar("AnyBus", bound=Any)


@contextlib.contextmanager
def opened(bus: AnyBus) -> Iterator[AnyBus]:
    """The bus, open for as long as the block lasts."""
    bus.open()
    try:
        yield bus
    finally:
        bus.close()


@dataclass(kw_only=True)
class Health:
    """What the motors say about themselves, (A,) each."""

    temperature: np.ndarray  # °C
    load: np.ndarray  # share of the peak torque, -1 to 1
    torque: np.ndarray  # N·m
    age: np.ndarray  # s since each motor was measured
    faults: dict[str, Any] = field(default_factory=dict)
    """Joint -> what its motor complains of, with `words()`; the others are left out."""


class ArmDriver:
    """A follower arm: `connect`, then `observe` and `act` in turns, then `close`.

    A driver has `start`, `measure`, `send` and `disable`, and better `soften` too. What
    may pass, such as a lost answer, it raises as `BusError`: that is asked again.

    Args:
        fps: control ticks a second, Hz.
        cameras: by name; `start` opens them.
    """

    n = 1
    buses: tuple[Any, ...] = ()
    """What the motors are on, if it has a `close` and the `clock` that counts."""

    def __init__(self, fps: float, cameras: dict[str, Camera] | None = None):
        self.fps = float(fps)
        self.sources = dict(cameras or {})
        self.cameras = tuple(self.sources)
        self.ticker = Ticker(self.fps)
        self.health: Any = None
        self.frames: dict[str, Frame] = {}
        self.observed_at = 0.0  # s, the clock's: when the last observation was taken
        self.torque = False
        """Whether a motor may have torque."""

    @property
    def clock(self) -> Clock:
        """Whose seconds count: the buses', or the computer's."""
        return self.buses[0].clock if self.buses else Clock()

    def connect(self) -> None:
        """Check every motor, and hold the arm where it is; nothing moves.

        Raises:
            UserError: a motor is missing, of another type, unwell, or fed wrongly.
        """
        try:
            self.start()
        except BaseException as error:
            self.abandon(error)
            raise
        self.torque = True  # so that `close` takes it away
        self.ticker.clock = self.clock
        self.ticker.start()

    def start(self) -> None:
        """Open the buses, check the motors, torque on at the measured pose; cameras.

        Sets `torque` before the first motor gets any, so that `close` takes it away.

        Raises:
            UserError: as `connect`.
        """
        raise NotImplementedError

    def measure(self) -> tuple[np.ndarray, np.ndarray, Any]:
        """State (A,), velocity (A,), and the motors' health, in one exchange."""
        raise NotImplementedError

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        """See `Robot.observe`; also `qvel` and `effort`, and `self.health`.

        Raises:
            UserError: a motor is silent, or a camera shows nothing new.
        """
        state, velocity, self.health = self.measure()
        self.observed_at = self.clock.now() - float(self.health.age.max())
        seen = {
            "qpos": state[None].astype(np.float32),
            "qvel": velocity[None].astype(np.float32),
            "effort": self.health.torque[None].astype(np.float32),
        }
        for name in cameras:
            self.frames[name] = frame = self.sources[name].read()
            seen[f"images/{name}"] = frame.image[None]
        return seen

    def send(self, state: np.ndarray) -> None:
        """Joint targets (A,), at once."""
        raise NotImplementedError

    def soften(self) -> None:
        """Let the torque fade, then off: an arm that cannot be laid down sinks."""
        self.disable()

    def disable(self) -> None:
        """Torque off, whatever it takes; every motor is tried. Clears `torque`.

        Raises:
            BusError: some motor did not confirm it.
        """
        raise NotImplementedError

    def act(self, action: np.ndarray) -> None:
        """Send joint targets (1, A) and wait for the end of the tick."""
        self.send(action[0])
        self.ticker.wait()

    def close(self) -> None:
        """Let go: torque off first, then buses and cameras, whatever fails on the way.

        An arm that is not at rest sinks or falls; `SafeRobot.land` lays it down.

        Raises:
            BusError: a motor did not hear it for a second; says what to switch off.
        """
        self.complaints: list[str] = []
        """What could not be closed besides the torque."""
        try:
            if self.torque:
                ask_patiently(self.disable, self.ticker.clock)
        finally:
            for bus in self.buses:
                self._close("a bus", bus)
            for name, camera in self.sources.items():
                self._close(f"camera '{name}'", camera)

    def abandon(self, cause: BaseException) -> None:
        """After a failed connect: leave nothing on.

        Raises:
            BusError: the torque of a motor may be on; says so beside the cause.
        """
        try:
            self.close()
        except BusError as error:
            raise BusError(f"{cause}; then: {error}", error.silent) from cause

    def _close(self, name: str, part: Any) -> None:
        try:
            part.close()
        except Exception as error:  # whatever a driver throws: the others come next
            self.complaints.append(f"{name} could not be closed: {error}")
