"""`act diagnose --robot`: trials of an arm are kept, and looked through."""

import json
from pathlib import Path

import numpy as np
import pytest

from act_minimal.checkpoint import load_policy, save_policy
from act_minimal.diagnosis.trials import LOOKS
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from hardware.diagnosis import Watched

from ..commands import act

CHECKPOINTS = Path(__file__).parents[2] / "data/checkpoints"


class Arm:
    """A robot that counts; its joints are the tick."""

    def __init__(self):
        self.tick, self.acted = 0, 0

    def observe(self, cameras=()):
        self.tick += 1
        seen = {"qpos": np.full((1, 2), float(self.tick))}
        return seen | {f"images/{c}": np.full((1, 4, 4, 3), self.tick) for c in cameras}

    def act(self, action):
        self.acted += 1
        self.sent = action[0] / 2  # within limits


class Judge:
    def prepare(self, trial):
        self.trial = trial

    def done(self):
        return False

    def verdict(self):
        return self.trial == 1


@pytest.mark.quick
def test_what_a_loop_sees_and_sends_is_kept_trial_by_trial():
    arm = Arm()
    watched = Watched(arm, Judge())
    for trial, ticks in enumerate((3, 12)):
        watched.prepare(trial)
        for i in range(ticks):
            watched.observe(("top",))
            watched.act(np.array([[i, trial]]))
        assert watched.verdict() == (trial == 1)
    watched.prepare(2)  # stopped before its first tick
    first, second = watched.trials([False, True, None])
    assert (first.success, second.success) == (False, True)
    np.testing.assert_array_equal(first.qpos[:, 0], [1, 2, 3])
    np.testing.assert_array_equal(second.qpos[:, 0], np.arange(4, 16))
    np.testing.assert_array_equal(second.action[:, 0], np.arange(12) / 2)
    assert (second.action[:, 1] == 0.5).all()
    assert len(second.images["top"]) == LOOKS
    assert (second.images["top"][0] == 4).all()
    assert watched.tick == arm.tick == 15
    assert arm.acted == 15


def test_a_policy_that_answers_nan_is_let_near_no_arm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = load_policy(CHECKPOINTS / "so100_pick_place_state")
    policy.module.action_head.weight.data[:] = np.nan
    save_policy(tmp_path / "nan", policy, {})
    demos = tmp_path / "demos"
    record(make_task("so100_pick_place"), demos, 2, progress=False)
    code, out, err = act(
        f"diagnose --robot so100 --port nowhere --policy {tmp_path / 'nan'} "
        f"--data {demos} --html why.html --json"
    )
    said = json.loads(out)  # and nothing about a port that is not there
    assert (code, said["findings"][0]["cause"]) == (1, "not_finite"), err
    assert said["rates"] == {}


@pytest.mark.parametrize(
    ("robot", "task", "policy"),
    [
        ("so100", "so100_pick_place", "so100_pick_place_state"),
        ("openarm", "openarm_handover", "openarm_handover_state"),
    ],
)
def test_a_policy_is_diagnosed_on_its_virtual_arm(
    tmp_path, monkeypatch, robot, task, policy
):
    monkeypatch.chdir(tmp_path)
    demos = tmp_path / "demos"
    record(make_task(task), demos, 8, demonstrator="human", progress=False)
    _, out, err = act(
        f"diagnose --robot {robot} --port virtual --policy {CHECKPOINTS / policy} "
        f"--data {demos} --trials 1 --scenes 0 --html why.html --json"
    )
    said = json.loads(out)
    assert "findings" in said, err
    assert said["rates"]["trials"]["n"] == 1
    # How fast an arm follows depends on how busy this machine is; its pose does not.
    excluded = {x["cause"] for x in said["excluded"]}
    assert {"joint_order", "units", "start_pose"} <= excluded
    assert (tmp_path / "why.html").stat().st_size > 10_000
