"""The table of faults that `act diagnose` names."""

import pytest

from act_minimal.episodes import list_episodes, load_episode
from benchmarks import diagnosis
from benchmarks.diagnosis_tables import diagnosis as table
from benchmarks.diagnosis_tables import named
from course.toolkit.faults import Fault, find_fault

pytestmark = pytest.mark.quick


def row(**more):
    rate = {"rate": 0.5, "interval": [0.4, 0.6], "successes": 5, "n": 10}
    found = [
        {"cause": "jerk", "level": "note", "measured": ""},
        {"cause": "joint_sign", "level": "wrong", "measured": ""},
        {"cause": "light", "level": "suspect", "measured": ""},
        {"cause": "rate", "level": "suspect", "measured": ""},
    ]
    return {"found": found, "with_it": rate, "cured": rate, "success": rate} | more


def test_a_row_names_two_findings_and_the_right_one_in_bold():
    assert named(row(causes=["light"])) == "joint sign, **light**"
    assert named(row(causes=["jerk"])) == "joint sign, light"
    assert named(row(found=[])) == "nothing"


def test_the_tables_hold_every_row_and_count_them():
    faults = [row(fault="sign", where="arm", causes=["joint_sign"], cure="the sign")]
    healthy = [row(policy="shipped", task="t", look_seconds=3.2)]
    text = table(
        {
            "of": 1,
            "named_first_or_second": 1,
            "healthy_with_a_wrong_finding": 0,
            "faults": faults,
            "healthy": healthy,
        }
    )
    assert "Of 1 faults" in text
    assert "| sign | arm | **joint sign**, light | 50 % [40, 60] | the sign |" in text
    assert "| shipped | t | 50 % [40, 60] |" in text


def test_faulty_copies_are_made_once_and_the_data_stay_as_they_are(tmp_path):
    data = diagnosis.demonstrations(tmp_path, "so100_pick_place", "scripted", 3, 0)
    before = [load_episode(path).action for path in list_episodes(data)]
    fault = find_fault("gripper timing")
    for _ in range(2):
        out = diagnosis.altered(data, fault, tmp_path / "faulty", 3)
    after = [load_episode(path).action for path in list_episodes(out)]
    assert len(after) == 3
    for one, other in zip(before, after, strict=True):
        assert (one[:, :5] == other[:, :5]).all()
        assert (one[:, 5] != other[:, 5]).any()
    again = [load_episode(path).action for path in list_episodes(data)]
    assert all((x == y).all() for x, y in zip(before, again, strict=True))
    assert diagnosis.altered(data, Fault("none", "arm", ()), out, 3) == data
