"""Lesson 08: its checks, its workbench, its widget, and the numbers it shows."""

import math
import os

import numpy as np
import pytest

from course.figures import lesson_08 as so100
from course.toolkit.checks import check
from hardware.so100 import protocol
from hardware.so100.calibration import Calibration, middle_and_range
from hardware.so100.kinematics import ARMS

from .helpers import answers, sweep

pytestmark = pytest.mark.mostly_quick

posix = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


def packet(id, address, size, length=4):
    body = bytes([id, length, 2, address, size])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def with_checksum(compute):
    def answer(id, address, size):
        body = [id, 4, 2, address, size]
        return bytes([255, 255, *body, compute(body) & 0xFF])

    return answer


test_packet = answers(
    "08.packet",
    right=[
        (packet, "would answer"),
        (lambda i, a, s: protocol.read(i, a, s).encode(), ""),
        (lambda i, a, s: list(packet(i, a, s)), ""),
    ],
    wrong=[
        (with_checksum(sum), "not inverted"),
        (with_checksum(lambda b: ~(sum(b) + 510)), "two FF do not count"),
        (with_checksum(lambda b: -sum(b)), "two's complement"),
        (with_checksum(lambda b: ~sum(b[1:])), "the id belongs"),
        (with_checksum(lambda b: ~(sum(b) - 4)), "the length belongs"),
        (with_checksum(lambda b: 7), "expected FF FF 03 04"),
        (lambda i, a, s: packet(i, a, s, 2), "4, not 2"),
        (lambda i, a, s: packet(i, s, a), "address first"),
        (lambda i, a, s: packet(i, a, s)[2:], "begins with FF FF"),
        (lambda i, a, s: packet(i, a, s) + b"\0", "8 bytes"),
        (lambda i, a, s: "FF FF", "return bytes"),
        (lambda i, a, s: [300], "cannot be sent"),
    ],
)


def angle(steps, first, last, middle, sense):
    return middle + sense * (steps - (first + last) / 2) * 2 * np.pi / 4096


test_steps = answers(
    "08.steps",
    right=[(angle, "two numbers a joint")],
    wrong=[
        (lambda *a: math.degrees(angle(*a)), "degrees"),
        (lambda s, f, t, m, d: angle(s, f, t, m, 1), "`sense` is ignored"),
        (lambda s, f, t, m, d: d * angle(s, f, t, m, 1), "not the middle"),
        (lambda s, f, t, m, d: angle(s, f, t, 0, d), "`middle`, is missing"),
        (lambda s, f, t, m, d: angle(s, f, f, m, d), "not from its start"),
        (lambda s, f, t, m, d: angle(s, 2048, 2048, m, d), "from 2048"),
        (lambda s, f, t, m, d: angle(s, f, t, m, d / 2), "uses π"),
        (lambda s, f, t, m, d: angle(s, f, t, m, d * 4096 / 4095), "not 4095"),
        (lambda *a: 7.0, "expected"),
        (lambda *a: "seven", "one angle"),
    ],
)


def test_the_driver_does_what_the_exercise_asks():
    arm = ARMS["so100"]
    spans = [middle_and_range(0, float(high - low)) for low, high in arm.ranges]
    calibration = Calibration.of_ranges(spans)
    steps = np.array([1500, 1800, 2500, 2100, 2300, 2000])
    state = calibration.state_of(steps, arm)
    for i, motor in enumerate(list(calibration.motors.values())[:5]):
        sweep = motor.range_min, motor.range_max
        mine = angle(steps[i], *sweep, arm.middle[i], arm.sense[i])
        assert state[i] == pytest.approx(mine)


def unguarded(wish, last, low, high, step):
    return np.clip(np.clip(wish, low, high), last - step, last + step)


def limited(wish, *limits):
    if not np.isfinite(wish).all():
        raise ValueError("not finite")
    return unguarded(wish, *limits)


def changing(wish, *limits):
    wish[:] = limited(wish, *limits)
    return wish


def scaled(wish, last, low, high, step):
    leap = np.clip(wish, low, high) - last
    return last + leap * min(1, step / np.abs(leap).max())


def dropping(wish, last, low, high, step):
    bad = (wish < low) | (wish > high) | (np.abs(wish - last) > step)
    return np.where(bad, last, wish)


test_limit = answers(
    "08.limit",
    right=[(limited, "between every policy")],
    wrong=[
        (unguarded, "goes through to the servos"),
        (lambda w, t, a, b, s: np.nan_to_num(unguarded(w, t, a, b, s)), "qui"),
        (lambda w, t, a, b, s: np.clip(w, a, b), "nothing stops a leap"),
        (lambda w, t, a, b, s: np.clip(w, t - s, t + s), "range is not"),
        (lambda w, t, a, b, s: np.clip(t, w - s, w + s), "from the wish"),
        (dropping, "is dropped"),
        (scaled, "scaled together"),
        (changing, "work on a copy"),
        (lambda w, t, a, b, s: w * 0 + 7, "expected"),
        (lambda *a: "no", "6 targets"),
    ],
)


def test_a_stub_that_raises_for_nonsense_alone_is_not_right():
    def only_refuses(wish, last, low, high, step):
        if not np.isfinite(wish).all():
            raise ValueError("no")
        return wish

    assert check("08.limit", only_refuses).state == "wrong"


def test_a_tighter_limit_leaps_less_and_lags_more():
    wishes, _ = so100._wishes()
    wide, few = so100.governed(5.0, 100)
    tight, many = so100.governed(0.5, 100)
    assert np.abs(np.diff(tight[:, 0])).max() < np.abs(np.diff(wide[:, 0])).max()
    assert np.abs(tight - wishes).max() > np.abs(wide[:50] - wishes[:50]).max()
    assert sum(many.values()) > sum(few.values())


def test_the_explorer_answers_at_its_ends():
    explorer = so100.governor_explorer()
    for _ in sweep(explorer, 4, speed=(0.4, 5.0), acceleration=(5, 100)):
        assert "interventions in" in explorer.says


def test_five_degrees_at_the_shoulder_are_centimetres_at_the_tip():
    away = so100.tip_errors(np.radians(5))
    assert away.shape == (5, 100)
    # A turn by an angle moves a point by the angle times its distance from the axis.
    assert 0.015 < away[:3].max() < np.radians(5) * 0.4
    assert away[4].max() < 0.01  # the finger is near the axis of the roll
    assert len(so100.calibration_figure(np.radians(5)).axes[0].get_lines()) > 5


@pytest.mark.parametrize("phase", ["calibrate", "record", "deploy"])
def test_the_campaigns_rows_are_shown(phase):
    rows = so100.fault_table(phase).split("\n")[1:]
    assert len(rows) == 17
    assert all(" 0 of 3 " in row for row in rows)


@pytest.fixture
def arm():
    arm = so100.plug_in()
    yield arm
    arm.unplug()
    so100.plug_in.cache_clear()
    assert not os.path.lexists(arm.port)


@pytest.mark.slow
@posix
def test_the_workbench(arm):
    answer = so100.exchange(arm.port, packet(3, 56, 2))
    assert answer[:5] == b"\xff\xff\x03\x04\x00"
    assert so100.exchange(arm.port, packet(3, 56, 2)[:-1] + b"\0") == b""
    assert so100.hexadecimal(b"") == "-"
    careless = so100.torque_on(arm, careful=False)
    careful = so100.torque_on(arm, careful=True)
    assert np.degrees(careless.travel) == pytest.approx(69, abs=3)
    assert careless.speed > 3
    assert careful.travel < 0.02
    assert len(so100.starts_figure(careless, careful).axes[0].lines) == 2
    assert "elbow_flex" in so100.try_fault(arm, missing=3)
    assert "'top' is frozen" in so100.try_fault(arm, frozen_camera="top")
    # The switches are back, and the next connection works.
    assert "nothing is wrong" in so100.try_fault(arm, missing=0)
