"""Rollouts and what is said about them: intervals, jerk, resuming, what fits."""

import hashlib
import json
from copy import deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import act_minimal.evaluation as evaluation
from act_minimal.dataset import Statistics
from act_minimal.evaluation import (
    Evaluation,
    evaluate,
    evaluation_scenes,
    fingerprint,
    jerk,
    still,
    wilson,
)
from act_minimal.execution import ExecutionConfig
from act_minimal.images import Resizing
from act_minimal.policy import Policy, make_policy
from act_minimal.sim import PickPlace, World, make_task
from act_minimal.sim import recording as sim_recording
from act_minimal.sim.so100.expert import Expert
from act_minimal.support.errors import SettingError, UserError

from .programs import kill

OPEN_LOOP = ExecutionConfig(mode="open_loop")
K = 320  # covers the longest scripted plan


@pytest.mark.quick
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (17, 20, 0.6396, 0.9476),
        (1, 10, 0.0179, 0.4042),
        (50, 100, 0.4038, 0.5962),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)


counts = st.integers(1, 3000).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.just(n))
)


@pytest.mark.quick
@given(counts)
def test_wilson_solves_its_equation(count):
    # The interval's ends are the rates p at which (p - rate)² = z² p (1 - p) / n.
    successes, n = count
    rate, z = successes / n, 1.96
    a, b, c = 1 + z**2 / n, -(2 * rate + z**2 / n), rate**2
    roots = np.sort(np.real(np.roots([a, b, c])))
    low, high = wilson(successes, n)
    assert (low, high) == pytest.approx(roots, abs=1e-6)
    assert 0 <= low <= rate <= high <= 1


@pytest.mark.quick
@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_count(successes, n):
    with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
        wilson(successes, n)


@pytest.mark.quick
@given(
    st.floats(-5, 5), st.floats(-5, 5), st.integers(4, 60), st.sampled_from([30, 50])
)
def test_jerk_of_a_cubic_is_its_third_derivative(a, b, length, fps):
    t = np.arange(length) / fps
    path = np.stack([a * t**3 + b * t**2 - t, b * t**3 + 1], axis=1)
    expected = np.sqrt((36 * a**2 + 36 * b**2) / 2)  # root mean square of two joints
    assert jerk(path, fps) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.quick
def test_a_parabola_or_a_short_path_has_no_jerk():
    t = np.arange(20.0)[:, None] / 30
    assert jerk(3 * t**2 - t, 30) == pytest.approx(0, abs=1e-7)
    assert jerk(np.array([[0.0], [5.0], [1.0]]), 30) == 0


@pytest.mark.quick
def test_still_means_that_no_joint_moves():
    positions = np.array([[0, 0], [0.001, 0], [0.001, 0.01], [0.001, 0.0101]])
    assert still(positions).tolist() == [True, False, True]


@pytest.mark.quick
def test_no_demonstration_starts_from_an_evaluated_scene():
    last_seed = evaluation.SEEDS - 1
    highest = evaluation_scenes(last_seed, evaluation.SEEDS_A_RUN)[-1]
    assert highest < sim_recording.scene_seed(0, 0)
    assert not set(evaluation_scenes(0, 10_000)) & set(evaluation_scenes(1, 10_000))
    for n, seed in ((0, 0), (10_001, 0), (1, -1), (1, last_seed + 1)):
        with pytest.raises(SettingError, match="expected from"):
            evaluation_scenes(seed, n)


class FakePolicy:
    """What `evaluate` needs to know of a policy, without a network."""

    name = "fake"
    cameras: tuple[str, ...] = ()
    image_sizes: ClassVar[dict[str, tuple[int, int]]] = {}
    chunk_size = K

    def __init__(self, weight=0.0, **shape):
        sizes = {"state_dim": 6, "action_dim": 6, "env_state_dim": 7}
        self.config = SimpleNamespace(**sizes | shape)
        self.weight = torch.tensor([weight])

    def state_dict(self):
        return {"weight": self.weight}


class Stay(FakePolicy):
    """Says that every joint shall stay where it is."""

    def predict_chunk(self, observation):
        return np.repeat(observation["qpos"][:, None], K, axis=1)  # (n, k, A)


class Plan(FakePolicy):
    """Plans like the expert from what it sees of each scene, row by row.

    Where the cube lies right of `give_up` (m), it stays instead.
    """

    give_up = np.inf

    def predict_chunk(self, observation):
        expert = Expert(make_task("so100_pick_place"), "scripted")
        rows = []
        seen = observation["qpos"], observation["env_state"]
        for qpos, cube in zip(*seen, strict=True):
            start = np.concatenate([qpos, cube]).astype(np.float64)
            start[5] = -0.174 + start[5] * (1.75 + 0.174)
            plan = expert.plan(start, 0)
            if cube[0] > self.give_up:
                plan = np.repeat(qpos[None], K, axis=0)
            rows.append(np.concatenate([plan, np.repeat(plan[-1:], K - len(plan), 0)]))
        return np.stack(rows)


def roll_out(policy, n=4, **settings):
    return evaluate(policy, execution=OPEN_LOOP, n=n, progress=False, **settings)


def test_a_good_policy_succeeds_and_is_counted():
    policy = Plan()
    world = World(make_task("so100_pick_place"), 6)
    world.reset(evaluation_scenes(0, 6))
    policy.give_up = float(np.median(world.qpos[:, 6]))
    expected = world.qpos[:, 6] <= policy.give_up
    result = roll_out(policy, 6)
    assert [r.success for r in result.rollouts] == expected.tolist()
    assert (result.successes, result.n, result.rate) == (3, 6, 0.5)
    assert result.interval == wilson(3, 6)
    good = [r for r in result.rollouts if r.success]
    assert result.seconds_to_success == np.median([r.ticks for r in good]) / 30
    assert all(r.ticks < 300 and r.frozen < 0.3 and r.jerk > 1 for r in good)
    for rollout in result.rollouts:
        assert rollout.qpos.shape == (rollout.ticks, 13)
        if not rollout.success:
            assert rollout.ticks == PickPlace.max_ticks
            assert rollout.frozen > 0.95
    assert "50 % (3/6, 95 % interval 19-81 %)" in str(result)
    plain = result.to_json()
    failed = [r.scene for r in result.rollouts if not r.success]
    assert json.loads(json.dumps(plain))["failed_scenes"] == failed


class Snap(FakePolicy):
    """Lets both arms stand and opens and closes one of their grippers."""

    def __init__(self, joint):
        super().__init__(state_dim=16, action_dim=16)
        self.joint = joint

    def predict_chunk(self, observation):
        chunk = np.repeat(observation["qpos"][:, None], K, axis=1)  # (n, k, A)
        chunk[:, :, self.joint] = np.arange(K) % 20 < 10
        return chunk


def test_a_grippers_jerk_is_not_the_arms(monkeypatch):
    from act_minimal.sim.openarm.handover import Handover

    monkeypatch.setattr(Handover, "max_ticks", 60)
    wrist, *grippers = (
        evaluate(Snap(i), "openarm_handover", OPEN_LOOP, n=1, progress=False).jerk
        for i in (6, 7, 15)
    )
    assert wrist > 5 * max(grippers)


def test_the_first_state_of_a_rollout_is_the_scenes_start(monkeypatch):
    monkeypatch.setattr(PickPlace, "max_ticks", 5)
    result = roll_out(Stay(), 3, seed=2)
    world = World(make_task("so100_pick_place"), 3)
    world.reset([20_000, 20_001, 20_002])
    for i, rollout in enumerate(result.rollouts):
        assert rollout.scene == 20_000 + i
        assert np.array_equal(rollout.qpos[0], world.qpos[i].astype(np.float32))


def test_a_policy_that_does_nothing_fails_and_stands_still():
    result = roll_out(Stay(), 3)
    assert result.successes == 0
    assert result.seconds_to_success is None
    assert result.frozen > 0.95
    assert result.interval[0] == 0


def test_outcomes_do_not_depend_on_how_many_scenes_run_together(monkeypatch):
    monkeypatch.setattr(PickPlace, "max_ticks", 120)
    together = roll_out(Plan(), 4)
    monkeypatch.setattr(evaluation, "TOGETHER", 1)
    alone = roll_out(Plan(), 4)
    assert together.rollouts == alone.rollouts
    for a, b in zip(together.rollouts, alone.rollouts, strict=True):
        assert np.array_equal(a.qpos, b.qpos)


class Shaking(FakePolicy):
    """Goes where its noise says, and little of it."""

    samples = True

    def predict_chunk(self, observation):
        hold = np.repeat(observation["qpos"][:, None], K, axis=1)
        return hold + 0.02 * observation["noise"]  # (n, k, A)


def test_the_noise_of_a_scene_is_its_own_whoever_runs_beside(monkeypatch):
    monkeypatch.setattr(PickPlace, "max_ticks", 40)
    together = roll_out(Shaking(), 4)
    again = roll_out(Shaking(), 4)
    monkeypatch.setattr(evaluation, "TOGETHER", 1)
    alone = roll_out(Shaking(), 4)
    for a, b, c in zip(together.rollouts, again.rollouts, alone.rollouts, strict=True):
        assert np.array_equal(a.qpos, b.qpos)
        assert np.array_equal(a.qpos, c.qpos)
    joints = np.stack([r.qpos[:, :6] - r.qpos[:1, :6] for r in together.rollouts])
    assert np.abs(joints[0] - joints[1]).max() > 1e-3


def test_a_policy_is_asked_only_about_scenes_that_are_not_over():
    asked = []

    class Asked(Plan):
        chunk_size = 40

        def predict_chunk(self, observation):
            asked.append(len(observation["qpos"]))
            if len(asked) == 1:
                self.cubes = observation["env_state"][:, :3].copy()
                self.give_up = self.cubes[:, 0].max() - 1e-4
                self.plans = super().predict_chunk(observation)
            if asked[-1] == 1:  # the one whose cube still lies there
                left = self.cubes[[self.cubes[:, 0].argmax()]]
                seen = observation["env_state"][:, :3]
                np.testing.assert_allclose(seen, left, atol=2e-3)
            start = 40 * (len(asked) - 1)
            times = np.minimum(np.arange(start, start + 40), K - 1)
            return self.plans[-asked[-1] :, times]

    scenes = World(make_task("so100_pick_place"), 2)
    scenes.reset(evaluation_scenes(0, 2))
    seed = 0 if scenes.qpos[1, 6] > scenes.qpos[0, 6] else 1
    if seed:  # the scene that is given up shall be the last row
        scenes.reset(evaluation_scenes(1, 2))
        assert scenes.qpos[1, 6] > scenes.qpos[0, 6]
    result = roll_out(Asked(), 2, seed=seed)
    assert [r.success for r in result.rollouts] == [True, False]
    assert asked == sorted(asked, reverse=True)
    assert set(asked) == {2, 1}


KILLED = """
import sys
from pathlib import Path
import act_minimal.evaluation as evaluation
from act_minimal.sim import PickPlace
from tests.test_evaluation import Stay, roll_out
PickPlace.max_ticks, evaluation.TOGETHER = 40, 2
roll_out(Stay(), 4000, out=Path(sys.argv[1]))
"""


def plain(result: Evaluation) -> dict:
    return replace(result, seconds=0.0, chunk_ms=0.0).to_json()


def test_a_killed_evaluation_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(PickPlace, "max_ticks", 40)
    monkeypatch.setattr(evaluation, "TOGETHER", 2)
    out = tmp_path / "rollouts"
    kill("-c", KILLED, out, ready=lambda: len(list(out.glob("rollouts_*"))) >= 2)
    made = {p: p.stat().st_mtime_ns for p in out.glob("rollouts_*.safetensors")}
    assert 2 <= len(made) < 2000
    n = 2 * len(made) + 4
    result = roll_out(Stay(), n, out=out)
    fresh = roll_out(Stay(), n)
    assert plain(result) == plain(fresh)
    assert result.rollouts == fresh.rollouts
    for a, b in zip(result.rollouts, fresh.rollouts, strict=True):
        assert np.array_equal(a.qpos, b.qpos)
    for path, when in made.items():
        assert path.stat().st_mtime_ns == when, "made again"
    assert not list(out.glob(".*")), "something half-written is left"
    again = roll_out(Stay(), n, out=out)
    assert again == result  # to the second: nothing was rolled out


def test_a_folder_of_rollouts_belongs_to_one_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(PickPlace, "max_ticks", 5)
    roll_out(Stay(), 2, out=tmp_path)
    with pytest.raises(UserError, match=r"rollouts_0_1.*with policy .*another folder"):
        roll_out(Stay(1.0), 2, out=tmp_path)
    other = ExecutionConfig(mode="ensemble")
    with pytest.raises(UserError, match=r"with execution .*ensemble"):
        evaluate(Stay(), execution=other, n=2, out=tmp_path, progress=False)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"rollouts_0_1\.safetensors is damaged"):
        roll_out(Stay(), 2, out=tmp_path)


@pytest.mark.quick
@pytest.mark.parametrize(
    "change",
    [
        *({"activation": "relu"}, {"heads": 2}, {"dropout": 0.3}, {"name": "b"}),
        *({"resizing": None}, {"resizing": Resizing((8, 8), "stretch")}),
        {"action_target": "delta"},
    ],
)
def test_the_same_weights_with_other_settings_are_another_policy(change):
    scale = {key: np.zeros(3, np.float32) for key in ("qpos", "action")}
    statistics = Statistics(scale, {key: x + 1 for key, x in scale.items()})
    one = make_policy("act", statistics, state_dim=3, action_dim=3, chunk_size=4)
    one.resizing = Resizing((8, 8))
    beside = {key: getattr(one, key) for key in ("name", "resizing", "action_target")}
    settings = {key: x for key, x in change.items() if key not in beside}
    other = Policy(replace(one.config, **settings), statistics)
    for key, x in beside.items():
        setattr(other, key, change.get(key, x))
    other.module.load_state_dict(one.module.state_dict())
    assert fingerprint(one) != fingerprint(other)
    same = Policy(one.config, statistics)
    same.resizing = one.resizing
    same.module.load_state_dict(one.module.state_dict())
    assert fingerprint(one) == fingerprint(same.eval())
    pairs = [torch.nn.ModuleDict({"a": p, "b": deepcopy(p)}) for p in (one, other)]
    assert fingerprint(cast(Any, pairs[0])) != fingerprint(cast(Any, pairs[1]))


@dataclass
class OwnSettings:
    """Of a policy that has nothing to do with the package's networks."""

    horizon: int = 3


@pytest.mark.quick
def test_a_policy_of_ones_own_is_known_by_its_settings_too():
    one, other = Stay(), Stay()
    one.config, other.config = OwnSettings(), OwnSettings(4)
    assert fingerprint(cast(Any, one)) != fingerprint(cast(Any, other))


def test_rollouts_of_earlier_versions_are_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(PickPlace, "max_ticks", 5)
    # As it was: a hash of the weights alone.
    digest = hashlib.sha256(b"weight" + Stay().weight.numpy().tobytes())
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "fingerprint", lambda p: digest.hexdigest()[:16])
        roll_out(Stay(), 2, out=tmp_path)
    words = r"with policy \w+, but .*earlier versions did not note .*another folder"
    with pytest.raises(UserError, match=words):
        roll_out(Stay(), 2, out=tmp_path)


@pytest.mark.quick
@pytest.mark.parametrize("other", ["episode_0.hdf5", "model.safetensors", "log.jsonl"])
def test_rollouts_do_not_go_into_a_folder_of_another_kind(tmp_path, other):
    (tmp_path / other).touch()
    with pytest.raises(UserError, match="expected rollouts or an empty folder"):
        roll_out(Stay(), 2, out=tmp_path)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("shape", "cameras", "words"),
    [
        ({"state_dim": 14}, (), "trained with 14 joints, but so100_pick_place has 6"),
        ({"action_dim": 7}, (), "trained with 7 actions, but so100_pick_place has 6"),
        ({"env_state_dim": 3}, (), "trained with 3 numbers of env_state, .* has 7"),
        (
            *({"env_state_dim": 0}, ("top", "cam_high")),
            "camera 'cam_high'.* has the cameras top, wrist",
        ),
    ],
)
def test_a_policy_of_another_shape_is_refused(shape, cameras, words):
    policy = Stay(**shape)
    policy.cameras = cameras
    with pytest.raises(UserError, match=words):
        roll_out(policy)


@pytest.mark.quick
def test_bad_settings_are_refused_before_anything_runs():
    with pytest.raises(SettingError, match="execute is 999, expected at most"):
        evaluate(Stay(), execution=ExecutionConfig(execute=999), n=1)
    with pytest.raises(UserError, match=r"no task 'nope'.*so100_pick_place"):
        evaluate(Stay(), "nope", n=1)


def test_cameras_are_drawn_at_the_size_that_the_policy_wants(monkeypatch):
    monkeypatch.setattr(PickPlace, "max_ticks", 3)

    class Looks(Stay):
        cameras = ("top", "wrist")
        image_sizes: ClassVar = {"top": (48, 64), "wrist": (41, 75)}

        def predict_chunk(self, observation):
            for camera, size in self.image_sizes.items():
                images = observation[f"images/{camera}"]
                assert images.shape == (2, *size, 3)
                assert images.std() > 5
            return super().predict_chunk(observation)

    assert roll_out(Looks(), 2).n == 2
