"""Demonstrations on an arm: which number, and what may be taken back."""

import types

import numpy as np
import pytest

from act_minimal.episodes import (
    Episode,
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from act_minimal.support.errors import UserError
from hardware import recording
from hardware.recording import record_session

pytestmark = pytest.mark.quick


def save(folder, number, value):
    q = np.full((5, 6), value, np.float32)
    save_episode(
        episode_path(folder, number), Episode(q, q * 0, q * 0, q, fps=30.0, sim=False)
    )


def values(folder):
    """The value that each episode was recorded with, by its file's name."""
    return {p.name: load_episode(p).qpos[0, 0] for p in list_episodes(folder)}


@pytest.fixture
def session(monkeypatch):
    """Records without an arm; episode number k of a session holds the value 10 + k."""
    count = iter(range(1000))
    arm = types.SimpleNamespace(observed_at=0.0)
    stop = types.SimpleNamespace(check=lambda: None)
    robot = types.SimpleNamespace(fps=30.0, arm=arm, stop=stop, hold=lambda: None)
    robot.name, robot.joints = "so100", ()

    def teleoperate(robot, source, ticks, on_tick, cameras=()):
        value = 10 + next(count)
        for tick in range(4):
            robot.arm.observed_at += 1 / 30
            x = np.full((1, 6), value, np.float32)
            on_tick(tick, {"qpos": x, "qvel": x * 0, "effort": x * 0}, x)

    monkeypatch.setattr(recording, "teleoperate", teleoperate)

    def run(out, n, words, say=lambda text: None):
        verdicts = iter(words)
        numbers = []
        record_session(
            robot,
            None,
            out,
            n,
            prepare=numbers.append,
            over=lambda tick: False,
            verdict=lambda: next(verdicts, "quit"),
            say=say,
        )
        return numbers

    return run


def test_after_a_removal_nothing_is_overwritten_and_it_ends(tmp_path, session):
    for number in range(3):
        save(tmp_path, number, number)
    episode_path(tmp_path, 1).unlink()
    numbers = session(tmp_path, 4, ["keep"] * 9)
    assert numbers == [3, 4]
    assert values(tmp_path) == {
        "episode_0.hdf5": 0.0,
        "episode_2.hdf5": 2.0,
        "episode_3.hdf5": 10.0,
        "episode_4.hdf5": 11.0,
    }


def test_redo_removes_the_one_before_and_none_of_yesterday(tmp_path, session):
    said = []
    save(tmp_path, 0, 0)
    save(tmp_path, 7, 7)
    (tmp_path / "zz_99.hdf5").write_bytes((tmp_path / "episode_0.hdf5").read_bytes())
    words = ["redo", "keep", "keep", "redo", "redo", "redo", "keep"]
    session(tmp_path, 9, words, said.append)
    # Kept: 11 and 12, both taken back; then 16.
    assert values(tmp_path) == {
        "episode_0.hdf5": 0.0,
        "episode_7.hdf5": 7.0,
        "episode_8.hdf5": 16.0,
        "zz_99.hdf5": 0.0,
    }
    assert [text for text in said if "removed, to be" in text] == [
        "episode_9.hdf5 is removed, to be recorded again",
        "episode_8.hdf5 is removed, to be recorded again",
    ]
    assert sum("so none is removed" in text for text in said) == 2


def test_a_recorder_beside_this_one_loses_nothing(tmp_path, session):
    real, others = recording.save_next_episode, []

    def save_next(folder, episode, **settings):
        if not others:  # the other one was faster, after the number had been said
            others.append(0)
            save(tmp_path, 0, 5)
        return real(folder, episode, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "save_next_episode", save_next)
        numbers = session(tmp_path, 2, ["keep"] * 9)
    assert numbers == [0]
    assert values(tmp_path) == {"episode_0.hdf5": 5.0, "episode_1.hdf5": 10.0}


def test_nothing_is_recorded_into_a_training_run(tmp_path, session):
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(
        UserError, match=r"holds a training run \(log\.jsonl\), expected"
    ):
        session(tmp_path, 1, ["keep"])
