"""Ticks at a steady rate, and a record of how steady they were; waiting for a bus."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from .errors import BusError

SPIN = 0.0005  # s before a tick that are waited awake: sleep comes back late
SILENCE = 1.0  # s that a bus may be silent while an arm is moved slowly, or let go
AGAIN = 0.03  # s between two questions to a silent bus

Answer = TypeVar("Answer")


@dataclass
class Ticker:
    """Waits for the end of each control tick.

    Ticks lie on a fixed grid, so that one late tick does not shift all that follow. A
    tick that is more than a whole period late moves the grid: ticks that were missed
    are gone, the arm is not hurried to make up for them.

    Args:
        rate: ticks a second, Hz.
    """

    rate: float
    times: list[float] = field(default_factory=list, repr=False)
    """When each tick ended, s."""
    missed: int = 0

    def start(self) -> None:
        """Begin the first tick now."""
        self._next = time.monotonic() + 1 / self.rate
        self.times = [time.monotonic()]
        self.missed = 0

    def wait(self) -> None:
        """Sleep until this tick's end."""
        left = self._next - time.monotonic()
        if left > SPIN:
            time.sleep(left - SPIN)
        while (now := time.monotonic()) < self._next:
            pass
        self.times.append(now)
        late = now - self._next
        if late > 1 / self.rate:
            gone = int(late * self.rate)
            self.missed += gone
            self._next += gone / self.rate
        self._next += 1 / self.rate

    def report(self) -> dict[str, float]:
        """How steady: ms, and the share of ticks over one and a half periods long."""
        if len(self.times) < 3:
            return {"ticks": len(self.times) - 1}
        periods = np.diff(self.times)
        off = 1000 * np.abs(periods - 1 / self.rate)
        return {
            "ticks": len(periods),
            "rate_hz": float(1 / periods.mean()),
            "jitter_ms_p50": float(np.percentile(off, 50)),
            "jitter_ms_p99": float(np.percentile(off, 99)),
            "jitter_ms_max": float(off.max()),
            "late_share": float((periods > 1.5 / self.rate).mean()),
            "missed": self.missed,
        }


def ask_patiently(
    ask: Callable[[], Answer], between: Callable[[], object] = lambda: None
) -> Answer:
    """What `ask` returns; a bus that is silent is asked again for about a second.

    Args:
        ask: speaks on the bus.
        between: called before each question; what it raises ends the waiting.

    Raises:
        BusError: the bus was silent all the time.
    """
    end = time.monotonic() + SILENCE
    while True:
        between()
        try:
            return ask()
        except BusError:
            if time.monotonic() > end:
                raise
        time.sleep(AGAIN)
