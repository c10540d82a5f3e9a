"""Stopping an arm, by whom and why; and a log of what safety did."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from act_minimal.support.errors import UserError

CTRL_C = signal.SIGINT.name


class Stop(UserError):
    """The arm was stopped; says why. Not a crash: it holds, and is put to rest."""


class Interventions:
    """What safety did, by kind; each one a line of JSON in the log, if there is one.

    A log that cannot be written stops nobody: an arm must be laid down all the same.
    What is missing in it is counted, and `complaint` says so.
    """

    def __init__(self, log: Path | None = None):
        self.counts: Counter[str] = Counter()
        self.lost = 0
        """Lines that could not be written."""
        self._log, self._why = log, ""
        self._file: Any = None
        self._last: dict[str, float] = {}

    def open(self) -> None:
        """Open the log, if there is one; UserError if that cannot be done."""
        if self._log is None:
            return
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is on its way or lost, and none is left to close().
            self._file = self._log.open("ab", buffering=0)
        except OSError as error:
            raise UserError(
                f"{self._log} cannot be written to: {error.strerror or error}"
            ) from error

    def note(self, kind: str, **details: Any) -> None:
        """Count one, and log it; of one kind at most ten lines a second."""
        self.counts[kind] += 1
        now = time.monotonic()
        if self._file and now - self._last.get(kind, -1.0) > 0.1:
            self._last[kind] = now
            row = {"time": time.time(), "kind": kind, "count": self.counts[kind]}
            try:
                self._file.write(json.dumps(row | details).encode() + b"\n")
            except Exception as error:  # whatever a disk does, the arm comes first
                self._lose(error)

    @property
    def complaint(self) -> str:
        """What is missing in the log, and why; "" if nothing is."""
        if not self._why:
            return ""
        return f"{self._log} lacks {self.lost} lines: {self._why}"

    def close(self) -> None:
        file, self._file = self._file, None
        try:
            if file:
                file.close()
        except Exception as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost += 1
        self._why = self._why or getattr(error, "strerror", "") or str(error)


class EmergencyStop:
    """A flag that keys, signals and other threads can raise."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self.why = ""
        self.watch: Callable[[], object] = lambda: None
        """Called at each tick of a slow move: raises the flag if somebody wants it. Not
        on the way to rest: a space bar that is held down must not let the arm sink."""
        self._old: dict[int, Any] = {}

    def raise_flag(self, why: str) -> None:
        self.why = self.why or why
        self._flag.set()

    def check(self) -> None:
        if self._flag.is_set():
            stop = Stop(f"emergency stop: {self.why}")
            if self.why == CTRL_C:
                stop.exit_code = 130  # as of every command
            raise stop

    def clear(self) -> None:
        self._flag.clear()
        self.why = ""

    def __enter__(self) -> "EmergencyStop":
        """Ctrl-C, a closed terminal and SIGTERM put the arm to rest."""
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                if number := getattr(signal, name, None):
                    self._old[number] = signal.signal(
                        number, lambda n, _: self.raise_flag(signal.Signals(n).name)
                    )
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()
