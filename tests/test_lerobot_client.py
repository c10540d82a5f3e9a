"""LeRobot's unchanged client drives the virtual arm, in an environment of its own.

LeRobot pins an older torch and a good deal that a servo bus does not need. Its package
is therefore installed without its dependencies, beside the few that its robots import;
torch, which they import but do not use here, is borrowed from this environment.
"""

import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from hardware.so100.calibration import load_calibration, save_calibration
from hardware.so100.emulator.room import VirtualArmProcess
from hardware.so100.emulator.service import VirtualArmConfig, assemble

ROOT = Path(__file__).parents[1]
LEROBOT = "lerobot==0.4.4"
NEEDED = (
    *("accelerate", "av", "datasets", "deepdiff", "draccus==0.10.0", "einops"),
    *("feetech-servo-sdk", "huggingface-hub", "jsonlines", "numpy", "pillow"),
    *("opencv-python-headless", "psutil", "pyserial", "pyyaml", "tqdm"),
)
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals"),
    pytest.mark.skipif(not shutil.which("uv"), reason="no uv to make LeRobot's room"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def lerobot_python():
    """A Python with LeRobot 0.4.4; made once, then found again."""
    folder = ROOT / ".cache" / "lerobot-client"
    ready = folder / "ready.txt"
    made_of = " ".join((LEROBOT, *NEEDED, sys.version))
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / "lerobot-client.lock"):
        if not ready.exists() or ready.read_text() != made_of:
            shutil.rmtree(folder, ignore_errors=True)
            python = folder / "bin" / "python"
            pip = ("uv", "pip", "install", "--quiet", "--python", python)
            for command in (
                ("uv", "venv", "--quiet", "--python", sys.executable, folder),
                (*pip, "--no-deps", LEROBOT, "accelerate"),
                (*pip, *(n for n in NEEDED if n != "accelerate")),
            ):
                subprocess.run([str(word) for word in command], check=True)
            [packages] = folder.glob("lib/python*/site-packages")
            # Last on the path: LeRobot's own versions come first.
            (packages / "zz_borrowed.pth").write_text(site.getsitepackages()[0] + "\n")
            ready.write_text(made_of)
    return folder / "bin" / "python"


def test_lerobots_follower_connects_observes_acts_and_lets_go(tmp_path, lerobot_python):
    config = VirtualArmConfig(tmp_path / "arm")
    save_calibration(tmp_path / "virtual.json", assemble(config)[1])
    client = ROOT / "tests" / "lerobot_client.py"
    with VirtualArmProcess(config) as process:
        before = process.room.look()["joints"]
        done = subprocess.run(
            [lerobot_python, client, process.port, tmp_path],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        seen = process.room.look()
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["calibrated"]  # the servos hold what our file says
    # It asked for 10 degrees of pan; its zero and sense are the fact sheet's.
    turned = said["last"]["shoulder_pan.pos"] - said["first"]["shoulder_pan.pos"]
    assert turned == pytest.approx(10, abs=1.5)
    assert seen["joints"][0] - before[0] == pytest.approx(-0.1745, abs=0.03)
    assert not any(seen["torque"])
    # It wrote the calibration that it had read from us, byte for byte.
    written = tmp_path / "written.json"
    assert written.read_bytes() == (tmp_path / "virtual.json").read_bytes()
    assert load_calibration(written) == load_calibration(tmp_path / "virtual.json")
