"""An arm and a clock for tests: both do what a test says, and neither takes time."""

from types import SimpleNamespace

import numpy as np

from hardware.clock import Ticker
from hardware.driver import ArmDriver
from hardware.errors import BusError

CLOCKED = ("clock", "stop", "deployment", "display")  # hardware's modules


class Clock:
    """Time that goes on only while somebody waits."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        for module in CLOCKED:
            monkeypatch.setattr(f"hardware.{module}.time", self)

    def monotonic(self):
        self.now += 1e-6  # who asks again and again waits, too
        return self.now

    perf_counter = time = monotonic

    def sleep(self, seconds):
        self.now += seconds


class FakeArm(ArmDriver):
    """Follows at once, on a bus that can be silent; `log` is what happened to it.

    Args:
        limits: its own.
        clock: its time.
        name: which arm it says that it is.
        joints: what it says that its joints are.
    """

    n = 1
    fps = 50.0
    ANSWER = 0.07  # s that three questions in vain take

    def __init__(self, limits, clock, name="so100", joints=()):
        self.limits, self.clock, self.name, self.joints = limits, clock, name, joints
        self.action_dim = len(limits.low)
        self.ticker = Ticker(self.fps)
        self.state, self.torque, self.observed_at = limits.ready.copy(), False, 0.0
        self.buses = (SimpleNamespace(close=lambda: self.log.append("bus closed")),)
        self.sources, self.cameras, self.frames = {}, (), {}
        self.log, self.sent = [], 0
        self.silences = []  # (from, to) in the clock's time
        self.health = SimpleNamespace(
            temperature=np.full(self.action_dim, 30.0),
            load=np.zeros(self.action_dim),
            faults={},
        )

    def connect(self):
        self.torque = True
        self.ticker.start()

    def _speak(self):
        if any(start <= self.clock.now < end for start, end in self.silences):
            self.clock.sleep(self.ANSWER)
            raise BusError("no servo answers")

    def measure(self):
        self._speak()
        return self.state.copy(), np.zeros(self.action_dim), self.health

    def observe(self, cameras=()):
        state, _, _ = self.measure()
        self.observed_at = self.clock.monotonic()
        seen = {
            key: state[None].astype(np.float32) for key in ("qpos", "qvel", "effort")
        }
        for name in cameras:
            self.frames[name] = frame = self.sources[name].read()
            seen[f"images/{name}"] = frame.image[None]
        return seen

    def send(self, state):
        self._speak()
        self.sent += 1
        self.state = state.copy()

    def soften(self):
        self.log.append("softened")
        self.disable()

    def disable(self):
        self._speak()
        self.torque = False
        rest = np.abs(self.state - self.limits.rest).max() < 0.01
        self.log.append("torque off at rest" if rest else "torque off, NOT at rest")
