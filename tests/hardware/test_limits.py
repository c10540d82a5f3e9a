"""Whatever a policy says, virtual arms stay within their limits: seen from outside.

The whole way is there (limits, driver, bytes, motors, physics), but the wire is in
memory and time is the physics' own, so that many sequences can be tried.
"""

import contextlib
from functools import partial
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from act_minimal.sim.openarm.table import TABLE
from benchmarks.arms.guard_bodies import arm_of, chunk
from hardware.openarm.arm import OpenArm, OpenArmConfig
from hardware.openarm.emulator.arm import MotorWitness, VirtualOpenArm
from hardware.openarm.emulator.wire import Wire as MotorWire
from hardware.openarm.limits import openarm_limits
from hardware.openarm.model import gravity_of, load_alone
from hardware.openarm.motors import GRIPPERS
from hardware.openarm.protocol import Status
from hardware.safety.safe_robot import SafeRobot, so100_limits
from hardware.safety.stop import Stop
from hardware.so100.emulator.service import VirtualArmConfig, assemble
from hardware.so100.protocol import Fault

from .virtual_arms import MotorBus, PhysicsClock, PhysicsTicker, so100_in_memory

SO100_LIMITS, OPENARM_LIMITS = so100_limits(), openarm_limits()
AT_TABLE = openarm_limits(table=TABLE)
JOINTS = [i for i in range(16) if i not in GRIPPERS]


def connected_so100(folder):
    virtual, robot = so100_in_memory(folder, SO100_LIMITS)
    robot.connect()
    robot.go(SO100_LIMITS.ready)
    return virtual, robot


def connected_openarm(_, limits=OPENARM_LIMITS):
    """Two virtual arms, and their driver within limits, at the ready pose."""
    table = limits is AT_TABLE
    model = arm_of("openarm_at_table").model if table else load_alone()
    virtual = VirtualOpenArm(model, table=TABLE if table else None)
    virtual.put(limits.rest, hold=False)

    def ramp(seconds):
        steps = round(seconds * 50)
        for step in range(steps):
            yield (step + 1) / steps
            PhysicsTicker(virtual).wait()

    gravity = gravity_of(virtual.model, virtual.kinematics)
    arm = OpenArm(OpenArmConfig("virtual:right", "virtual:left"), gravity=gravity)
    arm.buses = tuple(
        MotorBus(side, MotorWire(motors))
        for side, motors in zip(("right", "left"), virtual.motors, strict=True)
    )
    for bus in arm.buses:
        bus.clock = PhysicsClock(virtual)
    arm.ticker, arm.ramp = PhysicsTicker(virtual), ramp
    robot = SafeRobot(arm, limits)
    robot.connect()
    robot.go(limits.ready)
    virtual.witness = MotorWitness()
    return virtual, robot


def expect_within(limits, joints, overshoot, witness):
    """`overshoot`: rad that a joint swings past its target."""
    low, high = np.array(witness.lowest)[joints], np.array(witness.highest)[joints]
    assert (low >= limits.low[joints] - overshoot).all(), low
    assert (high <= limits.high[joints] + overshoot).all(), high
    assert witness.touch.well, witness.touch
    assert witness.falls == 0


def expect_so100_within_limits(witness):
    expect_within(SO100_LIMITS, slice(5), 0.06, witness)
    assert max(witness.speed[:5]) <= SO100_LIMITS.speed[0] + 1.0
    # A tick lies between the measurement and the goal that is set from it.
    assert max(witness.pull[:5]) <= SO100_LIMITS.step[0] + SO100_LIMITS.speed[0] / 30


def expect_openarm_within_limits(witness, limits=OPENARM_LIMITS):
    expect_within(limits, JOINTS, 0.08, witness)
    most = 1.5 * limits.speed[JOINTS] + 0.5
    assert (witness.speed[JOINTS] <= most).all()
    assert witness.hand_low[:, 2].min() >= limits.box_low[2]


def have_torque(virtual):
    """Whether each motor of a virtual arm has torque."""
    if isinstance(virtual, VirtualOpenArm):
        motors = [motor for side in virtual.motors for motor in side]
        return [motor.status is Status.ENABLED for motor in motors]
    return [servo.torque_on for servo in virtual.servos]


ARMS = {
    "so100": SimpleNamespace(
        connected=connected_so100,
        expect_within_limits=expect_so100_within_limits,
        beyond=[np.array([[2.0 * side, 0.2, -0.2, 1.6, 0, 0]]) for side in (1.0, -1.0)],
    ),
    "openarm": SimpleNamespace(
        connected=connected_openarm,
        expect_within_limits=expect_openarm_within_limits,
        beyond=[OPENARM_LIMITS.ready[None] + 0.9 * side for side in (1, -1)],
    ),
}
OPENARM_AT_TABLE = SimpleNamespace(
    connected=partial(connected_openarm, limits=AT_TABLE),
    expect_within_limits=partial(expect_openarm_within_limits, limits=AT_TABLE),
)


def sequences(joints, most):
    """Wild and usual actions, each held for a while, `most` of them in a row."""
    wild = st.floats(allow_nan=True, allow_infinity=True, width=32)
    usual = st.floats(-4, 4)
    one = st.one_of(usual, usual, usual, wild)
    action = st.lists(one, min_size=joints, max_size=joints)
    return st.lists(st.tuples(action, st.integers(1, 30)), min_size=1, max_size=most)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("limits")


def expect_that_it_stays_within(arm, folder, sequence):
    virtual, robot = arm.connected(folder)
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
    # Thrown about like this it may be caught in something: it says so, and sinks.
    with contextlib.suppress(Stop):
        robot.close()
    arm.expect_within_limits(virtual.witness)
    assert not any(have_torque(virtual))


# A failure is long already: to shrink it would take longer than to read it.
PHASES = [Phase.explicit, Phase.generate]


@settings(max_examples=25, phases=PHASES)
@given(sequences(6, 6))
@example([([9.0] * 6, 30), ([-9.0] * 6, 30), ([9.0] * 6, 30)])
@example([([0, 0.4, -0.1, 1.6, 0, 0], 60)])  # into the table
@example([([float("nan")] * 6, 1)])
@example([([0, -2, 2, 1, 0, float("inf")], 1)])
@example([([-0.19, -0.72, 2.38, -1.45, -0.26, 0.34], 90)])  # once 77 N on the table
@example([([0.4, -2.0, 3.1, 1.6, 1.0, 0.7], 60)])  # the gripper into the shoulder
# Slid over the table, it once pressed on it for 0.33 and for 0.57 s.
@example([([-9, 9, 9, -0.64, 2.13, 3.89], 22), ([-3.59, 9, -4, -9, 0, -3.57], 14)])
@example([([0, 9, 9, 0, 9, 1], 15), ([-9, 9, 0, -3.06, 2.84, -1.1], 30)])
def test_no_sequence_of_actions_leaves_a_so100s_limits(folder, sequence):
    expect_that_it_stays_within(ARMS["so100"], folder, sequence)


@pytest.mark.parametrize(
    "sequence",
    [
        [([0, 0.4, -0.1, 1.6, 0, 0], 60)],
        [([-0.19, -0.72, 2.38, -1.45, -0.26, 0.34], 90)],
        [([-9, 9, 9, -0.64, 2.13, 3.89], 22), ([-3.59, 9, -4, -9, 0, -3.57], 14)],
        [([0, 9, 9, 0, 9, 1], 15), ([-9, 9, 0, -3.06, 2.84, -1.1], 30)],
    ],
)
def test_a_so100_that_leaned_on_the_table_rises_and_lands(folder, sequence):
    virtual, robot = connected_so100(folder)
    for values, ticks in sequence:
        for _ in range(ticks):
            robot.observe()
            robot.act(np.array([values], float))
    assert virtual.witness.touch.strongest > 10  # N
    robot.close()
    expect_so100_within_limits(virtual.witness)
    assert robot.measured == pytest.approx(SO100_LIMITS.rest, abs=0.1)


def test_a_joint_that_the_table_blocks_is_let_go():
    """Far wishes, held long; one of them blocks the wrist, once for 0.9 s."""
    found = chunk("so100", "leaning", 30, 215)
    assert found["strongest"] > 15  # N: it did meet the table
    assert found["pressed"] < 0.3
    assert found["deepest"] < 0.002, found["where"]


# Held back, it once caught up with the ramp of its landing at 3.6 rad/s.
FALLS_BEHIND = [
    0,
    -1.92,
    0,
    0,
    -2.89,
    -2.94,
    -9,
    -9,
    1.91,
    -9,
    0,
    -3,
    0.05,
    0.61,
    -3.48,
    0,
]


@settings(max_examples=6, phases=PHASES)
@given(sequences(16, 4), st.booleans())
@example([([9.0] * 16, 30), ([-9.0] * 16, 30), ([9.0] * 16, 30)], False)
@example([([0.0] * 16, 60), ([float("nan")] * 16, 1)], True)  # onto the table
@example([([0.0] * 15 + [float("inf")], 1)], False)
@example([(FALLS_BEHIND, 6)], False)
def test_no_sequence_of_actions_leaves_openarms_limits(sequence, at_table):
    arm = OPENARM_AT_TABLE if at_table else ARMS["openarm"]
    expect_that_it_stays_within(arm, None, sequence)


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_the_witness_would_see_an_arm_without_limits(arm, folder):
    virtual, robot = arm.connected(folder)
    for action in arm.beyond:
        for _ in range(40):
            robot.arm.observe()
            robot.arm.act(action)
    with pytest.raises(AssertionError):
        arm.expect_within_limits(virtual.witness)


@pytest.mark.parametrize("fault", ["overload", "silent"])
def test_a_so100_that_cannot_land_sinks_slowly(folder, fault):
    virtual, robot = connected_so100(folder)
    if fault == "silent":
        robot.arm.bus.wire.faults.missing = 3
    else:
        virtual.servos[2].forced_faults = Fault.OVERLOAD
    says = {"silent": "servo 3", "overload": "overload"}[fault]
    with pytest.raises(Stop, match=rf"could not be put to rest.*{says}"):
        robot.close()
    # Who is not heard holds, and the others sink.
    assert have_torque(virtual) == [i == 2 and fault == "silent" for i in range(6)]
    assert virtual.witness.falls == 0
    if fault == "overload":
        assert {s.get("Torque_Limit") for s in virtual.servos[:5]} == {1000}


@pytest.mark.parametrize("status", [Status.OVERLOAD, Status.DRIVER_TOO_HOT])
def test_openarms_that_cannot_land_sink(status):
    virtual, robot = connected_openarm(None)
    virtual.motors[0][6].forced = status  # its wrist gives up
    virtual.step()
    with pytest.raises(Stop, match=rf"could not be put to rest.*{status.words()}"):
        robot.close()
    assert not any(have_torque(virtual))
    assert virtual.witness.falls == 0
    assert virtual.witness.speed[8:15].max() < 2.0


def test_the_virtual_so100_collides_with_itself():
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
    model = virtual.scene.task.model()
    data = mujoco.MjData(model)
    data.qpos[:] = virtual.data.qpos
    data.qpos[:6] = joints
    mujoco.mj_forward(model, data)
    arm = (model.geom_bodyid[data.contact.geom] > 0).all(1)
    assert not arm.any()


def test_neighbours_and_ready_poses_of_a_so100_touch_nothing():
    virtual, _ = assemble(VirtualArmConfig())
    for pose in (SO100_LIMITS.ready, SO100_LIMITS.rest):
        virtual.put(pose)
        virtual.witness.touch.look(virtual.model, virtual.data)
    assert virtual.witness.touch.deepest == 0.0
