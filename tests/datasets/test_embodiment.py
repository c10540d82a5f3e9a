"""What a card says of its arm is compared with the arm: rate, joints, order, units."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act_minimal.checkpoint import load_policy, save_policy
from act_minimal.command import main as cli
from act_minimal.dataset import Demonstrations
from act_minimal.datasets.embodiment import (
    arm_attributes,
    arm_of,
    check_card,
    expect_card,
    joint_names,
)
from act_minimal.episodes import episode_path, load_episode, save_episode
from act_minimal.evaluation import evaluate
from act_minimal.exchange.lerobot_policy import export_policy, import_policy
from act_minimal.settings import TrainConfig
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from act_minimal.support.errors import SettingError, UserError
from act_minimal.training import train
from hardware.command import drive
from hardware.deployment import check_fit
from hardware.openarm.arm import OpenArm
from hardware.robots import RobotConfig, make_robot
from hardware.safety.safe_robot import SafeRobot, so100_limits
from hardware.safety.stop import EmergencyStop
from hardware.so100.arm import SO100

from ..commands import act
from ..hardware.fake_arm import Clock, FakeArm
from ..made_up import random_episode

pytestmark = pytest.mark.quick

STATE = Path(__file__).parents[2] / "data/checkpoints/so100_pick_place_state"
SO100_JOINTS = joint_names("so100", 6)
OPENARM_JOINTS = joint_names("openarm", 16)
CARD = {"fps": 30.0, "robot": "so100", "joints": SO100_JOINTS, "units": "rad"}
SWAPPED = [*SO100_JOINTS[1::-1], *SO100_JOINTS[2:]]


def test_names_are_those_of_the_arms():
    assert SO100_JOINTS[0] == "shoulder_pan"
    assert OPENARM_JOINTS[::8] == ["right_joint_1", "left_joint_1"]
    assert OPENARM_JOINTS[7::8] == ["right_gripper", "left_gripper"]
    assert list(SO100.joints) == SO100_JOINTS == joint_names("so101", 6)
    assert list(OpenArm.joints) == OPENARM_JOINTS
    assert (make_task("openarm_handover").robot, OpenArm.name) == 2 * ("openarm",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fps": 10.0}, "at 10 Hz, .* 30 Hz, so it would move 3 times as fast; --fps"),
        ({"fps": 50}, "at 50 Hz, .* move 0.6 times as fast"),
        ({"joints": SWAPPED}, "joints are shoulder_lift, shoulder_pan, .* in this ord"),
        ({"joints": SO100_JOINTS[:5]}, "policy's joints are"),
        ({"units": "degrees"}, "in 'degrees', as its card says, expected 'rad'"),
        ({"robot": "so101"}, "taught on a so101, .* this arm is a so100"),
    ],
)
def test_what_differs_is_refused(change, words):
    check_card(CARD, 30.0, "so100", SO100_JOINTS)
    with pytest.raises(UserError, match=words):
        check_card(CARD | change, 30.0, "so100", SO100_JOINTS)


def test_what_is_not_said_is_not_compared():
    check_card({}, 30.0, "so100", SO100_JOINTS)
    check_card(CARD, 30.0)
    check_card(CARD | {"robot": "somebody's"}, 30.0, "so100", SO100_JOINTS)


@pytest.mark.parametrize("fps", ["30", [30.0], True, 0, -3, float("inf"), {}])
def test_a_rate_that_is_no_rate_is_refused(fps):
    with pytest.raises(UserError, match=r"'fps' in card\.json is .* positive number"):
        expect_card({"fps": fps}, Path("card.json"))


@pytest.mark.parametrize(
    "card", [{"joints": "a, b"}, {"joints": [1, 2]}, {"units": 3}, {"robot": ["x"]}]
)
def test_names_that_are_none_are_refused(card):
    with pytest.raises(UserError, match=r"in card\.json is .*, expected a "):
        expect_card(card, Path("card.json"))


def copied(folder, **card):
    """The state policy, with another card."""
    shutil.copytree(STATE, folder)
    content = json.loads((STATE / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps(content | card), encoding="utf-8")
    return folder


def test_a_policy_knows_its_card_and_works_without(tmp_path):
    folder = copied(tmp_path / "policy", fps=10)
    assert load_policy(folder).card["fps"] == 10
    (folder / "card.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"card\.json cannot be read as JSON"):
        load_policy(folder)
    (folder / "card.json").unlink()
    assert load_policy(folder).card == {}


def test_eval_refuses_another_rate_and_fps_says_otherwise(tmp_path, capsys):
    folder = copied(tmp_path / "policy", fps=10)
    with pytest.raises(UserError, match=r"taught at 10 Hz.*ticks at 30 Hz"):
        evaluate(load_policy(folder), n=1)
    line = ["eval", "--policy", str(folder), "--n", "1", "--json"]
    for more, code in (([], 1), (["--fps", "20"], 1), (["--fps", "30"], 0)):
        with pytest.raises(SystemExit) as ended:
            cli.main([*line, *more])
        assert ended.value.code == code
    assert "--fps says otherwise" in capsys.readouterr().err


def test_eval_refuses_another_arm(tmp_path):
    for change in ({"joints": SWAPPED}, {"units": "degrees"}, {"robot": "so101"}):
        folder = copied(tmp_path / "-".join(change), **change)
        with pytest.raises(UserError, match="as its card says"):
            evaluate(load_policy(folder), n=1)


class Poses:
    """A tracker of one object."""

    source = "a tracker"

    def look(self):
        return np.zeros(7, np.float32)

    def open(self):
        pass

    read, close = look, open


@pytest.mark.parametrize(
    ("change", "words"),
    [({"fps": 10}, "taught at 10 Hz"), ({"joints": SWAPPED}, "in this order")],
)
def test_an_arm_is_compared_with_the_card(tmp_path, monkeypatch, change, words):
    arm = FakeArm(so100_limits(), Clock(monkeypatch), joints=SO100_JOINTS)
    arm.fps = 30.0
    tracker: object = Poses()
    robot = SafeRobot(arm, arm.limits, tracker=tracker)  # type: ignore[arg-type]
    check_fit(load_policy(STATE), robot)  # an older card names no joints
    policy = load_policy(copied(tmp_path / "policy", **change))
    with pytest.raises(UserError, match=words):
        check_fit(policy, robot)


@pytest.mark.parametrize("given", [10.0, 30.0])
def test_fps_on_an_arm_stands_in_for_the_card(monkeypatch, given):
    said, card = [], {"fps": 10}
    drive._say_rate(card, given, given, said.append)
    check_card(card, given)
    assert len(said) == (given != 10)
    assert "taught at 10 Hz, driven at 30 Hz" in "".join(said) or given == 10
    drive._say_rate({}, None, 30.0, said.append)
    assert said[-1] == "the policy's card names no rate; this loop ticks at 30 Hz"


def test_deploy_takes_the_rate_that_fps_says(tmp_path, monkeypatch):
    """A policy of 10 Hz on an arm of 30 Hz is refused, unless --fps says so."""

    def plugged(config, *_):
        arm = FakeArm(so100_limits(), Clock(monkeypatch), joints=SO100_JOINTS)
        arm.fps = config.fps or 30.0
        tracker: Any = Poses()
        return SafeRobot(arm, arm.limits, tracker=tracker)

    monkeypatch.setattr("hardware.robots.make_robot", plugged)
    folder = copied(tmp_path / "policy", fps=10)
    line = f"deploy --policy {folder} --port nowhere --dry-run"
    code, _, err = act(line)
    assert (code, "taught at 10 Hz" in err) == (1, True)
    code, out, err = act(line, "--fps 30")
    assert (code, err) == (0, "")
    assert "taught at 10 Hz, driven at 30 Hz: --fps says so" in out
    assert "nothing of the policy was sent" in out


@pytest.mark.parametrize(("robot", "usual"), [("so100", 30), ("openarm", 50)])
def test_fps_is_the_arms_rate(tmp_path, robot, usual):
    config = RobotConfig("none" if robot == "so100" else "can0,can1", robot)
    assert make_robot(config, (96, 128), EmergencyStop()).fps == usual
    slow = make_robot(replace(config, fps=10.0), (96, 128), EmergencyStop())
    assert (slow.fps, slow.arm.ticker.rate, slow.governor.period) == (10, 10, 0.1)
    with pytest.raises(SettingError, match="fps is 0"):
        make_robot(replace(config, fps=0.0), (96, 128), EmergencyStop())


def test_simulated_recordings_say_which_arm_they_are_of(tmp_path):
    [path] = record(make_task("so100_pick_place"), tmp_path, 1, progress=False)
    said = load_episode(path).attributes
    assert (said["robot"], said["units"]) == ("so100", "rad")
    assert json.loads(str(said["joints"])) == SO100_JOINTS


def test_a_training_run_hands_on_what_its_data_say(tmp_path):
    for i in range(2):
        about = arm_attributes("so100", SO100_JOINTS, "rad") if i else {}
        save_episode(
            episode_path(tmp_path / "data", i), random_episode(12, attributes=about)
        )
    small = {"steps": 1, "chunk_size": 4, "batch_size": 2, "threads": 1}
    config = TrainConfig(tmp_path / "data", tmp_path / "run", **small)
    policy = load_policy(train(config, progress=False).folder)
    assert {k: policy.card[k] for k in CARD} == CARD
    check_card(policy.card, 30.0, "so100", SO100_JOINTS)


@pytest.mark.parametrize("key", ["robot", "units", "joints"])
def test_data_of_two_arms_are_refused(tmp_path, key):
    about: dict = arm_attributes("so100", SO100_JOINTS, "rad")
    other = {"joints": json.dumps(SWAPPED)}.get(key, "other")
    save_episode(episode_path(tmp_path, 0), random_episode(12, attributes=about))
    save_episode(
        episode_path(tmp_path, 1), random_episode(12, attributes=about | {key: other})
    )
    with pytest.raises(UserError, match=rf"episode_1\.hdf5 has {key} .*episode_0.hdf5"):
        Demonstrations.load(tmp_path)


@pytest.mark.parametrize("joints", ["a,b", '["a"]', "3", '{"a": 1}'])
def test_joints_that_are_no_list_of_names_are_refused(joints):
    with pytest.raises(UserError, match=r"a\.hdf5: joints is .* JSON list of 6 joi"):
        arm_of({"a.hdf5": {"joints": joints}}, 6)


def test_exchange_keeps_what_the_card_says(tmp_path):
    policy = load_policy(STATE)
    ours = save_policy(tmp_path / "ours", policy, policy.card | CARD)
    there, _ = export_policy(ours, tmp_path / "same", drop_cvae=True)
    back = load_policy(import_policy(there, tmp_path / "back"))
    assert {k: back.card[k] for k in CARD} == CARD
    with pytest.raises(SettingError, match="joints are in rad already"):
        import_policy(there, tmp_path / "twice", units="so100")
    there, _ = export_policy(ours, tmp_path / "degrees", units="so100", drop_cvae=True)
    kept = load_policy(import_policy(there, tmp_path / "kept"))
    with pytest.raises(UserError, match="in 'degrees'"):
        check_card(kept.card, 30.0, "so100", SO100_JOINTS)
    back = load_policy(import_policy(there, tmp_path / "again", units="so100"))
    assert {k: back.card[k] for k in CARD} == CARD


def test_an_onnx_file_keeps_it_too(tmp_path):
    pytest.importorskip("onnxruntime")
    from act_minimal.exchange.onnx import OnnxPredictor, export_onnx

    policy = load_policy(STATE)
    ours = save_policy(tmp_path / "ours", policy, policy.card | CARD)
    about = OnnxPredictor(export_onnx(ours, tmp_path / "policy.onnx").path).about
    assert {k: about[k] for k in CARD} == CARD
