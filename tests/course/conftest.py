"""Each test has a folder of its own for what the course keeps."""

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ACT_MINIMAL_COURSE", str(tmp_path / "course"))
    return tmp_path / "course"
