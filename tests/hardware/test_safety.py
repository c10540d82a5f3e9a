"""Nothing moves an arm past its limits, whatever a policy says."""

import contextlib
import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act_minimal.support.errors import UserError
from hardware.clock import Ticker
from hardware.openarm.limits import openarm_limits
from hardware.safety.governor import Governor
from hardware.safety.safe_robot import SafeRobot, so100_limits
from hardware.safety.stop import EmergencyStop, Interventions, Stop
from hardware.so100.protocol import Fault

from ..clocks import HandClock, retried
from .fake_arm import FakeArm

pytestmark = pytest.mark.quick

LIMITS = so100_limits()
PERIOD = 1 / 30


def clearance(joints):
    return LIMITS.guard.clearance(joints, LIMITS.box_low, LIMITS.box_high)


wishes = st.lists(
    st.lists(
        st.one_of(st.floats(-8, 8), st.sampled_from([0.0, 1e300, -1e300])),
        min_size=6,
        max_size=6,
    ),
    min_size=1,
    max_size=25,
)


@given(wishes, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_no_sequence_of_wishes_passes_the_limits(sequence, follow, seed):
    """`follow`: how much of each step the arm makes; it may also be pushed about."""
    rng = np.random.default_rng(seed)
    governor = Governor(LIMITS, PERIOD)
    measured = LIMITS.ready.copy()
    governor.reset(measured)
    last = measured.copy()
    for wish in sequence:
        load = rng.uniform(-1, 1, 6)
        target, _ = governor.allow(np.array(wish), measured, load)
        assert (target >= LIMITS.low - 1e-9).all()
        assert (target <= LIMITS.high + 1e-9).all()
        assert (np.abs(target - last) <= LIMITS.speed * PERIOD + 1e-9).all()
        assert (clearance(target) >= np.minimum(clearance(last), 0) - 1e-9).all()
        measured = measured + follow * (target - measured) + rng.normal(0, 0.01, 6)
        last = target


@given(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 5))
def test_nonsense_is_refused(value, joint):
    governor = Governor(LIMITS, PERIOD)
    wish = LIMITS.ready.copy()
    wish[joint] = value
    with pytest.raises(Stop, match=f"action of joint {joint}"):
        governor.allow(wish, LIMITS.ready)
    measured = LIMITS.ready.copy()
    measured[joint] = value
    with pytest.raises(Stop, match=f"measured position of joint {joint}"):
        governor.allow(LIMITS.ready, measured)


def drive(wish, ticks, start=None, follow=1.0, load=None):
    """Targets and kinds of a constant wish."""
    governor = Governor(LIMITS, PERIOD)
    measured = LIMITS.ready.copy() if start is None else start
    targets, kinds = [measured.copy()], set()
    governor.reset(measured)
    for _ in range(ticks):
        target, some = governor.allow(wish, measured, load)
        measured = measured + follow * (target - measured)
        targets.append(target)
        kinds |= set(some)
    return np.array(targets), kinds


def test_a_wish_within_the_limits_is_passed_on_untouched():
    wish = LIMITS.ready + [0.03, 0.03, -0.03, 0.03, 0.03, 0.05]
    targets, kinds = drive(wish, 1)
    assert targets[-1] == pytest.approx(wish)
    assert kinds == set()


def test_speed_and_acceleration_are_kept_and_the_wish_is_reached():
    wish = LIMITS.ready + [1.0, 0, 0, 0, 0, 0]
    targets, kinds = drive(wish, 40)
    speed = np.diff(targets[:, 0]) / PERIOD
    assert speed.max() == pytest.approx(LIMITS.speed[0])
    assert speed[0] <= LIMITS.acceleration[0] * PERIOD + 1e-9
    assert targets[-1] == pytest.approx(wish)
    assert {"speed"} <= kinds


def test_a_blocked_arm_is_not_pulled_far():
    wish = LIMITS.ready + [1.5, 0, 0, 0, 0, 0]
    targets, kinds = drive(wish, 60, follow=0.0)
    assert targets[:, 0].max() <= LIMITS.ready[0] + LIMITS.step[0] + 1e-9
    assert "step" in kinds


DOWN = LIMITS.ready.copy()
DOWN[1:4] = [-0.2, 0.2, 1.2]  # reaches down through the table


@pytest.mark.parametrize(
    ("wish", "low", "fastest"),
    [
        (DOWN, "workspace", 0.3),
        # Once pressed 77 N on the table: the fingers' tips were over it, not the rest.
        ([-0.19, -0.72, 2.38, -1.45, -0.26, 0.34], "workspace", 0.0),
        # The gripper into its shoulder.
        ([0.4, -2.0, 3.1, 1.6, 1.0, 0.7], "collision", 0.0),
    ],
)
def test_no_body_goes_into_the_table_or_into_the_arm(wish, low, fastest):
    wish = np.clip(wish, LIMITS.low, LIMITS.high)
    assert clearance(wish).min() < -0.01
    targets, kinds = drive(wish, 120)
    room = clearance(targets).min(1)
    assert room.min() >= -1e-9
    assert low in kinds
    assert "press" not in kinds
    # It can stop from there; what is farther off is not looked at so closely.
    speed = -np.diff(room) / PERIOD
    assert (speed <= np.sqrt(2 * LIMITS.closing * np.maximum(room[1:], 0)) + 1e-6).all()
    assert speed.max() > fastest


def test_an_arm_far_behind_its_target_is_waited_for_near_the_table():
    """Lagging joints leave the path: near something the target does not run ahead."""
    wish = LIMITS.ready.copy()
    wish[0] = 1.5  # sideways, close over the table
    low = LIMITS.ready.copy()
    low[1:4] = [-1.2, 1.2, 1.2]
    while LIMITS.guard.lowest(low) > 0.001:
        low[1] += 0.002
    wish[1:] = low[1:]
    targets, _ = drive(wish, 30, start=low, follow=0.0)
    high, _ = drive(LIMITS.ready + [1.5, 0, 0, 0, 0, 0], 30, follow=0.0)
    assert np.abs(targets[:, 0] - low[0]).max() < 0.15
    assert np.abs(high[:, 0] - LIMITS.ready[0]).max() > 0.4


def test_an_arm_that_presses_on_the_table_yields():
    governor = Governor(LIMITS, PERIOD)
    low = LIMITS.ready.copy()
    low[1:4] = [-1.2, 1.2, 1.2]
    while LIMITS.guard.lowest(low) > 0.0:
        low[1] += 0.002
    governor.reset(low)
    governor.target = low + [0, 0, 0.2, 0, 0, 0]  # something holds it there
    kinds = []
    for _ in range(10):
        target, some = governor.allow(governor.target, low)
        kinds += some
    assert "press" in kinds
    assert np.abs(target - low)[:5].max() <= LIMITS.press[0]
    # The same distance high above the table is only what an arm weighs.
    governor.reset(LIMITS.ready)
    governor.target = LIMITS.ready + [0, 0, 0.2, 0, 0, 0]
    for _ in range(10):
        _, some = governor.allow(governor.target, LIMITS.ready)
        assert "press" not in some


def test_a_jaw_that_squeezes_too_hard_is_eased():
    governor = Governor(LIMITS, PERIOD)
    measured = LIMITS.ready.copy()
    measured[5] = 0.4  # the jaw is stopped by something 0.4 wide
    governor.reset(measured)
    wish = measured.copy()
    wish[5] = 0.0
    stiffness = 3.0  # load per opening that it is asked to squeeze
    target, kinds = measured, []
    for _ in range(60):
        load = np.zeros(6)
        load[5] = stiffness * (target[5] - measured[5])
        target, some = governor.allow(wish, measured, load)
        kinds += some
    assert "grip" in kinds
    squeeze = stiffness * (measured[5] - target[5])
    assert LIMITS.grip / 2 < squeeze <= 1.3 * LIMITS.grip


# ---------------------------------------------------------------- the whole robot


def fast_arm(limits=LIMITS):
    """One whose ticks take no time."""
    return FakeArm(limits, fps=200.0, ticks=HandClock())


@pytest.fixture
def robot(tmp_path):
    # The ramps of a test need not be gentle.
    limits = replace(LIMITS, slow=30.0)
    robot = SafeRobot(fast_arm(), limits, tmp_path / "log.jsonl")
    robot.connect()
    yield robot
    robot.interventions.close()


@pytest.mark.parametrize(
    ("joint", "outside", "says"),
    [
        (1, 0.2, "joint 1 is measured at .* calibration"),
        (5, 0.2, "joint 5 is measured at .* calibration"),
        (0, None, "joint 0 is 80 °C hot, expected at most 60"),
    ],
)
def test_an_arm_that_is_unwell_or_outside_its_range_is_let_go(joint, outside, says):
    arm = fast_arm()
    if outside:
        arm.state[joint] = LIMITS.high[joint] + outside
    else:
        arm.health.temperature[joint] = 80
    robot = SafeRobot(arm, LIMITS)
    with pytest.raises(Stop, match=says):
        robot.connect()
    assert arm.log[-1] == "bus closed"
    assert arm.sent == []
    robot.close()  # has nothing to do


def test_ramps_keep_the_limits_too(robot):
    robot.go(robot.limits.rest)
    steps = np.abs(np.diff(np.array([LIMITS.ready, *robot.arm.sent]), axis=0))
    assert (steps <= LIMITS.speed / robot.fps + 1e-9).all()


def test_a_stale_observation_is_not_acted_on(robot):
    robot.observe()
    robot.arm.observed_at -= 0.3
    with pytest.raises(Stop, match=r"observation is 0.30 s old, expected at most 0.15"):
        robot.act(robot.limits.ready[None])
    robot.measured = None  # as before the first look
    with pytest.raises(Stop, match="observation is"):
        robot.act(robot.limits.ready[None])
    assert robot.arm.sent == []


def test_a_tick_far_too_late_stops_the_arm(robot):
    robot.observe()
    robot.act(robot.limits.ready[None])
    robot.arm.ticker.clock.time += 0.4
    robot.observe()
    with pytest.raises(Stop, match=r"a tick came 0.39 s late"):
        robot.act(robot.limits.ready[None])
    assert robot.interventions.counts["late"] == 1


def test_what_a_busy_computer_costs_a_virtual_arm_is_forgiven(robot):
    clock = robot.arm.ticker.clock
    robot.observe()
    clock.time += 0.8  # of which the policy took 0.1 s
    clock.forgiven += 0.7
    robot.act(robot.limits.ready[None])
    assert robot.interventions.counts["late"] == 1  # counted all the same
    robot.observe()
    clock.time += 0.8
    clock.forgiven += 0.6  # and here 0.2 s
    with pytest.raises(Stop, match=r"observation is 0.20 s old, expected at most 0.15"):
        robot.act(robot.limits.ready[None])


def test_a_strain_stops_the_arm_only_if_it_lasts(robot):
    for load, ticks in ((0.95, 100), (0.0, 1), (0.95, 195)):  # of 200 in a second
        robot.arm.health.load[1] = load
        for _ in range(ticks):
            robot.observe()
    with pytest.raises(Stop, match="joint 1 has pulled with 95 %"):  # noqa: PT012
        for _ in range(15):  # a little longer
            robot.observe()


@pytest.mark.parametrize(("limits", "joint"), [(LIMITS, 2), (openarm_limits(), 11)])
@pytest.mark.parametrize(("load", "stops"), [(0.55, False), (0.65, True)])
def test_a_load_on_a_joint_that_stands_stops_the_arm(limits, joint, load, stops):
    """To hold the arm takes at most 0.3; a stall less than what is a strain."""
    robot = SafeRobot(fast_arm(limits), limits)
    robot.connect()
    robot.arm.health.load[joint] = -load
    says = rf"joint {joint} has pulled with 65 %.* without moving"
    with pytest.raises(Stop, match=says) if stops else contextlib.nullcontext():
        for _ in range(210):  # a little more than a second
            robot.observe()
    assert robot.interventions.counts["stall"] == int(stops)


def test_a_load_on_a_joint_that_moves_or_grips_is_no_stall(robot):
    robot.arm.health.load[[2, 5]] = 0.7
    for _ in range(400):
        robot.arm.state[2] -= 0.001
        robot.observe()
        if robot.arm.state[2] < LIMITS.low[2] + 0.1:
            robot.arm.state[2] = LIMITS.high[2]
    robot.arm.health.load[2] = 0.0
    for _ in range(400):
        robot.observe()


def test_a_servos_complaint_stops_the_arm_but_not_the_grippers(robot):
    robot.arm.health.faults = {"gripper": Fault.OVERLOAD}
    robot.observe()
    robot.arm.health.faults = {"elbow_flex": Fault.OVERLOAD}
    with pytest.raises(Stop, match="servo of elbow_flex reports: overload"):
        robot.observe()


def test_every_intervention_is_counted_and_logged(robot):
    robot.observe()
    robot.act(robot.limits.ready[None] + 1.0)
    assert robot.interventions.counts["speed"] == 1
    text = (robot.log).read_text()
    assert '"kind": "speed"' in text


def test_the_log_takes_ten_lines_a_second_and_counts_all(tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: seconds, time=time.time)
    monkeypatch.setattr("hardware.safety.stop.time", clock)
    notes = Interventions(tmp_path / "log.jsonl")
    notes.open()
    for seconds in np.arange(100) / 200:  # noqa: B007 (the clock shows it)
        notes.note("speed")
    notes.close()
    assert notes.counts["speed"] == 100
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 5


def test_signals_raise_the_flag_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with EmergencyStop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        with pytest.raises(Stop, match="SIGTERM"):
            stop.check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_unknown_arm_is_refused():
    with pytest.raises(UserError, match="expected one of: so100, so101"):
        so100_limits("so102")
    with pytest.raises(UserError, match="version is 'v3', expected one of: v1, v2"):
        openarm_limits("v3")


# ---------------------------------------------------------------- the clock


def test_ticks_lie_on_a_grid():
    clock = HandClock()
    ticker = Ticker(100.0, clock=clock)
    ticker.start()
    for i in range(20):
        clock.time += 0.004 if i % 3 else 0.001
        ticker.wait()
    assert clock.now() == pytest.approx(1000.2)
    report = ticker.report()
    assert report["ticks"] == 20
    assert report["rate_hz"] == pytest.approx(100)
    assert report["late_share"] == 0


def test_the_computers_clock_waits_until_the_tick_and_not_much_longer():
    def two_ticks():
        ticker = Ticker(50.0)
        ticker.start()
        ticker.wait()
        ticker.wait()
        assert 0.04 <= ticker.times[-1] - ticker.times[0] < 0.045

    retried(two_ticks)


def test_missed_ticks_are_not_made_up_for():
    clock = HandClock()
    ticker = Ticker(100.0, clock=clock)
    ticker.start()
    clock.time += 0.055
    ticker.wait()
    assert ticker.missed == 4
    ticker.wait()
    assert clock.now() == pytest.approx(1000.06)  # on the grid again
    ticker.wait()
    assert ticker.report()["missed"] == 4
