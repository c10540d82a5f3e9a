"""Lesson 07: its checks, its numbers, its widget, and the changed scenes."""

import contextlib
import json
import math
import re
import shutil
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from act_minimal.evaluation import Evaluation, Rollout, evaluate, wilson
from act_minimal.sim import PickPlace, make_task
from act_minimal.sim.so100.changed_scenes import (
    CLOSED,
    OPEN,
    Change,
    ChangedPickPlace,
)
from act_minimal.sim.so100.pick_place import BIN_CENTRE
from act_minimal.sim.world import World
from benchmarks import results, rollouts
from benchmarks.claims import changes, chunk_size, gripper, tables, variants
from benchmarks.claims.changes import Scenes
from benchmarks.claims.chunk_size import Source
from benchmarks.claims.claim import Training
from course.figures import lesson_07
from course.toolkit.checks import EXERCISES, find_exercise

from .helpers import answers, check_readable, spoils
from .helpers import evaluation as of_rollouts

pytestmark = pytest.mark.mostly_quick

Z = 1.96


def right_interval(s, n, z=Z, root=math.sqrt, twice=lambda a: 2 * a):
    p = s / n
    a, b, c = 1 + z * z / n, -(2 * p + z * z / n), p * p
    half = root(max(0.0, b * b - 4 * a * c))
    return (-b - half) / twice(a), (-b + half) / twice(a)


def textbook(s, n):
    p = s / n
    half = Z * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def symmetric(s, n):
    low, high = right_interval(s, n)
    return s / n - (high - low) / 2, s / n + (high - low) / 2


test_the_interval = answers(
    "07.wilson",
    right=[
        (lambda s, n: right_interval(s, n, 1.959964), ""),
        (right_interval, "inside 0 to 1"),
        (wilson, "inside 0 to 1"),
    ],
    wrong=[
        (textbook, "textbook"),
        (symmetric, "drawn towards one half"),
        (lambda s, n: right_interval(s, n, root=lambda x: x), "square root"),
        (lambda s, n: right_interval(s, n, twice=lambda a: 2), "divide by 2a"),
        (lambda s, n: right_interval(s, n)[::-1], "wrong order"),
        (lambda s, n: right_interval(s, n, 1.645), "90 %"),
        (lambda s, n: [100 * x for x in right_interval(s, n)], "percent"),
        (lambda s, n: np.clip(textbook(s, n), 0, 1), "cut off at 0 and 1"),
        (lambda s, n: right_interval(s, n + Z**2), "expected 0.640 to 0.948"),
        (lambda s, n: right_interval(n - s, n), "expected 0.640 to 0.948"),
        (lambda s, n: (math.nan, math.nan), "expected 0.640 to 0.948"),
        (
            lambda s, n: right_interval(s, n, 1.961),
            "expected 0.640 to 0.9476, found 0.639 to 0.9477",
        ),
        (lambda s, n: 0.85, "two numbers"),
        (lambda s, n: (0.640, 0.85, 0.948), "two numbers"),
        (lambda s, n: "64 to 95 %", "two numbers"),
        (lambda s, n: (0.1, 0.2), "expected 0.640 to 0.948"),
        (
            lambda s, n: right_interval(s, n) if 0 < s < n else textbook(s, n),
            "right for 17 of 20, but for 20 of 20",
        ),
        (lambda s, n: right_interval(s, 20), "take n from the argument"),
    ],
)


def tail(k, n):
    return sum(math.comb(n, i) for i in range(k + 1)) / 2**n


def right_p(a, b):
    return min(1.0, 2 * tail(min(a, b), a + b))


test_the_paired_comparison = answers(
    "07.paired",
    right=[(right_p, "Only the scenes")],
    wrong=[
        (lambda a, b: tail(min(a, b), a + b), "one tail"),
        (lambda a, b: math.comb(a + b, b) / 2 ** (a + b), "exactly this"),
        (lambda a, b: 2 * math.comb(a + b, b) / 2 ** (a + b), "doubles"),
        (lambda a, b: 2 * tail(min(a, b) - 1, a + b), "range(k + 1)"),
        (lambda a, b: min(1, 2 * tail(max(a, b), a + b)), "larger count"),
        (lambda a, b: math.erfc(math.sqrt((a - b) ** 2 / (a + b) / 2)), "χ²"),
        (lambda a, b: 1 - right_p(a, b), "one minus"),
        (lambda a, b: min(1.0, 2 * tail(b, a + b)), "called A"),
        (lambda a, b: 2 * tail(min(a, b), a + b), "at most 1"),
        (lambda a, b: 0.5, "expected 0.0654"),
        (lambda a, b: right_p(a + 1, b), "expected 0.0654"),
        (lambda a, b: math.nan, "expected 0.0654"),
        (lambda a, b: (0.0654, 9), "one number"),
        (lambda a, b: "small", "one number"),
        (lambda a, b: min(1, 2 * tail(min(a, b), 11)), "take both counts from the arg"),
        (lambda a, b: min(1, 2 * tail(2, a + b)), "right for 9 against 2, wrong for"),
    ],
)


def chance(rates, n):
    return np.mean(rates * (1 - rates)) / n


def left_over(rates, n, ddof=1, cut=lambda x: max(0.0, x)):
    return math.sqrt(cut(rates.var(ddof=ddof) - chance(rates, n)))


test_what_seeds_add = answers(
    "07.seeds",
    right=[
        (lambda r, n: left_over(r.astype(np.float32), n), ""),
        (left_over, "left over"),
    ],
    wrong=[
        (spoils(left_over, lambda r, n: r.fill(0)), "changed its argument `rates`"),
        (lambda r, n: left_over(r, n) + 2e-5, "expected 0.18"),
        (lambda r, n: r.std(ddof=1), "taken away"),
        (lambda r, n: r.var(ddof=1) - chance(r, n), "square root"),
        (lambda r, n: left_over(r, n, ddof=0), "ddof=1"),
        (lambda r, n: r.std(ddof=1) - math.sqrt(chance(r, n)), "deviations do not"),
        (lambda r, n: math.sqrt(chance(r, n)), "for the rest"),
        (lambda r, n: math.sqrt(r.var(ddof=1) + chance(r, n)), "adds"),
        (lambda r, n: left_over(r, 1), "divided by n"),
        (lambda r, n: left_over(r, n, cut=abs), "make them give 0"),
        (
            lambda r, n: math.sqrt(r.var(ddof=1) - r.mean() * (1 - r.mean()) / n),
            "at the mean rate of all seeds",
        ),
        (lambda r, n: left_over(r, n - 1), "expected 0.18"),
        (lambda r, n: left_over(100 * r, n, cut=abs), "expected 0.18"),
        (lambda r, n: math.nan, "divided by n"),
        (lambda r, n: r - r.mean(), "one number"),
        (lambda r, n: 7.0, "expected 0.18"),
        (lambda r, n: left_over(r, 50), "take n from the argument"),
        (
            lambda r, n: math.sqrt(
                max(0, ((r - r.mean()) ** 2).sum() / 3 - chance(r, n))
            ),
            "the number of seeds from len(rates)",
        ),
    ],
)


def evaluation(successes, first=0):
    qpos = np.zeros((4, 13), np.float32)
    ended = [
        Rollout(i, bool(s), 10, 0.0, 0.0, qpos) for i, s in enumerate(successes, first)
    ]
    return of_rollouts(sum(map(bool, successes)), len(ended), ended)


def test_groups_count_successes_in_order():
    found = evaluation([1] * 20 + [0] * 5 + [1] * 15 + [0] * 7)
    assert lesson_07.groups_of(found).tolist() == [20, 15]
    axes = lesson_07.groups_figure(found).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert sum(heights) == 2
    assert axes.get_ylabel() == "groups (of 2)"


def test_the_believed_rates_are_between_the_crossings():
    axes = lesson_07.believable_figure(17, 20).axes[0]
    span = axes.patches[0]
    low, high = span.get_x(), span.get_x() + span.get_width()
    for p in (low, high):
        assert abs(p - 0.85) == pytest.approx(Z * math.sqrt(p * (1 - p) / 20))


def test_pairs_are_matched_by_scene():
    a = evaluation([1, 1, 0, 0, 1, 1])
    b = evaluation([0, 1, 0, 1, 0], first=1)  # scenes 1 to 5
    pairs = lesson_07.pair(a, b)
    # a on scenes 1-5: 1 0 0 1 1; b: 0 1 0 1 0
    assert pairs == lesson_07.Pairs(both=1, only_a=2, only_b=1, neither=1)
    assert pairs.p_value == pytest.approx(right_p(2, 1))
    assert "n = 5" in str(pairs)
    with pytest.raises(ValueError, match="no scene in common"):
        lesson_07.pair(a, evaluation([1], first=100))


def test_differences_have_newcombes_interval():
    # The example of Newcombe's article (1998), table II, method 10.
    d, low, high = lesson_07.difference((56, 70), (48, 80))
    assert (round(d, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)
    same = lesson_07.difference((48, 80), (56, 70))
    assert same == pytest.approx((-d, -high, -low))


def test_rows_of_seeds_come_from_the_result_files(tmp_path):
    row = {"policy": "act", "demonstrator": "human", "each_seed": [0.8, 0.9], "n": 200}
    other = row | {"policy": "bc"}
    (tmp_path / "state.json").write_text(json.dumps({"summary": [row, other]}))
    row = {"demonstrations": 200, "each_seed": [0.95, 0.97, 0.99], "n": 300}
    (tmp_path / "vision.json").write_text(json.dumps({"summary": [row]}))
    state, vision = lesson_07.seed_rows(tmp_path)
    assert (state.name, state.n, vision.n) == ("state, human", 100, 100)
    assert state.between == pytest.approx(0.1 / math.sqrt(2))
    assert state.by_chance == pytest.approx(math.sqrt((0.16 + 0.09) / 2 / 100))
    fig = lesson_07.seeds_figure([state, vision])
    labels = [text.get_text() for text in fig.axes[0].get_yticklabels()]
    assert labels == ["state, human", "vision, 200 demos"]


def path(*points, jaw=0.5, ticks=10):
    """A cube that goes from point to point (x, y, height over the table)."""
    rows = []
    for a, b in pairwise(points):
        rows += [*np.linspace(a, b, ticks)]
    qpos = np.zeros((len(rows), 13), np.float32)
    qpos[:, 6:9] = rows
    qpos[:, 8] += 0.0125
    qpos[:, 5] = jaw
    return Rollout(0, False, len(rows), 0.0, 0.0, qpos)


START, UP = (0.0, -0.2, 0.0), (0.0, -0.2, 0.1)
BIN = (*BIN_CENTRE, 0.0)
OVER_BIN = (*BIN_CENTRE, 0.1)
BESIDE = (BIN_CENTRE[0], BIN_CENTRE[1] + 0.07, 0.0)


@pytest.mark.parametrize(
    ("rollout", "kind"),
    [
        (path(START, START), "never grasped"),
        (path(START, (0.05, -0.2, 0.0)), "never grasped"),  # pushed along
        (path(START, UP, (0.05, -0.2, 0.1), (0.05, -0.2, 0.0)), "dropped on the way"),
        (path(START, UP, OVER_BIN, BESIDE), "missed the bin"),
        (path(START, UP, (*BIN_CENTRE, 0.04)), "missed the bin"),  # on the edge
        (path(START, UP, OVER_BIN, jaw=0.0), "timed out"),  # still in the hand
        (path(START, UP, OVER_BIN, BIN, jaw=0.0), "timed out"),  # never let go
    ],
)
def test_failures_are_sorted(rollout, kind):
    assert lesson_07.kind(rollout) == kind
    sorted_out = lesson_07.sort_failures([rollout])
    assert list(sorted_out) == list(lesson_07.KINDS)
    assert sorted_out[kind] == [rollout]
    rollout.success = True
    assert lesson_07.kind(rollout) == "success"
    assert not any(lesson_07.sort_failures([rollout]).values())


def test_kinds_are_told_in_words():
    found = evaluation([1, 1])
    assert lesson_07.kinds_text(found) == "no failure"
    found.rollouts += [path(START, START), path(START, START)]
    assert lesson_07.kinds_text(found) == "2 never grasped"
    assert "2 never grasped" in lesson_07.outcome_table({"a change": found})


def test_no_change_is_the_same_scene_to_the_bit():
    plain, same = PickPlace(), ChangedPickPlace()
    assert same.name == plain.name == make_task(plain.name).name
    a, b = plain.model(), same.model()
    for name in dir(a):
        value = getattr(a, name)
        if isinstance(value, np.ndarray) and not name.startswith("_"):
            np.testing.assert_array_equal(value, getattr(b, name), name)
    first, second = World(plain), World(same)
    for world in (first, second):
        world.reset([5])
        for t in range(20):
            world.step(np.full((1, 6), 0.02 * t))
    np.testing.assert_array_equal(first.qpos, second.qpos)


def test_changes_change_what_they_say():
    change = Change((0.02, 0.0, -0.01), (0.1, 0.5, 0.2), 0.032, (0.5, 0.5, 1.0))
    plain, task = PickPlace(), ChangedPickPlace(change)
    a, b = plain.model(), task.model()
    moved = b.camera("top").pos - a.camera("top").pos
    np.testing.assert_allclose(moved, [0.02, 0.0, -0.01])
    np.testing.assert_allclose(b.geom("cube").rgba, [0.1, 0.5, 0.2, 1.0])
    np.testing.assert_allclose(b.geom("cube").size, 0.016)
    assert b.body("cube").mass == a.body("cube").mass
    np.testing.assert_allclose(b.light_diffuse, a.light_diffuse * [0.5, 0.5, 1.0])
    starts = [t.sample(np.random.default_rng(3)) for t in (plain, task)]
    np.testing.assert_allclose(starts[1] - starts[0], [0] * 8 + [0.0035] + [0] * 4)
    all_changes = (change, Change(), *lesson_07.CHANGES.values())
    names = {ChangedPickPlace(one).name for one in all_changes}
    assert len(names) == 1 + len(lesson_07.CHANGES)
    assert "camera x +2 cm, camera z -1 cm" in task.name


def test_a_gripper_with_two_positions():
    task = ChangedPickPlace(Change(gripper_threshold=0.4))
    action = np.zeros((3, 6))
    action[:, 5] = 0.39, 0.41, 0.9
    whole = np.zeros((3, 6))
    whole[:, 5] = CLOSED, OPEN, OPEN
    np.testing.assert_array_equal(task.ctrl(action), PickPlace().ctrl(whole))
    assert action[0, 5] == 0.39  # what was asked is left alone


def test_a_centimetre_in_pixels_is_what_a_projection_says():
    import mujoco

    def pixel(model, point):
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        i = model.camera("top").id
        x, y, z = data.cam_xmat[i].reshape(3, 3).T @ (point - data.cam_xpos[i])
        return 48 / math.tan(math.radians(model.cam_fovy[i]) / 2) * np.array([x, y]) / z

    point = np.array([-0.025, -0.225, 0.0])
    a = pixel(PickPlace().model(), point)
    b = pixel(ChangedPickPlace(Change(camera=(0.01, 0, 0))).model(), point)
    said = lesson_07.pixels_a_centimetre()
    assert np.linalg.norm(a - b) == pytest.approx(said, rel=1e-3)


@pytest.fixture(scope="module")
def rolled(tmp_path_factory):
    """Eight rollouts of the state policy, on scenes as demonstrated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACT_MINIMAL_COURSE", str(tmp_path_factory.mktemp("course")))
        policy = lesson_07.checkpoint("state")
        return lesson_07.rollouts_on(policy, Change(), n=8, seed=7, threads=1)


@pytest.mark.slow
def test_rollouts_on_a_change_are_found_again(monkeypatch, rolled):
    policy = lesson_07.checkpoint("state")
    plain = evaluate(policy, n=8, seed=7, threads=1, progress=False)
    assert plain.rollouts == rolled.rollouts  # no change, no difference
    big = Change(cube_size=0.032)
    first = lesson_07.rollouts_on(policy, big, n=2, seed=7, threads=1)
    monkeypatch.setattr("act_minimal.evaluation._roll_out", None)
    again = lesson_07.rollouts_on(policy, big, n=2, seed=7, threads=1)
    assert again.rollouts == first.rollouts
    assert first.rollouts[0].qpos[0, 8] == pytest.approx(0.016, abs=1e-4)


@pytest.mark.slow
def test_the_scrubber_goes_to_both_ends(rolled):
    failed = path(START, UP, (0.05, -0.2, 0.1), (0.05, -0.2, 0.0))
    rolled = Evaluation(**(vars(rolled) | {"rollouts": [*rolled.rollouts, failed]}))
    scrubs = lesson_07.pick_scrubs(rolled)
    check_readable(lesson_07.scrub_explorer(scrubs))
    assert 2 <= len(scrubs) <= 3
    assert scrubs[-1].title.startswith("success")
    explorer = lesson_07.scrub_explorer(scrubs)
    opens = explorer.controls["tick"].value  # where the jaw begins to close
    assert abs(opens - np.argmax(scrubs[0].joints[:, 5])) < lesson_07.STRIDE
    shown = set()
    for one in scrubs:
        explorer.set(rollout=one.title)
        for tick in (0, 15, explorer.controls["tick"].max):
            explorer.set(tick=tick)
            shown.add(explorer.figure_html)
            at = min(tick, len(one.joints) - 1)
            assert f"{100 * one.joints[at, 5]:.0f} % open" in explorer.says
            height = abs(round(1000 * one.height[at]))
            assert f"the cube is {height} mm over" in explorer.says
    assert explorer.errors == []
    assert len(shown) == 3 * len(scrubs)


@pytest.mark.slow
def test_a_scrub_knows_where_the_hand_is(rolled):
    good = next(r for r in rolled.rollouts if r.success)
    one = lesson_07.scrub(good)
    assert len(one.joints) == good.ticks == len(one.height) == len(one.distance)
    assert len(one.frames) == -(-good.ticks // lesson_07.STRIDE)
    carried = one.height > 0.05
    assert carried.any()
    assert one.distance[carried].max() < 0.03  # a cube in the air is in the hand
    assert one.distance[0] > 0.05


@pytest.mark.slow
def test_a_film_of_failures(rolled, monkeypatch):
    filmed, film = [], lesson_07.film
    monkeypatch.setattr(
        lesson_07,
        "film",
        lambda task, takes, *a, **k: filmed.extend(takes) or film(task, takes, *a, **k),
    )
    policy = lesson_07.checkpoint("state")
    shown = lesson_07.failures_film(rolled, policy, n=2)
    assert filmed
    assert all(take.policy is policy for take in filmed)
    assert shown.mp4[4:8] == b"ftyp"
    failed = sum(not rollout.success for rollout in rolled.rollouts)
    assert f"{min(2, failed) or 2} of 8 rollouts side by side" in shown.alt


@pytest.mark.slow
def test_changed_scenes_change_what_the_camera_sees():
    changes = {"none": Change(), "far": Change(camera=(0.05, 0.0, 0.0))}
    trial = lesson_07.trial_of_changes(
        lesson_07.checkpoint("vision"), changes, n=2, seed=3
    )
    assert set(trial) == set(changes)
    first, second = (e.rollouts[0].qpos for e in trial.values())
    np.testing.assert_array_equal(first[0], second[0])  # the same scene
    assert len(first) != len(second) or not np.array_equal(first[30:], second[30:])
    fig = lesson_07.views(changes)
    pictures = [axes.images[0].get_array() for axes in fig.axes if axes.images]
    assert len(pictures) == 2
    assert np.abs(pictures[0].astype(float) - pictures[1]).mean() > 1


def test_the_tables_are_those_of_the_sources():
    rows = {row["task"]: row for row in tables.facts()}
    assert rows["Slot Battery"]["agree"] is True
    assert rows["Open Cup"]["agree"] is False
    assert rows["Insertion, human"]["agree"] is None


def test_changes_of_the_claims_have_names_of_their_own():
    shifts = changes.camera_changes()
    assert len({change.name for _, change in shifts}) == len(shifts) == 10
    assert len({change.name for change in changes.CHANGES.values()}) == 9


def test_gripper_timing_differs_and_nothing_else():
    styles = {
        timing: [gripper.style(timing, np.random.default_rng(i)) for i in range(20)]
        for timing in ("steady", "human", "hesitant")
    }
    for steady, human, hesitant in zip(*styles.values(), strict=True):
        assert steady.speed == human.speed == hesitant.speed
        np.testing.assert_array_equal(steady.grasp_error, human.grasp_error)
        others = [0, 2, 3, 5]
        np.testing.assert_array_equal(steady.pauses[others], human.pauses[others])
        assert not steady.pauses[[1, 4]].any()
        assert hesitant.squeeze == human.squeeze
    assert len({s.squeeze for s in styles["steady"]}) == 1
    assert len({s.squeeze for s in styles["human"]}) == 20
    assert len({s.pauses[1] for s in styles["hesitant"]}) == 20


def chunk_size_runs():
    """Two seeds, four scenes each, made up."""
    runs, summary = [], []
    failed = {"act": {0}, "no_chunks": {0, 1, 2}, "no_cvae": {3}, "ensemble": {0}}
    for demonstrator in chunk_size.DEMONSTRATORS:
        for name, labels in chunk_size.ROWS.items():
            row = {"demonstrator": demonstrator, **labels, "n": 4}
            lost = [[s + 10 * seed for s in failed[name]] for seed in (0, 1)]
            for i, x in enumerate(lost):
                runs.append(row | {"seed": i, "failed_scenes": x})
                runs[-1]["successes"] = 4 - len(x)
            s = 8 - 2 * len(failed[name])
            row |= {"n": 8, "success": s / 8, "interval": wilson(s, 8), "seeds": [0, 1]}
            summary.append(row | {"each_seed": [], "jerk": 0, "frozen": 0, "steps": []})
    return {"runs": runs, "summary": summary}


def test_the_ablation_pairs_scenes():
    table = chunk_size.table(chunk_size_runs())
    rows = {row["row"]: row for row in table if row["demonstrator"] == "human"}
    assert list(rows) == list(chunk_size.ROWS)
    assert "difference" not in rows["act"]
    one = rows["no_chunks"]
    assert (one["only_this"], one["only_act"]) == (0, 4)
    assert one["p_value"] == pytest.approx(2 / 16)
    assert one["difference"] == pytest.approx(2 / 8 - 6 / 8)
    one = rows["no_cvae"]
    assert (one["only_this"], one["only_act"], one["p_value"]) == (2, 2, 1.0)
    assert rows["ensemble"]["p_value"] == 1.0


def test_an_ablation_without_its_results_says_what_makes_them(tmp_path):
    with pytest.raises(chunk_size.UserError, match=r"benchmarks\.rollouts chunk_size"):
        chunk_size.ABLATION.run(Source(tmp_path))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Results go to a folder of their own; gives a function that reads them."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    here = contextlib.nullcontext(SimpleNamespace(map=map))  # no pool of processes
    monkeypatch.setattr(rollouts, "ProcessPoolExecutor", lambda *args, **kwargs: here)
    claims = tmp_path / "results" / "claims"
    return lambda name: json.loads((claims / f"{name}.json").read_text())


def done_job(job, runs):
    """A job that finds a trained policy: the committed one."""
    if not (runs / job.name).exists():
        shutil.copytree(changes.STATE_CHECKPOINT, runs / job.name)
    row = {"seed": job.seed, "execution": "half", "successes": 1, "n": job.n, "rate": 1}
    row |= {"interval": [0.2, 1.0], "jerk": 1.0, "frozen": 0.0, "train_seconds": 1.0}
    return [job.labels | row | {"steps": 5, "job_seconds": 1.0}]


@pytest.mark.slow
def test_the_camera_script_writes_what_the_lesson_quotes(
    tmp_path, monkeypatch, written
):
    monkeypatch.setattr(changes, "SHIFTS", (5,))
    changes.C21.run(Scenes(tmp_path / "runs", seeds=(0,), n=1))
    found = written("C21")
    labels = [(r["policy"], r["axis"], r["shift_cm"]) for r in found["summary"]]
    shifts = [("none", 0), ("x", 5), ("y", 5), ("z", 5)]
    assert labels == [("committed", *shift) for shift in shifts]
    assert all(r["n"] == 1 and sum(r["kinds"].values()) < 2 for r in found["summary"])
    assert found["runs"][0]["seed"] == changes.SCENES


@pytest.mark.slow
def test_the_object_script_has_its_controls(tmp_path, monkeypatch, written):
    monkeypatch.setattr(changes, "CHANGES", {"green": lesson_07.CHANGES["green cube"]})
    monkeypatch.setattr(changes, "CUBES", {"32mm": Change(cube_size=0.032)})
    changes.C27.run(Scenes(tmp_path / "runs", seeds=(0,), n=1))
    rows = {(r["policy"], r["change"]): r for r in written("C27")["summary"]}
    assert set(rows) == {
        ("vision", "green"),
        *((who, what) for who in ("state", "expert") for what in ("none", "32mm")),
    }
    assert rows["expert", "32mm"]["success"] == 1.0  # it can be done


@pytest.mark.slow
def test_the_gripper_script_measures_half_open(tmp_path, monkeypatch, written):
    record = gripper.record
    monkeypatch.setattr(gripper, "record", lambda f, how, n, s: record(f, how, 1, s))
    monkeypatch.setattr(gripper, "run_job", done_job)
    runs = tmp_path / "runs"
    runs.mkdir()
    gripper.C16.run(Training(runs, seeds=(0,), n=1))
    found = written("C16")["summary"]
    assert len(found) == 10
    assert {r["gripper"] for r in found} == {"as asked", "open or closed"}
    for row in found:
        shares = row["half_open"]
        assert 0 < shares["demonstrated"] < 0.5
        assert 0 < shares["predicted"] < 0.5
        assert shares["on_the_wrong_side"] < 0.3


@pytest.mark.slow
def test_half_open_is_counted_from_the_first_opening(tmp_path):
    class Truth:
        """Predicts what was done, from the recording itself; k = 4."""

        chunk_size = 4

        def predict_chunk(self, seen):
            at = np.minimum(np.arange(len(seen["qpos"]))[:, None] + np.arange(4), last)
            return demos.action[at]

    gripper.record(tmp_path, "steady", 1, 0)
    demos = gripper.Demonstrations.load(tmp_path)
    last = len(demos.action) - 1
    shares = gripper.half_open(Truth(), tmp_path)
    assert shares["predicted"] == shares["demonstrated"]
    assert shares["on_the_wrong_side"] == 0
    opened = int(np.argmax(demos.action[:, 5] > 0.6))
    times = [t + j for t in range(opened, last + 1) for j in range(4)]
    pairs = [demos.action[t, 5] for t in times if t <= last]
    between = [0.15 < x < 0.6 for x in pairs]
    assert shares["predictions"] == len(pairs)
    assert shares["demonstrated"] == pytest.approx(np.mean(between))


def test_clean_and_noisy_get_the_same_updates(tmp_path, monkeypatch, written):
    jobs = list(variants.consistent_jobs(Training(seeds=(0, 1))))
    assert len({job.name for job in jobs}) == 8
    assert len({json.dumps(job.settings) for job in jobs}) == 1
    monkeypatch.setattr(rollouts, "run_job", done_job)
    runs = tmp_path / "runs"
    runs.mkdir()
    variants.C22.run(Training(runs, seeds=(0,), n=1))
    rows = written("C22")["summary"]
    wanted = [("scripted", 50), *(("human", n) for n in (50, 200, 500))]
    assert [(r["demonstrator"], r["demonstrations"]) for r in rows] == wanted


def test_the_ablation_and_the_tables_are_written(tmp_path, written):
    tables.C25.run()
    assert written("C25")["n"] == 3
    made = chunk_size_runs() | {"task": "t", "seeds": [0, 1], "command": "c"}
    path = tmp_path / "chunk_size.json"
    path.write_text(json.dumps(made))
    chunk_size.ABLATION.run(Source(tmp_path))
    assert len(written("ablation")["summary"]) == 8


def test_the_teachers_page_has_the_lessons_minutes_and_exercises():
    page = (lesson_07.ROOT / "docs" / "instructors.md").read_text()
    rows = re.findall(r"^\| (0\d) [^|]+ \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    lessons = (lesson_07.ROOT / "notebooks").glob("[0-9]*.ipynb")
    assert [number for number, *_ in rows] == sorted(p.name[:2] for p in lessons)
    for number, work, exercises in rows:
        [source] = (lesson_07.ROOT / "notebooks" / "src").glob(f"{number}_*.py")
        assert f"· {work} minutes of work" in source.read_text(), number
        known = [e for name, e in EXERCISES.items() if name.startswith(number)]
        assert sum(e.minutes for e in known) == int(exercises), number
    for name in re.findall(r"`(0\d\.[a-z-]+)`", page):
        assert find_exercise(name).minutes > 0
