"""Lesson 09: its checks, two policies as one, its virtual arms, its numbers."""

import math
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from act_minimal.evaluation import Rollout, check_fit
from act_minimal.policy import make_policy
from act_minimal.sim import make_task
from act_minimal.sim.demonstrators import make_expert
from act_minimal.sim.world import World
from course.figures import lesson_09_can_bus as can_bus
from course.figures import lesson_09_two_arms as two_arms
from course.toolkit.results import load_result
from hardware.errors import BusError
from hardware.openarm.arm import OpenArm, OpenArmConfig
from hardware.openarm.motors import BRAKE, DM4340, NEWER_DM4340, gains_of
from hardware.openarm.protocol import Mit, Scale

from ..made_up import random_statistics
from .helpers import answers, check_readable, spoils

pytestmark = pytest.mark.mostly_quick

posix = pytest.mark.skipif(os.name != "posix", reason="needs sockets with names")
FIRM = np.tile(gains_of("firm").kp, 2).astype(float)


def side_by_side(right, left, seen, arms=(slice(0, 8), slice(8, 16)), flip=False):
    chunks = [
        policy.predict_chunk(seen | {"qpos": seen["qpos"][:, arm]})
        for policy, arm in zip((right, left), arms, strict=True)
    ]
    return np.concatenate(chunks[::-1] if flip else chunks, axis=2)


def of_one(right, left, seen):
    return side_by_side(right, right, seen, ARMS[:1] * 2)


def in_rows(right, left, seen):
    both = side_by_side(right, left, seen)
    return np.concatenate([both[..., :8], both[..., 8:]], axis=1)


def spoiling(right, left, seen):
    both = side_by_side(right, left, seen)
    seen["qpos"][:] = 0
    return both


ARMS = (slice(0, 8), slice(8, 16))


test_side_by_side = answers(
    "09.side_by_side",
    right=[(side_by_side, "one policy now")],
    wrong=[
        (
            spoils(side_by_side, lambda r, t, seen: seen.pop("env_state")),
            "changed its argument `seen`",
        ),
        (lambda r, t, s: side_by_side(r, t, s, [slice(16)] * 2), "shape (2, 16)"),
        (lambda r, t, s: side_by_side(r, t, {"qpos": s["qpos"]}), "env_state"),
        (of_one, "left arm's policy was not asked"),
        (spoiling, "changed its argument `seen`"),
        (lambda r, t, s: side_by_side(r, t, s, flip=True), "left arm's actions come"),
        (lambda r, t, s: side_by_side(r, t, s, ARMS[::-1]), "other arm's joints"),
        (lambda r, t, s: side_by_side(r, t, s, ARMS[::-1], True), "both mixed up"),
        (lambda r, t, s: side_by_side(r, t, s, ARMS[:1] * 2), "shown the right arm's"),
        (lambda r, t, s: side_by_side(r, t, s, ARMS[1:] * 2), "shown the left arm's"),
        (lambda r, t, s: side_by_side(t, r, s), "both mixed up"),
        (lambda r, t, s: side_by_side(r, t, s).transpose(0, 2, 1), "(B, k, 16)"),
        (lambda r, t, s: side_by_side(r, t, s)[:, ::-1], "unchanged"),
        (lambda r, t, s: side_by_side(r, t, s)[..., :8], "(B, k, 16)"),
        (lambda r, t, s: [r.predict_chunk(s), t.predict_chunk(s)], "shape (2, 16)"),
        (in_rows, "(B, k, 16)"),
        (lambda r, t, s: {"right": side_by_side(r, t, s)}, "numbers are wanted"),
        (lambda *a: side_by_side(*a) / 2, "unchanged"),
        (lambda *a: side_by_side(*a)[0], "(B, k, 16)"),
        (lambda *a: side_by_side(*a)[:2], "take B and k from what the policies"),
        (lambda *a: side_by_side(*a)[:, :3], "take B and k from what the policies"),
    ],
)


def cut_off(share, bits):
    return int(share * (2**bits - 1))


def frame(goal, ranges, order: Any = "big", steps=cut_off, clip=True):
    packed = 0
    for x, (low, high, bits) in zip(goal, ranges, strict=True):
        x = min(max(x, low), high) if clip else x
        packed = packed << bits | steps((x - low) / (high - low), bits)
    return (packed % 2**64).to_bytes(8, order)


def deaf_to_nan(goal, ranges):
    safe = [max(low, x) for x, (low, _, _) in zip(goal, ranges, strict=True)]
    return frame(safe, ranges)


def with_ranges(change):
    def answer(goal, ranges):
        return frame(goal, [change(i, *row) for i, row in enumerate(ranges)])

    return answer


def in_one_line(goal, ranges):
    """As the course's, with another order of multiplying and dividing."""
    packed = 0
    for x, (low, high, bits) in zip(goal, ranges, strict=True):
        x = min(max(x, low), high)
        packed = packed << bits | int((x - low) * (2**bits - 1) / (high - low))
    return packed.to_bytes(8, "big")


def deaf_to_one(field):
    def answer(goal, ranges):
        goal = list(goal)
        goal[field] = max(ranges[field][0], goal[field])
        return frame(goal, ranges)

    return answer


test_frame = answers(
    "09.frame",
    right=[(in_one_line, ""), (frame, "a motor is a spring")],
    wrong=[
        (deaf_to_one(1), "a velocity that is no number goes out"),
        (deaf_to_one(4), "a torque that is no number goes out"),
        (lambda g, r: frame(g, r, "little"), "lowest byte"),
        (lambda g, r: frame(g[::-1], r[::-1]), "highest bits"),
        (lambda g, r: frame([g[0], g[1], g[3], g[2], g[4]], r), "kp comes before kd"),
        (
            lambda g, r: frame(g, r, steps=lambda s, b: round(s * (2**b - 1))),
            "does not round",
        ),
        (
            lambda g, r: frame(g, r, steps=lambda s, b: int(s * 2**b) % 2**b),
            "one too many",
        ),
        (with_ranges(lambda i, a, b, n: (-b, b, n)), "kp and kd begin at 0"),
        (
            with_ranges(lambda i, a, b, n: (-8, 8, n) if i == 1 else (a, b, n)),
            "this motor's is 10",
        ),
        (lambda g, r: frame(g, r, clip=False), "cut off to it first"),
        (deaf_to_nan, "is no number goes out"),
        (lambda g, r: frame([-x for x in g], r), "expected 8C"),
        (lambda g, r: frame([g[1], g[0], *g[2:]], r), "expected 8C"),
        (lambda g, r: frame([0, *g[1:]], r), "expected 8C"),
        (lambda g, r: frame(g, r) + b"\0", "8 bytes"),
        (lambda g, r: list(frame(g, r)), "return bytes"),
        (lambda g, r: frame(g, r).hex(), "return bytes"),
        (lambda g, r: frame(g, r)[:7], "8 bytes"),
        (lambda g, r: int.from_bytes(frame(g, r), "big"), "return bytes"),
        (lambda g, r: b"12345678", "expected 8C"),
        (
            lambda g, r: frame(
                g,
                [(-12.5, 12.5, 16), (-10, 10, 12), (0, 500, 12), (0, 5, 12)]
                + [(-28, 28, 12)],
            ),
            "take each (low, high, bits) from `ranges`",
        ),
    ],
)


def test_the_driver_sends_what_the_exercise_asks():
    ends = Scale(12.5, 10.0, 28.0)
    ranges = [(-12.5, 12.5, 16), (-10, 10, 12), (0, 500, 12), (0, 5, 12), (-28, 28, 12)]
    for goal in ((1.4, 0.0, 60.0, 2.0, 4.0), (-3.0, 9.9, 0.0, 5.0, -30.0)):
        assert Mit(*goal).encode(ends) == frame(goal, ranges)


def sinking(share, kp, kd, brake):
    return (1 - share) * kp, np.maximum(kd, brake), 1 - share


test_sink = answers(
    "09.sink",
    right=[(sinking, "soften")],
    wrong=[
        (
            spoils(sinking, lambda share, kp, kd, brake: kp.__imul__(1 - share)),
            "changed its argument `kp`",
        ),
        (lambda s, *a: sinking(1 - s, *a), "other way round"),
        (lambda s, p, d, b: (p, np.maximum(d, b), 1 - s), "does not fade"),
        (lambda s, p, d, b: ((1 - s) * p, np.maximum(d, b), 1.0), "floats"),
        (lambda s, p, d, b: ((1 - s) * p, np.maximum(d, b), 0.0), "jerk"),
        (
            lambda s, p, d, b: ((1 - s) * p, (1 - s) * np.maximum(d, b), 1 - s),
            "damping fades",
        ),
        (lambda s, p, d, b: ((1 - s) * p, d, 1 - s), "`brake` allows"),
        (lambda s, p, d, b: ((1 - s) * p, b, 1 - s), "the larger of both"),
        (lambda s, p, d, b: (-(1 - s) * p, np.maximum(d, b), 1 - s), "at share"),
        (lambda s, p, d, b: ((1 - s) * p, np.minimum(d, b), 1 - s), "at share"),
        (lambda s, p, d, b: ((1 - s) ** 2 * p, np.maximum(d, b), 1 - s), "at share"),
        (lambda s, p, d, b: (np.maximum(d, b), (1 - s) * p, 1 - s), "at share"),
        (lambda s, p, d, b: ((1 - s) * p, np.maximum(d, b), 1 - s, 0), "three things"),
        (lambda s, p, d, b: ((1 - s) * p[:3], np.maximum(d, b), 1 - s), "as many as"),
        (lambda s, p, d, b: ((1 - s) * p, float(max(b)), 1 - s), "as many as"),
        (lambda s, p, d, b: ("held", "braked", "carried"), "three things"),
        (lambda s, p, d, b: (p * np.nan, np.maximum(d, b), 1 - s), "at share"),
        (lambda s, p, d, b: 1 - s, "three things"),
        (lambda s, p, d, b: (p * 0 + 7, d + 1, 3.0), "at share 0"),
        (lambda s, p, d, b: sinking(s, p[:4], d[:4], b[:4]), "from kp, kd and brake"),
        (
            lambda s, p, d, b: sinking(s, np.array([230.0, 190, 30, 10]), d, b),
            "right for 4 motors, wrong for 5 others",
        ),
    ],
)


def test_soften_sends_what_the_exercise_asks():
    sent = []

    class Quiet(OpenArm):
        def _push(self, goals, kp, kd, weight):
            sent.append((kp.copy(), kd.copy(), weight))
            raise BusError("that will do")

        def disable(self):
            pass

    arm = Quiet(OpenArmConfig("virtual:a", "virtual:b"))
    arm.ramp = lambda seconds: iter([0.25])
    arm.soften()
    stiff, damp, weight = sinking(0.25, arm.kp, arm.kd, np.tile(BRAKE, 2))
    assert np.allclose(sent[0][0], stiff)
    assert np.allclose(sent[0][1], damp)
    assert math.isclose(sent[0][2], weight)


def arm_policy(state_dim, shift):
    """An untrained policy of one arm, whose actions are about `shift`."""
    dims = {"state_dim": state_dim, "action_dim": 8, "env_state_dim": 7}
    statistics = random_statistics({"qpos": state_dim, "env_state": 7, "action": 8})
    statistics.mean["action"] += shift
    return make_policy("bc_mlp", statistics, chunk_size=5, **dims)


@pytest.mark.parametrize("joints", [8, 16])
def test_two_policies_are_one_to_the_loop(joints):
    right, left = arm_policy(joints, 100.0), arm_policy(joints, -100.0)
    both = two_arms.SideBySide(right, left)
    check_fit(both, make_task(two_arms.TASK))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    seen = {"qpos": rng.random((3, 16)), "env_state": rng.random((3, 7))}
    chunk = both.predict_chunk(seen)
    assert chunk.shape == (3, both.chunk_size, 16)
    assert (chunk[..., :8] > 50).all()
    assert (chunk[..., 8:] < -50).all()
    if joints == 8:
        assert np.array_equal(chunk, side_by_side(right, left, seen))
        # The right arm's policy does not see the left arm; the bar it sees.
        other = seen | {"qpos": seen["qpos"] + np.r_[np.zeros(8), np.ones(8)]}
        assert np.array_equal(both.predict_chunk(other)[..., :8], chunk[..., :8])
        moved = both.predict_chunk(seen | {"env_state": seen["env_state"] + 1})
        assert not np.array_equal(moved[..., :8], chunk[..., :8])


@pytest.fixture(scope="module")
def handover():
    """A scripted handover, and what it is if it ends at other moments."""
    task = make_task(two_arms.TASK)
    world = World(task, 1)
    world.reset([5])
    plan = make_expert(task).plan(world.qpos[0], 5)
    states = []
    for action in plan:
        states.append(world.qpos[0].copy())
        world.step(action[None])
    assert world.success[0]
    return np.array(states)


def rollout(qpos, success=False):
    return Rollout(0, success, len(qpos), 0.0, 0.0, np.asarray(qpos, np.float32))


def test_kinds_of_failure(handover):
    held = two_arms.hands_on(handover)
    assert held["right"].any()
    assert held["left"][-1]
    assert not held["right"][-1]
    assert two_arms.kind(rollout(handover, success=True)) == "success"
    lifted = np.flatnonzero(handover[:, 20] > 0.47)[0]
    both = np.flatnonzero(held["right"] & held["left"])[0]
    down = handover.copy()
    down[-1, 20] = 0.415
    early = handover[: lifted + 2].copy()
    early[-1, 20] = 0.415
    expected = {
        "never picked up": handover[: lifted // 2],
        "never taken": handover[: both - 1],
        "not let go": handover[: both + 20],
        "dropped later": down,
        "dropped too early": early,
    }
    assert set(expected) == set(two_arms.KINDS)
    for name, states in expected.items():
        assert two_arms.kind(rollout(states)) == name
    counts = two_arms.sort_out([rollout(states) for states in expected.values()])
    assert counts == dict.fromkeys(two_arms.KINDS, 1)


def test_the_moment_is_after_the_left_hand_closed(handover):
    held = two_arms.hands_on(handover)
    both = held["right"] & held["left"] & (handover[:, 20] > 0.46)
    found = two_arms.moments([rollout(handover), rollout(handover[:50])])
    assert found.shape == (1, 25)
    first = np.flatnonzero(both)[0]
    assert np.allclose(found[0], handover[first + 10], atol=1e-5)
    assert two_arms.overlap(rollout(handover)) == pytest.approx(both.sum() / 50)
    seen = two_arms.observe(found)
    assert seen["qpos"].shape == (1, 16)
    assert np.allclose(seen["env_state"], found[:, 18:])


def test_pictures_of_a_handover(handover):
    fig = two_arms.strip(rollout(handover, success=True))
    assert len(fig.axes) == 6
    right, left = (np.asarray(line.get_ydata()) for line in fig.axes[-1].lines[:2])
    assert right[-1] > 0.25 > right[len(right) // 2]
    assert left[-1] < 0.25


@pytest.mark.parametrize("opening", [0.0, 0.6])
def test_the_explorer_of_what_is_told_answers_at_its_ends(handover, opening):
    states = two_arms.moments([rollout(handover)])
    explorer = two_arms.told_explorer(two_arms.checkpoint(), states)
    explorer.set(opening=opening)
    assert not explorer.errors
    assert "of 1 handovers" in explorer.says
    assert explorer.says == two_arms.told(two_arms.checkpoint(), states, opening)
    assert "<img" in explorer.figure_html


def way(policies, sees):
    rows = load_result("claims/C28")["summary"]
    (row,) = (r for r in rows if (r["policies"], r["sees"]) == (policies, sees))
    return row


def test_the_numbers_say_what_the_lesson_says():
    one, two, seeing = way("one", "both"), way("two", "own"), way("two", "both")
    assert one["n"] == two["n"] == seeing["n"] == 300
    assert one["interval"][0] > two["interval"][1]
    assert seeing["interval"][1] > one["interval"][0]  # "do as well"
    for row in (one, two, seeing):
        failed = sum(row["kinds"].values())
        assert failed == round(row["n"] * (1 - row["success"]))
    # "Most failures of the two happen when the bar changes hands."
    changing = ("not let go", "dropped too early", "never taken", "dropped later")
    assert sum(two["kinds"][k] for k in changing) > sum(two["kinds"].values()) / 2
    plans = load_result("claims/C28")["moment"]["plans"]
    median = {(p["policies"], p["sees"]): p["quartiles"][1] for p in plans}
    for sighted in (("one", "both"), ("two", "both")):
        assert median[sighted][-1] > 0.3  # opens
        assert median["two", "own"][-1] < median[sighted][-1] / 2
    assert len(two_arms.ways_figure().axes) == 2
    assert len(two_arms.plans_figure().axes[0].lines) == len(plans)


def test_springs_rest_where_forces_balance():
    weight = can_bus._weight()
    there = can_bus.rest_of(0.3 * FIRM, can_bus.RAISED, gravity=False, load=0.5)
    pull = 0.3 * FIRM * (can_bus.RAISED - there)
    wanted = weight(there) + can_bus.pull_of(0.5, there)
    arm = np.delete(np.arange(16), can_bus.GRIPPERS)
    assert np.abs(pull - wanted)[arm].max() < 0.05
    floating = can_bus.rest_of(0.1 * FIRM, can_bus.RAISED, gravity=True)
    assert np.array_equal(floating, can_bus.RAISED)


def test_a_load_pulls_down_with_its_lever():
    torque = can_bus.pull_of(1.0, can_bus.RAISED)
    hands = can_bus._hands(can_bus.RAISED)
    # The shoulder turns about an axis across the robot, through the shoulders.
    assert abs(torque[0]) == pytest.approx(9.81 * hands[0, 0], rel=0.01)
    assert torque[0] == pytest.approx(-torque[8])
    assert np.array_equal(torque[[7, 15]], [0, 0])


def test_explorers_can_be_read(handover):
    check_readable(can_bus.sag_explorer())
    states = two_arms.moments([rollout(handover)])
    check_readable(two_arms.told_explorer(two_arms.checkpoint(), states))


def test_arms_are_let_go_whatever_happens(monkeypatch):
    calls = []
    robot = SimpleNamespace(
        connect=lambda: calls.append("connect"), close=lambda: calls.append("close")
    )
    monkeypatch.setattr("hardware.robots.make_robot", lambda *about: robot)
    with (
        pytest.raises(ZeroDivisionError),
        can_bus.connected(SimpleNamespace(port="p")),  # type: ignore[arg-type]
    ):
        1 / 0  # noqa: B018
    assert calls == ["connect", "close"]


@pytest.mark.parametrize("share", [0.05, 1.0])
@pytest.mark.parametrize("load", [0.0, 1.0])
@pytest.mark.parametrize("gravity", ["off", "on"])
def test_the_explorer_of_springs_answers_at_its_ends(share, load, gravity):
    explorer = can_bus.sag_explorer()
    explorer.set(share=share, load=load, gravity=gravity)
    assert not explorer.errors
    sag = float(explorer.says.split("hangs ")[1].split()[0])
    assert (sag < 0.1) == (gravity == "on" and load == 0)


@pytest.fixture(scope="module")
def arms():
    arms = can_bus.plug_in()
    yield arms
    arms.unplug()
    assert not arms.running()
    assert not os.path.lexists(arms.port)


@pytest.mark.slow
@posix
def test_the_motors_answer(arms, capsys):
    can_bus.health(arms)
    said = capsys.readouterr().out
    assert said.count("disabled") == 8
    assert "VMAX 10 rad/s" in said  # the newer motors, for the trap
    assert DM4340.scale.velocity == 8
    goal = Mit(position=1.4, kp=60, kd=2, torque=4).encode(NEWER_DM4340)
    answered, data = can_bus.exchange(arms, 4, goal)
    assert answered == 0x14
    assert data[0] == 0x04  # disabled, motor 4
    assert can_bus.exchange(arms, 9, goal) == (0, b"")


@pytest.mark.slow
@posix
def test_the_arms_hang_where_the_model_says(arms):
    gentle = np.tile(gains_of("gentle").kp, 2).astype(float)
    there = can_bus.rest_of(gentle, can_bus.RAISED, gravity=False)
    model = (can_bus._hands(can_bus.RAISED) - can_bus._hands(there))[0, 2]
    assert can_bus.measured_sag(arms, "gentle", False) == pytest.approx(model, abs=0.01)
    assert abs(can_bus.measured_sag(arms, "gentle", True)) < 0.005


@pytest.mark.slow
@posix
def test_what_falls_and_what_does_not(arms):
    found = {how: can_bus.let_go(arms, how) for how in can_bus.HOW}
    height = found["power cut"].height[0] - can_bus.TABLE
    assert height == pytest.approx(0.37, abs=0.01)  # as the question says
    assert found["program killed"].lost < 0.01
    for how in ("power cut", "timeout", "soften"):
        assert found[how].lost == pytest.approx(0.35, abs=0.03)
    fall = found["power cut"]
    down = fall.seconds[np.flatnonzero(fall.height < fall.height.min() + 0.02)[0]]
    assert 0.2 < down < 0.4  # "about a quarter of a second"
    slow = found["soften"]
    gone = slow.seconds[np.flatnonzero(slow.height < slow.height.min() + 0.02)[0]]
    assert gone > 1.5
    assert slow.speed < fall.speed / 2
    assert len(can_bus.descents_figure(list(found.values())).axes[0].lines) == 5
