"""A policy that takes several ticks a prediction drives both arms, which go on."""

import math
import os
import re
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from act_minimal.checkpoint import load_policy
from act_minimal.execution import ExecutionConfig
from act_minimal.support.errors import UserError
from hardware import deployment
from hardware.command.drive import _dry_run_text
from hardware.deployment import SceneJudge, deploy
from hardware.robots import TASKS, VIRTUAL, RobotConfig, make_robot, plugged_in
from hardware.safety.stop import EmergencyStop

from ..clocks import retried

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
TAKES = 0.25  # s a prediction
STATES = {"so100": "so100_pick_place_state", "openarm": "openarm_handover_state"}


class Slow:
    """A policy that takes its time; and after some predictions, does something else."""

    def __init__(self, policy, seconds=TAKES, after=None, then=None):
        self.policy, self.seconds = policy, seconds
        self.left, self.then = after, then

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def predict_chunk(self, *given):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                return self.then(*given)
        time.sleep(self.seconds)
        return self.policy.predict_chunk(*given)


def driven(arm, policy, trials=1, seconds=4.0, mode="fade"):
    """Trials on a virtual arm; the tally, what was said, and the arms at the end."""
    said = []
    config = RobotConfig(VIRTUAL, arm, objects=VIRTUAL)
    with plugged_in(config, TASKS[arm]) as here:
        robot = make_robot(here, {}, EmergencyStop())
        with closing(SceneJudge([here.port], list(range(trials)))) as judge:
            try:
                with closing(robot):
                    robot.connect()
                    tally = deploy(
                        policy,
                        robot,
                        judge,
                        execution=ExecutionConfig(mode),
                        trials=trials,
                        seconds=seconds,
                        say=said.append,
                    )
            except UserError as error:
                tally = error
            seen = [client.look() for client in judge.scene.clients]
    assert not any(any(one["torque"]) for one in seen)
    assert all(one["witness"]["falls"] == 0 for one in seen)
    return tally, said


@pytest.mark.parametrize("arm", STATES)
def test_the_loop_never_waits_for_its_policy(arm):
    policy = Slow(load_policy(CHECKPOINTS / STATES[arm]))
    fps = {"so100": 30, "openarm": 50}[arm]

    def measure():
        tally, said = driven(arm, policy)
        [trial] = tally.trials
        late = trial.late
        assert late["delay"] >= math.floor(TAKES * fps)
        assert late["age"] > late["delay"] / 2
        assert late["age_worst"] <= policy.chunk_size
        assert late["dropped"] == 0
        assert late["seam"] < 1e-6  # faded out
        assert late["holds"] <= late["delay_worst"]  # before its first chunk
        assert trial.timing["jitter_ms_max"] < 1000 * TAKES / 2
        assert re.fullmatch(r"a prediction takes \d+ ticks; the arm goes on.*", said[0])
        for words in ("predictions took", "ticks old", "largest seam", "without an"):
            assert words in said[-1]

    retried(measure, tries=4)


def test_no_chunk_is_asked_for_while_another_is_computed():
    policy = load_policy(CHECKPOINTS / STATES["so100"])
    at_once, most = 0, 0

    class Counting(Slow):
        def predict_chunk(self, *given):
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            try:
                return super().predict_chunk(*given)
            finally:
                at_once -= 1

    tally, _ = driven("so100", Counting(policy, 0.4), trials=2, seconds=1.5)
    assert most == 1
    assert [t.ticks for t in tally.trials] == [45, 45]


def broken(*given):
    raise ZeroDivisionError("one's own")


def not_a_number(observation, *given):
    return np.full((1, 50, 6), np.nan)


def endless(*given):
    time.sleep(3)


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (broken, "ZeroDivisionError: one's own"),
        (not_a_number, "5 chunks in a row hold NaN or infinite actions"),
        (endless, r"a prediction has taken 1\.\d s .* expected at most 1 s"),
    ],
)
def test_a_policy_that_fails_meanwhile_is_one_sentence(then, words, monkeypatch):
    monkeypatch.setattr(deployment, "PATIENCE", 1.0)
    policy = load_policy(CHECKPOINTS / STATES["so100"])
    slow = Slow(policy, 0.05, after=5, then=then)  # four of them measure its delay
    error, said = driven("so100", slow, seconds=30.0)
    assert isinstance(error, UserError), said
    assert re.search(words, str(error)), error
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("worst", "goes_on", "says"),
    [
        (20.0, False, None),
        (250.0, True, None),
        (250.0, False, "7 ticks at each prediction: with --mode fade it goes on"),
        (900.0, False, "26 ticks at each prediction: too many for --mode fade, with"),
    ],
)
def test_a_dry_run_advises_what_will_work(worst, goes_on, says):
    report = {"prediction_ms": {"median": worst, "worst": worst}, "frames": {}}
    report |= {"jump": 0.1, "unfamiliar": []}
    text = _dry_run_text(report, 30.0, goes_on, most=25)
    assert ("stand still" in text) == bool(says)
    assert says is None or says in text


@pytest.mark.parametrize(("dropped", "says"), [(0.0, False), (2.0, True)])
def test_chunks_that_were_dropped_are_said(dropped, says):
    late = dict.fromkeys(("delay", "delay_worst", "age", "age_worst"), 3.0)
    late |= {"seam": 0.1, "holds": 1.0, "dropped": dropped}
    assert (", 2 chunks dropped" in deployment._late_text(late)) == says
