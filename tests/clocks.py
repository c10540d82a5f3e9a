"""Time in tests: a clock moved by hand, and waits that end as soon as they may."""

import contextlib
import time

from hardware.clock import Clock


class HandClock(Clock):
    """Moves only when somebody waits for it, or moves it; forgives what it is told."""

    def __init__(self, now=1000.0):
        self.time, self.forgiven = now, 0.0

    def held(self):
        return self.forgiven

    def now(self):
        return self.time

    def wait_until(self, end):
        self.time = max(self.time, end)
        return self.time


def eventually(what, seconds=300.0):
    """Wait until `what()` is true; so long only where it never will be."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"still not after {seconds} s"
        time.sleep(0.01)
    return found


def let_pass(scene, seconds):
    """Let time pass for the virtual arm of this client; what is seen there then."""
    end = scene.look()["time"] + seconds
    return eventually(lambda: (seen := scene.look())["time"] >= end and seen)


def retried(measure, tries=8):
    """Measure again where this computer was too busy; what it gave at last."""
    for _ in range(tries - 1):
        with contextlib.suppress(AssertionError):
            return measure()
        time.sleep(0.5)
    return measure()
