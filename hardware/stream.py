"""The newest message of a source that sends by itself: a camera, a motion tracker.

A thread waits for the next message and keeps the newest only: a control loop never
waits for a source, and never gets a message that queued somewhere.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from act_minimal.support.errors import UserError

from .clock import Clock

Source = tuple[Callable[[], tuple[np.ndarray, float]], Callable[[], object]]
"""What waits for the next content, and gives it with its time, s; what closes it."""
COMPUTER = Clock()
LOOK = 0.05  # s between two looks at what threads have waited: each costs a millisecond


@dataclass(frozen=True)
class Message:
    """What was sent, and when it was taken."""

    content: np.ndarray
    time: float  # s, the clock's
    number: int
    clock: Clock = COMPUTER
    held: float = 0.0  # `clock.held()` when it was taken
    changed: float = math.inf  # s, when the content last was another one

    @property
    def age(self) -> float:
        return self.clock.age(self.time, self.held)


class Stream:
    """Keeps the newest message of a source; one older than `stale` s is refused."""

    kind: ClassVar[type[Message]] = Message
    error: ClassVar[type[UserError]] = UserError
    newest_is: ClassVar[str]
    """What a message is called in errors: "the newest picture is"."""
    advice: ClassVar[str] = ""
    """At the end of an error about an old one."""

    def __init__(self, name: str, stale: float):
        self.name, self.stale = name, stale
        self.newest: Message | None = None
        self.failure = ""
        """Why the thread has ended."""
        self.clock = COMPUTER
        self._arrived = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self, source: Source, clock: Clock, seconds: float) -> bool:
        """Start the thread, which closes the source at its end.

        Returns:
            Whether a message came in so many seconds; if not, everything is closed.
        """
        self.newest, self.failure, self.clock = None, "", clock
        self._stopping = False
        self._looks = [(-math.inf, clock.held())]
        self._arrived.clear()
        self._thread = threading.Thread(
            target=self._gather, args=source, daemon=True, name=self.name
        )
        self._thread.start()
        if self._arrived.wait(seconds) and self.newest is not None:
            return True
        self.close()
        return False

    def newest_fresh(self) -> Message:
        """The newest message.

        A thread that is behind, and takes in old messages first, is waited for as long
        as the clock has patience.

        Raises:
            UserError: it is too old, or there is none.
        """
        found, end = self.newest, time.monotonic() + self.clock.patience
        if found is None:
            raise self.error(f"{self.name} is not open")
        while found.age > self.stale and not self.failure:
            if (left := end - time.monotonic()) <= 0:
                break
            self._arrived.clear()
            self._arrived.wait(left)
            found = self.newest or found  # it may have been closed meanwhile
        age, why = found.age, f" ({self.failure})" if self.failure else ""
        if age > self.stale:
            raise self.error(
                f"{self.name}: the newest {self.newest_is} {age:.2f} s old, expected "
                f"at most {self.stale} s{why}{self.advice}"
            )
        return found

    def close(self) -> None:
        self._stopping = True
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        self._thread = self.newest = None

    def keep(self, content: np.ndarray, when: float) -> None:
        """Take in a message, of `when`, s."""
        last, changed, number = self.newest, when, 0
        if last is not None:
            number = last.number + 1
            if np.array_equal(last.content, content):
                changed = last.changed
        held = self._held_at(when)
        self.newest = self.kind(content, when, number, self.clock, held, changed)
        self._arrived.set()

    def _held_at(self, when: float) -> float:
        """`clock.held()` at a look before `when`.

        A program that was held up finds old messages waiting. That they are old is no
        fault of who sent them: what is forgiven counts from when they were sent.
        """
        now = self.clock.now()
        if now - self._looks[-1][0] > LOOK:
            self._looks.append((now, self.clock.held()))
        while len(self._looks) > 1 and self._looks[1][0] <= when:
            self._looks.pop(0)
        return self._looks[0][1]

    def _gather(self, take: Callable, stop: Callable) -> None:
        try:
            while not self._stopping:
                content, when = take()
                if not self._stopping:
                    self.keep(content, when)
        except Exception as error:  # whatever a driver throws: who reads is told
            self.failure = str(error) or type(error).__name__
            self._arrived.set()
        finally:
            stop()
