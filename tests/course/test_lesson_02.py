"""Lesson 02: its checks, its numbers, its pushes, its widget."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from act_minimal.checkpoint import load_policy
from act_minimal.evaluation import Rate, Rollout, wilson
from act_minimal.execution import ExecutionConfig, RecedingHorizon
from act_minimal.sim import make_task
from act_minimal.sim.robot import SimRobot
from act_minimal.sim.so100.pick_place import ZONE_CENTRE, ZONE_SIZE
from act_minimal.support.errors import UserError
from benchmarks.claims import grid
from benchmarks.rollouts import chunk_size_jobs
from course.figures import lesson_02 as chunks
from course.toolkit.paths import ROOT

from .helpers import answers, check_readable, evaluation, spoils

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
        (spoils(window, lambda a, t, k: a.fill(0)), "changed its argument `actions`"),
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
        (lambda *a: window(*a, pad=lambda x: x.astype(int)), "True and False"),
        (lambda *a: window(*a)[::-1], "the chunk should have shape"),
        (lambda a, t, k: window(a[::-1], t, k), "not the ones at t"),
        (lambda a, t, k: window(a, t, k + 1), "the chunk should have shape"),
        (lambda *a: (window(*a)[0].T, window(*a)[1]), "the chunk should have shape"),
        (lambda *a: ("chunk", "is_pad"), "numbers are wanted"),
        (lambda *a: ({}, {}), "numbers are wanted"),
        (lambda *a: ([[1], [2, 3]], [1]), "numbers are wanted"),
        (lambda *a: (1.0, 2.0), "the chunk should have shape"),
        (lambda a, t, k: window(a[:9], t, k), "episode's length from len(actions)"),
        (lambda a, t, k: window(a, t, k, last=9 - len(a)), "length from len(actions)"),
        (lambda a, t, k: window(a[:, :2], t, k), "take both from `actions`"),
    ],
)


def masked(p, t, pad):
    valid = ~pad[:, :, None]
    return ((p - t).abs() * valid).sum() / (valid.sum() * p.shape[-1])


def half_detached(p, t, pad):
    """The right value, with no gradient through the first sample."""
    return masked(torch.cat([p[:1].detach(), p[1:]]), t, pad)


test_the_masked_loss = answers(
    "02.loss",
    right=[
        (masked, "Only demonstrated"),
        (lambda p, t, pad: torch.nn.functional.l1_loss(p[~pad], t[~pad]), "it trains"),
    ],
    wrong=[
        (spoils(masked, lambda p, t, pad: t.zero_()), "changed its argument `t`"),
        (lambda p, t, pad: (p - t).abs().mean(), "padding is counted"),
        (lambda p, t, pad: (abs(p - t) * ~pad[..., None]).mean(), "still divided by"),
        (lambda p, t, pad: masked(p, t, ~pad), "wrong way round"),
        (lambda p, t, pad: (abs(p - t) * pad[..., None]).mean(), "wrong way round"),
        (lambda p, t, pad: (p - t)[~pad].abs().sum(), "this is the sum"),
        (lambda p, t, pad: (p - t)[~pad].abs().sum() / (~pad).sum(), "A joints"),
        (lambda p, t, pad: ((p - t)[~pad] ** 2).mean(), "L2"),
        (lambda p, t, pad: (p - t)[~pad].mean(), "errors cancel"),
        (lambda p, t, pad: (t - p)[~pad].mean(), "errors cancel"),
        (lambda *a: -masked(*a), "the sign is turned"),
        (
            lambda p, t, pad: torch.stack(
                [(p - t)[b][~pad[b]].abs().mean() for b in range(len(p))]
            ).mean(),
            "almost empty",
        ),
        (lambda p, t, pad: (p - t).abs(), "one number is wanted"),
        (lambda p, t, pad: (p - t).abs().mean(0), "one number is wanted"),
        (lambda p, t, pad: 7.0, "found 7.0000"),
        (lambda *a: masked(*a).item(), "no gradient"),
        (lambda *a: masked(*a).detach(), "no gradient"),
        (lambda *a: masked(*a).detach().numpy(), "no gradient"),
        (half_detached, "its gradient is not"),
        (lambda p, t, pad: np.abs(p - t), "raised RuntimeError"),
        (
            lambda p, t, pad: (p - t)[~pad].abs().sum() / ((~pad).sum() * 4),
            "the joints from prediction.shape[-1]",
        ),
        (lambda p, t, pad: masked(p[:3], t[:3], pad[:3]), "take all sizes from the t"),
        (lambda p, t, pad: masked(p[:, :5], t[:, :5], pad[:, :5]), "take all sizes"),
        (lambda *a: "small", "numbers are wanted"),
    ],
)


def executed(c, h, made=lambda t, h: t // h * h, action=lambda t, h: t % h):
    t = np.arange(len(c))
    return c[made(t, h), np.minimum(action(t, h), c.shape[1] - 1)]


def by_choice(c, h):
    """Each action as a sum over all chunks, of which one counts."""
    t, k = np.arange(len(c)), c.shape[1]
    made, step = np.eye(len(c))[t // h * h], np.eye(k)[t % h]
    return np.einsum("tm,mka,tk->ta", made, c, step)


test_the_receding_horizon = answers(
    "02.receding",
    right=[(by_choice, ""), (executed, "from its own beginning")],
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
        (lambda c, h: executed(c, h, action=lambda t, h: h - 1 - t % h), "backwards"),
        (
            lambda c, h: executed(
                c, h, made=lambda t, h: np.maximum(t // h * h - h, 0)
            ),
            "h ticks late",
        ),
        (lambda c, h: executed(c, max(h - 1, 1)), "the action at tick"),
        (lambda c, h: np.swapaxes(executed(c, h), 0, 1), "one action a tick"),
        (lambda c, h: executed(c, h)[..., ::-1], "at tick 0"),
        (lambda c, h: c[:, :h], "one action a tick"),
        (lambda c, h: {"actions": executed(c, h)}, "numbers are wanted"),
        (lambda c, h: executed(c, h) * np.nan, "at tick 0"),
        (lambda c, h: executed(c[:11], h), "take all sizes from `chunks`"),
        (lambda c, h: executed(c[:, :4], h), "take all sizes from `chunks`"),
        (lambda c, h: executed(c[..., :2], h), "take all sizes from `chunks`"),
        (lambda c, h: executed(c, 3), "for h = 1"),
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
        (lambda s, f: -(-int(s * f) // 25) * 25, "a part of a tick is dropped"),
        (lambda s, f: -(-round(s * f) // 25) * 25, "a part of a tick is dropped"),
        (lambda s, f: s * f, "not rounded up to a multiple"),
        (lambda s, f: np.ceil(s * f), "rounded up to a whole number"),
        (lambda s, f: 25 * round(s * f / 25), "nearest multiple"),
        (lambda s, f: 25 * (s * f // 25), "rounds down"),
        (lambda s, f: 25 * (s * f // 25 + 1), "25 too many"),
        (lambda s, f: 25 * np.ceil(s * 30 / 25), "rate is not used"),
        (lambda s, f: 25 * np.ceil(s * 50 / 25), "rate is not used"),
        (lambda s, f: 25 * np.ceil(s / f / 25), "divided by rate"),
        (lambda s, f: 7, "22.5 ticks"),
        (lambda s, f: 25 * np.ceil(s * f / 25), "make it an int, not a float64"),
        (lambda s, f: str(chunks.rule_of_thumb(s, f)), "is str"),
        (lambda s, f: "25 actions", "a whole number is wanted"),
        (lambda s, f: [chunks.rule_of_thumb(s, f)] * 2, "a whole number is wanted"),
        (lambda s, f: np.ceil(s * f / 25), "25 times that"),
        (lambda s, f: 25 * np.ceil((s * f - 1) / 25), "one tick less"),
        (lambda s, f: -chunks.rule_of_thumb(s, f), "22.5 ticks"),
        (lambda s, f: float("nan"), "22.5 ticks"),
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
        {"demonstrator": d, "execution": e, "k": k, "cvae": False}
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


def grid_rows():
    """A made-up grid: 1 more success for each action executed, 10 fewer without noise.

    Of 300: k = 1 has 60 successes, larger chunks 90.
    """
    rows = []
    for noise, k, h in itertools.product((0.02, 0.0), chunks.SIZES, chunks.SIZES):
        if h <= k:
            won = 60 + 30 * (k > 1) + h - 10 * (noise == 0.0)
            rows.append(
                {"noise": noise, "k": k, "h": h, "n": 300, "success": won / 300}
            )
    return rows


@pytest.mark.quick
def test_the_two_effects_are_differences_of_cells():
    found = grid.effects(grid_rows())
    assert len(found) == 2 * (21 - 1)
    for row in found:
        changed = 30 if row["effect"] == "learning" else row["h"] - 1
        assert row["difference"] == pytest.approx(changed / 300)
        assert row["interval"][0] < row["difference"] < row["interval"][1]
        assert (row["h"] == 1) == (row["effect"] == "learning")
        assert row["k"] > 1


@pytest.mark.quick
def test_the_grid_says_what_the_file_says(tmp_path):
    _, says = chunks.grid_figure(tmp_path)
    assert "not measured yet" in says
    assert "not measured yet" in chunks.two_effects(0.02, tmp_path)
    rows = grid_rows()
    (tmp_path / "claims").mkdir()
    content = {"summary": rows, "effects": grid.effects(rows)}
    (tmp_path / "claims" / "grid.json").write_text(json.dumps(content))
    fig, says = chunks.grid_figure(tmp_path)
    assert "trained with noise on the inputs, best 63 % at k = 100, h = 100" in says
    assert "trained without noise, best 60 % at k = 100, h = 100" in says
    assert "n = 300 a cell" in fig.axes[0].get_title("left")
    assert "n = 300 a cell" in says
    left = [text.get_text() for text in fig.axes[0].texts]
    assert len(left) == 21
    assert left.count("30") == 5  # 91 of 300: the larger chunks at h = 1
    lines = chunks.two_effects(0.02, tmp_path).splitlines()
    assert len(lines) == 10
    assert lines[0].split() == [
        "learning,",
        "h",
        "=",
        "1:",
        "k",
        "from",
        "1",
        "to",
        "5",
        "+10",
        "(+3",
        "to",
        "+17)",
    ]
    assert "executing, k = 100: h from 1 to 25" in lines[-1]
    assert "+8 (" in lines[-1]


@pytest.mark.quick
def test_policies_of_the_grid_differ_in_k_and_noise_alone():
    jobs = list(grid.jobs(replace(grid.GRID.settings, noises=(0.02, 0.0))))
    assert len({job.name for job in jobs}) == len(jobs) == 6 * 2 * 3
    table = {job.name: job for job in chunk_size_jobs((0, 1, 2))}
    for job in jobs:
        k, noise = job.labels["k"], job.labels["noise"]
        assert job.settings["chunk_size"] == k
        assert job.settings["state_noise"] == noise
        assert list(job.executions) == [str(h) for h in chunks.SIZES if h <= k]
        for name, way in job.executions.items():
            assert way == ExecutionConfig("receding", execute=int(name))
        # Found again where the table of chunk sizes has trained it.
        assert (job.name in table) == (noise == 0.02)
        if job.name in table:
            assert table[job.name].settings == job.settings
    same = [job.settings | {"chunk_size": 0, "state_noise": 0} for job in jobs]
    assert all(settings == same[0] for settings in same)
    with pytest.raises(UserError, match="--sizes"):
        grid.Grid(sizes=(5, 10))


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
    some = {h: Rate(h, h + 1) for h in (5, 50)}
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
    check_readable(explorer)
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
