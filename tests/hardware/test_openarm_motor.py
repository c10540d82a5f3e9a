"""One virtual Damiao motor and its wire: registers, states, torque, faults."""

import struct

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act_minimal.sim import make_task
from act_minimal.support.errors import SettingError, UserError
from hardware.openarm import protocol
from hardware.openarm.emulator.arm import VirtualOpenArm
from hardware.openarm.emulator.motor import Motor
from hardware.openarm.emulator.wire import FRAME_SECONDS, Faults, Wire
from hardware.openarm.kinematics import ARMS
from hardware.openarm.model import gravity_of, load_alone, places_of
from hardware.openarm.motors import ARM_MOTORS, DM4310, DM4340, DM8009
from hardware.openarm.protocol import (
    Command,
    Feedback,
    Frame,
    Mit,
    Mode,
    Operation,
    RegisterFrame,
    Status,
)
from hardware.openarm.registers import REGISTERS, TIMEOUT_UNIT, register
from hardware.so100.emulator.wire import Faults as ServoFaults

pytestmark = pytest.mark.quick


@pytest.fixture
def motor():
    return Motor(4, 0x14, DM4340)


def tell(motor, what):
    """Send a command; what the motor says."""
    answer = motor.obey(protocol.command(motor.id, what))
    return Feedback.decode(answer, motor.scale)


def goal(motor, **numbers):
    answer = motor.obey(protocol.mit(motor.id, Mit(**numbers), motor.scale))
    return None if answer is None else Feedback.decode(answer, motor.scale)


def write(motor, name, value):
    r = register(name)
    answer = motor.obey(protocol.write(motor.id, r.number, r.encode(value)))
    return r.decode(RegisterFrame.decode(answer).value)


def read(motor, name):
    r = register(name)
    answer = RegisterFrame.decode(motor.obey(protocol.read(motor.id, r.number)))
    assert (answer.id, answer.operation) == (motor.id, Operation.READ)
    return r.decode(answer.value)


# ---------------------------------------------------------------- registers


def test_registers_from_the_factory(motor):
    found = {name: read(motor, name) for name in REGISTERS}
    assert np.isfinite(list(found.values())).all()
    limits = {"VMAX": 8.0, "TMAX": 28.0, "TIMEOUT": 0, "VBus": 24.0}
    ids = {"MST_ID": 0x14, "ESC_ID": 4, "CTRL_MODE": Mode.MIT}
    assert (limits | ids).items() <= found.items()


SAVE = Frame(0x7FF, bytes.fromhex("0400AA0100000000"))


def test_what_is_not_saved_without_torque_is_forgotten(motor):
    assert write(motor, "TIMEOUT", 700) == 700
    motor.power_up()
    assert read(motor, "TIMEOUT") == 0
    for enabled, kept in ((True, 0), (False, 700)):
        write(motor, "TIMEOUT", 700)
        if enabled:
            tell(motor, Command.ENABLE)
        motor.obey(SAVE)
        motor.power_up()
        assert read(motor, "TIMEOUT") == kept


def test_what_cannot_be_written_stays(motor):
    assert write(motor, "Gr", 3.0) == 40.0
    bad = protocol.write(4, 10, struct.pack("<I", 9))
    assert RegisterFrame.decode(motor.obey(bad)).value == struct.pack("<I", 1)
    assert read(motor, "CTRL_MODE") == 1


def test_frames_for_others_are_met_with_silence(motor):
    for frame in (
        protocol.read(5, 22),
        protocol.command(5, Command.ENABLE),
        Frame(4, b"\xff" * 7 + b"\xf0"),  # no such command
        protocol.read(4, 99),
        Frame(4, b""),
    ):
        assert motor.obey(frame) is None


@given(st.integers(0, 0x7FF), st.binary(max_size=9), st.booleans())
def test_random_frames_never_harm(id, data, enabled):
    motor = Motor(4, 0x14, DM4340)
    if enabled:
        tell(motor, Command.ENABLE)
    for number in (id, 4, 0x7FF):
        answer = motor.obey(Frame(number, data))
        assert answer is None or len(answer) == 8
    torque = motor.drive(0.1, 0.0, 0.001)
    assert abs(torque) <= DM4340.peak
    assert np.isfinite(torque)


# ---------------------------------------------------------------- states


def test_enable_and_disable(motor):
    # A goal without torque is answered, and does nothing.
    assert goal(motor, position=1.0, kp=500).status is Status.DISABLED
    assert motor.drive(0.0, 0.0, 0.002) == 0.0
    assert tell(motor, Command.ENABLE).status is Status.ENABLED
    assert motor.drive(0.0, 0.0, 0.002) == 0.0  # no goal yet
    assert goal(motor, position=0.1, kp=100).status is Status.ENABLED
    assert motor.drive(0.0, 0.0, 0.002) == pytest.approx(10, abs=0.1)
    assert tell(motor, Command.DISABLE).status is Status.DISABLED
    assert motor.drive(0.0, 0.0, 0.002) == 0.0
    tell(motor, Command.ENABLE)
    assert motor.drive(0.0, 0.0, 0.002) == 0.0  # the old goal is forgotten


def test_the_torque_is_that_of_mit_mode(motor):
    tell(motor, Command.ENABLE)
    goal(motor, position=0.2, velocity=1.0, kp=50, kd=2, torque=1.5)
    expected = 50 * (0.2 - 0.1) + 2 * (1.0 - 0.4) + 1.5
    assert motor.drive(0.1, 0.4, 0.002) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("type", [DM8009, DM4340, DM4310])
def test_torque_ends_at_the_peak(type):
    motor = Motor(1, 0x11, type)
    tell(motor, Command.ENABLE)
    goal(motor, position=12.0, kp=500)
    assert motor.drive(0.0, 0.0, 0.002) == type.peak


def test_zero_is_where_it_stands_and_outlasts_the_power(motor):
    motor.shaft = 0.7
    assert tell(motor, Command.SET_ZERO).position == pytest.approx(0, abs=4e-4)
    motor.power_up()
    assert motor.position == pytest.approx(0, abs=1e-9)


def test_a_new_zero_under_torque_moves_the_arm(motor):
    tell(motor, Command.ENABLE)
    goal(motor, position=0.5, kp=20)
    assert motor.drive(0.5, 0.0, 0.002) == pytest.approx(0, abs=0.01)
    tell(motor, Command.SET_ZERO)
    assert motor.drive(0.5, 0.0, 0.002) == pytest.approx(10, abs=0.1)


def test_commands_that_stop_let_the_motor_go(motor):
    write(motor, "TIMEOUT", round(0.05 / TIMEOUT_UNIT))
    tell(motor, Command.ENABLE)
    for _ in range(100):
        goal(motor, position=0.1, kp=20)
        motor.drive(0.0, 0.0, 0.002)
    assert motor.status is Status.ENABLED
    for _ in range(30):
        motor.drive(0.0, 0.0, 0.002)
    assert motor.status is Status.LOST_COMMUNICATION
    assert motor.torque == 0.0
    assert tell(motor, Command.ENABLE).status is Status.LOST_COMMUNICATION
    assert tell(motor, Command.CLEAR_ERROR).status is Status.DISABLED
    assert tell(motor, Command.ENABLE).status is Status.ENABLED


@pytest.mark.parametrize(
    ("volts", "status"),
    [(36.0, Status.OVER_VOLTAGE), (12.0, Status.UNDER_VOLTAGE)],
)
def test_voltages_that_it_refuses(motor, volts, status):
    tell(motor, Command.ENABLE)
    motor.supply = volts
    motor.drive(0.0, 0.0, 0.002)
    assert motor.status is status
    assert tell(motor, Command.CLEAR_ERROR).status is status  # the cause is still there
    motor.supply = 24.0
    assert motor.status is status  # it stays until somebody clears it
    assert tell(motor, Command.CLEAR_ERROR).status is Status.DISABLED


def test_a_blocked_motor_is_overloaded_and_hot(motor):
    tell(motor, Command.ENABLE)
    goal(motor, position=12.0, kp=500)
    for status in (Status.ENABLED, Status.OVERLOAD):
        for _ in range(1000):
            motor.drive(0.0, 0.0, 0.002)
        assert motor.status is status
    assert motor.rotor_temperature > 26.0


def test_it_stops_before_it_burns(motor):
    tell(motor, Command.ENABLE)
    motor.rotor_temperature = 121.0
    motor.drive(0.0, 0.0, 0.002)
    assert motor.status is Status.ROTOR_TOO_HOT


def follow(motor, frame, seconds):
    """A shaft with some inertia and friction, turned by the motor; where it ends."""
    angle, speed, fastest = 0.0, 0.0, 0.0
    for step in range(round(seconds / 0.001)):
        if step % 20 == 0:
            motor.obey(frame)
        torque = motor.drive(angle, speed, 0.001)
        speed += 0.001 * (torque - 0.1 * speed) / 0.1
        angle += 0.001 * speed
        fastest = max(fastest, abs(speed))
    return angle, speed, fastest


def test_the_other_modes(motor):
    tell(motor, Command.ENABLE)
    slowly = Frame(0x104, struct.pack("<ff", 1.0, 0.5))  # rad, at most rad/s
    assert motor.obey(slowly) is None  # it is in MIT mode
    write(motor, "CTRL_MODE", Mode.POS_VEL)
    assert goal(motor, position=1.0, kp=10) is None
    angle, _, fastest = follow(motor, slowly, 4.0)
    assert angle == pytest.approx(1.0, abs=0.02)
    assert fastest < 0.6
    write(motor, "CTRL_MODE", Mode.VEL)
    _, speed, _ = follow(motor, Frame(0x204, struct.pack("<f", -1.5)), 1.0)
    assert speed == pytest.approx(-1.5, abs=0.1)
    write(motor, "CTRL_MODE", Mode.POS_FORCE)
    # To 3 rad, at most 50 rad/s, with a tenth of the torque.
    motor.obey(Frame(0x304, struct.pack("<fHH", 3.0, 5000, 1000)))
    assert motor.drive(0.0, 0.0, 0.001) == pytest.approx(2.8)


# Goals that turn the motor of id 4, by mode.
GOALS = {
    Mode.MIT: (0x004, "90158FF1EB666724"),
    Mode.POS_VEL: (0x104, "0000803F00000040"),
    Mode.VEL: (0x204, "0000803F"),
    Mode.POS_FORCE: (0x304, "CDCCCCBE8813E803"),
}


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("size", range(13))
def test_goals_of_the_lengths_that_real_motors_take(motor, mode, size):
    """VEL is a float alone, or padded to eight bytes; all others have eight."""
    write(motor, "CTRL_MODE", mode)
    tell(motor, Command.ENABLE)
    id, wire = GOALS[mode]
    data = (bytes.fromhex(wire) + bytes(12))[:size]
    answer = motor.obey(Frame(id, data))
    if size == 8 or (size, mode) == (4, Mode.VEL):
        assert Feedback.decode(answer, motor.scale).status is Status.ENABLED
        assert motor.drive(0.0, 0.0, 0.001) != 0.0
    else:
        assert answer is None
        assert motor.drive(0.0, 0.0, 0.001) == 0.0


# What the maker's example programs send for registers: four bytes where no value is.
@pytest.mark.parametrize("padding", ["", "00000000"])
@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("04003316", "0400331600000041"),  # read VMAX: 8.0
        ("0400CC00", "047FFF7FF7FF1919"),  # refresh: feedback
        ("0400AA01", "0400AA0100000000"),  # save
    ],
)
def test_register_frames_as_the_makers_examples_send_them(
    motor, asked, answered, padding
):
    answer = motor.obey(Frame(0x7FF, bytes.fromhex(asked + padding)))
    assert answer.hex().upper() == answered


@pytest.mark.parametrize("mode", list(Mode))
def test_commands_on_the_bare_id_and_on_the_modes(motor, mode):
    write(motor, "CTRL_MODE", mode)
    data = bytes.fromhex("FFFFFFFFFFFFFFFC")
    for id in (0x004, GOALS[mode][0]):
        assert motor.obey(Frame(id, data)) is not None
        assert motor.status is Status.ENABLED
        tell(motor, Command.DISABLE)
    other = next(id for id, _ in GOALS.values() if id not in (0x004, GOALS[mode][0]))
    assert motor.obey(Frame(other, data)) is None
    assert motor.status is Status.DISABLED


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30])
def test_no_number_no_motion(motor, number):
    write(motor, "CTRL_MODE", Mode.VEL)
    tell(motor, Command.ENABLE)
    assert motor.obey(Frame(0x204, struct.pack("<f", number))) is None
    assert motor.drive(0.0, 0.0, 0.001) == 0.0


# ---------------------------------------------------------------- the wire


@pytest.fixture
def wire():
    return Wire([Motor(m.id, m.master, m.type) for m in ARM_MOTORS])


def ask(wire, *frames, now=0.0, fd=True):
    for frame in frames:
        wire.receive(frame, now, fd=fd)
    return wire.due(np.inf)


def test_eight_answers_one_after_the_other(wire):
    for id in range(1, 9):
        wire.receive(protocol.refresh(id), 10.0, fd=True)
    assert wire.due(10.0) == []
    assert wire.next_due() == pytest.approx(10.0 + 2 * FRAME_SECONDS)
    early = wire.due(10.0 + 8.5 * FRAME_SECONDS)
    assert [frame.id for frame in early] == [0x11, 0x12, 0x13, 0x14]
    late = wire.due(10.0 + 16.5 * FRAME_SECONDS)
    assert [frame.id for frame in late] == [0x15, 0x16, 0x17, 0x18]


def test_only_the_other_kind_is_not_heard(wire):
    assert ask(wire, protocol.refresh(1), fd=False) == []
    wire.faults.set({"wrong_kind": True})
    assert ask(wire, protocol.refresh(1), fd=True) == []
    assert len(ask(wire, protocol.refresh(1), fd=False)) == 1


def test_a_motor_with_a_wrong_id(wire):
    wire.faults.set({"wrong_id": 4})
    assert ask(wire, protocol.refresh(4), protocol.command(4, Command.ENABLE)) == []
    [frame] = ask(wire, protocol.command(0x0F, Command.ENABLE))
    assert (frame.id, frame.data[0]) == (0x1F, 0x1F)
    [frame] = ask(wire, protocol.read(0x0F, 22))
    assert frame.id == 0x1F
    assert RegisterFrame.decode(frame.data).id == 0x0F


def test_frozen_feedback_stays_and_thaws(wire):
    motor = wire.motors[2]
    wire.faults.set({"frozen": 3})
    [first] = ask(wire, protocol.refresh(3))
    motor.shaft = 0.8
    assert ask(wire, protocol.refresh(3)) == [first]
    wire.faults.set({"frozen": 0})
    wire.apply_faults()
    assert ask(wire, protocol.refresh(3)) != [first]


@pytest.mark.parametrize(
    ("faults", "low", "high"),
    [
        ({}, 800, 800),
        ({"dropped": 0.25}, 520, 680),
        ({"unheard": 0.25}, 520, 680),
        ({"doubled": 0.25}, 920, 1080),
        ({"unplugged": True}, 0, 0),
        ({"no_power": True}, 0, 0),
        ({"silent": 3}, 700, 700),
        ({"wrong_rate": 3}, 700, 700),
    ],
)
def test_how_many_answers_come(wire, faults, low, high):
    wire.faults.set(faults)
    frames = [protocol.refresh(id) for id in range(1, 9)] * 100
    assert low <= len(ask(wire, *frames)) <= high


def test_late_answers_come_late_and_in_their_order(wire):
    wire.faults.set({"late": 0.5, "late_by": 0.1})
    for id in range(1, 9):
        wire.receive(protocol.refresh(id), 0.0, fd=True)
    soon = wire.due(0.05)
    assert 0 < len(soon) < 8
    assert len(wire.due(0.2)) == 8 - len(soon)


@pytest.mark.parametrize(
    ("faults", "wish", "says"),
    [
        (Faults, {"slient": 3}, "no fault 'slient'; the faults are: silent"),
        (Faults, {"silent": True}, "fault silent is True, expected a value"),
        (ServoFaults, {"losst": 0.1}, "losst"),
        (ServoFaults, {"lost": "much"}, "lost"),
        (ServoFaults, {"missing": True}, "missing"),
    ],
)
def test_switches_that_there_are_not(faults, wish, says):
    with pytest.raises(SettingError, match=says):
        faults().set(wish)


# ---------------------------------------------------------------- model and physics


def motors_of(arm):
    return [motor for side in arm.motors for motor in side]


def test_gravity_holds_the_arms_where_they_are():
    kinematics = ARMS["v2"]
    state = np.zeros(16)
    state[[0, 1, 3, 8, 9, 11]] = 0.8, 0.4, 1.2, -0.3, -0.6, 0.9
    arm = VirtualOpenArm(load_alone(), state=state)
    arm.let_go()
    torques = gravity_of(arm.model, kinematics)(state)
    assert np.abs(torques[[0, 8]]).min() > 3.0
    assert torques[[7, 15]].tolist() == [0.0, 0.0]
    for motor, torque in zip(motors_of(arm), torques, strict=True):
        tell(motor, Command.ENABLE)
        goal(motor, kd=0.5, torque=float(torque))
    for _ in range(250):
        arm.step()
    assert arm.state == pytest.approx(state, abs=0.02)


def test_power_takes_the_torque_of_one_arm():
    arm = VirtualOpenArm(load_alone())
    for motor in motors_of(arm):
        tell(motor, Command.ENABLE)
        goal(motor, position=0.0, kp=100, kd=2)
    arm.step()
    arm.power(1, False)
    assert {m.status for m in arm.motors[0]} == {Status.ENABLED}
    assert {m.status for m in arm.motors[1]} == {Status.DISABLED}
    arm.power(1, True)
    assert {m.status for m in arm.motors[1]} == {Status.DISABLED}


def test_the_simulated_task_has_the_same_joints():
    task = make_task("openarm_handover")
    model = task.model()
    arm = VirtualOpenArm(model)
    assert not arm.model.body_gravcomp.any()
    assert model.body_gravcomp.any()  # the task's own model is left alone
    state = np.random.default_rng(3).uniform(*ARMS["v2"].ranges.T)
    arm.put(state)
    assert arm.state == pytest.approx(state)
    assert task.state(arm.data.qpos[None])[0] == pytest.approx(state)
    hands = arm.data.xpos[list(arm.places.hands)]
    for side in range(2):
        there = ARMS["v2"].points_of(state[8 * side : 8 * side + 7], side)[-1]
        assert hands[side] == pytest.approx(there, abs=1e-3)


def test_a_model_of_something_else_is_refused():
    with pytest.raises(UserError, match="ends in 'right_joint1', so it is no OpenArm"):
        places_of(mujoco.MjModel.from_xml_string("<mujoco/>"), ARMS["v2"])
