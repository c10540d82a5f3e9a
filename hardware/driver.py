"""What the drivers of all arms share: the end of a tick, and how an arm is let go."""

from typing import Any

import numpy as np

from .cameras import Camera
from .clock import Ticker, ask_patiently
from .errors import BusError


class ArmDriver:
    """An arm's driver: says how torque goes off; buses and cameras are closed here."""

    ticker: Ticker
    buses: Any  # a tuple of the driver's own
    sources: dict[str, Camera]
    torque: bool
    """Whether a motor may have torque."""

    def send(self, state: np.ndarray) -> None:
        """Joint targets (A,), at once."""
        raise NotImplementedError

    def disable(self) -> None:
        """Torque off, whatever it takes; every motor is tried.

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
                ask_patiently(self.disable, clock=self.ticker.clock)
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
