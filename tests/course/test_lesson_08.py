"""Lesson 08: its checks, its workbench, its widget, and the numbers it shows."""

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest

from course.figures import lesson_08 as so100
from course.toolkit.checks import check
from hardware.deployment import Tally, Trial
from hardware.safety.safe_robot import so100_limits
from hardware.so100 import protocol
from hardware.so100.calibration import Calibration, middle_and_range
from hardware.so100.kinematics import ARMS

from .helpers import answers, check_readable, spoils, sweep

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
        (lambda i, a, s: packet(a, i, s), "id comes right after"),
        (lambda i, a, s: packet(3, a, s), "as the argument says: 06 here, not 03"),
        (lambda i, a, s: packet(i, 56, s), "the address is 28 here, and yours 38"),
        (lambda i, a, s: packet(i, a, 2), "the size is 0F here, and yours 02"),
        (lambda i, a, s: packet(i, a, s).replace(b"\x02", b"\x03", 1), "READ is"),
        (lambda i, a, s: packet(i, a, s)[:-1], "8 bytes"),
        (lambda i, a, s: packet(i, a, s)[::-1], "begins with FF FF"),
        (lambda i, a, s: b"", "yours is nothing"),
        (lambda i, a, s: packet(i, a, s).hex(), "return bytes"),
        (lambda i, a, s: [*packet(i, a, s)[:-1], 3.5], "cannot be sent"),
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
        (lambda s, f, t, m, d: angle(s, 0, (f + t) // 2 * 2, m, d), "// 2"),
        (lambda *a: math.degrees(angle(*a)), "degrees"),
        (lambda s, f, t, m, d: angle(s, f, t, m, 1), "`sense` is ignored"),
        (lambda s, f, t, m, d: d * angle(s, f, t, m, 1), "not the middle"),
        (lambda s, f, t, m, d: angle(s, f, t, 0, d), "`middle`, is missing"),
        (lambda s, f, t, m, d: angle(s, f, f, m, d), "not from its start"),
        (lambda s, f, t, m, d: angle(s, 2048, 2048, m, d), "from 2048"),
        (lambda s, f, t, m, d: angle(s, 900, 3100, m, d), "from 2048 or 2000"),
        (lambda s, f, t, m, d: angle(s, f, t, -1.66, d), "`middle` is another"),
        (lambda s, f, t, m, d: angle(s, f, f + 2200, m, d), "expected"),
        (lambda s, f, t, m, d: angle(2600, f, t, m, d), "expected"),
        (lambda s, f, t, m, d: angle(s, f, t, m, d / 2), "uses π"),
        (lambda s, f, t, m, d: angle(s, f, t, m, d * 4096 / 4095), "not 4095"),
        (lambda *a: (angle(*a) + np.pi) % (2 * np.pi) - np.pi, "is wrapped"),
        (lambda *a: math.atan2(math.sin(angle(*a)), math.cos(angle(*a))), "is wrapped"),
        (lambda s, f, t, m, d: angle(t + f - s, f, t, m, d), "expected"),
        (lambda s, f, t, m, d: angle(s, f, t, -m, d), "expected"),
        (lambda *a: np.clip(angle(*a), -np.pi, np.pi), "expected -3.3074"),
        (lambda *a: math.nan, "expected"),
        (lambda *a: 7.0, "expected"),
        (lambda *a: [angle(*a), 0.0], "one angle"),
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


def range_last(wish, last, low, high, step):
    if not np.isfinite(wish).all():
        raise ValueError("not finite")
    return np.clip(np.clip(wish, last - step, last + step), low, high)


def asserting(wish, *limits):
    assert np.isfinite(wish).all()
    return unguarded(wish, *limits)


def dividing(wish, *limits):
    return unguarded(wish, *limits) if np.isfinite(wish).all() else 1 / 0


def returning(wish, *limits):
    return unguarded(wish, *limits) if np.isfinite(wish).all() else ValueError


def looking_at_one(wish, *limits):
    if not np.isfinite(wish[2]):
        raise ValueError("not finite")
    return unguarded(wish, *limits)


def staying(wish, last, *limits):
    return unguarded(wish, last, *limits) if np.isfinite(wish).all() else last


def moving_last(wish, last, *limits):
    target = limited(wish, last, *limits)
    last[:] = target
    return target


def changing(wish, *limits):
    wish[:] = limited(wish, *limits)
    return wish


def scaled(wish, last, low, high, step):
    leap = np.clip(wish, low, high) - last
    return last + leap * min(1, step / np.abs(leap).max())


def dropping(wish, last, low, high, step):
    bad = (wish < low) | (wish > high) | (np.abs(wish - last) > step)
    return np.where(bad, last, wish)


def ranged(wish, last, low, high, step):
    return limited(wish, last, low, high, step)


def timid(wish, *limits):
    if (abs(wish) > 3).any():
        raise ValueError("far")
    return limited(wish, *limits)


test_limit = answers(
    "08.limit",
    right=[(limited, "no joint is sent a leap")],
    wrong=[
        (spoils(ranged, lambda w, t, a, b, s: a.fill(0)), "changed its argument `low`"),
        (
            spoils(ranged, lambda w, t, a, b, s: b.fill(0)),
            "changed its argument `high`",
        ),
        (timid, "raised ValueError: far"),
        (unguarded, "np.clip lets nan through"),
        (lambda w, t, a, b, s: np.nan_to_num(unguarded(w, t, a, b, s)), "qui"),
        (lambda w, t, a, b, s: np.clip(w, a, b), "nothing stops a leap"),
        (lambda w, t, a, b, s: np.clip(w, t - s, t + s), "range is not"),
        (lambda w, t, a, b, s: np.clip(t, w - s, w + s), "from the wish"),
        (dropping, "is dropped"),
        (scaled, "scaled together"),
        (changing, "changed its argument `wish`"),
        (range_last, "limit on the step come last"),
        (asserting, "with -O"),
        (dividing, "ends in ZeroDivisionError"),
        (returning, "is not refused"),
        (looking_at_one, "quietly replaced"),
        (staying, "quietly replaced"),
        (moving_last, "work on a copy"),
        (lambda w, t, a, b, s: limited(w, t, a, b, s / 2), "expected"),
        (lambda w, t, a, b, s: limited(w, t, b, a, s), "expected"),
        (lambda w, t, a, b, s: limited(-w, t, a, b, s), "expected"),
        (lambda *a: limited(*a)[:, None], "the shape of yours is (6, 1)"),
        (lambda *a: limited(*a)[:5], "the shape of yours is (5,)"),
        (lambda *a: float(limited(*a)[0]), "the shape of yours is ()"),
        (lambda w, t, a, b, s: w * 0 + 7, "expected"),
        (lambda *a: "no", "6 targets"),
        (lambda w, t, a, b, s: limited(w, t, a, b, 0.3), "take low, high and step"),
        (lambda w, t, a, b, s: limited(w, t, -1, b, s), "wrong for other ranges"),
        (lambda w, t, a, b, s: limited(w, t, a, 1, s), "wrong for other ranges"),
        (lambda w, t, a, b, s: limited(w, t, a[0], b[0], s), "wrong for other ranges"),
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
    # What the table of conclusions says in docs/instructors.md.
    assert (round(away[:4].min(), 3), round(away[:4].max(), 3)) == (0.014, 0.022)
    lines = so100.tip_lines(np.radians(5)).splitlines()
    assert lines[0] == "pan   off by 5 degrees: the fingertip is off by 1.6 to 1.9 cm"
    assert lines[-1].endswith("0.0 to 0.0 cm")
    assert len(lines) == 5


def test_interventions_are_told_in_a_sentence():
    robot = SimpleNamespace(interventions=SimpleNamespace(counts={"speed": 2}))
    assert so100.stepped_in(robot) == "The limits stepped in 2 times: speed 2"
    robot.interventions.counts |= {"grip": 11}
    assert so100.stepped_in(robot).endswith("13 times: grip 11, speed 2")
    robot.interventions.counts = {}
    assert so100.stepped_in(robot) == "The limits stepped in 0 times"


@pytest.mark.parametrize("phase", ["calibrate", "record", "deploy"])
def test_the_campaigns_rows_are_shown(phase):
    rows = so100.fault_table(phase).split("\n")[1:]
    assert len(rows) == 17
    assert all(" 0 of 3 " in row for row in rows)


def start(careful, *degrees):
    return so100.Start(careful, np.arange(len(degrees)) / 10, np.radians(degrees))


def test_a_start_says_how_far_it_swung_and_where_it_came_to_rest():
    text = str(start(False, 10, 40, -62, -30))
    assert text.startswith("goal left behind: swings 72 degrees, comes to rest 40")
    assert "goal set first: swings 0 degrees" in str(start(True, 5, 5, 5))


ROBOT = SimpleNamespace(fps=30.0, limits=so100_limits())
DRY = {
    "prediction_ms": {"median": 5.0, "worst": 9.0},
    "jump": 0.03,
    "unfamiliar": [],
    "frames": {"top": 21.0, "wrist": 23.0},
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prediction_ms": {"median": 20.0, "worst": 60.0}}, "still for 1 tick at"),
        ({"prediction_ms": {"median": 90.0, "worst": 120.0}}, "still for 3 ticks at"),
        ({"prediction_ms": {"median": 140.0, "worst": 160.0}}, "TOO SLOW"),
        ({"prediction_ms": {"median": 5.0, "worst": 160.0}}, "close other programs"),
        ({"jump": 0.9}, "check the calibration"),
        ({"unfamiliar": [2]}, "joints [2] are far from all demonstrations"),
        ({"frames": {"top": 300.0, "wrist": 20.0}}, "a USB port of its own"),
    ],
)
def test_a_dry_run_that_is_over_a_limit_advises(change, says):
    assert so100.advice(DRY, ROBOT).endswith("\ngo on")
    text = so100.advice(DRY | change, ROBOT)
    assert says in text
    assert text.endswith("\ndo not let it drive yet")


def trial(prediction_ms, jitter=0.1):
    timing = {"ticks": 100, "jitter_ms_p99": jitter} if prediction_ms else {"ticks": 0}
    return Trial(0, True, 3.0, 100, prediction_ms=prediction_ms, timing=timing)


def test_a_busy_computer_is_told():
    quiet = trial([5.0, 12.0])
    assert so100.busy(Tally([quiet, trial([])]), 30) == ""
    for late in (trial([5.0, 40.0]), trial([5.0, 12.0], jitter=25.0)):
        said = so100.busy(Tally([quiet, late]), 30)
        assert said.startswith("this computer is busy")
        assert "run this cell again" in said
    assert len(so100.timing_figure(Tally([quiet, trial([])])).axes) == 2


class FakeRobot:
    def __init__(self):
        self.calls = []

    def connect(self):
        self.calls.append("connect")

    def close(self):
        self.calls.append("close")


def test_an_arm_is_let_go_whatever_happens(monkeypatch):
    robot = FakeRobot()
    monkeypatch.setattr(so100, "safe_robot", lambda *about: robot)
    with pytest.raises(KeyboardInterrupt), so100.connected("port", None, ()):
        raise KeyboardInterrupt
    with so100.connected("port", None, ()):
        pass
    assert robot.calls == ["connect", "close"] * 2


def test_an_arm_that_ended_is_plugged_in_anew():
    made = []

    def start():
        made.append(SimpleNamespace(alive=True))
        one = made[-1]
        return SimpleNamespace(number=len(made), running=lambda: one.alive)

    plug_in = so100.once(start)
    assert plug_in() is plug_in()
    made[0].alive = False
    assert plug_in().number == 2
    assert plug_in().number == 2


def test_explorers_can_be_read():
    check_readable(so100.governor_explorer())


@pytest.fixture
def arm():
    arm = so100.plug_in()
    yield arm
    arm.unplug()
    assert not arm.running()
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
    assert careless.swing > careless.travel + np.radians(10)  # it overshoots
    swing, travel = (f"{np.degrees(x):.0f}" for x in (careless.swing, careless.travel))
    assert f"swings {swing} degrees, comes to rest {travel} degrees" in str(careless)
    assert careless.speed > 3
    assert careful.travel < 0.02
    lines = so100.starts_figure(careless, careful).axes[0].lines
    assert len(lines) == 3  # two ways, and the goal
    assert "elbow_flex" in so100.try_fault(arm, missing=3)
    assert "'top' is frozen" in so100.try_fault(arm, frozen_camera="top")
    # The switches are back, and the next connection works.
    assert "nothing is wrong" in so100.try_fault(arm, missing=0)
