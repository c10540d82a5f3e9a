"""Frames of Damiao motors: golden bytes, and whatever else may come over a bus."""

import struct
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.openarm import protocol
from hardware.openarm.motors import (
    ARM_MOTORS,
    DM3507,
    DM4310,
    DM4340,
    DM8009,
    NEWER_DM4340,
)
from hardware.openarm.protocol import (
    Command,
    Feedback,
    Frame,
    Mit,
    Mode,
    Operation,
    RegisterFrame,
    Scale,
    Status,
)
from hardware.openarm.registers import BY_NUMBER, REGISTERS, register

pytestmark = pytest.mark.quick

MIT = [
    (DM8009.scale, Mit(), "7FFF7FF0000007FF"),
    (DM4340.scale, Mit(), "7FFF7FF0000007FF"),
    (DM4310.scale, Mit(), "7FFF7FF0000007FF"),
    (DM8009.scale, Mit(0.5, 0, 240, 5, 0), "851E7FF7ADFFF7FF"),
    (DM8009.scale, Mit(-1.25, 0.5, 70, 2.75, 1.5), "733281623D8CC838"),
    (DM4340.scale, Mit(1.5708, 1, 60, 2, -3), "90158FF1EB666724"),
    (NEWER_DM4340, Mit(1.5708, 1, 60, 2, -3), "90158CC1EB666724"),
    (DM4310.scale, Mit(-1.0472, 0, 25, 0.3, 0), "75467FF0CC0F57FF"),
    # 30 and 50 rad/s, 10 and 5 N·m: the same goal of the two motors of joint 7.
    (DM4310.scale, Mit(0.5, 10, 30, 1.5, 1), "851EAAA0F54CC8CC"),
    (DM3507.scale, Mit(0.5, 10, 30, 1.5, 1), "851E9990F54CC999"),
]
FEEDBACK = [
    (DM8009.scale, Feedback(1, Status(1), 0.5, 0, 2, 32, 30), "11851E7FF84B201E"),
    (DM4310.scale, Feedback(8, Status(0), 0, 0, 0, 28, 27), "087FFF7FF7FF1C1B"),
    (
        DM4340.scale,
        Feedback(4, Status(14), 1.2, -0.3, -4, 61, 55),
        "E48C497B26DB3D37",
    ),
]
# Every frame whose bytes follow from the table of commands alone.
FRAMES = [
    (protocol.command(1, Command.ENABLE), 0x001, "FFFFFFFFFFFFFFFC"),
    (protocol.command(8, Command.DISABLE), 0x008, "FFFFFFFFFFFFFFFD"),
    (protocol.command(3, Command.SET_ZERO), 0x003, "FFFFFFFFFFFFFFFE"),
    (protocol.command(4, Command.CLEAR_ERROR), 0x004, "FFFFFFFFFFFFFFFB"),
    (protocol.read(4, 22), 0x7FF, "0400331600000000"),
    (protocol.write(4, 10, struct.pack("<I", 1)), 0x7FF, "0400550A01000000"),
    (protocol.refresh(7), 0x7FF, "0700CC0000000000"),
]


# How nearly they come back, the next two properties say.
@pytest.mark.parametrize(("scale", "sent", "wire"), MIT + FEEDBACK)
def test_golden_goals_and_feedback(scale, sent, wire):
    assert sent.encode(scale).hex().upper() == wire


def test_feedback_captured_on_a_real_arm():
    seen = Feedback.decode(bytes.fromhex("118327 7FF7FF 0000"), DM8009.scale)
    assert (seen.id, seen.status) == (1, Status.ENABLED)
    assert seen.position == pytest.approx(0.3080, abs=5e-5)
    assert seen.velocity == pytest.approx(-0.011, abs=5e-4)
    assert seen.torque == pytest.approx(-0.013, abs=5e-4)


@pytest.mark.parametrize(("frame", "id", "wire"), FRAMES)
def test_golden_frames(frame, id, wire):
    assert frame == Frame(id, bytes.fromhex(wire))


def test_the_wrong_range_of_velocity_is_off_by_a_quarter():
    wire = Feedback(4, Status.ENABLED, 0.0, 2.0, 0.0).encode(NEWER_DM4340)
    assert Feedback.decode(wire, DM4340.scale).velocity == pytest.approx(1.6, abs=0.01)


SCALES = [DM8009.scale, DM4340.scale, NEWER_DM4340, DM4310.scale, DM3507.scale]
scales = st.sampled_from(SCALES)


def drawn(data, *most):
    """Numbers some of which are beyond these."""
    return [data.draw(st.floats(-1.5 * one, 1.5 * one)) for one in most]


@given(scales, st.data())
def test_goals_come_back_within_a_step(scale, data):
    most = (scale.position, scale.velocity, 500, 5, scale.torque)
    sent = drawn(data, *most)
    back = astuple(Mit.decode(Mit(*sent).encode(scale), scale))
    for i, bits in enumerate((16, 12, 12, 12, 12)):
        low = 0 if i in (2, 3) else -most[i]  # kp and kd
        step = (most[i] - low) / (2**bits - 1)
        cut = min(max(sent[i], low), most[i])
        # Cut off, not rounded: never above what was asked.
        assert cut - step - 1e-9 <= back[i] <= cut + 1e-9


@given(scales, st.sampled_from(list(Status)), st.integers(0, 15), st.data())
def test_feedback_comes_back(scale, status, id, data):
    most = np.array([scale.position, scale.velocity, scale.torque])
    sent = drawn(data, *most)
    hot = [data.draw(st.integers(0, 255)) for _ in range(2)]
    back = Feedback.decode(Feedback(id, status, *sent, *hot).encode(scale), scale)
    assert (back.id, back.status) == (id, status)
    assert [back.driver_temperature, back.rotor_temperature] == hot
    off = np.array([back.position, back.velocity, back.torque])
    off -= np.clip(sent, -most, most)
    assert (np.abs(off) <= most / 2000).all()


@given(st.binary(max_size=12), scales)
def test_random_bytes_never_crash_the_decoders(data, scale):
    RegisterFrame.decode(data)
    protocol.is_answer_of_register(data, 1)
    if len(data) == 8:
        assert isinstance(Feedback.decode(data, scale).status, Status)
        assert abs(Mit.decode(data, scale).position) <= scale.position
    else:
        with pytest.raises(ValueError, match="expected 8"):
            Feedback.decode(data, scale)


@given(st.integers(0, 0x7FF), st.sampled_from(list(Operation)), st.integers(0, 255))
def test_register_frames_come_back(id, operation, number):
    frame = RegisterFrame(id, operation, number, b"\x01\x02\x03\x04")
    assert RegisterFrame.decode(frame.encode()) == frame


@given(
    st.sampled_from(ARM_MOTORS), st.sampled_from(list(Status)), st.floats(-12.4, 12.4)
)
def test_feedback_is_never_taken_for_a_register(motor, status, position):
    wire = Feedback(motor.id, status, position, 0, 0).encode(motor.type.scale)
    assert not protocol.is_answer_of_register(wire, motor.id)


@given(st.integers(0, 0x7FF), st.sampled_from(list(Operation)), st.integers(0, 255))
def test_register_frames_without_a_value_may_be_short(id, operation, number):
    short = RegisterFrame(id, operation, number).encode()[:4]
    found = RegisterFrame.decode(short)
    if operation is Operation.WRITE:
        assert found is None  # what should it write?
    else:
        assert found == RegisterFrame(id, operation, number)


def test_an_answer_of_a_register_is_one():
    answer = protocol.read(4, 22).data
    assert protocol.is_answer_of_register(answer, 4)
    assert not protocol.is_answer_of_register(answer, 5)


def test_nan_is_not_sent():
    with pytest.raises(ValueError, match="NaN cannot be sent"):
        Mit(position=float("nan")).encode(DM4310.scale)


def test_statuses_have_words():
    assert Status.OVER_VOLTAGE.words() == "over voltage"
    assert Status(0xD) is Status.LOST_COMMUNICATION
    assert Status(7) is Status.UNKNOWN_ERROR
    assert not Status.ENABLED.is_error
    assert all(s.is_error for s in Status if s.value > 1)


def test_modes_have_their_own_ids():
    assert protocol.OFFSETS == {
        Mode.MIT: 0,
        Mode.POS_VEL: 0x100,
        Mode.VEL: 0x200,
        Mode.POS_FORCE: 0x300,
    }


# ---------------------------------------------------------------- registers


def test_numbers_are_the_makers():
    numbers = {"TIMEOUT": 9, "CTRL_MODE": 10, "PMAX": 21, "VMAX": 22, "TMAX": 23}
    assert {name: register(name).number for name in numbers} == numbers
    assert len(BY_NUMBER) == len(REGISTERS)
    whole = {r.number for r in REGISTERS.values() if r.whole}
    assert whole == {*range(7, 11), *range(13, 17), 35, 36}


def test_floats_and_whole_numbers():
    assert register("VMAX").encode(8.0) == struct.pack("<f", 8.0)
    assert register("CTRL_MODE").encode(1) == b"\x01\0\0\0"
    assert register("VMAX").decode(struct.pack("<f", 10.0)) == 10.0
    assert register("MST_ID").decode(b"\x14\0\0\0") == 0x14


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CTRL_MODE", 9, "CTRL_MODE = 9: expected a whole number from 1 to 4"),
        ("CTRL_MODE", 1.5, "expected a whole number"),
        ("VMAX", float("nan"), "VMAX = nan: expected a number"),
        ("VMAX", 0.0, "VMAX = 0.0"),
        ("ACC", 1e39, "does not fit into a float"),
    ],
)
def test_values_that_do_not_fit_are_refused(name, value, says):
    with pytest.raises(ValueError, match=says):
        register(name).encode(value)


def test_an_unknown_register_is_named():
    with pytest.raises(KeyError, match="no register 'VMAXX'; they are: UV_Value"):
        register("VMAXX")


def test_a_scale_is_three_numbers():
    assert [m.type.scale for m in ARM_MOTORS][2:4] == [Scale(12.5, 8.0, 28.0)] * 2
