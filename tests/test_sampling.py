"""Chunks that agree with the plan, against their definition on paper."""

import math

import numpy as np
import pytest
import torch

from act_minimal.dataset import Statistics
from act_minimal.policy import make_policy
from act_minimal.realtime import InTicks, Switch
from act_minimal.sampling import BestOf, Guided, guidance, plan_weights
from act_minimal.settings import STEPPING
from act_minimal.support.errors import SettingError

pytestmark = pytest.mark.quick
K, A = 8, 2
SEEN = {"qpos": np.zeros((2, A), np.float32)}
NONE = np.zeros((2, 0, A))


def policy(head="flow", **settings):
    one = {name: np.full(A, 2.0) for name in ("qpos", "action", "action_delta")}
    statistics = Statistics({name: x - 1 for name, x in one.items()}, one)
    torch.manual_seed(0)
    if head in STEPPING:
        settings = {"head_steps": 4} | settings
    settings = {"chunk_size": K, "head": head} | settings
    return make_policy("act", statistics, state_dim=A, action_dim=A, **settings).eval()


def planning(plan, horizon=4):
    executor = Switch(K, 2, horizon)
    executor.reset(np.zeros((len(plan), A)))
    executor.plan = plan
    return executor


def test_the_best_chunk_is_nearest_to_the_plan_after_what_is_committed():
    sampler = policy()
    plan = sampler.sample_chunks(SEEN, 1, seed=9)[0][:, :6].astype(float)
    executor = planning(plan)
    random = torch.Generator().manual_seed(3)
    chunks = sampler.sample_chunks(SEEN, 16, random)  # (16, 2, K, A)
    apart = np.zeros((16, 2))
    for i in range(16):
        for b in range(2):
            for tick in range(2, 6):
                off = chunks[i, b, tick] - plan[b, tick]
                apart[i, b] += 0.5 ** (tick - 2) * math.hypot(*off)
    best = BestOf(sampler, executor, seed=3)
    found = best.predict_chunk(SEEN, plan[:, :2])
    np.testing.assert_array_equal(found[:, :2], plan[:, :2])
    for b in range(2):
        wanted = chunks[apart[:, b].argmin(), b, 2:]
        np.testing.assert_array_equal(found[b, 2:], wanted)
    assert (best.predict_chunk(SEEN, plan[:, :2]) != found).any()  # others are drawn
    assert best.chunk_size == K


def test_without_a_plan_any_chunk_will_do():
    executor = planning(np.zeros((2, 0, A)))
    assert BestOf(policy(), executor, n=3).predict_chunk(SEEN, NONE).shape == (2, K, A)
    assert Guided(policy(), executor).predict_chunk(SEEN, NONE).shape == (2, K, A)


def test_weights_are_those_of_the_paper():
    found = plan_weights(10, left=7, delay=3).numpy()
    wanted = [1.0, 1.0, 1.0]
    for i in range(3, 7):
        w = (7 - i) / (7 - 3 + 1)
        wanted.append(w * (math.exp(w) - 1) / (math.e - 1))
    np.testing.assert_allclose(found, [*wanted, 0, 0, 0], rtol=1e-6)
    assert plan_weights(4, left=2, delay=3).tolist() == [1, 1, 0, 0]
    assert guidance(0.0, 5.0) == guidance(0.01, 5.0) == 5.0
    assert guidance(0.5, 5.0) == pytest.approx(1.0 / 1.0 * 0.5 / 0.25)
    assert guidance(0.8, 50.0) == pytest.approx(0.25 * 0.68 / 0.04)


def test_guidance_is_what_the_paper_says():
    """On a decoder that is linear, whose gradient is known."""
    guided = Guided(policy(), planning(np.ones((2, 5, A))))
    matrix = torch.tensor([[0.5, 0.2], [-0.1, 0.3]])

    def asked(batch):
        return (lambda x, t: x @ matrix.T + t[:, None, None]), None, None

    guided.policy.module.asked = asked
    guided.policy.reseed(3)
    prefix = np.full((2, 2, A), 7.0)
    found = guided.predict_chunk(SEEN, prefix)

    guided.policy.reseed(3)
    x = guided.policy._noise(2, guided.policy.random)["noise"].numpy()
    target = (1.0 - 1.0) / 2.0  # normalised, mean 1 and deviation 2
    weight = plan_weights(K, 5, 2).numpy()[:, None]
    m = matrix.numpy()
    for i in range(4):
        t = i / 4
        velocity = x @ m.T + t
        missing = weight * (target - (x + (1 - t) * velocity))
        along = missing @ (np.eye(A) + (1 - t) * m)  # (J^T e)^T = e^T J
        x = x + (velocity + guidance(t, 5.0) * along) / 4
    np.testing.assert_allclose(found[:, 2:], (2 * x + 1)[:, 2:], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[:, :2], prefix)


def test_guided_chunks_go_on_where_the_plan_does():
    plain = policy(head_steps=10)
    plan = plain.sample_chunks(SEEN, 1, seed=9)[0][:, 2:].astype(float)
    guided = Guided(plain, planning(plan))
    plain.reseed(1)
    led = np.abs(guided.predict_chunk(SEEN, plan[:, :2])[:, 2:4] - plan[:, 2:4]).mean()
    plain.reseed(1)
    free = np.abs(plain.predict_chunk(SEEN)[:, 2:4] - plan[:, 2:4]).mean()
    assert led < 0.5 * free


def test_both_drive_in_the_loop():
    sampler = policy()
    for kind in (BestOf, Guided):
        executor = Switch(K, 2, 4)
        inference = InTicks(kind(sampler, executor), 2)
        executor.reset(np.zeros((2, A)))
        for tick in range(12):
            for chunk, late in inference.come(tick):
                executor.deliver(chunk, late)
            if executor.wants_chunk() and not inference.busy:
                inference.begin(SEEN, executor.commit(2), tick)
            assert np.isfinite(executor.step()).all()
        assert len(executor.seams) == 3


def test_who_cannot_be_led_is_refused():
    executor = planning(np.zeros((2, 4, A)))
    with pytest.raises(SettingError, match="head is 'mip', whose chunks are all alike"):
        BestOf(policy("mip"), executor)
    with pytest.raises(SettingError, match="head 'diffusion' and absolute actions, e"):
        Guided(policy("diffusion"), executor)
    for kind in (BestOf, Guided):
        with pytest.raises(SettingError, match="told of committed actions, expected"):
            kind(policy(prefix_max=3), executor)
