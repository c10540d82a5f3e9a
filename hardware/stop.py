"""Stopping an arm, by whom and why; and a log of what safety did."""

import json
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from act_minimal.errors import UserError


class Stop(UserError):
    """The arm was stopped; says why. Not a crash: it holds, and is put to rest."""


class Interventions:
    """What safety did, by kind; each one a line of JSON in the log, if there is one."""

    def __init__(self, log: Path | None = None):
        self.counts: Counter[str] = Counter()
        self._file = None
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._file = log.open("a", buffering=1, encoding="utf-8")
        self._last: dict[str, float] = {}

    def note(self, kind: str, **details: Any) -> None:
        """Count one, and log it; of one kind at most ten lines a second."""
        self.counts[kind] += 1
        now = time.monotonic()
        if self._file and now - self._last.get(kind, -1.0) > 0.1:
            self._last[kind] = now
            row = {"time": time.time(), "kind": kind, "count": self.counts[kind]}
            self._file.write(json.dumps(row | details) + "\n")

    def close(self) -> None:
        """Close the log."""
        if self._file:
            self._file.close()
            self._file = None


class EmergencyStop:
    """A flag that keys, signals and other threads can raise."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self.why = ""
        self._old: dict[int, Any] = {}

    def raise_flag(self, why: str) -> None:
        """Stop the arm at its next tick."""
        self.why = self.why or why
        self._flag.set()

    def check(self) -> None:
        """Raise Stop if the flag is up."""
        if self._flag.is_set():
            raise Stop(f"emergency stop: {self.why}")

    def clear(self) -> None:
        """Take the flag down."""
        self._flag.clear()
        self.why = ""

    def __enter__(self) -> "EmergencyStop":
        """Ctrl-C, a closed terminal and a polite kill put the arm to rest."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and threading.current_thread() is (
                threading.main_thread()
            ):
                self._old[number] = signal.signal(
                    number, lambda n, _: self.raise_flag(signal.Signals(n).name)
                )
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()
