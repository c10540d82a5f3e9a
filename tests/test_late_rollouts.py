"""Rollouts whose predictions take several ticks, and what is said about them."""

import json
from pathlib import Path

import numpy as np
import pytest

from act_minimal.checkpoint import load_policy
from act_minimal.evaluation import evaluate, late_sums
from act_minimal.execution import ExecutionConfig
from act_minimal.realtime import Switch, check_mode, longest_delay
from act_minimal.support.errors import SettingError, UserError

from .commands import act

STATE = Path(__file__).parents[1] / "data/checkpoints/so100_pick_place_state"
D, N = 8, 4


@pytest.fixture(scope="module")
def policy():
    return load_policy(STATE)


def roll_out(policy, mode="switch", n=N, **settings):
    execution = ExecutionConfig(mode, execute=25 if mode != "ensemble" else None)
    return evaluate(policy, execution=execution, n=n, progress=False, **settings)


def test_a_delay_costs_the_arm_that_waits_time_and_nobody_who_goes_on(policy):
    at_once, waits, goes_on = (
        roll_out(policy),
        roll_out(policy, "receding", delay=D),
        roll_out(policy, delay=D),
    )
    assert at_once.late == {}
    assert "late" not in at_once.to_json()
    assert waits.late["holds"] > 20  # 8 of every 33 ticks
    assert set(waits.late) == {"holds"}
    assert goes_on.late["holds"] == D  # before its first chunk has come
    assert goes_on.to_json()["late"] == goes_on.late
    assert waits.seconds_to_success > at_once.seconds_to_success + 0.5
    # The first chunk is of tick 0; others drive from d to d + s - 1 ticks after.
    assert D < goes_on.late["age"] < D + 25


def test_fading_takes_the_seams_away(policy):
    switch, fade = (roll_out(policy, mode, delay=D).late for mode in ("switch", "fade"))
    assert fade["seam"] < 1e-6 < 0.002 < switch["seam"]
    assert fade["near"] / fade["apart"] < 0.9 * switch["near"] / switch["apart"]


def test_seams_are_told_from_what_lies_between():
    """A jump of 0.1 rad at tick 10 of 40, on joints that otherwise go evenly."""
    executor = Switch(40, 2, 10)
    executor.reset(np.zeros((2, 2)))
    executor.seam_ticks = [10, 30]
    executor.ages = [None] * 5 + [2] * 35
    executor.seams = [np.array([[0.1, 9.0], [0.3, 9.0]]), np.full((2, 2), 0.2)]
    executor.hold_ticks = [0, 1, 2, 3, 4, 35]
    path = np.tile(np.arange(40.0)[:, None] / 100, 2)
    path[10:, 0] += 0.1
    path[:, 1] = np.arange(40) % 2  # a gripper, which is no angle
    sums = late_sums(executor, [path, path[:20]], 10.0, np.array([True, False]))
    # The second arm had ended before the second seam, and before the last hold.
    assert sums["holds"] == [6.0 + 5.0, 0.0]
    assert sums["age"] == [2.0 * 35 + 2.0 * 15, 50.0]
    np.testing.assert_allclose(sums["seam"], [0.1 + 0.2 + 0.3, 3])
    near, apart = sums["near"], sums["apart"]
    np.testing.assert_allclose(near[0], 2 * 2 * (0.1 * 100) ** 2)
    assert near[1] == 7 + 7 + 7
    np.testing.assert_allclose(apart[0], 0, atol=1e-12)
    assert near[1] + apart[1] == 38 + 18


def test_drawn_delays_are_repeated_and_kept(policy, tmp_path):
    settings = {"delay": 4, "spread": 3.0, "out": tmp_path / "kept"}
    first = roll_out(policy, "overlap", **settings)
    again = roll_out(policy, "overlap", **settings)  # found again
    anew = roll_out(policy, "overlap", delay=4, spread=3.0)
    assert first.late == again.late == anew.late
    for one, other in zip(first.rollouts, anew.rollouts, strict=True):
        np.testing.assert_array_equal(one.qpos, other.qpos)
    assert first.late != roll_out(policy, "overlap", delay=4).late
    settings |= {"delay": 0, "spread": 1.0}
    for other in ({"delay": 5, "spread": 3.0}, {"delay": 4}, {}):
        with pytest.raises(UserError, match="rollouts_0_3"):
            roll_out(policy, "overlap", **(settings | other))


def test_more_scenes_into_the_same_folder_need_the_same_settings(policy, tmp_path):
    roll_out(policy, "switch", delay=2, n=2, out=tmp_path)
    with pytest.raises(UserError, match=r"rollouts_0_1.* delay 2, but .* has 3"):
        roll_out(policy, "switch", delay=3, n=3, out=tmp_path)
    roll_out(policy, "switch", delay=2, n=3, out=tmp_path)


def test_drawn_delays_stay_within_what_a_policy_was_trained_for():
    told = load_policy(STATE.with_name("so100_belt_prefix"))
    check_mode(told, ExecutionConfig("switch"), 16)
    check_mode(told, ExecutionConfig("switch"), 8, 2.0)
    with pytest.raises(SettingError, match=r"8 ticks, and up to 24 in 99 %.*most 16"):
        check_mode(told, ExecutionConfig("switch"), 8, 3.0)
    with pytest.raises(SettingError, match=r"delay is 17 ticks with .* at most 16"):
        check_mode(told, ExecutionConfig("switch"), 17)


def test_no_delay_keeps_what_was_kept_before_there_were_any(policy, tmp_path):
    """The name of what is kept: of the policy, of the way of executing, of the file."""
    from act_minimal.evaluation import fingerprint

    assert fingerprint(policy) == "b4445867e730be51"
    assert ExecutionConfig("ensemble").to_json() == {
        "mode": "ensemble",
        "execute": None,
        "m": 0.01,
        "order": "oldest_first",
        "every": 1,
    }
    assert ExecutionConfig("fade", fade=3).to_json()["fade"] == 3


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--delay 26 --mode switch", "delay is 26 ticks with chunks of 50 actions"),
        ("--delay 8 --mode fade --execute 5", "expected from 8 to 42"),
        ("--delay -1", "delay is -1"),
        ("--delay 2 --delay-spread 0.5", "delay_spread is 0.5"),
        ("--delay-spread 2", "delay_spread is 2 without a delay"),
        ("--delay 8 --mode ensemble --every 45", "every is 45 with a delay of 8"),
        ("--mode overlap --share 2", "share is 2.0"),
        ("--mode fade --fade 0", "fade is 0"),
    ],
)
def test_bad_delays_are_one_sentence(flags, says):
    code, out, err = act(f"eval --policy {STATE} --n 1 {flags}")
    assert code != 0
    assert says in err.replace("\n", " "), err
    assert "Traceback" not in out + err


def test_the_command_says_what_lateness_cost(tmp_path):
    line = f"eval --policy {STATE} --n 2 --delay 8 --delay-spread 2 --mode fade"
    code, out, _ = act(line)
    assert code == 0
    for words in ("ticks without an action", "seams of", "acceleration near them"):
        assert words in out
    code, out, _ = act(f"{line} --json")
    assert code == 0
    assert set(json.loads(out)["late"]) == {"holds", "seam", "age", "near", "apart"}


def test_too_long_a_delay_is_refused_by_the_function(policy):
    with pytest.raises(SettingError, match="at most half of them: 25"):
        roll_out(policy, delay=26)
    for bad in ({"delay": -3}, {"delay": 2.5}, {"delay": 1, "spread": 0.5}):
        with pytest.raises(SettingError, match=f"{list(bad)[-1]} is"):
            roll_out(policy, "receding", **bad)


def test_a_policy_says_how_slow_it_may_be(policy):
    told = load_policy(STATE.with_name("so100_belt_prefix"))
    assert longest_delay(policy) == 25
    assert longest_delay(told) == 16
