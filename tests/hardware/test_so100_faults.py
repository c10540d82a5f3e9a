"""The fault campaign of the SO-100: its judge against made-up arms."""

import copy
import json

import pytest

from benchmarks.arms.campaign import row_of
from benchmarks.arms.so100_faults import OVERSHOOT, SO100Trial
from hardware.safety.safe_robot import so100_limits

from .virtual_arms import so100_in_memory


class Scene:
    """Of a virtual arm in memory."""

    def __init__(self, virtual):
        self.virtual = virtual

    def ask(self, forget):
        self.virtual.witness = type(self.virtual.witness)()

    def faults(self, **switches):
        assert not switches

    def look(self):
        return json.loads(json.dumps({"witness": self.virtual.witness.to_json()}))


@pytest.fixture
def trial(tmp_path):
    virtual, robot = so100_in_memory(tmp_path, so100_limits())
    return SO100Trial(tmp_path, robot, Scene(virtual), {})


def test_the_judge_sees_what_goes_wrong(trial):
    row = row_of("deploy", trial)
    good = {"safe": True, "inside_joint_limits": True, "falls": 0, "pressed_for": 0}
    assert row == row | good | {"said": "", "landing": "", "crash": ""}
    assert row["fastest"] > 0.3  # it did move
    assert row["farthest_pull"] > 0
    seen, limits = trial.scene.look(), trial.robot.limits

    def is_safe(key, place, value):
        changed = copy.deepcopy(seen)
        if place is None:
            changed["witness"][key] = value
        else:
            changed["witness"][key][place] = value
        return trial.judge("deploy", changed, "")["safe"]

    for key, place, most, more in (
        ("lowest", 1, limits.low[1] - OVERSHOOT, -0.02),
        ("highest", 4, limits.high[4] + OVERSHOOT, 0.02),
        ("speed", 2, limits.speed[2] + 0.5, 0.1),
        ("pull", 3, limits.step[3] + OVERSHOOT, 0.02),
        ("touch", "deepest", 0.002, 0.001),
        ("touch", "pressed", 0.3, 0.1),
        ("falls", None, 0, 1),
    ):
        assert is_safe(key, place, most), key
        assert not is_safe(key, place, most + more), key


def test_while_a_hand_moves_the_arm_no_servo_may_pull(trial):
    seen = trial.scene.look()
    for torque, safe in ((0.0, True), (0.1, False)):
        seen["witness"]["torque"][2] = torque
        judged = trial.judge("calibrate", seen, "")
        assert judged == {"safe": safe, "by_hand": True, "strongest": torque}
