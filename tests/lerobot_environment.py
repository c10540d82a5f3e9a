"""LeRobot, unchanged, in an environment of its own that borrows this one's torch.

LeRobot 0.4.4, its last release for Python 3.11, pins an older torch than this project
uses, and asks for a good deal that these tests do not need. So it is installed with the
versions that it asks for, torch excepted: that is borrowed from here, together with
whatever that environment lacks. The package itself never needs LeRobot.

The environment variable LEROBOT chooses another version. From 0.5 on LeRobot needs
Python 3.12; where this one is older, uv is asked for a 3.12, and torch and the packages
of this project are installed there anew instead of being borrowed:

    LEROBOT=0.6.1 uv run pytest tests/hardware/test_lerobot_client.py

`python -m benchmarks.lerobot.versions` tries several, and keeps what came of it.
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
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# Borrowed, or asked for and not needed here: viewers, trackers, keys, build tools.
LEFT_OUT = (
    *("torchcodec", "rerun-sdk", "wandb", "pynput", "cmake", "setuptools"),
    "hf-transfer",
)
TORCH = ("torch", "torchvision")
OURS = ("-r", ROOT / "pyproject.toml", "--extra", "sim", "--extra", "arms")

needs_environment = pytest.mark.skipif(
    not shutil.which("uv"), reason="no uv to make an environment for LeRobot"
)


VERSION = os.environ.get("LEROBOT", "0.4.4")


def newer(version: str) -> bool:
    """Whether a release is one of those for Python 3.12, with extras for everything."""
    return Version(version) >= Version("0.5")


def make_environment(version: str = VERSION) -> Path:
    """A Python in which `import lerobot` works; made once, then found again."""
    extras = "feetech,damiao,dataset" if newer(version) else "feetech"
    folder = ROOT / ".cache" / f"lerobot-{version}"
    lerobot = f"lerobot[{extras}]=={version}"
    borrows = sys.version_info >= (3, 12) or not newer(version)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready.txt"
    made_of = " ".join(map(str, (lerobot, *LEFT_OUT, sys.version, borrows, *OURS)))
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not ready.exists() or ready.read_text() != made_of:
            shutil.rmtree(folder, ignore_errors=True)
            run(
                *("uv", "venv", "--quiet", folder),
                *("--python", sys.executable if borrows else "3.12"),
            )
            without = folder / "left_out.txt"  # an override that no Python fulfils
            left_out = (*LEFT_OUT, *TORCH) if borrows else LEFT_OUT
            free = () if borrows else TORCH  # the newest, as here
            without.write_text(
                "".join(f"{x}; python_version < '3'\n" for x in left_out)
                + "".join(f"{x}>=0\n" for x in free)
            )
            install = ("uv", "pip", "install", "--quiet", "--python", python)
            run(*install, "--override", without, lerobot, *(() if borrows else OURS))
            if borrows:
                [packages] = folder.glob("[Ll]ib/**/site-packages")
                # Last on the path: that environment's own versions come first.
                borrowed = [path for path in site.getsitepackages() if "site-" in path]
                (packages / "zz_borrowed.pth").write_text("\n".join(borrowed) + "\n")
            ready.write_text(made_of)
        if borrows:
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
