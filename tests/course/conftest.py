"""Each test has a folder of its own for what the course keeps."""

import pytest

from act_minimal.dataset import Demonstrations
from act_minimal.sim import make_task
from act_minimal.sim.recording import record


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path / "course"))
    return tmp_path / "course"


@pytest.fixture(scope="session")
def demos(tmp_path_factory):
    """Three demonstrations by the script."""
    data = tmp_path_factory.mktemp("demos")
    record(make_task("so100_pick_place"), data, 3, progress=False)
    return Demonstrations.load(data)
