"""Each check of data and training, on numbers made for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from act_minimal.dataset import Demonstrations
from act_minimal.diagnosis import (
    data_checks,
    policy_checks,
    training_checks,
    trial_checks,
)
from act_minimal.diagnosis.evidence import Evidence, sample
from act_minimal.diagnosis.findings import Finding, Passed, Skipped
from act_minimal.diagnosis.trials import Trials
from act_minimal.episodes import Episode, episode_path, save_episode
from act_minimal.execution import ExecutionConfig

from ..test_policy import E as OBJECTS
from ..test_policy import S as JOINTS
from ..test_policy import policy

pytestmark = pytest.mark.quick

EPISODES = 12


@pytest.fixture
def demos(tmp_path):
    """Twelve demonstrations, each to another goal, which the state tells."""
    rng = np.random.default_rng(0)
    for i in range(EPISODES):
        goal = rng.uniform(-1, 1, JOINTS)
        way = (1 - np.cos(np.linspace(0, np.pi, 60))) / 2
        action = way[:, None] * goal
        qpos = np.concatenate([action[:1]] * 2 + [action[:-2]])
        episode = Episode(
            qpos=qpos.astype(np.float32),
            qvel=np.zeros((60, JOINTS), np.float32),
            effort=np.zeros((60, JOINTS), np.float32),
            action=action.astype(np.float32),
            env_state=np.tile(np.resize(goal, OBJECTS), (60, 1)).astype(np.float32),
            fps=30.0,
            attributes={"success": True},
        )
        save_episode(episode_path(tmp_path, i), episode)
    return Demonstrations.load(tmp_path)


def evidence(demos, **more):
    one = policy(**more.pop("model", {}))
    return Evidence(one.eval(), demos, sample(demos, one.chunk_size, ()), **more)


def only(check, e):
    [found] = list(check(e))
    return found


def test_demonstrations_that_are_well_pass(demos):
    e = evidence(demos)
    for check in (data_checks.failures, data_checks.timing, data_checks.variety):
        assert isinstance(only(check, e), Passed), check
    assert "+2 (joint 0)" in only(data_checks.timing, e).measured


def test_failures_count_by_their_mark_or_by_their_end(demos):
    e = evidence(demos)
    demos.attributes[3] = {"success": False}
    found = only(data_checks.failures, e)
    assert (found.cause, found.level) == ("failed_episodes", "note")
    assert "1 of 12 marked as failures" in found.measured
    demos.attributes[4] = demos.attributes[5] = {"success": False}
    assert only(data_checks.failures, e).level == "wrong"
    for i in (3, 4, 5):
        demos.attributes[i] = {"success": True}
    one = demos.action[:60] / demos.action[59]  # all go to 1
    demos.action = np.tile(one, (EPISODES, 1))
    assert isinstance(only(data_checks.failures, e), Passed)
    demos.lengths = demos.lengths.copy()
    demos.lengths[5] = 20  # and one ends halfway
    found = only(data_checks.failures, e)
    assert isinstance(found, Finding)
    assert "(episode_5.hdf5)" in found.measured


def test_a_joint_that_moves_before_its_command_is_named(demos):
    demos.action = demos.action.copy()
    for start, length in zip(demos.starts, demos.lengths, strict=True):
        cut = slice(start, start + length)
        told = demos.action[cut, 1]
        demos.action[cut, 1] = np.concatenate([np.repeat(told[:1], 5), told[:-5]])
    found = only(data_checks.timing, evidence(demos))
    assert (found.cause, found.level) == ("joint_timing", "wrong")
    assert "-3 (joint 1)" in found.measured


def test_starts_are_counted(demos):
    demos.env_state = demos.env_state.copy()
    for i, start in enumerate(demos.starts):
        demos.env_state[start] = demos.env_state[demos.starts[i % 2]] + 0.01 * i / 12
    found = only(data_checks.variety, evidence(demos))
    assert (found.cause, found.level) == ("few_scenes", "wrong")
    assert found.measured == "2 different starts in 12 demonstrations"


def test_demonstrations_that_begin_alike_and_part_are_two_styles(demos):
    e = evidence(demos)
    assert isinstance(only(data_checks.styles, e), Passed)
    demos.env_state = np.zeros_like(demos.env_state)  # now nothing tells them apart
    found = only(data_checks.styles, e)
    assert (found.cause, found.level) == ("two_styles", "note")


# --- training -------------------------------------------------------------------------


def test_a_backbone_that_learns_faster_is_named(demos):
    e = evidence(demos, settings={"lr": 1e-3, "backbone_lr": 0.1})
    assert isinstance(only(training_checks.rates, e), Passed)  # it has no cameras
    e = evidence(demos, settings=e.settings, model={"cameras": ("top",)})
    found = only(training_checks.rates, e)
    assert (found.cause, found.level) == ("learning_rate", "wrong")
    assert found.rank == pytest.approx(10)
    assert isinstance(only(training_checks.rates, evidence(demos)), Skipped)


@pytest.mark.parametrize(("end", "kind"), [(0.9, Passed), (1.5, Finding)])
def test_a_validation_loss_that_rises_again_is_seen(demos, end, kind):
    losses = (1.0, 0.8, 0.7, end * 0.7)
    log = [{"step": 10 * i, "val_l1": x} for i, x in enumerate(losses)]
    e = evidence(demos, log=log)
    outcomes = [x for x in training_checks.validation(e) if "validation" in x.measured]
    assert [type(x) for x in outcomes] == [kind]


def test_few_updates_are_named_where_the_error_is_high(demos):
    e = evidence(demos, settings={"steps": 20, "batch_size": 8})
    e.policy.card = {}
    assert e.train_error > 0.35  # it is not trained at all
    found = only(training_checks.updates, e)
    assert (found.cause, found.level) == ("too_few_updates", "wrong")
    assert "each frame seen about 0.2 times" in found.measured
    many = replace_settings(e, steps=20_000)
    assert isinstance(only(training_checks.updates, many), Passed)


def replace_settings(e, **changed):
    return replace(e, settings=e.settings | changed)


def test_a_chunk_as_long_as_an_episode_is_named(demos):
    assert isinstance(only(training_checks.chunk, evidence(demos)), Passed)
    e = evidence(demos, model={"chunk_size": 60})
    assert only(training_checks.chunk, e).level == "suspect"


# --- the policy -----------------------------------------------------------------------


def test_nan_in_the_weights_is_found(demos):
    e = evidence(demos)
    assert isinstance(only(policy_checks.finite, e), Passed)
    e = evidence(demos)
    e.policy.module.action_head.weight.data[:] = np.nan
    assert isinstance(only(policy_checks.finite, e), Finding)


def test_the_likely_order_is_that_of_the_statistics(demos):
    e = evidence(demos)
    scale = e.policy.scale("qpos")
    order = np.roll(np.arange(JOINTS), 1)
    right = demos.qpos[:, order]
    scale.mean[:] = scale.mean.new_tensor(right.mean(0))
    scale.std[:] = scale.std.new_tensor(right.std(0))
    assert policy_checks.likely_order(e).tolist() == order.tolist()
    scale.mean[:] = scale.mean.new_tensor(demos.qpos.mean(0))
    scale.std[:] = scale.std.new_tensor(demos.qpos.std(0))
    assert policy_checks.likely_order(e) is None


def test_a_deviation_below_the_floor_is_named(demos):
    e = evidence(demos)
    e.policy.scale("env_state").std[1] = 1e-5
    found = [x for x in policy_checks.floor(e) if isinstance(x, Finding)]
    assert [x.level for x in found] == ["wrong"]
    assert "env_state" in found[0].measured


# --- execution ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "order", "kind"),
    [
        (0.01, "oldest_first", Passed),  # the paper's
        (0.01, "newest_first", Passed),  # nearly the plain mean, too
        (0.3, "newest_first", Finding),
        (0.0, "oldest_first", Passed),
        (2.0, "oldest_first", Finding),  # the oldest alone
        (-2.0, "oldest_first", Finding),  # the newest alone
    ],
)
def test_weights_of_an_ensemble_that_are_not_the_papers_are_seen(demos, m, order, kind):
    run = ExecutionConfig("ensemble", m=m, order=order)
    e = evidence(demos, model={"chunk_size": 50})
    outcome = only(trial_checks.ensemble, Trials(e, execution=run))
    assert isinstance(outcome, kind), outcome


def test_statistics_of_other_data_are_named_with_their_joint(demos):
    e = evidence(demos)
    for key, array in (("qpos", demos.qpos), ("action", demos.action)):
        scale = e.policy.scale(key)
        scale.mean.copy_(torch.from_numpy(array.mean(0)))
        scale.std.copy_(torch.from_numpy(array.std(0)))
    assert [type(x) for x in policy_checks.statistics(e)] == [Passed, Passed]
    e.policy.scale("action").std[1] *= 6
    found = list(policy_checks.statistics(e))
    assert [type(x) for x in found] == [Passed, Finding]
    assert "action of joint 1" in found[1].measured
    e.policy.scale("action").std[1] /= 6
    e.policy.scale("qpos").mean[0] += 2 * e.policy.scale("qpos").std[0]
    found = list(policy_checks.statistics(e))
    assert "qpos of joint 0" in found[0].measured
