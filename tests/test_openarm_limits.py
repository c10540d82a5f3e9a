"""Whatever a policy says, the virtual OpenArm stays within its limits: seen outside.

The whole way is there (limits, driver, frames, motors, physics), but the wire is in
memory and time is the physics' own, so that many sequences can be tried.
"""

import contextlib

import can
import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from act_minimal.errors import SettingError
from hardware.clock import Clock
from hardware.openarm.arm import OpenArm, OpenArmConfig
from hardware.openarm.bus import Bus
from hardware.openarm.emulator.arm import VirtualOpenArm, Witness
from hardware.openarm.emulator.wire import Wire
from hardware.openarm.limits import openarm_limits
from hardware.openarm.model import gravity_of, load_alone
from hardware.openarm.motors import GRIPPERS
from hardware.openarm.protocol import Status
from hardware.safety import SafeRobot, Stop

TICK = 10  # steps of physics, 1/50 s
LIMITS = openarm_limits()
JOINTS = [i for i in range(16) if i not in GRIPPERS]
OVERSHOOT = 0.08  # rad that a joint swings past its target


class WireBus(Bus):
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


class PhysicsClock(Clock):
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
    """A tick is over when its physics has been."""

    missed = 0

    def __init__(self, arm):
        self.arm = arm

    def start(self):
        """At once."""

    def wait(self):
        for _ in range(TICK):
            self.arm.step()


def connected():
    """Two virtual arms, and their driver within limits, at the ready pose."""
    virtual = VirtualOpenArm(load_alone())

    def ramp(seconds):
        steps = round(seconds * 50)
        for step in range(steps):
            yield (step + 1) / steps
            PhysicsTicker(virtual).wait()

    gravity = gravity_of(virtual.model, virtual.kinematics)
    arm = OpenArm(OpenArmConfig("virtual:right", "virtual:left"), gravity=gravity)
    arm.buses = tuple(
        WireBus(side, Wire(motors))
        for side, motors in zip(("right", "left"), virtual.motors, strict=True)
    )
    for bus in arm.buses:
        bus.clock = PhysicsClock(virtual)
    arm.ticker, arm.ramp = PhysicsTicker(virtual), ramp
    robot = SafeRobot(arm, LIMITS)
    robot.connect()
    robot.go(LIMITS.ready)
    virtual.witness = Witness()
    return virtual, robot


def expect_within_limits(witness):
    low, high = witness.lowest[JOINTS], witness.highest[JOINTS]
    assert (low >= LIMITS.low[JOINTS] - OVERSHOOT).all(), low
    assert (high <= LIMITS.high[JOINTS] + OVERSHOOT).all(), high
    assert (witness.speed[JOINTS] <= 1.5 * LIMITS.speed[JOINTS] + 0.5).all()
    assert witness.hand_low[:, 2].min() >= 0.02
    assert witness.touch.well, witness.touch
    assert witness.falls == 0


wild = st.floats(allow_nan=True, allow_infinity=True, width=32)
usual = st.floats(-4, 4)
action = st.lists(st.one_of(usual, usual, usual, wild), min_size=16, max_size=16)
held = st.tuples(action, st.integers(1, 30))


# A failure is long already: to shrink it would take longer than to read it.
@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@given(st.lists(held, min_size=1, max_size=4))
@example([([9.0] * 16, 30), ([-9.0] * 16, 30), ([9.0] * 16, 30)])
@example([([0.0] * 16, 30), ([float("nan")] * 16, 1)])
@example([([0.0] * 15 + [float("inf")], 1)])
def test_no_sequence_of_actions_leaves_the_limits(sequence):
    virtual, robot = connected()
    finite = True
    try:
        for values, ticks in sequence:
            finite = finite and bool(np.isfinite(values).all())
            for _ in range(ticks):
                robot.observe()
                robot.act(np.array([values], float))
    except Stop:
        pass  # refused, which is as good
    else:
        assert finite, "an action that is no number went through"
    # Thrown about like this they may be caught in each other: they sink, then.
    with contextlib.suppress(Stop):
        robot.close()
    expect_within_limits(virtual.witness)
    motors = [motor for side in virtual.motors for motor in side]
    assert not any(motor.status is Status.ENABLED for motor in motors)


def test_a_run_ends_hanging():
    virtual, robot = connected()
    goal = LIMITS.ready.copy()
    goal[[1, 9]] = 0.4, -0.4
    for _ in range(50):
        robot.observe()
        robot.act(goal[None])
    robot.close()
    assert np.abs(virtual.state[JOINTS]).max() < 0.1
    expect_within_limits(virtual.witness)


@pytest.mark.parametrize("status", [Status.OVERLOAD, Status.DRIVER_TOO_HOT])
def test_an_arm_that_cannot_land_sinks(status):
    virtual, robot = connected()
    virtual.motors[0][6].forced = status  # its wrist gives up
    virtual.step()
    with pytest.raises(Stop, match=rf"could not be put to rest.*{status.words()}"):
        robot.close()
    motors = [motor for side in virtual.motors for motor in side]
    assert not any(motor.status is Status.ENABLED for motor in motors)
    assert virtual.witness.falls == 0
    assert virtual.witness.speed[8:15].max() < 2.0


def test_the_witness_would_see_arms_without_limits():
    virtual, robot = connected()
    for side in (1, -1):
        for _ in range(40):
            robot.arm.observe()
            robot.arm.act(LIMITS.ready[None] + 0.9 * side)
    with pytest.raises(AssertionError):
        expect_within_limits(virtual.witness)


def test_poses_are_inside_the_limits():
    for version in ("v1", "v2"):
        limits = openarm_limits(version)
        for pose in (limits.rest, limits.ready):
            assert (pose >= limits.low).all()
            assert (pose <= limits.high).all()
            room = limits.guard.clearance(pose, limits.box_low, limits.box_high)
            assert room.min() > 0
    with pytest.raises(SettingError, match="version is 'v3', expected one of: v1, v2"):
        openarm_limits("v3")
