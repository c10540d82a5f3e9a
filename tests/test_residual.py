"""The head that corrects each action of a chunk."""

import numpy as np
import pytest
import torch

from act_minimal.checkpoint import (
    CheckpointError,
    load_policy,
    save_policy,
    write_tensors,
)
from act_minimal.control import run
from act_minimal.dataset import Demonstrations
from act_minimal.episodes import Episode, episode_path, save_episode
from act_minimal.evaluation import fingerprint
from act_minimal.exchange.lerobot_policy import export_policy
from act_minimal.exchange.onnx import export_onnx
from act_minimal.execution import ExecutionConfig
from act_minimal.realtime import Switch, check_mode
from act_minimal.residual import (
    FILE,
    Residual,
    load_driver,
    save_residual,
    train_residual,
)
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.files import write_json

from .commands import act
from .test_policy import B, K, S, observation, policy

pytestmark = pytest.mark.quick


def test_untrained_it_corrects_nothing_and_predicts_as_the_policy():
    base = policy().eval()
    model = Residual(base)
    seen, action = observation(), np.ones((B, S), np.float32)
    np.testing.assert_array_equal(model.correct(seen, action, 2), action)
    np.testing.assert_array_equal(model.predict_chunk(seen), base.predict_chunk(seen))


def test_older_chunks_than_it_was_trained_for_are_not_corrected():
    model = Residual(policy().eval(), oldest=3)
    torch.nn.init.ones_(model.head[-1].bias)
    action = np.zeros((B, S), np.float32)
    assert model.correct(observation(), action, 3).min() > 0.1
    np.testing.assert_array_equal(model.correct(observation(), action, 4), action)


def test_what_it_cannot_correct_is_refused(tmp_path):
    with pytest.raises(UserError, match="is told of committed actions"):
        Residual(policy(prefix_max=2))
    with pytest.raises(UserError, match="answers with a sample, expected one with one"):
        Residual(policy(head="flow"))
    with pytest.raises(UserError, match="looks through top, wrist"):
        Residual(policy(cameras=("top", "wrist")))
    with pytest.raises(UserError, match="action_target is 'delta'"):
        Residual(policy(target="delta"))
    demos = demonstrations(tmp_path, 1)
    for oldest in (-1, K):
        with pytest.raises(SettingError, match=f"oldest is {oldest} tick.*from 0 to 4"):
            train_residual(policy(), demos, oldest=oldest, steps=1)


def demonstrations(folder, episodes=4, length=60):
    """The action is what env_state says now, which a chunk of before cannot know."""
    rng = np.random.default_rng(0)
    for i in range(episodes):
        env = rng.normal(size=(length, 4)).astype(np.float32)
        numbers = np.zeros((length, S), np.float32)
        episode = Episode(numbers, numbers, numbers, env[:, :S].copy(), env_state=env)
        save_episode(episode_path(folder, i), episode)
    return Demonstrations.load(folder, use_env_state=True)


def test_it_is_kept_beside_the_policys_files(tmp_path):
    base = policy().eval()
    model = Residual(base, oldest=3, hidden=16)
    torch.nn.init.ones_(model.head[-1].bias)
    save_residual(tmp_path / "p", model, {"seed": 3})
    seen, action = observation(), np.zeros((B, S), np.float32)
    back = load_driver(tmp_path / "p")
    assert back.card["seed"] == 3
    assert back.cameras == base.cameras
    expected = model.correct(seen, action, 1)
    np.testing.assert_array_equal(back.correct(seen, action, 1), expected)
    assert np.abs(expected).min() > 0.1
    np.testing.assert_array_equal(back.predict_chunk(seen), base.predict_chunk(seen))
    assert fingerprint(back) != fingerprint(base)
    # The policy alone, for whoever wants no corrections.
    assert fingerprint(load_policy(tmp_path / "p")) == fingerprint(base)
    (tmp_path / "p" / FILE).rename(tmp_path / "kept")
    for card, says in (({"seed": 3}, None), ({"residual": {}}, "has no residual")):
        write_json(tmp_path / "p" / "card.json", card)
        if says is None:
            assert not hasattr(load_driver(tmp_path / "p"), "correct")
            continue
        with pytest.raises(CheckpointError, match=says):
            load_driver(tmp_path / "p")
    write_json(tmp_path / "p" / "card.json", {"seed": 3})
    (tmp_path / "kept").rename(tmp_path / "p" / FILE)
    save_policy(tmp_path / "alone", base, {})
    assert not hasattr(load_driver(tmp_path / "alone"), "correct")
    for export in (export_onnx, export_policy):
        with pytest.raises(CheckpointError, match=r"holds a head .* leaves out"):
            export(tmp_path / "p", tmp_path / "out.onnx")
    write_tensors(tmp_path / "p" / FILE, {"0.bias": torch.zeros(7)})
    with pytest.raises(CheckpointError, match=r"residual\.safetensors"):
        load_driver(tmp_path / "p")


def test_a_mode_without_a_place_for_it_is_refused():
    model = Residual(policy())
    for mode in ("receding", "open_loop", "ensemble"):
        with pytest.raises(SettingError, match=f"mode is '{mode}' .* switch, overlap"):
            check_mode(model, ExecutionConfig(mode))
    check_mode(model, ExecutionConfig("fade"))
    check_mode(policy(), ExecutionConfig())


def test_it_learns_what_only_the_newest_observation_tells(tmp_path):
    demos = demonstrations(tmp_path)
    base = policy().eval()
    before = {k: v.clone() for k, v in base.state_dict().items()}
    model = train_residual(base, demos, oldest=3, steps=600, rate=3e-3)
    for key, value in base.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert demos.env_state is not None
    errors = {"base": [], "corrected": []}
    for frame in range(10, 50):
        seen = {
            "qpos": demos.qpos[frame - 2 : frame - 1],
            "env_state": demos.env_state[frame - 2 : frame - 1],
        }
        action = base.predict_chunk(seen)[:, 2]
        now = {
            k: (demos.qpos if k == "qpos" else demos.env_state)[[frame]] for k in seen
        }
        better = model.correct(now, action, 2)
        errors["base"].append(np.abs(action - demos.action[frame]).mean())
        errors["corrected"].append(np.abs(better - demos.action[frame]).mean())
    assert np.mean(errors["corrected"]) < 0.3 * np.mean(errors["base"])


def test_the_same_seed_trains_the_same_head(tmp_path):
    demos = demonstrations(tmp_path)
    heads = [
        train_residual(policy().eval(), demos, oldest=2, steps=5, seed=seed).head
        for seed in (0, 0, 1)
    ]
    weights = [head[0].weight for head in heads]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


class Arm:
    """Stands at zero and keeps what it is told."""

    n, fps, action_dim, cameras = 1, 30.0, 1, ()

    def __init__(self):
        self.told = []

    def observe(self, cameras=()):
        return {"qpos": np.zeros((1, 1)), "env_state": np.full((1, 1), len(self.told))}

    def act(self, action):
        self.told.append(float(action[0, 0]))


class Correcting:
    """A chunk of zeros; corrected by 100 times what is seen, and the chunk's age."""

    cameras = ()

    def predict_chunk(self, observation):
        return np.zeros((1, 4, 1))

    def correct(self, observation, action, age):
        return action + 100 * observation["env_state"] + age


def test_the_loop_corrects_every_action_from_what_is_seen_then():
    arm = Arm()
    run(arm, Correcting(), Switch(4, 0, 2), 5)
    assert arm.told == [0 + 0, 100 + 1, 200 + 0, 300 + 1, 400 + 0]


def test_the_command_does_not_write_into_what_it_reads(tmp_path):
    save_policy(tmp_path / "run" / "checkpoints" / "5", policy(), {})
    demonstrations(tmp_path / "demos", 1)
    for name in ("run", "demos"):
        line = f"--policy {tmp_path}/run --data {tmp_path}/demos --out"
        code, _, err = act(f"train-residual {line} {tmp_path}/{name}/inside")
        assert code == 2
        assert f"inside what is read ({tmp_path}/{name})" in err
        assert not (tmp_path / name / "inside").exists()
