"""An arm and a clock for tests: both do what a test says, and neither takes time."""

from functools import partial
from types import SimpleNamespace

import numpy as np

from hardware.driver import ArmDriver
from hardware.errors import BusError
from hardware.stream import COMPUTER

MODULES = ("clock", "stream", "safety.stop", "deployment", "command.display")


class Clock:
    """Time that goes on only while somebody waits."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        for module in MODULES:
            monkeypatch.setattr(f"hardware.{module}.time", self)

    def monotonic(self):
        self.now += 1e-6  # who asks again and again waits, too
        return self.now

    perf_counter = time = monotonic

    def sleep(self, seconds):
        self.now += seconds


class FakeArm(ArmDriver):
    """Follows at once; `log` is what happened to it.

    Its bus is silent where `silences` say so in its time, a `Clock`; `ticks` is the
    clock of its bus, and so of its ticks.
    """

    ANSWER = 0.07  # s that three questions in vain take

    def __init__(
        self, limits, time=None, name="so100", joints=(), fps=50.0, ticks=COMPUTER
    ):
        super().__init__(fps)
        self.limits, self.time, self.name, self.joints = limits, time, name, joints
        self.action_dim = len(limits.low)
        self.state = limits.ready.copy()
        self.log, self.sent = [], []
        closed = partial(self.log.append, "bus closed")
        self.buses = (SimpleNamespace(close=closed, clock=ticks),)
        self.silences = []  # (from, to) in the clock's time
        self.health = SimpleNamespace(
            temperature=np.full(self.action_dim, 30.0),
            load=np.zeros(self.action_dim),
            torque=np.zeros(self.action_dim),
            age=np.zeros(1),
            faults={},
        )

    def start(self):
        self.torque = True

    def _speak(self):
        if any(start <= self.time.now < end for start, end in self.silences):
            self.time.sleep(self.ANSWER)
            raise BusError("no servo answers")

    def measure(self):
        self._speak()
        return self.state.copy(), np.zeros(self.action_dim), self.health

    def send(self, state):
        self._speak()
        self.sent.append(state.copy())
        self.state = state.copy()

    def soften(self):
        self.log.append("softened")
        self.disable()

    def disable(self):
        self._speak()
        self.torque = False
        rest = np.abs(self.state - self.limits.rest).max() < 0.01
        self.log.append("torque off at rest" if rest else "torque off, NOT at rest")
