"""Lesson 08: its checks, its workbench, its widget, and the numbers it shows."""

import math
import os

import numpy as np
import pytest

from act_minimal.course import bench
from act_minimal.course.checks import EXERCISES, check, find_exercise
from hardware.so100 import protocol
from hardware.so100.calibration import Calibration, middle_and_range
from hardware.so100.kinematics import ARMS

quick = pytest.mark.quick
posix = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path / "course"))


# ---------------------------------------------------------------- exercises


def packet(id, address, size):
    body = bytes([id, 4, 2, address, size])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def with_checksum(compute):
    def answer(id, address, size):
        body = [id, 4, 2, address, size]
        return bytes([255, 255, *body, compute(body) & 0xFF])

    return answer


def of_another_length(id, address, size):
    body = bytes([id, 2, 2, address, size])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def swapped(id, address, size):
    return packet(id, size, address)


@quick
@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (packet, "right", "would answer"),
        (lambda i, a, s: protocol.read(i, a, s).encode(), "right", ""),
        (lambda i, a, s: list(packet(i, a, s)), "right", ""),
        (lambda i, a, s: None, "not attempted", ""),
        (with_checksum(sum), "wrong", "not inverted"),
        (with_checksum(lambda b: ~(sum(b) + 510)), "wrong", "two FF do not count"),
        (with_checksum(lambda b: -sum(b)), "wrong", "two's complement"),
        (with_checksum(lambda b: ~sum(b[1:])), "wrong", "the id belongs"),
        (with_checksum(lambda b: ~(sum(b) - 4)), "wrong", "the length belongs"),
        (with_checksum(lambda b: 7), "wrong", "expected FF FF 03 04"),
        (of_another_length, "wrong", "4, not 2"),
        (swapped, "wrong", "address first"),
        (lambda i, a, s: packet(i, a, s)[2:], "wrong", "begins with FF FF"),
        (lambda i, a, s: packet(i, a, s) + b"\0", "wrong", "8 bytes"),
        (lambda i, a, s: "FF FF", "wrong", "return bytes"),
        (lambda i, a, s: [300], "wrong", "cannot be sent"),
    ],
)
def test_packet(answer, state, says):
    verdict = check("08.packet", answer)
    assert verdict.state == state
    assert says in verdict.message


def angle(steps, first, last, middle, sense):
    return middle + sense * (steps - (first + last) / 2) * 2 * np.pi / 4096


@quick
@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (angle, "right", "two numbers a joint"),
        (lambda *a: None, "not attempted", ""),
        (lambda *a: math.degrees(angle(*a)), "wrong", "degrees"),
        (lambda s, f, t, m, d: angle(s, f, t, m, 1), "wrong", "`sense` is ignored"),
        (lambda s, f, t, m, d: d * angle(s, f, t, m, 1), "wrong", "not the middle"),
        (lambda s, f, t, m, d: angle(s, f, t, 0, d), "wrong", "`middle`, is missing"),
        (lambda s, f, t, m, d: angle(s, f, f, m, d), "wrong", "not from its start"),
        (lambda s, f, t, m, d: angle(s, 2048, 2048, m, d), "wrong", "from 2048"),
        (
            lambda s, f, t, m, d: m + d * (s - (f + t) / 2) * np.pi / 4096,
            "wrong",
            "uses π",
        ),
        (
            lambda s, f, t, m, d: m + d * (s - (f + t) / 2) * 2 * np.pi / 4095,
            "wrong",
            "not 4095",
        ),
        (lambda *a: 7.0, "wrong", "expected"),
        (lambda *a: "seven", "wrong", "one angle"),
    ],
)
def test_steps(answer, state, says):
    verdict = check("08.steps", answer)
    assert verdict.state == state
    assert says in verdict.message


@quick
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


def limited(wish, last, low, high, step):
    if not np.isfinite(wish).all():
        raise ValueError("not finite")
    return np.clip(np.clip(wish, low, high), last - step, last + step)


def unguarded(wish, last, low, high, step):
    return np.clip(np.clip(wish, low, high), last - step, last + step)


def changing(wish, last, low, high, step):
    limited(wish, last, low, high, step)
    wish[:] = np.clip(np.clip(wish, low, high), last - step, last + step)
    return wish


def scaled(wish, last, low, high, step):
    leap = np.clip(wish, low, high) - last
    return last + leap * min(1, step / np.abs(leap).max())


def dropping(wish, last, low, high, step):
    bad = (wish < low) | (wish > high) | (np.abs(wish - last) > step)
    return np.where(bad, last, wish)


@quick
@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (limited, "right", "between every policy"),
        (lambda *a: None, "not attempted", ""),
        (unguarded, "wrong", "goes through to the servos"),
        (lambda w, t, a, b, s: np.nan_to_num(unguarded(w, t, a, b, s)), "wrong", "qui"),
        (lambda w, t, a, b, s: np.clip(w, a, b), "wrong", "nothing stops a leap"),
        (lambda w, t, a, b, s: np.clip(w, t - s, t + s), "wrong", "range is not"),
        (lambda w, t, a, b, s: np.clip(t, w - s, w + s), "wrong", "from the wish"),
        (dropping, "wrong", "is dropped"),
        (scaled, "wrong", "scaled together"),
        (changing, "wrong", "work on a copy"),
        (lambda w, t, a, b, s: w * 0 + 7, "wrong", "expected"),
        (lambda *a: "no", "wrong", "6 targets"),
    ],
)
def test_limit(answer, state, says):
    verdict = check("08.limit", answer)
    assert verdict.state == state
    assert says in verdict.message


@quick
def test_a_stub_that_raises_for_nonsense_alone_is_not_right():
    def only_refuses(wish, last, low, high, step):
        if not np.isfinite(wish).all():
            raise ValueError("no")
        return wish

    assert check("08.limit", only_refuses).state == "wrong"


@quick
def test_every_exercise_has_three_hints():
    find_exercise("08.packet")
    mine = [e for name, e in EXERCISES.items() if name.startswith("08.")]
    assert len(mine) == 3
    assert all(len(e.hints) >= 3 for e in mine)


# ---------------------------------------------------------------- the workbench


@quick
def test_a_tighter_limit_leaps_less_and_lags_more():
    wishes, _ = bench._wishes()
    wide, few = bench.governed(5.0, 100)
    tight, many = bench.governed(0.5, 100)
    assert np.abs(np.diff(tight[:, 0])).max() < np.abs(np.diff(wide[:, 0])).max()
    assert np.abs(tight - wishes).max() > np.abs(wide[:50] - wishes[:50]).max()
    assert sum(many.values()) > sum(few.values())


@quick
@pytest.mark.parametrize("speed", [0.4, 5.0])
@pytest.mark.parametrize("acceleration", [5, 100])
def test_the_explorer_answers_at_its_ends(speed, acceleration):
    explorer = bench.governor_explorer()
    explorer.set(speed=speed, acceleration=acceleration)
    assert not explorer.errors
    assert "interventions in" in explorer.says
    assert "<img" in explorer.figure_html


@quick
def test_five_degrees_at_the_shoulder_are_centimetres_at_the_tip():
    away = bench.tip_errors(np.radians(5))
    assert away.shape == (5, 100)
    # A turn by an angle moves a point by the angle times its distance from the axis.
    assert 0.015 < away[:3].max() < np.radians(5) * 0.4
    assert away[4].max() < 0.01  # the finger is near the axis of the roll
    assert len(bench.calibration_figure(np.radians(5)).axes[0].get_lines()) > 5


@quick
@pytest.mark.parametrize("phase", ["calibrate", "record", "deploy"])
def test_the_campaigns_rows_are_shown(phase):
    rows = bench.fault_table(phase).split("\n")[1:]
    assert len(rows) == 17
    assert all(" 0 of 3 " in row for row in rows)


@pytest.fixture
def arm():
    arm = bench.plug_in()
    yield arm
    arm.unplug()
    bench.plug_in.cache_clear()
    assert not os.path.lexists(arm.port)


@posix
def test_the_workbench(arm):
    answer = bench.exchange(arm.port, packet(3, 56, 2))
    assert answer[:5] == b"\xff\xff\x03\x04\x00"
    assert bench.exchange(arm.port, packet(3, 56, 2)[:-1] + b"\0") == b""
    assert bench.hexadecimal(b"") == "-"
    careless = bench.torque_on(arm, careful=False)
    careful = bench.torque_on(arm, careful=True)
    assert np.degrees(careless.travel) == pytest.approx(69, abs=3)
    assert careless.speed > 3
    assert careful.travel < 0.02
    assert len(bench.starts_figure(careless, careful).axes[0].lines) == 2
    assert "elbow_flex" in bench.try_fault(arm, missing=3)
    assert "'top' is frozen" in bench.try_fault(arm, frozen_camera="top")
    # The switches are back, and the next connection works.
    assert "nothing is wrong" in bench.try_fault(arm, missing=0)
