"""LeRobot's unchanged client drives the virtual arm, in an environment of its own."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from hardware.so100.calibration import load_calibration, save_calibration
from hardware.so100.emulator.service import VirtualArmConfig, assemble
from hardware.virtual.client import VirtualArmProcess

from ..clocks import retried
from ..lerobot_environment import needs_environment

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals"),
    needs_environment,
    pytest.mark.timeout(1800),
]


def test_lerobots_follower_connects_observes_acts_and_lets_go(tmp_path, lerobot_python):
    config = VirtualArmConfig(tmp_path / "arm")
    save_calibration(tmp_path / "virtual.json", assemble(config)[1])
    client = ROOT / "tests" / "hardware" / "lerobot_client.py"

    def drive():
        before = process.scene.look()["joints"]
        done = subprocess.run(
            [lerobot_python, client, process.port, tmp_path],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        seen = process.scene.look()
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["calibrated"]  # the servos hold what our file says
        # It asked for 10 degrees of pan; its zero and sense are the fact sheet's.
        turned = said["last"]["shoulder_pan.pos"] - said["first"]["shoulder_pan.pos"]
        assert turned == pytest.approx(10, abs=1.5)
        assert seen["joints"][0] - before[0] == pytest.approx(-0.1745, abs=0.03)
        assert not any(seen["torque"])

    with VirtualArmProcess(config) as process:
        retried(drive)  # it knows the computer's clock only, and gives up after 50 ms
    # It wrote the calibration that it had read from us, byte for byte.
    written = tmp_path / "written.json"
    assert written.read_bytes() == (tmp_path / "virtual.json").read_bytes()
    assert load_calibration(written) == load_calibration(tmp_path / "virtual.json")
