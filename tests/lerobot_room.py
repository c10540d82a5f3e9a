"""LeRobot, unchanged, in an environment of its own that borrows this one's torch.

LeRobot 0.4.4, its last release for Python 3.11, pins an older torch than this project
uses, and asks for a good deal that these tests do not need. So it is installed with the
versions that it asks for, torch excepted: that is borrowed from here, together with
whatever the room does not have itself. The package itself never needs LeRobot.
"""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
# Borrowed, or asked for and not needed here: viewers, trackers, keys, build tools.
LEFT_OUT = (
    *("torch", "torchvision", "torchcodec"),
    *("rerun-sdk", "wandb", "pynput", "cmake", "setuptools", "hf-transfer"),
)

needs_room = pytest.mark.skipif(
    not shutil.which("uv"), reason="no uv to make LeRobot's room"
)


def make_room(version: str = "0.4.4") -> Path:
    """A Python in which `import lerobot` works; made once, then found again."""
    folder, lerobot = (
        ROOT / ".cache" / f"lerobot-{version}",
        f"lerobot[feetech]=={version}",
    )
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready.txt"
    made_of = " ".join((lerobot, *LEFT_OUT, sys.version))
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not ready.exists() or ready.read_text() != made_of:
            shutil.rmtree(folder, ignore_errors=True)
            run("uv", "venv", "--quiet", "--python", sys.executable, folder)
            without = folder / "left_out.txt"  # an override that no Python fulfils
            without.write_text(
                "".join(f"{x}; python_version < '3'\n" for x in LEFT_OUT)
            )
            install = ("uv", "pip", "install", "--quiet", "--python", python)
            run(*install, "--override", without, lerobot)
            [packages] = folder.glob("[Ll]ib/**/site-packages")
            # Last on the path: the room's own versions come first.
            borrowed = [path for path in site.getsitepackages() if "site-" in path]
            (packages / "zz_borrowed.pth").write_text("\n".join(borrowed) + "\n")
            ready.write_text(made_of)
        _borrow_models(folder)
    return python


def _borrow_models(folder: Path) -> None:
    """The maker's OpenArm, which its package seeks in the environment that runs."""
    theirs = Path(sysconfig.get_path("data")) / "share" / "openarm_mujoco"
    ours = folder / "share" / "openarm_mujoco"
    if os.name == "posix" and not ours.exists():
        ours.parent.mkdir(exist_ok=True)
        ours.symlink_to(theirs)


def run(*command: str | Path, **environment: str) -> str:
    """Standard output of a command; what it complained of, where it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": ""} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout
