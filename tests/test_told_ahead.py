"""Policies that are told which actions are committed, or where the arm will be."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from act_minimal.checkpoint import load_policy, save_policy
from act_minimal.model import uncounted
from act_minimal.policy import ObservationError
from act_minimal.settings import NetworkConfig
from act_minimal.support.errors import SettingError
from act_minimal.training import tell_ahead

from .test_policy import B, K, S, batch, observation, policy

pytestmark = pytest.mark.quick
D = 3


def prefix(d, rows=B):
    return np.random.default_rng(5).normal(size=(rows, d, S)).astype(np.float32)


@pytest.mark.parametrize("target", ["absolute", "delta"])
@pytest.mark.parametrize("setting", ["prefix_max", "future_max"])
def test_a_chunk_begins_with_what_is_committed(setting, target, tmp_path):
    made = policy(target=target, **{setting: D}).eval()
    save_policy(tmp_path / "p", made, {})
    for one in (made, load_policy(tmp_path / "p")):
        assert one.told_max == D
        for d in range(D + 1):
            chunk = one.predict_chunk(observation(), prefix(d))
            assert chunk.shape == (B, K, S)
            np.testing.assert_array_equal(chunk[:, :d], prefix(d))
        alone = one.predict_chunk(observation())
        np.testing.assert_array_equal(
            one.predict_chunk(observation(), prefix(0)), alone
        )
        told = one.predict_chunk(observation(), prefix(1))
        assert np.abs(told[:, 1:] - alone[:, 1:]).max() > 1e-3


def test_what_is_not_committed_has_no_influence():
    made = policy(prefix_max=D).eval()
    inputs = made._inputs(made._read(observation()))
    told = torch.from_numpy(prefix(D))
    for d in range(D + 1):
        chunks = []
        for rest in (0.0, 100.0):
            given = told.clone()
            given[:, d:] = rest
            size = torch.full((B,), d)
            chunks.append(
                made.module(inputs | {"prefix": given, "prefix_size": size}).actions
            )
        torch.testing.assert_close(chunks[0], chunks[1], rtol=0, atol=1e-6)
    none = made.module(inputs).actions
    torch.testing.assert_close(
        made.module(
            inputs | {"prefix": told, "prefix_size": torch.zeros(B, dtype=torch.int64)}
        ).actions,
        none,
    )


def test_the_loss_is_of_what_follows():
    """Against the definition: mean error of the actions from d on, and no others."""
    made = policy(prefix_max=D, kl_weight=0.0).train()
    given = batch()
    size = torch.tensor([0, 2])
    noise = torch.zeros(B, D, S)
    eps = torch.zeros(B, made.latent_dim)
    loss, parts = made.loss(given | {"prefix_size": size, "prefix_noise": noise}, eps)
    target = made._target(given)
    inputs = made._inputs(given) | {"action": target, "is_pad": given["is_pad"]}
    inputs |= {"prefix": target[:, :D], "prefix_size": size}
    error = (made.module(inputs, eps).actions - target).abs()
    counts = ~given["is_pad"] & (torch.arange(K) >= size[:, None])
    torch.testing.assert_close(loss, error[counts].mean())
    torch.testing.assert_close(parts["l1"], loss.detach())
    # As several processes have it, which count together.
    told = {"is_pad": given["is_pad"], "prefix_size": size}
    count = (~uncounted(told)).sum().float()
    assert count == counts.sum()
    again, _ = made.loss(
        given | {"prefix_size": size, "prefix_noise": noise}, eps, count
    )
    torch.testing.assert_close(again, loss)


def test_a_state_of_the_future_gets_its_noise_too(tmp_path):
    """Of which the samples that are shifted would otherwise have none."""
    from act_minimal.dataset import Demonstrations, Windows
    from act_minimal.episodes import Episode, episode_path, save_episode
    from act_minimal.settings import TrainConfig
    from act_minimal.training import make_batch

    zeros = np.zeros((40, S), np.float32)
    whole = np.arange(40, dtype=np.float32)[:, None].repeat(S, 1)
    for i in range(2):
        episode = Episode(whole - 100, zeros, zeros, whole, env_state=zeros[:, :1])
        save_episode(episode_path(tmp_path, i), episode)
    demos = Demonstrations.load(tmp_path)
    made = policy(future_max=D, env_state_dim=0)
    windows = Windows(demos, np.arange(2), made.chunk_size + D, "last")
    config = TrainConfig(data=tmp_path, out=tmp_path, batch_size=64, state_noise=0.1)
    told, _ = make_batch(config, made, windows, 0, slice(None), torch.device("cpu"))
    assert (told["qpos"][told["ahead"] > 0] > -10).all()  # actions, from 0 on
    assert (told["qpos"][told["ahead"] == 0] < -50).all()
    assert (told["qpos"] != told["qpos"].round()).all()  # all of them whole without


@pytest.mark.parametrize("lag", [0, 1])
def test_the_future_state_is_the_action_committed_for_it(lag):
    made = policy(future_max=D, future_lag=lag).eval()
    seen, committed = observation(), prefix(D)
    for d in range(1, D + 1):
        chunk = made.predict_chunk(seen, committed[:, :d])
        np.testing.assert_array_equal(chunk[:, :d], committed[:, :d])
        if d <= lag:  # the arm is not there yet: nothing is shifted
            expected = made.predict_chunk(seen)[:, d:]
        else:
            batch = made._read(seen | {"qpos": committed[:, d - 1 - lag]})
            inputs = made._inputs(batch | {"ahead": torch.full((B,), d)})
            told = made._physical(made.module(inputs).actions, batch["qpos"])
            expected = told.detach().numpy()[:, : K - d]
        np.testing.assert_allclose(chunk[:, d:], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lag", [0, 1])
def test_training_shifts_a_sample_by_its_delay(lag):
    made = policy(future_max=D, future_lag=lag)
    size, k = 64, made.chunk_size
    action = torch.arange(size * (k + D) * S, dtype=torch.float32).view(size, k + D, S)
    is_pad = torch.arange(k + D).expand(size, -1) >= k
    given = {"qpos": -torch.ones(size, S), "action": action, "is_pad": is_pad}
    random = torch.Generator().manual_seed(0)
    told = tell_ahead(given, made, random, size, slice(None))
    assert told["action"].shape == (size, k, S)
    assert told["is_pad"].shape == (size, k)
    delays = set()
    for i in range(size):
        [d] = [
            d
            for d in range(D + 1)
            if torch.equal(told["action"][i], action[i, d : d + k])
        ]
        delays.add(d)
        assert torch.equal(told["is_pad"][i], is_pad[i, d : d + k])
        there = action[i, d - 1 - lag] if d else given["qpos"][i]
        assert torch.equal(told["qpos"][i], there)
        assert told["ahead"][i] == d
    assert delays == {0, *range(lag + 1, D + 1)}


def test_training_draws_delays_and_noise_of_the_prefix():
    made = policy(prefix_max=D, prefix_noise=0.5)
    given = {"qpos": torch.zeros(500, S)}
    halves = []
    for rows in (slice(None), slice(250, 500)):
        random = torch.Generator().manual_seed(1)
        halves.append(tell_ahead(dict(given), made, random, 500, rows))
    told, second = halves
    counts = torch.bincount(told["prefix_size"], minlength=D + 1)
    assert counts[0] > 220  # half of them
    assert counts[1:].min() > 60  # and the others alike
    assert len(counts) == D + 1
    assert told["prefix_noise"].shape == (500, D, S)
    assert told["prefix_noise"].std() == pytest.approx(0.5, rel=0.05)
    for key in ("prefix_size", "prefix_noise"):  # any process draws the same
        assert torch.equal(second[key], told[key][250:])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prefix_max": K}, "prefix_max is 5, expected at most 4 with chunk_size=5"),
        ({"future_max": K}, "future_max is 5, expected at most 4"),
        ({"prefix_max": 1, "future_max": 1}, "prefix_max is 1, expected at most 0"),
        ({"prefix_max": -1}, "prefix_max is -1"),
        ({"future_max": 2, "future_lag": 2}, "future_lag is 2, expected less than"),
        ({"future_lag": 1}, "future_lag is 1, expected less than future_max=0"),
    ],
)
def test_what_cannot_be_told_is_refused(settings, says):
    with pytest.raises(SettingError, match=says):
        policy(**settings)


@pytest.mark.parametrize("shape", [(B, D + 1, S), (B + 1, 1, S), (B, 1, S + 1), (B, S)])
def test_a_prefix_of_another_shape_is_named(shape):
    made = policy(prefix_max=D)
    with pytest.raises(
        ObservationError, match=r"prefix has shape .*expects \(2, up to"
    ):
        made.predict_chunk(observation(), np.zeros(shape, np.float32))
    with pytest.raises(ObservationError, match="up to 0"):
        policy().predict_chunk(observation(), np.zeros((B, 1, S), np.float32))


@dataclass(frozen=True)
class OwnConfig(NetworkConfig):
    """A network of one's own, with a setting of the same name as one of ACT's."""

    future_lag: int = 3


def test_a_networks_own_settings_are_all_kept():
    sizes = {"state_dim": 3, "action_dim": 2, "chunk_size": 4}
    assert OwnConfig(**sizes, future_lag=9).to_json()["future_lag"] == 9
