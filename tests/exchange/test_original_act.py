"""Checkpoints of ACT's original repository: names, what is unused, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from act_minimal.checkpoint import CheckpointError, load_policy
from act_minimal.exchange.lerobot_names import rename_out
from act_minimal.exchange.lerobot_units import to_degrees
from act_minimal.exchange.original_act import import_original
from act_minimal.policy import Policy
from act_minimal.support.errors import SettingError

from .test_lerobot_policy import observation_of, policy_of

CAMERAS = ("top", "wrist")
HOW: dict[str, Any] = {"cameras": CAMERAS, "image_size": (64, 96), "heads": 4}


def original_of(policy: Policy, prefix: str = "model.") -> dict[str, Tensor]:
    """The state dict that the original would have, with what it does not use."""
    state = rename_out(policy.module.state_dict(), "original")
    first = "transformer.decoder.layers.0."
    for key in [key for key in state if key.startswith(first)]:
        for i in range(1, 7):
            other = f"transformer.decoder.layers.{i}.{key.removeprefix(first)}"
            state[other] = torch.randn(state[key].shape)
    state["is_pad_head.weight"] = torch.randn(1, 32)
    state["is_pad_head.bias"] = torch.randn(1)
    return {prefix + key: x for key, x in state.items()}


def statistics_of(policy: Policy) -> dict[str, np.ndarray]:
    scales = {key: policy.scale(key) for key in ("qpos", "action")}
    said = {f"{key}_mean": x.mean.numpy() for key, x in scales.items()}
    said |= {f"{key}_std": x.std.numpy() for key, x in scales.items()}
    return said | {"example_qpos": np.zeros((400, 6), np.float32)}


@pytest.fixture(scope="module")
def policy() -> Policy:
    policy = policy_of(cameras=CAMERAS)
    cameras = policy.module.cameras
    assert cameras is not None
    cameras.mean.copy_(torch.tensor([0.485, 0.456, 0.406])[:, None, None])
    cameras.std.copy_(torch.tensor([0.229, 0.224, 0.225])[:, None, None])
    return policy


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_it_acts_as_the_weights_say(tmp_path, policy, prefix):
    state = original_of(policy, prefix)
    assert len(state) > len(policy.module.state_dict()) + 6 * 10
    folder = import_original(state, statistics_of(policy), tmp_path / "ours", **HOW)
    back, seen = load_policy(folder), observation_of(policy.config)
    assert np.abs(back.predict_chunk(seen) - policy.predict_chunk(seen)).max() < 1e-5
    said = back.config
    assert (said.decoder_layers, said.pre_norm, said.chunk_size) == (1, False, 8)
    assert (said.encoder_layers, said.cvae_layers, said.latent_dim) == (2, 2, 6)
    assert (said.width, said.feedforward, said.heads) == (32, 48, 4)
    assert (said.kl_weight, said.dropout, said.padding_in_loss) == (10, 0.1, "dilute")


def test_files_are_read_and_units_converted(tmp_path, policy):
    state = {key: x.contiguous() for key, x in original_of(policy).items()}
    save_file(state, tmp_path / "policy.safetensors")
    numbers = {key: x.tolist() for key, x in statistics_of(policy).items()}
    (tmp_path / "stats.json").write_text(json.dumps(numbers))
    tensors = {key: torch.tensor(x) for key, x in statistics_of(policy).items()}
    save_file(tensors, tmp_path / "stats.safetensors")
    seen, line = observation_of(policy.config), to_degrees("so101")
    degrees = policy.predict_chunk(seen)
    radians = seen | {"qpos": line.inverse()(seen["qpos"]).astype(np.float32)}
    for name in ("stats.json", "stats.safetensors"):
        folder = import_original(
            *(tmp_path / "policy.safetensors", tmp_path / name, tmp_path / "ours"),
            **HOW,
            units="so101",
        )
        apart = load_policy(folder).predict_chunk(radians) - line.inverse()(degrees)
        assert np.abs(apart).max() < 1e-5


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_the_backbone_is_told_by_its_weights(tmp_path, backbone):
    policy = policy_of(cameras=("top",), backbone=backbone, pre_norm=True)
    how = HOW | {"cameras": ("top",)}
    folder = import_original(
        *(original_of(policy), statistics_of(policy), tmp_path / "ours"), **how
    )
    said = load_policy(folder).config
    assert (said.backbone, said.pre_norm) == (backbone, True)


def test_pickles_are_not_opened_and_the_way_round_is_named(tmp_path, policy):
    for name, words in (
        ("policy_best.ckpt", ("torch.load", "save_file", "policy_best.ckpt")),
        ("dataset_stats.pkl", ("pickle.load", "json.dump", "dataset_stats.pkl")),
    ):
        (tmp_path / name).write_bytes(b"anything")
        files: list[Any] = [original_of(policy), statistics_of(policy)]
        files[0 if name.endswith("ckpt") else 1] = tmp_path / name
        with pytest.raises(CheckpointError) as error:
            import_original(*files, tmp_path / "ours", **HOW)
        for word in ("pickle runs", *words):
            assert word in str(error.value)


def test_the_conversion_that_the_error_names_works(tmp_path, policy, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    torch.save(original_of(policy), "policy_best.ckpt")
    Path("dataset_stats.pkl").write_bytes(pickle.dumps(statistics_of(policy)))
    for files in (
        (Path("policy_best.ckpt"), statistics_of(policy)),
        (original_of(policy), Path("dataset_stats.pkl")),
    ):
        with pytest.raises(CheckpointError) as error:
            import_original(*files, tmp_path / "ours", **HOW)
        exec(str(error.value).split("convert it with: ")[1], {})
    folder = import_original("policy.safetensors", "stats.json", "ours", **HOW)
    seen = observation_of(policy.config)
    apart = load_policy(folder).predict_chunk(seen) - policy.predict_chunk(seen)
    assert np.abs(apart).max() < 1e-5


def test_what_is_missing_or_strange_is_named(tmp_path, policy):
    good, numbers = original_of(policy), statistics_of(policy)

    def refused(*words: str, state: Any = good, stats: Any = numbers, **how: Any):
        with pytest.raises((CheckpointError, SettingError)) as error:
            import_original(state, stats, tmp_path / "ours", **(HOW | how))
        for word in words:
            assert word in str(error.value)
        assert not (tmp_path / "ours").exists()

    def without(key: str) -> dict[str, Tensor]:
        return {name: x for name, x in good.items() if name != f"model.{key}"}

    for key in ("query_embed.weight", "cls_embed.weight", "input_proj.bias"):
        refused(f"lacks '{key}'", state=without(key))
    key = "transformer.decoder.norm.bias"
    refused(f"lacks '{key}'", state=without(key))
    each = {"model.backbones.1.0.body.conv1.weight": torch.zeros(64, 3, 7, 7)}
    refused("a backbone for each camera", state=good | each)
    more = {"model.input_proj_env_state.bias": torch.zeros(32)}
    refused("holds 'input_proj_env_state.bias'", state=good | more)
    refused("lack 'action_std'", stats={k: numbers[k] for k in list(numbers)[:3]})
    refused("'qpos_mean'", "(14,)", "(6,)", stats=numbers | {"qpos_mean": np.zeros(14)})
    refused("cameras is empty", cameras=())
    refused("heads is 5", heads=5)
    refused("is missing", state=tmp_path / "nothing.safetensors")
