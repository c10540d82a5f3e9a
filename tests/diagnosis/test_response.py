"""The delay and the speed with which joints follow their commands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act_minimal.diagnosis.response import lag, response

pytestmark = pytest.mark.quick


def arm(delay: int, gain: float, seed: int, ticks: int = 150) -> tuple:
    """(qpos, action) of joints with this dead time and first-order lag."""
    rng = np.random.default_rng(seed)
    action = np.cumsum(rng.normal(0, 0.05, (ticks, 3)), 0)
    qpos = np.zeros_like(action)
    for t in range(ticks - 1):
        wish = action[t - delay] if t >= delay else qpos[t]
        qpos[t + 1] = qpos[t] + gain * (wish - qpos[t])
    return qpos, action


@given(delay=st.integers(0, 7), gain=st.floats(0.1, 0.9), seed=st.integers(0, 1000))
def test_it_finds_the_delay_and_the_gain_that_an_arm_has(delay, gain, seed):
    runs = [arm(delay, gain, seed), arm(delay, gain, seed + 1)]
    found = response(runs, range(9))
    assert (found.delay == delay).all()
    np.testing.assert_allclose(found.gain, gain, rtol=0.05)
    assert found.moves.all()


@given(seed=st.integers(0, 1000), shift=st.integers(-8, 4))
def test_the_lag_is_found_in_spite_of_noise(seed, shift):
    rng = np.random.default_rng(seed)
    action = np.cumsum(rng.normal(0, 0.05, (150, 2)), 0)
    t = np.clip(np.arange(150) - shift, 0, 149)
    qpos = action[t] + rng.normal(0, 0.01, action.shape)
    found, known = lag([(qpos, action)], 12)
    assert known.all()
    assert (found == shift).all()


def test_a_lag_that_cannot_be_told_is_not_told():
    qpos, action = arm(1, 0.5, 0)
    action[:, 2] = 0.0  # told to stay; it sags under its load
    qpos[:, 2] = np.linspace(0, 0.05, len(qpos))
    _, known = lag([(qpos, action)], 12)
    assert known.tolist() == [True, True, False]
    _, known = lag([(qpos[:20], action[:20])], 12)  # too short
    assert not known.any()


@given(noise=st.floats(0.001, 0.005), speed=st.floats(0.3, 1.0))
def test_noise_of_the_encoders_does_not_look_like_another_rate(noise, speed):
    rng = np.random.default_rng(0)
    runs = []
    for seed in range(6):
        qpos, action = arm(1, 0.3, seed)
        qpos, action = speed * qpos, speed * action  # the same servo, smaller motion
        runs.append((qpos + rng.normal(0, noise, qpos.shape), action))
    found = response(runs, range(9))
    assert (found.delay == 1).all()
    np.testing.assert_allclose(found.gain, 0.3, rtol=0.15)


def test_a_joint_that_stands_is_not_judged():
    qpos, action = arm(1, 0.5, 0)
    qpos[:, 1] = 0.3
    found = response([(qpos, action)], range(4))
    assert found.moves.tolist() == [True, False, True]
