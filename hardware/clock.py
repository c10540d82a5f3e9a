"""Time of an arm: ticks at a steady rate, and a clock that a virtual arm shares.

A real arm's time is the computer's. A virtual arm lives in a program of its own, which
a busy computer may hold up; nothing moves meanwhile and nobody answers. So its time
stands still then, and goes on when the program does: `ArmTime` keeps it in a file,
`ArmClock` reads it there. While nothing is held up it equals the computer's own.
"""

import contextlib
import math
import mmap
import os
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar
from weakref import WeakSet

import numpy as np

from act_minimal.support.errors import UserError

from .errors import BusError

SPIN = 0.0005  # s before a tick that are waited awake: sleep comes back late
SILENCE = 1.0  # s that a bus may be silent while an arm is moved slowly, or let go
AGAIN = 0.03  # s between two questions to a silent bus
# A clock's file: which arm it is, how often its time was written, the last two times.
ARM, COUNT, TIMES = 0, 1, 2
SIZE = 8 * (TIMES + 2 * 2)  # bytes
SLACK = 0.02  # s between two looks at its bus that a virtual arm does not count as lost
BUSY = "this computer is too busy"
GONE = 10.0  # s without a sign of a virtual arm after which its time is the computer's
# A virtual arm that ran at less than this share of its speed, for so many seconds, says
# so; after that for so many not again.
SLOW, REPORT, QUIET = 0.75, 5.0, 60.0

Answer = TypeVar("Answer")


class Clock:
    """The computer's own time, s; what a real arm is measured by."""

    patience = 0.0
    """s that who finds nothing new waits for a thread of ours that is behind."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, end: float) -> float:
        """Sleep until it is as late as this; how late it is then."""
        left = end - self.now()
        if left > SPIN:
            time.sleep(left - SPIN)
        while (now := self.now()) < end:
            pass
        return now

    def held(self) -> float:
        """Seconds, so far, that a busy computer is forgiven: none by a real arm."""
        return 0.0

    def age(self, then: float, held: float) -> float:
        """Seconds since `then`, less what was forgiven since `held()` was so much."""
        return self.now() - then - (self.held() - held)

    def fault(self) -> str:
        """Why nobody may answer, if this clock knows; "" if not."""
        return ""


class ArmClock(Clock):
    """The time of a virtual arm, from the file that its `ArmTime` keeps."""

    patience = 0.5  # s; waiting for Python's lock, a thread does not wait for a CPU
    _all: ClassVar["WeakSet[ArmClock]"] = WeakSet()
    """Those that this program looks at: a leader's is waited for by its follower."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            shared = mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ)
        self._shared = memoryview(shared).cast("d")
        self._arm = self._shared[ARM]
        self._lock = threading.Lock()
        self._waits: dict[str, int] = {}  # of each thread, ns
        self._losses: dict[float, float] = {}  # of each other arm, s
        self._held = 0.0
        self._all.add(self)

    def now(self) -> float:
        """Its seconds; they stand still while it is held up."""
        seen, lost = self._read()
        now = time.monotonic()
        return min(now, seen + SLACK) - lost + max(0.0, now - seen - GONE)

    def wait_until(self, end: float) -> float:
        while (now := self.now()) < end:
            time.sleep(max(end - now, 0.0001))
        return now

    def held(self) -> float:
        """Seconds that a busy computer has cost this program so far.

        Its threads waited for a CPU (only Linux tells), or it waited for another
        virtual arm that was held up. What was seen once still counts when that thread
        or arm is gone.
        """
        with self._lock:  # threads that take in messages ask, too
            for other in self._all:
                if other._arm == self._arm:
                    continue
                _, lost = other._read()
                self._held += max(0.0, lost - self._losses.get(other._arm, lost))
                self._losses[other._arm] = lost
            for thread, waited in _waits_of_threads():
                self._held += 1e-9 * max(0, waited - self._waits.get(thread, 0))
                self._waits[thread] = waited
            return self._held

    def _read(self) -> tuple[float, float]:
        """When its program last looked, and what it had lost by then, s."""
        while True:  # again only if the program has written twice meanwhile
            count = self._shared[COUNT]
            slot = TIMES + 2 * (int(count) % 2)
            seen, lost = self._shared[slot], self._shared[slot + 1]
            if self._shared[COUNT] == count:
                return seen, lost

    def fault(self) -> str:
        seen, _ = self._read()
        if time.monotonic() - seen < GONE:
            return ""
        return (
            f"the virtual arm has given no sign for {GONE:.0f} s: {BUSY}, or its "
            "program was killed or stopped"
        )


def _waits_of_threads() -> Iterator[tuple[str, int]]:
    """How long each thread of this program has waited for a CPU, ns; Linux only."""
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            # A thread may end between the listing and the reading.
            with (
                contextlib.suppress(OSError),
                open(f"/proc/self/task/{thread}/schedstat", "rb") as file,
            ):
                yield thread, int(file.read().split()[1])


class ArmTime:
    """A virtual arm's time, as its own program keeps it.

    Args:
        paths: files in which clients find it; see `clock_path`.

    Raises:
        UserError: somebody's own file is there.
    """

    def __init__(self, paths: Iterable[Path] = ()):
        self.paths, self.lost = list(paths), 0.0
        self._seen = time.monotonic()
        self._since, self._lost_then, self._quiet = self._seen, 0.0, 0.0
        self._shared: list[memoryview[float]] = []
        self._count = 0
        number = float(int.from_bytes(os.urandom(6), "big"))  # one arm, several files
        for path in self.paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size != SIZE:
                raise UserError(
                    f"{path} is there, and is no virtual arm's clock; move it away, or "
                    "choose another --port"
                )
            path.unlink(missing_ok=True)  # of an arm that was killed
            path.write_bytes(struct.pack("6d", number, 0, self._seen, 0, 0, 0))
            with path.open("r+b") as file:
                shared = mmap.mmap(file.fileno(), SIZE)
            self._shared.append(memoryview(shared).cast("d"))

    def now(self) -> float:
        """Seconds; no further than `SLACK` after the last `pass_on`."""
        return min(time.monotonic(), self._seen + SLACK) - self.lost

    def pass_on(self) -> float:
        """Let time pass up to now, except what this program was held up by."""
        now = time.monotonic()
        self.lost += max(0.0, now - self._seen - SLACK)
        self._seen = now
        self._write()
        if now - self._since > REPORT:
            self._report(now)
        return now - self.lost

    def close(self) -> None:
        """For who still reads it, time is the computer's from now on."""
        self._seen = math.inf
        self._write()
        for path in self.paths:
            path.unlink(missing_ok=True)

    def _write(self) -> None:
        # The time that others may be reading stays, and the count comes last.
        # A memoryview stores a number in one piece; struct.pack_into writes a 0 first.
        self._count += 1
        slot = TIMES + 2 * (self._count % 2)
        for shared in self._shared:
            shared[slot], shared[slot + 1] = self._seen, self.lost
            shared[COUNT] = self._count

    def _report(self, now: float) -> None:
        seconds = now - self._since
        share = 1 - (self.lost - self._lost_then) / seconds
        if share < SLOW and now > self._quiet:
            print(
                f"{BUSY}: the virtual arm ran at {100 * share:.0f} % of its speed for "
                f"the last {seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            self._quiet = now + QUIET
        self._since, self._lost_then = now, self.lost


def clock_path(address: str | Path) -> Path:
    """Where the time of the virtual arm at this port or bus is kept."""
    text = str(address)
    if ":" in text:  # a bus between processes has no place in a folder
        name = text.replace(":", "_").replace("/", "_")
        return Path(tempfile.gettempdir()) / f"act_{os.getuid()}_{name}.time"
    return Path(text + ".time")


def clock_of(address: str | Path) -> Clock:
    """The clock of the arm at a port or bus: a virtual one has its own."""
    if os.name == "posix":
        with contextlib.suppress(OSError, ValueError):
            return ArmClock(clock_path(address))
    return Clock()


@dataclass
class Ticker:
    """Waits for the end of each control tick, `rate` a second.

    Ticks lie on a fixed grid, so that one late tick does not shift all that follow. A
    tick that is more than a whole period late moves the grid: ticks that were missed
    are gone, the arm is not hurried to make up for them.
    """

    rate: float
    times: list[float] = field(default_factory=list, repr=False)
    """When each tick ended, s."""
    missed: int = 0
    clock: Clock = field(default_factory=Clock, repr=False)

    def start(self) -> None:
        now = self.clock.now()
        self._next = now + 1 / self.rate
        self.times = [now]
        self.missed = 0

    def wait(self) -> None:
        now = self.clock.wait_until(self._next)
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
    ask: Callable[[], Answer],
    clock: Clock,
    between: Callable[[], object] = lambda: None,
) -> Answer:
    """What `ask` returns; a bus that is silent is asked again for about a second.

    `between` is called before each question; what it raises ends the waiting.

    Raises:
        BusError: the bus was silent all the time.
    """
    end = clock.now() + SILENCE
    while True:
        between()
        try:
            return ask()
        except BusError:
            if clock.now() > end:
                raise
        clock.wait_until(clock.now() + AGAIN)
