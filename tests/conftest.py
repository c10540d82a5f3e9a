"""Set before anything heavy is imported: one thread a process, a way to draw."""

import os
import sys

# Tests run side by side, and several start processes of their own: one thread each
# is faster than all of them fighting over two cores, and the same on every machine.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# The tests start hundreds of programs. Some machines forbid Python to keep what it
# compiles (containers often do), and each would compile torch anew, for seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import contextlib
import gc
import warnings
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from act_minimal.support import gl

# A machine without OpenGL still runs every test that does not draw; those that do
# fail with the sentence that says what to install.
with contextlib.suppress(gl.GLError):
    gl.choose_gl_backend()

# No deadline: a shared machine may pause at any time. On CI the examples are always
# the same, so that a red run can be repeated; at home they vary and search further.
settings.register_profile("home", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
# `HYPOTHESIS=long` searches for as long as one has patience.
settings.load_profile(
    os.environ.get("HYPOTHESIS") or ("ci" if os.environ.get("CI") else "home")
)


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores, as far as the memory goes."""
    gigabytes = psutil.virtual_memory().total / 2**30
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return max(1, min(cores + 1, int(gigabytes / 2.5)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a `mostly_quick` file, every test is `quick` that is not `slow`."""
    for item in items:
        if item.get_closest_marker("mostly_quick") and not item.get_closest_marker(
            "slow"
        ):
            item.add_marker("quick")


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_gone():
    """Notebooks run first, and their kernels may be forgotten before they have ended.

    That would be told of whichever test runs when Python notices.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def lerobot_python() -> Path:
    """A Python with LeRobot, 0.4.4 by default; see tests/lerobot_environment.py."""
    from .lerobot_environment import make_environment

    return make_environment()
