"""Whatever a policy says, the virtual arm stays within its limits: seen from outside.

The whole way is there (limits, driver, packets, servos, physics), but the wire is in
memory and time is the physics' own, so that many sequences can be tried.
"""

import contextlib

import mujoco
import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from hardware.clock import Clock
from hardware.safety import SafeRobot, Stop, so100_limits
from hardware.so100.arm import SO100, SO100Config
from hardware.so100.bus import Bus
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.service import VirtualArmConfig, assemble
from hardware.so100.emulator.wire import Wire
from hardware.so100.protocol import Fault

TICK = 10  # steps of physics, 1/30 s
LIMITS = so100_limits()
OVERSHOOT = 0.06  # rad that a joint swings past its target


class WireBus(Bus):
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


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    path = tmp_path_factory.mktemp("limits") / "arm.json"
    save_calibration(path, assemble(VirtualArmConfig())[1])
    return path


def connected(calibration):
    virtual, _ = assemble(VirtualArmConfig())
    arm = SO100(SO100Config("memory", calibration))
    arm.bus = WireBus(Wire(virtual.servos))
    arm.bus.clock = PhysicsClock(virtual)
    arm.ticker = PhysicsTicker(virtual)
    robot = SafeRobot(arm, LIMITS)
    robot.connect()
    robot.go(LIMITS.ready)
    return virtual, robot


def expect_within_limits(witness):
    low, high = np.array(witness.lowest), np.array(witness.highest)
    assert (low[:5] >= LIMITS.low[:5] - OVERSHOOT).all(), low
    assert (high[:5] <= LIMITS.high[:5] + OVERSHOOT).all(), high
    assert max(witness.speed[:5]) <= LIMITS.speed[0] + 1.0
    # A tick lies between the measurement and the goal that is set from it.
    assert max(witness.pull[:5]) <= LIMITS.step[0] + LIMITS.speed[0] / 30
    assert witness.touch.well, witness.touch
    assert witness.falls == 0


wild = st.floats(allow_nan=True, allow_infinity=True, width=32)
usual = st.floats(-4, 4)
action = st.lists(st.one_of(usual, usual, usual, wild), min_size=6, max_size=6)
held = st.tuples(action, st.integers(1, 30))


# A failure is long already: to shrink it would take longer than to read it.
@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
@given(st.lists(held, min_size=1, max_size=6))
@example([([9.0] * 6, 30), ([-9.0] * 6, 30), ([9.0] * 6, 30)])
@example([([0, 0.4, -0.1, 1.6, 0, 0], 60)])  # into the table
@example([([float("nan")] * 6, 1)])
@example([([0, -2, 2, 1, 0, float("inf")], 1)])
@example([([-0.19, -0.72, 2.38, -1.45, -0.26, 0.34], 90)])  # once 77 N on the table
@example([([0.4, -2.0, 3.1, 1.6, 1.0, 0.7], 60)])  # the gripper into the shoulder
def test_no_sequence_of_actions_leaves_the_limits(calibration, sequence):
    virtual, robot = connected(calibration)
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
    # Thrown about like this it may be caught in the bin: it says so, and sinks.
    with contextlib.suppress(Stop):
        robot.close()
    expect_within_limits(virtual.witness)
    assert not any(s.torque_on for s in virtual.servos)


def test_an_arm_that_cannot_land_sinks_slowly(calibration):
    virtual, robot = connected(calibration)
    virtual.servos[2].forced_faults = Fault.OVERLOAD
    with pytest.raises(Stop, match=r"could not be put to rest.*overload"):
        robot.close()
    assert not any(s.torque_on for s in virtual.servos)
    assert virtual.witness.falls == 0
    assert {s.get("Torque_Limit") for s in virtual.servos[:5]} == {1000}


def test_the_others_sink_slowly_where_one_servo_is_silent(calibration):
    virtual, robot = connected(calibration)
    robot.arm.bus.wire.faults.missing = 3
    with pytest.raises(Stop, match=r"could not be put to rest.*servo 3"):
        robot.close()
    assert [s.torque_on for s in virtual.servos] == [False] * 2 + [True] + [False] * 3
    assert virtual.witness.falls == 0


def test_the_virtual_arm_collides_with_itself():
    """Its gripper in its own shoulder; the simulated task's own arm is let through."""
    virtual, _ = assemble(VirtualArmConfig())
    joints = np.array([1.7, -0.8, 2.8, 1.5, 1.7, 0.0])
    virtual.put(joints)
    virtual.step()
    touch = virtual.witness.touch
    assert touch.deepest > 0.01
    assert not touch.well
    assert "jaw" in touch.where or "wrist" in touch.where
    assert not touch.where.startswith("table")
    model = virtual.task.model()
    data = mujoco.MjData(model)
    data.qpos[:] = virtual.data.qpos
    data.qpos[:6] = joints
    mujoco.mj_forward(model, data)
    arm = (model.geom_bodyid[data.contact.geom] > 0).all(1)
    assert not arm.any()


def test_neighbours_and_ready_poses_touch_nothing():
    virtual, _ = assemble(VirtualArmConfig())
    for pose in (LIMITS.ready, LIMITS.rest):
        virtual.put(pose)
        virtual.witness.touch.look(virtual.model, virtual.data)
    assert virtual.witness.touch.deepest == 0.0


def test_the_witness_would_see_an_arm_without_limits(calibration):
    virtual, robot = connected(calibration)
    for side in (1, -1):
        for _ in range(40):
            robot.arm.observe()
            robot.arm.act(np.array([[2.0 * side, 0.2, -0.2, 1.6, 0, 0]]))
    with pytest.raises(AssertionError):
        expect_within_limits(virtual.witness)
