"""Executors against their definitions: online equals offline, whatever the weights."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from act_minimal.execution import (
    ExecutionConfig,
    RecedingHorizon,
    TemporalEnsemble,
    ensemble_offline,
    make_executor,
    newest_share,
)

pytestmark = pytest.mark.quick


def chunks_of(ticks: int, n: int, k: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ticks, n, k, size))


def drive(executor, chunks: np.ndarray) -> np.ndarray:
    """The control loop: chunk t is what the policy would predict at tick t."""
    executor.reset()
    actions = [executor.step(c if executor.needs_chunk() else None) for c in chunks]
    return np.stack(actions)


@given(st.integers(1, 9), st.data())
def test_receding_horizon_executes_the_first_of_each_chunk(k, data):
    execute = data.draw(st.integers(1, k))
    chunks = chunks_of(20, 2, k, 3)
    actions = drive(RecedingHorizon(k, execute), chunks)
    for t in range(20):
        asked = t - t % execute
        np.testing.assert_array_equal(actions[t], chunks[asked, :, t - asked])


def test_open_loop_is_the_whole_chunk():
    executor = RecedingHorizon(4)
    needs = []
    for _ in range(9):
        needs.append(executor.needs_chunk())
        executor.step(np.zeros((1, 4, 2)) if needs[-1] else None)
    assert needs == [True, False, False, False, True, False, False, False, True]


def test_the_chunk_is_copied():
    executor = RecedingHorizon(2)
    chunk = np.ones((1, 2, 1))
    executor.step(chunk)
    chunk[:] = 7
    assert executor.step(None) == 1


def by_definition(chunks, m, oldest_first, t):
    """Tick t by the paper's formula, in extended precision, one value at a time."""
    _, n, k, size = chunks.shape
    ages = [age for age in range(k - 1, -1, -1) if age <= t]  # oldest first
    order = ages if oldest_first else ages[::-1]
    log_weights = [np.longdouble(-m) * i for i in range(len(order))]
    largest = max(log_weights)
    weights = [np.exp(w - largest) for w in log_weights]
    total = np.zeros((n, size), np.longdouble)
    for weight, age in zip(weights, order, strict=True):
        total += weight * chunks[t - age, :, age]
    return total / sum(weights)


CASES = {
    "k": st.integers(1, 12),
    "ticks": st.integers(1, 30),
    "m": st.one_of(
        st.just(0.0), st.floats(-50, 50), st.floats(-0.1, 0.1), st.floats(-1e-9, 1e-9)
    ),
    "oldest_first": st.booleans(),
    "seed": st.integers(0, 99),
}


@settings(max_examples=150, deadline=None)
@given(**CASES)
def test_online_equals_offline_equals_the_definition(k, ticks, m, oldest_first, seed):
    chunks = chunks_of(ticks, 2, k, 3, seed)
    online = drive(TemporalEnsemble(k, m, oldest_first), chunks)
    offline = ensemble_offline(chunks, m, oldest_first)
    np.testing.assert_allclose(online, offline, atol=1e-9, rtol=0)
    t = ticks - 1
    expected = by_definition(chunks, m, oldest_first, t).astype(float)
    np.testing.assert_allclose(offline[t], expected, atol=1e-9, rtol=0)


@settings(max_examples=100)
@given(st.integers(0, 500), st.floats(-50, 50), st.booleans())
def test_the_newest_share_is_a_fraction_and_finite(count, m, oldest_first):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        share = float(newest_share(np.array([count]), m, oldest_first)[0])
    assert 0 <= share <= 1
    if count == 0:
        assert share == 1


def test_m_of_the_paper_favours_the_oldest():
    chunks = np.zeros((5, 1, 5, 1))
    chunks[0] = 1.0  # the oldest prediction says 1, the others 0
    oldest = drive(TemporalEnsemble(5, 0.5), chunks)[4, 0, 0]
    newest = drive(TemporalEnsemble(5, 0.5, oldest_first=False), chunks)[4, 0, 0]
    weights = np.exp(-0.5 * np.arange(5))
    assert oldest == pytest.approx(weights[0] / weights.sum())
    assert newest == pytest.approx(weights[4] / weights.sum())
    assert oldest > 0.2 > newest


def test_exact_zeros_are_actions_like_any_other():
    chunks = np.ones((3, 1, 3, 1))
    chunks[1] = 0.0
    actions = drive(TemporalEnsemble(3, 0.0), chunks)
    np.testing.assert_allclose(actions[:, 0, 0], [1, 1 / 2, 2 / 3])


@given(st.integers(1, 8), st.data())
def test_every_averages_the_chunks_that_were_asked_for(k, data):
    every = data.draw(st.integers(1, k))
    chunks = chunks_of(25, 2, k, 2)
    actions = drive(TemporalEnsemble(k, 0.2, every=every), chunks)
    for t in range(25):
        made_at = [a for a in range(0, t + 1, every) if t - a < k]  # oldest first
        weights = np.exp(-0.2 * np.arange(len(made_at)))
        expected = sum(
            w * chunks[a, :, t - a] for w, a in zip(weights, made_at, strict=True)
        )
        np.testing.assert_allclose(actions[t], expected / weights.sum(), atol=1e-9)


def array_bytes(executor) -> int:
    return sum(x.nbytes for x in vars(executor).values() if isinstance(x, np.ndarray))


def test_memory_does_not_grow_with_the_episode():
    executor = TemporalEnsemble(10, 0.01)
    chunk = np.zeros((4, 10, 6))
    sizes, items = set(), set()
    for _ in range(200):
        executor.step(chunk)
        sizes.add(array_bytes(executor))
        items.add(tuple(sorted(vars(executor))))
        assert not any(isinstance(x, list | dict) for x in vars(executor).values())
    assert len(sizes) == len(items) == 1
    assert sizes.pop() <= 8 * (4 * 10 * 6 + 2 * 10)


def test_actions_handed_out_do_not_change_later():
    executor = TemporalEnsemble(3, 0.0)
    first = executor.step(np.ones((1, 3, 1)))
    executor.step(np.full((1, 3, 1), 5.0))
    assert first == 1


def test_reset_forgets():
    for executor in (TemporalEnsemble(4, 0.1), RecedingHorizon(4, 3)):
        chunks = chunks_of(6, 2, 4, 2)
        np.testing.assert_array_equal(drive(executor, chunks), drive(executor, chunks))
        executor.reset()
        assert executor.needs_chunk()
        assert executor.step(np.zeros((5, 4, 2))).shape == (5, 2)  # other n


def test_make_executor():
    chunks = chunks_of(15, 2, 6, 2)

    def actions(**settings):
        return drive(make_executor(ExecutionConfig(**settings), 6), chunks)

    for words, execute in (
        ({"mode": "open_loop"}, 6),
        ({"mode": "receding", "execute": 2}, 2),
        ({"mode": "receding"}, 3),
    ):
        expected = drive(RecedingHorizon(6, execute), chunks)
        np.testing.assert_array_equal(actions(**words), expected)
    newest_first = actions(mode="ensemble", m=0.3, order="newest_first")
    expected = ensemble_offline(chunks, 0.3, oldest_first=False)
    np.testing.assert_allclose(newest_first, expected)
    assert make_executor(ExecutionConfig(), 1).needs_chunk()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"execute": 9}, "execute is 9, expected at most the chunk size 8"),
        ({"execute": 0}, "execute is 0, expected a whole number of at least 1"),
        ({"mode": "open_loop", "execute": 3}, "execute is 3 with mode='open_loop'"),
        ({"mode": "ensemble", "every": 9}, "every is 9, expected at most"),
    ],
)
def test_bad_settings_name_the_field_and_what_is_expected(config, message):
    with pytest.raises(ValueError, match=message):
        make_executor(ExecutionConfig(**config), 8)


@pytest.mark.parametrize("make", [RecedingHorizon, TemporalEnsemble])
def test_chunks_that_do_not_fit_are_refused(make):
    executor = make(4)
    with pytest.raises(ValueError, match="step was given no chunk"):
        executor.step(None)
    with pytest.raises(ValueError, match=r"shape \(1, 3, 2\), expected \(n, 4, A\)"):
        executor.step(np.zeros((1, 3, 2)))
    executor = RecedingHorizon(4)
    executor.step(np.zeros((1, 4, 2)))
    with pytest.raises(ValueError, match="step was given a chunk"):
        executor.step(np.zeros((1, 4, 2)))
