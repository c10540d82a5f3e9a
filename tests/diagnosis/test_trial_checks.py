"""Checks of trials, on trials made for them."""

import numpy as np
import pytest

from act_minimal.dataset import Demonstrations
from act_minimal.diagnosis import (
    data_checks,
    policy_checks,
    start_checks,
    trial_checks,
)
from act_minimal.diagnosis.evidence import Evidence, sample
from act_minimal.diagnosis.findings import Finding, Passed, Skipped
from act_minimal.diagnosis.trials import Trial, Trials, phases
from act_minimal.episodes import Episode, episode_path, save_episode

from ..test_policy import SIZE, policy
from ..test_policy import E as OBJECTS
from ..test_policy import S as JOINTS

pytestmark = pytest.mark.quick

T = 60


def motion(goal):
    """qpos and action (T, S) of a way to a goal (S,), two ticks behind."""
    action = ((1 - np.cos(np.linspace(0, np.pi, T))) / 2)[:, None] * goal
    return np.concatenate([action[:1]] * 2 + [action[:-2]]), action


def picture(shift=0, light=1.0):
    """An image (H, W, 3) of a bright square on a grey ground."""
    image = np.full((*SIZE, 3), 90.0)
    image[4:12, 4 + shift : 12 + shift] = 220
    return np.clip(image * light, 0, 255).astype(np.uint8)


@pytest.fixture
def evidence(tmp_path):
    """Twelve demonstrations with two cameras: one sees a square, one is plain."""
    rng = np.random.default_rng(0)
    for i in range(12):
        goal = rng.uniform(0.5, 1, JOINTS)
        qpos, action = motion(goal)
        images = {
            "top": np.array([picture()] * T),
            "wrist": np.full((T, *SIZE, 3), 30, np.uint8),
        }
        episode = Episode(
            qpos=qpos.astype(np.float32),
            qvel=np.zeros((T, JOINTS), np.float32),
            effort=np.zeros((T, JOINTS), np.float32),
            action=action.astype(np.float32),
            env_state=np.tile(rng.uniform(0, 1, OBJECTS), (T, 1)).astype(np.float32),
            images=images,
            fps=30.0,
        )
        save_episode(episode_path(tmp_path, i), episode, compression="raw")
    demos = Demonstrations.load(tmp_path)
    one = policy(cameras=("top", "wrist"))
    return Evidence(one.eval(), demos, sample(demos, 5, one.cameras))


def trial(success=True, top=None, wrist=30, start=None, goal=1.0, late=0):
    qpos, action = motion(np.full(JOINTS, goal))
    qpos = np.concatenate([qpos[:1]] * late + [qpos[: T - late]])
    images = {
        "top": (picture() if top is None else top)[None],
        "wrist": np.full((1, *SIZE, 3), wrist, np.uint8),
    }
    return Trial(qpos, action, images, start, success)


def outcomes(check, trials):
    """{cause: its outcome}, the last one of each."""
    return {x.cause: x for x in check(trials)}


def test_cameras_that_see_what_they_saw_pass(evidence):
    found = outcomes(start_checks.cameras, Trials(evidence, [trial()]))
    assert {"camera_swap", "light", "camera_moved"} == found.keys()
    assert all(isinstance(x, Passed) for x in found.values())


def test_exchanged_dark_and_moved_cameras_are_told_apart(evidence):
    plain = np.full((*SIZE, 3), 30, np.uint8)
    swapped = trial(top=plain)
    swapped.images["wrist"] = picture()[None]
    found = list(start_checks.cameras(Trials(evidence, [swapped])))
    assert [(x.cause, type(x)) for x in found] == [("camera_swap", Finding)]
    dark = list(start_checks.cameras(Trials(evidence, [trial(top=picture(0, 0.5))])))
    named = {(x.cause, x.level) for x in dark if isinstance(x, Finding)}
    assert named == {("light", "wrong")}
    covered = start_checks.cameras(Trials(evidence, [trial(top=0 * plain)]))
    assert "light" in {x.cause for x in covered if isinstance(x, Finding)}
    moved = list(start_checks.cameras(Trials(evidence, [trial(top=picture(12))])))
    assert [x.cause for x in moved if isinstance(x, Finding)] == ["camera_moved"]


def test_success_on_known_scenes_alone_is_memorised(evidence):
    well, bad = [trial()] * 20, [trial(success=False)] * 20
    found = outcomes(trial_checks.known_scenes, Trials(evidence, bad, well))
    assert isinstance(found["memorised"], Finding)
    found = outcomes(trial_checks.known_scenes, Trials(evidence, well, well))
    assert isinstance(found["memorised"], Passed)
    found = outcomes(trial_checks.known_scenes, Trials(evidence, bad[:2], well[:2]))
    assert isinstance(found["memorised"], Passed)  # two scenes show nothing
    found = outcomes(trial_checks.known_scenes, Trials(evidence, bad))
    assert isinstance(found["memorised"], Skipped)


def test_failures_far_from_all_demonstrations_are_uncovered(evidence):
    there = evidence.demos.env_state[evidence.demos.starts]
    near = [trial(start=x) for x in there[:6]]
    far = [trial(success=False, start=x + 3) for x in there[:6]]
    found = outcomes(trial_checks.coverage, Trials(evidence, near + far))
    assert isinstance(found["uncovered"], Finding)
    found = outcomes(trial_checks.coverage, Trials(evidence, near + far[:1]))
    assert isinstance(found["uncovered"], Passed)  # one failure shows nothing


def test_an_arm_that_follows_later_is_told_from_one_that_is_slower(evidence):
    again = Trials(evidence, replayed=[trial(late=3)] * 4)
    found = outcomes(trial_checks.timing, again)
    assert (found["late_observation"].cause, type(found["rate"])) == (
        "late_observation",
        Passed,
    )
    assert isinstance(found["late_observation"], Finding)
    assert found["late_observation"].level == "wrong"
    found = outcomes(trial_checks.timing, Trials(evidence, [trial(late=3)] * 4))
    assert found["late_observation"].level == "suspect"  # it is no replay
    found = outcomes(trial_checks.timing, Trials(evidence, replayed=[trial()] * 4))
    assert all(isinstance(x, Passed) for x in found.values())
    known = Trials(evidence, replayed=[trial(late=3)] * 4, explained="units")
    found = outcomes(trial_checks.timing, known)
    assert all(isinstance(x, Skipped) for x in found.values())


def test_phases_are_those_of_the_grippers_of_failed_trials():
    def failed(*opening):
        action = np.array(opening, float)[:, None]
        return Trial(action, action, success=False)

    trials = [
        failed(0.3, 0.7, 0.7),
        failed(0.3, 0.7, 0.1, 0.1),
        failed(0.3, 0.7, 0.1, 0.7),
        failed(0.7, 0.1, 0.7),
        Trial(np.zeros((3, 1)), np.array([[0.7], [0.1], [0.1]]), success=None),
        Trial(np.zeros((3, 1)), np.array([[0.7], [0.1], [0.1]]), success=True),
    ]
    assert phases(trials, [0]) == {
        "before a gripper closed": 1,
        "with a gripper closed": 1,
        "after a gripper opened again": 2,
    }


def test_a_start_in_another_pose_is_named_with_its_joint(evidence):
    off = trial()
    off.qpos = off.qpos + 0.5 * np.eye(JOINTS)[1]
    found = outcomes(start_checks.starts, Trials(evidence, [off] * 3))
    assert found["start_pose"].level == "suspect"
    assert "joint 1 begins at 0.50" in found["start_pose"].measured
    found = outcomes(start_checks.starts, Trials(evidence))  # stopped before a tick
    assert all(isinstance(x, Skipped) for x in found.values())
    found = outcomes(start_checks.starts, Trials(evidence, [trial()] * 3))
    assert all(isinstance(x, Passed) for x in found.values())


def test_cameras_that_were_moved_between_demonstrations_are_mixed(evidence):
    [top, wrist] = data_checks.cameras(evidence)
    assert isinstance(top, Passed)
    assert isinstance(wrist, Passed)
    images = evidence.frames.observation["images/top"]
    for i in evidence.frames.first[::2]:
        images[i] = 255 - images[i]
    [top, wrist] = data_checks.cameras(evidence)
    assert (top.cause, top.level) == ("mixed_cameras", "suspect")
    assert "first images of top" in top.measured
    assert isinstance(wrist, Passed)


def looks_at(evidence, *cameras):
    """The policy answers rightly, but for how bright these cameras' images are."""
    frames = evidence.frames
    for key in (f"images/{camera}" for camera in evidence.policy.cameras):
        frames.observation[key] = np.random.default_rng(0).integers(
            0, 256, frames.observation[key].shape, dtype=np.uint8
        )
        # Each frame in a light of its own, which an answer can depend on.
        light = np.linspace(0.2, 1, len(frames))[:, None, None, None]
        frames.observation[key] = (frames.observation[key] * light).astype(np.uint8)

    def predict(some, alter=None):
        seen = alter(some.observation) if alter else some.observation
        wrong = np.full(len(some), 0.01)
        for key in (f"images/{camera}" for camera in cameras):
            mean = [x[key].mean((1, 2, 3)) for x in (seen, some.observation)]
            wrong += np.abs(mean[0] - mean[1]) / 50
        return some.action + wrong[:, None, None]

    evidence.predict = predict


def test_a_camera_that_makes_no_difference_is_named(evidence):
    looks_at(evidence, "top", "wrist")
    found = [type(x) for x in policy_checks.use_of_inputs(evidence)]
    assert found == [Passed] * 3
    looks_at(evidence, "wrist")
    top, wrist, all_ = policy_checks.use_of_inputs(evidence)
    assert (top.cause, top.level) == ("camera_unused", "note")
    assert "camera top" in top.step
    assert isinstance(wrist, Passed)
    assert isinstance(all_, Passed)
    looks_at(evidence)
    *each, all_ = policy_checks.use_of_inputs(evidence)
    assert [x.cause for x in each] == ["camera_unused"] * 2
    assert (all_.cause, all_.level) == ("state_only", "suspect")


def test_an_arm_that_stands_still_or_shakes_is_noted(evidence):
    well = [trial()] * 4
    found = outcomes(trial_checks.motion, Trials(evidence, well))
    assert isinstance(found["stands_still"], Passed)
    assert isinstance(found["jerk"], Passed)
    waits = trial(success=False)
    waits.qpos = np.concatenate([waits.qpos[:1]] * 200 + [waits.qpos])
    found = outcomes(trial_checks.motion, Trials(evidence, [waits] * 4))
    assert isinstance(found["stands_still"], Finding)
    waits.success = True  # whoever succeeds may wait
    found = outcomes(trial_checks.motion, Trials(evidence, [waits] * 4))
    assert isinstance(found["stands_still"], Passed)
    shakes = trial()
    shakes.qpos = shakes.qpos + 0.02 * (-1.0) ** np.arange(T)[:, None]
    found = outcomes(trial_checks.motion, Trials(evidence, [shakes] * 4))
    assert isinstance(found["jerk"], Finding)
    found = outcomes(trial_checks.motion, Trials(evidence))
    assert all(isinstance(x, Skipped) for x in found.values())
