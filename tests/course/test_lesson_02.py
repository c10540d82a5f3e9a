"""Lesson 02: its checks, its numbers, its pushes, its widget."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from act_minimal.checkpoint import load_policy
from act_minimal.evaluation import Rollout, wilson
from act_minimal.execution import RecedingHorizon
from act_minimal.sim import make_task
from act_minimal.sim.robot import SimRobot
from act_minimal.sim.so100.pick_place import ZONE_CENTRE, ZONE_SIZE
from course.figures import lesson_02 as chunks
from course.toolkit.paths import ROOT

from .helpers import answers, evaluation

CHECKPOINT = ROOT / "data/checkpoints/so100_pick_place_state"


def window(actions, t, k, late=0, fill=None, last=0, pad=np.copy):
    ticks = t + late + np.arange(k)
    is_pad = t + np.arange(k) >= len(actions) + last
    chunk = actions[np.clip(ticks, 0, len(actions) - 1)]
    if fill is not None:
        chunk[is_pad] = fill
    return chunk, pad(is_pad)


test_the_window = answers(
    "02.window",
    right=[(window, "every invented action is marked")],
    wrong=[
        (lambda a, t, k: window(a, t, k, late=1), "one tick late"),
        (lambda a, t, k: window(a, t, k, late=-1), "one tick early"),
        (lambda a, t, k: window(a, t, k, fill=0.0), "padding is zeros"),
        (lambda a, t, k: window(a, t, k, fill=a[0]), "not the episode's last"),
        (lambda a, t, k: (a[t : t + k], None), "is still missing"),
        (lambda a, t, k: (a[t : t + k], np.zeros(k, bool)), "filled up"),
        (lambda *a: window(*a, pad=np.invert), "wrong way round"),
        (lambda *a: window(*a, last=1), "has number 8"),
        (lambda *a: window(*a, pad=lambda x: x[:, None]), "is_pad should have shape"),
        (lambda a, t, k: a[t : t + k], "two things are wanted"),
        (lambda a, t, k: 1 / 0, "ZeroDivisionError"),
    ],
)


def masked(p, t, pad):
    valid = ~pad[:, :, None]
    return (np.abs(p - t) * valid).sum() / (valid.sum() * p.shape[-1])


test_the_masked_loss = answers(
    "02.loss",
    right=[(masked, "Only demonstrated")],
    wrong=[
        (lambda p, t, pad: np.abs(p - t).mean(), "padding is counted"),
        (lambda p, t, pad: (abs(p - t) * ~pad[..., None]).mean(), "still divided by"),
        (lambda p, t, pad: masked(p, t, ~pad), "wrong way round"),
        (lambda p, t, pad: np.abs(p - t)[~pad].sum(), "this is the sum"),
        (lambda p, t, pad: np.abs(p - t)[~pad].sum() / (~pad).sum(), "A joints"),
        (lambda p, t, pad: ((p - t)[~pad] ** 2).mean(), "L2"),
        (
            lambda p, t, pad: np.mean(
                [np.abs(p - t)[b][~pad[b]].mean() for b in range(len(p))]
            ),
            "almost empty",
        ),
        (lambda p, t, pad: np.abs(p - t), "one number is wanted"),
        (lambda p, t, pad: 7.0, "found 7.0000"),
    ],
)


def executed(c, h, made=lambda t, h: t // h * h, action=lambda t, h: t % h):
    t = np.arange(len(c))
    return c[made(t, h), np.minimum(action(t, h), c.shape[1] - 1)]


test_the_receding_horizon = answers(
    "02.receding",
    right=[(executed, "from its own beginning")],
    wrong=[
        (lambda c, h: c[:, 0], "h is always 1"),
        (lambda c, h: executed(c, c.shape[1]), "whole chunks"),
        (
            lambda c, h: executed(c, h, made=lambda t, h: t // h),
            "not the one made at that time",
        ),
        (
            lambda c, h: executed(c, h, action=lambda t, h: 0 * t),
            "always its first action",
        ),
        (lambda c, h: executed(c, h, made=lambda t, h: t), "read from its middle"),
        (
            lambda c, h: executed(c, h, action=lambda t, h: t % h + 1),
            "one step too far",
        ),
        (lambda c, h: executed(c, h)[:-1], "one action a tick"),
        (lambda c, h: 0 * executed(c, h), "at tick 0"),
    ],
)


@pytest.mark.quick
def test_the_right_answer_is_what_the_package_executes():
    made = np.random.default_rng(0).normal(size=(13, 5, 2))
    for h in (1, 2, 5):
        executor, found = RecedingHorizon(5, h), []
        for chunk in made:
            found.append(executor.step(chunk[None] if executor.needs_chunk() else None))
        np.testing.assert_array_equal(np.concatenate(found), executed(made, h))


test_the_rule = answers(
    "02.rule",
    right=[
        (lambda s, f: 25 * int(np.ceil(s * f / 25)), "one sub-motion"),
        (chunks.rule_of_thumb, ""),
    ],
    wrong=[
        (lambda s, f: s * f, "not rounded up to a multiple"),
        (lambda s, f: np.ceil(s * f), "rounded up to a whole number"),
        (lambda s, f: 25 * round(s * f / 25), "nearest multiple"),
        (lambda s, f: 25 * (s * f // 25), "rounds down"),
        (lambda s, f: 25 * (s * f // 25 + 1), "25 too many"),
        (lambda s, f: 25 * np.ceil(s * 30 / 25), "rate is not used"),
        (lambda s, f: 25 * np.ceil(s / f / 25), "divided by rate"),
        (lambda s, f: 7, "22.5 ticks"),
    ],
)


@pytest.mark.quick
def test_the_rule_is_not_fooled_by_rounding():
    assert chunks.rule_of_thumb(0.7, 50, step=35) == 35  # 0.7 * 50 > 35 in floats
    assert chunks.rule_of_thumb(0.51, 50) == 50
    assert chunks.rule_of_thumb(2.0, 50) == 100


def minimum_jerk(distance, seconds):
    s = np.linspace(0, 1, round(30 * seconds) + 1)[1:, None]
    return s**3 * (10 - 15 * s + 6 * s**2) * np.full(6, distance)


@pytest.mark.quick
def test_sub_motions_of_a_known_path():
    moves = [(0.4, 0.5), (1.0, 1.0), (-1.0, 1.5)]
    rows = [np.zeros((15, 6))]
    for distance, seconds in moves:
        rows.append(rows[-1][-1] + minimum_jerk(distance, seconds))
        rows.append(np.repeat(rows[-1][-1:], 15, axis=0))  # half a second's rest
    arm = np.concatenate(rows)
    demos = SimpleNamespace(starts=[0], lengths=[len(arm)], action=arm, fps=30.0)
    found = chunks.submotions(demos)
    assert len(found) == 3
    for seconds, (_, true) in zip(found, moves, strict=True):
        assert true - 0.25 < seconds <= true + 0.05


def test_the_scripted_expert_makes_six_moves(demos):
    # To the cube, down, up, over the bin, into it, and up again.
    assert len(chunks.submotions(demos)) == 6 * len(demos)
    fig = chunks.duration_figure(chunks.submotions(demos), 30.0)
    assert "n = 18" in fig.axes[0].get_ylabel()


def test_the_picture_of_two_windows_counts_padding(demos):
    fig = chunks.window_figure(demos, 25, (45, 12))
    labels = [line.get_label() for line in fig.axes[0].get_lines()]
    assert "window at -45: 25 actions" in labels
    assert "window at -12: 12 actions" in labels
    assert "and 13 of padding" in labels


def test_the_error_ahead_is_that_of_the_definition(demos):
    policy = load_policy(CHECKPOINT)
    found = chunks.error_ahead(policy, demos.folder, n=40)
    total = np.zeros(50)
    count = np.zeros(50)
    frames = sum(demos.lengths)
    for frame in np.random.default_rng(0).choice(frames, 40, replace=False):
        end = next(e for e in np.cumsum(demos.lengths) if frame < e)
        seen = {"qpos": demos.qpos[[frame]], "env_state": demos.env_state[[frame]]}
        chunk = policy.predict_chunk(seen)[0]
        for i in range(min(50, end - frame)):
            total[i] += np.abs(chunk[i, :5] - demos.action[frame + i, :5]).mean()
            count[i] += 1
    np.testing.assert_allclose(found, total / np.maximum(count, 1), rtol=1e-3)


@pytest.mark.quick
def test_the_curve_says_what_the_file_says(tmp_path):
    rows = [
        {"demonstrator": d, "execution": e, "k": k, "cvae": True}
        | {"success": k / 200, "interval": [0, 1], "n": 300}
        for d in ("human", "scripted")
        for e in ("half", "whole")
        for k in (100, 1)
    ]
    _, says = chunks.size_figure(tmp_path)
    assert "not measured yet" in says
    (tmp_path / "chunk_size.json").write_text(json.dumps({"summary": rows}))
    fig, says = chunks.size_figure(tmp_path)
    assert "human, half chunks: 0 % at k = 1, 50 % at k = 100" in says
    assert "n = 300" in fig.axes[0].get_title(loc="left")


@pytest.mark.quick
def test_a_push_stays_in_the_zone_and_in_its_time():
    rng = np.random.default_rng(0)
    for scene in range(200):
        cube = ZONE_CENTRE + (rng.random(2) - 0.5) * ZONE_SIZE
        push = chunks.draw_push(scene, cube, 30.0)
        assert 21 <= push.tick <= 42
        assert 0.03 <= np.linalg.norm(push.offset) <= 0.05
        assert (np.abs(cube + push.offset - ZONE_CENTRE) < ZONE_SIZE / 2).all()
        again = chunks.draw_push(scene, cube, 30.0)
        assert (again.tick, *again.offset) == (push.tick, *push.offset)


@pytest.mark.quick
def test_a_pushed_cube_lies_where_it_was_pushed_to():
    robot = chunks.PushedRobot(make_task("so100_pick_place"), [3, 4], threads=1)
    robot.connect()
    before = robot.world.qpos[:, 6:13].copy()
    home = robot.observe()["qpos"]
    for tick in range(60):
        if tick == 21:  # earlier than any push
            here = robot.world.qpos[:, 6:8]
            np.testing.assert_allclose(here, before[:, :2], atol=1e-3)
        robot.act(home)
    robot.close()
    moved = robot.world.qpos[:, 6:8] - before[:, :2]
    wanted = np.stack([push.offset for push in robot.pushes])
    np.testing.assert_allclose(moved, wanted, atol=0.004)
    np.testing.assert_allclose(robot.world.qpos[:, 8], before[:, 2], atol=0.002)


def test_an_outcome_is_found_again(home):
    policy = load_policy(CHECKPOINT)
    first = chunks.outcome(policy, 25, n=2, seed=3, pushed=False)
    [path] = (home / "pushes").iterdir()
    path.write_text(json.dumps({"successes": [True, False, False, True]}))
    again = chunks.outcome(policy, 25, n=2, seed=3, pushed=False)
    assert first.n == 2
    assert str(again).startswith("50 % (2/4")
    assert again.interval == wilson(2, 4)


def test_without_a_push_rollouts_are_the_evaluations():
    from act_minimal.evaluation import evaluate, evaluation_scenes
    from act_minimal.execution import ExecutionConfig

    policy = load_policy(CHECKPOINT)
    robot = SimRobot(make_task("so100_pick_place"), evaluation_scenes(5, 3), threads=1)
    found = chunks.roll_out(policy, robot, 25)
    way = ExecutionConfig("receding", execute=25)
    same = evaluate(policy, execution=way, n=3, seed=5, threads=1, progress=False)
    assert found == [r.success for r in same.rollouts]


@pytest.mark.quick
def test_the_faster_task_has_the_same_physics_and_time():
    task, slow = chunks.faster_task(50), make_task("so100_pick_place")
    assert task.model().opt.timestep == pytest.approx(slow.model().opt.timestep)
    assert task.max_ticks / 50 == pytest.approx(slow.max_ticks / 30, abs=0.02)
    assert task.name != slow.name


@pytest.mark.quick
def test_the_push_figure_says_its_n():
    some = {h: chunks.Outcome([True] * h + [False]) for h in (5, 50)}
    fig = chunks.push_figure({"left alone": some, "pushed": some})
    assert "n = 6" in fig.axes[0].get_ylabel()


def made_up(successes, n, ticks):
    rng = np.random.default_rng(ticks)
    path = np.cumsum(rng.normal(0, 0.01, (ticks, 13)), axis=0).astype(np.float32)
    rolls = [Rollout(0, True, ticks, 1.0, 0.0, path)]
    return evaluation(successes, n, rolls, jerk=10.0 * ticks, frozen=0.25)


@pytest.mark.quick
def test_every_slider_goes_to_both_ends():
    found = {(1, 1): made_up(1, 30, 300), (10, 1): made_up(2, 30, 400)}
    found |= {(10, 10): made_up(25, 30, 150), (50, 1): made_up(9, 30, 500)}
    found |= {(50, 10): made_up(26, 30, 160), (50, 50): made_up(27, 30, 170)}
    explorer, shown = chunks.chunk_explorer(found, fps=30), set()
    for k in (1, 10, 50):
        for execute in (1, 10, 50):
            explorer.set(k=k, execute=execute)
            h = min(k, execute)
            e = found[k, h]
            assert f"({e.successes}/30" in explorer.says
            assert f"asked {30 / h:.1f} times a second" in explorer.says
            assert ("has no" in explorer.says) == (execute > k)
            shown.add(explorer.figure_html.partition("src=")[2])  # without words
    assert explorer.errors == []
    assert len(shown) == 6
