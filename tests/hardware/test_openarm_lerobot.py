"""LeRobot's unchanged OpenArm follower drives the virtual arms, over a virtual bus.

Where LeRobot 0.4.4 and what the makers say are not of one mind, it stands here:

* its joint limits are those of v1. A left gripper of v2 opens to +90 degrees, and
  LeRobot, with -65 to 0 for both, keeps it shut;
* with a calibration file, each `connect` sets the zero of all motors to wherever they
  are, with their torque enabled: arms that do not hang straight down then are lost
  (0.6.1 no longer does);
* its range of velocity for the DM4340 is 8 rad/s, whatever the motor says;
* it waits 1 ms for the answers to its goals, which take 2 ms on a bus at 1 Mbit/s: what
  it observes next may be as old as those goals.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hardware.openarm.motors import GRIPPERS, PEAK

from ..clocks import retried
from ..lerobot_environment import VERSION, needs_environment, newer

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs sockets with names"),
    needs_environment,
    pytest.mark.timeout(1800),
]
STEP = np.degrees(25 / 65535)  # what one bit of an angle is
KP = np.tile([240.0, 240.0, 240.0, 240.0, 24.0, 31.0, 25.0, 25.0], 2)  # LeRobot's own
ELBOWS = [3, 11]


@pytest.fixture(scope="module")
def report(tmp_path_factory, lerobot_python):
    client = ROOT / "tests" / "hardware" / "lerobot_openarm_client.py"

    def drive():
        done = subprocess.run(
            [lerobot_python, client, tmp_path_factory.mktemp("client")],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout.splitlines()[-1])
        # It waits a millisecond for an answer, and takes the one before where none
        # came: that is this computer's doing, and measured again.
        for when in ("first", "last"):
            seen, truth = report[when]["seen"], report[when]["truth"]["degrees"]
            assert seen == pytest.approx(truth, abs=0.3)
        assert all(report["last"]["truth"]["enabled"])
        assert not any(report["after"]["enabled"])
        return report

    return retried(drive)


def test_it_connects_without_a_movement_and_observes_degrees(report):
    first = report["first"]
    assert all(first["truth"]["enabled"])
    assert first["truth"]["torque"] == [0.0] * 16  # enabled, and no goal yet
    assert first["seen"] == pytest.approx(first["truth"]["degrees"], abs=2 * STEP)
    # 0.5, 1.5 and 0.2 rad; the grippers are 0.3 open, of 90 degrees to each side.
    held = [28.65, 0, 0, 85.94, 0, 11.46, 0, -27, -28.65, 0, 0, 85.94, 0, -11.46, 0, 27]
    assert first["seen"] == pytest.approx(held, abs=0.1)


def test_it_acts_and_the_arms_go_there(report):
    first, last = report["first"]["seen"], report["last"]
    moved = np.array(last["truth"]["degrees"]) - first
    # It carries no weight beforehand: its springs sag by a degree or so.
    assert moved[ELBOWS] == pytest.approx(np.full(2, -15.0), abs=2.0)
    assert last["truth"]["degrees"][7] == pytest.approx(-20.0, abs=1.0)
    assert last["seen"] == pytest.approx(last["truth"]["degrees"], abs=0.3)


def test_its_torques_are_those_of_the_law(report):
    """Two sides that never met: its encoding of goals, our motors' feedback."""
    sent, seen = np.array(report["sent"]), np.array(report["last"]["seen"])
    law = KP * np.radians(sent - seen)
    law = np.clip(law, -np.tile(PEAK, 2), np.tile(PEAK, 2))
    assert report["torque"] == pytest.approx(law.tolist(), abs=0.3)
    assert np.abs(law).max() > 3.0  # the arms' weight hangs on it


def test_its_limits_keep_a_left_gripper_of_v2_shut(report):
    wish, sent = np.array(report["wish"]), np.array(report["sent"])
    right, left = GRIPPERS
    assert (wish[right], sent[right]) == (-20.0, -20.0)
    assert (wish[left], sent[left]) == (20.0, 0.0)
    others = np.delete(np.arange(16), left)
    assert sent[others] == pytest.approx(wish[others])
    assert report["last"]["truth"]["degrees"][left] == pytest.approx(0.0, abs=1.0)


def test_it_lets_go_when_it_disconnects(report):
    assert all(report["last"]["truth"]["enabled"])
    assert not any(report["after"]["enabled"])
    assert report["after"]["torque"] == [0.0] * 16


def test_with_a_calibration_file_it_takes_any_pose_for_zero(report):
    zeroed = report["zeroed"]
    assert report["calibrated"]
    if newer(VERSION):  # 0.6.1 leaves the zeros as they are
        truth = zeroed["truth"]["degrees"][:8]
        assert zeroed["seen"] == pytest.approx(truth, abs=2 * STEP)
        assert zeroed["seen"][3] == pytest.approx(85.94, abs=0.1)
        return
    assert zeroed["truth"]["degrees"][3] == pytest.approx(85.94, abs=0.1)
    assert zeroed["seen"] == pytest.approx([0.0] * 8, abs=2 * STEP)
    assert zeroed["truth"]["position"][:8] == pytest.approx([0.0] * 8, abs=2 * STEP)
