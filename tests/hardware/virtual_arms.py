"""Virtual arms for tests: in a thread, in a clock's time, or in their physics'."""

import contextlib
import itertools
import threading
from pathlib import Path

import can
import numpy as np

from hardware import clock
from hardware.openarm import bus as openarm_bus
from hardware.openarm.arm import OpenArm, OpenArmConfig
from hardware.openarm.emulator.service import (
    VirtualOpenArmConfig,
    VirtualOpenArmService,
)
from hardware.openarm.model import gravity_of
from hardware.safety.safe_robot import SafeRobot
from hardware.so100 import bus as so100_bus
from hardware.so100.arm import SO100, SO100Config
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.service import VirtualArmConfig, assemble
from hardware.so100.emulator.wire import Wire

from . import fake_arm

NUMBERS = itertools.count()  # virtual channels are the process's: each test has its own
RAISED = np.zeros(16)
RAISED[[0, 3, 7, 8, 11, 15]] = 0.5, 1.5, 0.3, -0.5, 1.5, 0.3


@contextlib.contextmanager
def served(service):
    """Run a virtual arm in a thread, in the computer's time; gives its service."""
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        yield service
    finally:
        service.stopped = True
        thread.join(10)
        service.close()


# ---------------------------------------------------------------- in a clock's time


class Clock(fake_arm.Clock):
    """Time that goes on only while somebody waits; the virtual arm lives in it, too.

    A busy computer then holds up the test, and not the arm in it.
    """

    STEP = 0.0002  # s

    def __init__(self):
        self.now, self.service = 1000.0, None

    def sleep(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.step(end - self.now)

    def step(self, most=STEP):
        self.now += min(self.STEP, most)
        if self.service:
            self.service.listen()
            self.service.turn()

    def receive(self, bus, seconds):
        """Instead of `Bus._receive`, which would wait in the computer's own time."""
        end = self.now + seconds
        while (message := bus._connected().recv(0)) is None and self.now < end:
            self.step()
        return message


def config_of(folder: Path, **settings):
    number = next(NUMBERS)
    channels = {"right": f"virtual:r{number}", "left": f"virtual:l{number}"}
    return VirtualOpenArmConfig(folder / "arm", **(channels | settings))


@contextlib.contextmanager
def virtual(clock, folder: Path, **settings):
    """A virtual OpenArm in the clock's time; gives its service."""
    service = VirtualOpenArmService(config_of(folder, **settings))
    clock.service, service.clock = service, clock
    try:
        yield service
    finally:
        clock.service = None
        service.close()


def driver(service, **settings):
    config = OpenArmConfig(service.config.right, service.config.left, **settings)
    gravity = gravity_of(service.arm.model, service.arm.kinematics)
    return OpenArm(config, gravity=gravity)


def hold(arm, seconds, pose=RAISED):
    for _ in range(round(seconds * arm.fps)):
        arm.observe()
        arm.act(pose[None])


# ---------------------------------------------------------------- in the physics' time


class ServoBus(so100_bus.Bus):
    """The driver's bus without a port: its packets go straight to the servos."""

    def __init__(self, wire):
        super().__init__("memory")
        self.wire = wire

    def open(self):
        """Nothing to open."""

    def _exchange(self, packet, complete, seconds):
        self.wire.receive(packet.encode(), 0.0)
        found = list(self._parser.feed(self.wire.due(np.inf)))
        complete(found)
        return found

    def _send(self, packet):
        self.wire.receive(packet.encode(), 0.0)


class MotorBus(openarm_bus.Bus):
    """The driver's bus in memory: its frames go straight to the motors."""

    def __init__(self, side, wire):
        super().__init__(f"virtual:{side}", side=side)
        self.wire, self.arrived = wire, []

    def open(self):
        """Nothing to open."""

    def _send(self, frames):
        for frame in frames:
            self.wire.receive(frame, 0.0, fd=True)

    def _receive(self, seconds):
        self.arrived += self.wire.due(np.inf)
        if not self.arrived:
            return None
        frame = self.arrived.pop(0)
        return can.Message(
            arbitration_id=frame.id, data=frame.data, is_fd=True, is_extended_id=False
        )


class PhysicsClock(clock.Clock):
    """Seconds of physics: a busy computer holds up the test, and not the arm in it."""

    def __init__(self, arm):
        self.arm = arm

    def now(self):
        return self.arm.data.time

    def wait_until(self, end):
        while self.now() < end:
            self.arm.step()
        return self.now()


class PhysicsTicker:
    """A tick is over when its ten steps of physics have been made."""

    missed = 0

    def __init__(self, arm):
        self.arm = arm

    def start(self):
        """At once."""

    def wait(self):
        for _ in range(10):
            self.arm.step()


def so100_in_memory(folder, limits, **settings):
    """A virtual SO-100 or SO-101, and its driver within limits; not connected yet."""
    config = VirtualArmConfig(**settings)
    virtual, calibration = assemble(config)
    save_calibration(folder / "arm.json", calibration)
    arm = SO100(SO100Config("memory", folder / "arm.json", config.robot))
    arm.buses = (ServoBus(Wire(virtual.servos)),)
    arm.bus.clock = PhysicsClock(virtual)
    arm.ticker = PhysicsTicker(virtual)
    return virtual, SafeRobot(arm, limits)
