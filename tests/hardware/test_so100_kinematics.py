"""Lengths and angles of both arms, against vectors and against the simulator."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act_minimal.datasets.embodiment import joint_names
from act_minimal.support.errors import UserError
from hardware.so100.calibration import (
    Calibration,
    Motor,
    load_calibration,
    save_calibration,
)
from hardware.so100.kinematics import ARMS, JOINTS, SO100, SO101

pytestmark = pytest.mark.quick


# Joint angles (rad) and the tip's place (m), from the model the frames come from;
# those of a SO-101 are in test_so101_virtual.py.
TIPS = [
    ((0, 0, 0, 0, 0), (0, -0.484771, 0.096198)),
    ((0, -1.57, 1.57, 1.57, -1.57), (0, -0.238917, 0.075247)),
    ((0, -3.32, 3.11, 1.18, 0), (0, -0.182195, 0.026565)),
    ((0.5, -1.2, 0.9, 0.4, -0.8), (0.184827, -0.383525, 0.242482)),
    ((-1.1, -2, 1.8, -0.6, 1.2), (-0.225396, -0.159921, 0.380760)),
    ((1.5, -0.6, 0.5, 1, 2.2), (0.372478, -0.071614, 0.051587)),
]


@pytest.mark.parametrize(("joints", "tip"), TIPS)
def test_tip_where_the_model_has_it(joints, tip):
    assert SO100.tip_of(np.array(joints)) == pytest.approx(tip, abs=1e-5)


def test_the_so100_here_is_the_one_in_the_simulator():
    import mujoco

    from act_minimal.sim import make_task
    from act_minimal.sim.so100 import arm as so100

    model = make_task("so100_pick_place").model()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(50):
        joints = rng.uniform(*SO100.ranges.T)
        data.qpos[:6] = joints
        mujoco.mj_kinematics(model, data)
        assert SO100.tip_of(joints) == pytest.approx(data.site("tcp").xpos, abs=1e-5)
    assert np.array_equal(SO100.ranges, so100.joint_limits())
    assert list(JOINTS) == joint_names("so100", 6)


def test_many_configurations_at_once():
    joints = np.random.default_rng(1).uniform(-1, 1, (4, 3, 6))
    together = SO101.tip_of(joints)
    assert together.shape == (4, 3, 3)
    assert together[2, 1] == pytest.approx(SO101.tip_of(joints[2, 1]))


# ---------------------------------------------------------------- calibration

ROWS = [(i * 10 - 30, 800 + i, 3200 - 7 * i) for i in range(6)]


def test_the_middle_of_the_sweep_is_the_middle_of_the_range():
    calibration = Calibration.of_ranges(ROWS)
    low = np.array([m.range_min for m in calibration.motors.values()])
    high = np.array([m.range_max for m in calibration.motors.values()])
    state = calibration.state_of((low + high) / 2, SO100)
    assert state[:5] == pytest.approx(SO100.middle[:5])
    assert state[5] == pytest.approx(0.5)


def test_signs_and_units():
    calibration = Calibration.of_ranges(ROWS)
    middle = calibration.steps_of(np.append(SO100.middle[:5], 0.5), SO100)
    ahead = calibration.state_of(middle + 1024, SO100)  # a quarter turn
    turned = ahead[:5] - SO100.middle[:5]
    assert turned == pytest.approx(np.radians([-90, 90, 90, 90, 90]), abs=2e-3)
    speed = calibration.velocity_of(np.full(6, 4096.0), SO100)
    assert speed[:2] == pytest.approx([-2 * np.pi, 2 * np.pi])


@given(st.lists(st.integers(0, 4095), min_size=6, max_size=6), st.integers(0, 1))
def test_steps_come_back(steps, mode):
    calibration = Calibration.of_ranges(ROWS)
    motors = {
        name: Motor(m.id, mode, m.homing_offset, m.range_min, m.range_max)
        for name, m in calibration.motors.items()
    }
    calibration = Calibration(motors)
    for arm in ARMS.values():
        low = [m.range_min for m in motors.values()]
        high = [m.range_max for m in motors.values()]
        there = calibration.state_of(np.array(steps), arm)
        assert np.array_equal(
            calibration.steps_of(there, arm), np.clip(steps, low, high)
        )


def test_the_file_is_lerobots_byte_for_byte(tmp_path):
    calibration = Calibration.of_ranges(ROWS)
    save_calibration(tmp_path / "a.json", calibration)
    text = (tmp_path / "a.json").read_text()
    content = json.loads(text)
    assert text == json.dumps(content, indent=4)
    pan = {"id": 1, "drive_mode": 0, "homing_offset": -30}
    assert content["shoulder_pan"] == pan | {"range_min": 800, "range_max": 3200}
    assert content["wrist_roll"]["range_max"] == 4095
    assert load_calibration(tmp_path / "a.json") == calibration


def broken(change):
    content = Calibration.of_ranges(ROWS).to_json()
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no motors, expected: shoulder_pan"),
        (broken(lambda c: c.pop("gripper")), "expected: shoulder_pan"),
        (broken(lambda c: c["gripper"].pop("id")), "gripper is .*expected the keys id"),
        (broken(lambda c: c["gripper"].update(id=1.5)), "id is 1.5, expected a whole"),
        (broken(lambda c: c["gripper"].update(id=1)), "two motors have the same id"),
        (broken(lambda c: c["gripper"].update(range_min=3300)), "range is 3300 to"),
        (
            broken(lambda c: c["elbow_flex"].update(homing_offset=2048)),
            "elbow_flex: homing_offset is 2048, expected at most 2047",
        ),
        (broken(lambda c: c["gripper"].update(drive_mode=2)), "drive_mode is 2"),
    ],
)
def test_a_bad_file_is_named_with_motor_and_key(tmp_path, text, says):
    path = tmp_path / "arm.json"
    path.write_text(text)
    with pytest.raises(UserError, match=says) as error:
        load_calibration(path)
    assert str(path) in str(error.value)


def test_a_missing_file_says_what_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"no such calibration file.*act calibrate"):
        load_calibration(tmp_path / "none.json")
