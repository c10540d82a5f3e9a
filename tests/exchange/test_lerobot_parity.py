"""LeRobot's ACT and ours compute the same, with the same weights and the same noise.

Golden files, made by LeRobot itself (`python -m benchmarks.lerobot.golden`), hold it
everywhere; where uv is at hand, LeRobot is run again.
"""

import json
from typing import Any

import numpy as np
import pytest
import torch
from packaging.version import Version
from safetensors.torch import load_file, save_file

from act_minimal.checkpoint import CheckpointError
from act_minimal.exchange.lerobot_names import rename_in, rename_out
from act_minimal.execution import TemporalEnsemble, ensemble_offline
from act_minimal.model import ACT, act_loss
from act_minimal.settings import ACTConfig
from benchmarks.lerobot import golden

from ..lerobot_environment import VERSION, needs_environment

FILE = golden.GOLDEN / "lerobot_act.safetensors"
TENSORS = load_file(FILE)
SHAPES = json.loads(FILE.with_suffix(".json").read_text())["weights"]


# LeRobot counted padding as zero error, and from 0.6 on leaves it out.
AVERAGES_WHAT_IS_THERE = Version(VERSION) >= Version("0.6")


NAMES = {key: key for key in ("chunk_size", "latent_dim", "pre_norm")} | {
    **{"dim_model": "width", "n_heads": "heads", "dim_feedforward": "feedforward"},
    **{"feedforward_activation": "activation", "vision_backbone": "backbone"},
    **{"n_encoder_layers": "encoder_layers", "n_decoder_layers": "decoder_layers"},
    **{"n_vae_encoder_layers": "cvae_layers", "use_vae": "use_cvae"},
}


def config_of(case: str, padding: str = "dilute") -> ACTConfig:
    """Our settings for a case's; paper size is LeRobot's own default."""
    s, a, e, cameras, size, settings = golden.CASES[case]
    ours = {NAMES[key]: x for key, x in settings.items() if key in NAMES}
    ours |= {"dropout": 0.0, "padding_in_loss": padding, "env_state_dim": e}
    ours |= {"cameras": tuple(f"camera{i}" for i in range(cameras)), "image_size": size}
    return ACTConfig.of_size("paper", state_dim=s, action_dim=a, **ours)


def model_of(case: str, padding: str = "dilute") -> ACT:
    """Our network with a case's weights, which come from LeRobot's names and shapes."""
    model = ACT(config_of(case, padding), pretrained_weights=False)
    made = {}
    for name, shape in SHAPES[case].items():
        made[name] = torch.empty(shape)
        if name.endswith("pos_enc"):
            made[name] = rename_out(model.state_dict(), "lerobot")[name]
    renamed = rename_in(golden.weights(made), model.state_dict(), "lerobot", "golden")
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert set(missing) <= {"cameras.mean", "cameras.std"}
    assert not unexpected
    return model


def batch_of(case: str) -> tuple[dict[str, Any], torch.Tensor]:
    theirs = golden.inputs(case)
    batch = {"qpos": theirs["observation.state"], "action": theirs["action"]}
    batch["is_pad"] = theirs["action_is_pad"]
    if "observation.environment_state" in theirs:
        batch["env_state"] = theirs["observation.environment_state"]
    if keys := golden.camera_keys(case):
        images = [theirs[key] for key in keys]
        one_size = len(set(golden.camera_sizes(case))) == 1
        batch["images"] = torch.stack(images, 1) if one_size else images
    return batch, theirs["eps"]


def differences(
    case: str, tensors: dict[str, torch.Tensor], padding: str = "dilute"
) -> dict[str, float]:
    """The greatest difference to LeRobot; that of the gradient's norm is relative."""
    model, (batch, eps) = model_of(case, padding).eval(), batch_of(case)
    with torch.no_grad():
        seen = {key: x for key, x in batch.items() if key not in ("action", "is_pad")}
        actions = model(seen).actions
    output = model.train()(batch, eps)
    loss, parts = act_loss(output, batch["action"], batch["is_pad"], model.config)
    loss.backward()
    grads = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    norm = torch.stack(grads).norm()
    terms = torch.stack([loss.detach(), parts["l1"], parts["kl"]])
    wanted = {key: tensors[f"{case}/{key}"] for key in ("actions", "loss_l1_kl")}
    assert wanted["actions"].std() > 0.1  # neither flat nor wild
    assert wanted["actions"].abs().max() < 20
    return {
        "actions": float((actions - wanted["actions"]).abs().max()),
        "loss terms": float((terms - wanted["loss_l1_kl"]).abs().max()),
        "gradient": float((norm / tensors[f"{case}/grad_norm"] - 1).abs()),
    }


def assert_equal(case: str, found: dict[str, float]) -> None:
    print(case, found)
    assert found["actions"] < 1e-4
    assert found["loss terms"] < 1e-4
    assert found["gradient"] < 1e-3  # a ReLU at its bend may go either way


@pytest.mark.parametrize("case", golden.CASES)
def test_outputs_and_loss_terms_are_lerobots(case):
    assert_equal(case, differences(case, TENSORS))


def test_temporal_ensembles_are_lerobots():
    chunks = golden.chunks().numpy()
    for m in golden.COEFFICIENTS:
        theirs = TENSORS[f"ensemble/{m}"].numpy()
        ensemble = TemporalEnsemble(golden.CHUNK, m)
        online = np.stack([ensemble.step(chunk) for chunk in chunks])
        assert np.abs(online - theirs).max() < 1e-4
        assert np.abs(ensemble_offline(chunks, m) - theirs).max() < 1e-4
        # Counting from the newest is counting from the oldest with the other sign.
        newest = TemporalEnsemble(golden.CHUNK, -m, oldest_first=False)
        other = np.stack([newest.step(chunk) for chunk in chunks])
        assert np.abs(other - theirs).max() < 1e-4


def test_golden_files_change_only_when_all_are_made(tmp_path, monkeypatch):
    home = tmp_path / "golden"
    (home / "lerobot_0.4").mkdir(parents=True)
    (home / "lerobot_0.4" / "of_before.json").touch()
    monkeypatch.setattr(golden, "GOLDEN", home)
    impossible = ["save_old"]

    def pretend(job, out, *_, version=None):
        if job in impossible:
            raise OSError(f"no LeRobot {version}")
        if job in ("cases", "act"):
            save_file({"0/chunk": torch.ones(2)}, out)
            out.with_suffix(".json").write_text('{"case": {"weight": [2]}}')
            return
        out.mkdir()
        (out / "config.json").write_text(job)
        save_file({"chunk": torch.ones(3)}, out.parent / "chunk.safetensors")

    monkeypatch.setattr(golden, "in_lerobot", pretend)
    with pytest.raises(OSError, match="no LeRobot 0"):
        golden.main()
    assert [path.name for path in home.rglob("*")] == ["lerobot_0.4", "of_before.json"]
    impossible.clear()
    golden.main()
    names = {path.relative_to(home).as_posix() for path in home.rglob("*.*")}
    assert names == {
        *("lerobot_0.3", "lerobot_0.3/config.json", "lerobot_act.json"),
        *("lerobot_0.4", "lerobot_0.4/config.json", "lerobot_act.safetensors"),
    }
    made = load_file(home / "lerobot_act.safetensors")
    assert set(made) == {"0/chunk", "folder/chunk", "folder/old"}
    said = json.loads((home / "lerobot_act.json").read_text(encoding="utf-8"))
    assert said["weights"] == {"case": {"weight": [2]}}


@needs_environment
@pytest.mark.timeout(900)
def test_lerobot_itself_still_computes_the_golden_numbers(tmp_path):
    file = tmp_path / "fresh.safetensors"
    golden.in_lerobot("cases", file, *golden.CASES)
    fresh = load_file(file)
    assert fresh.keys() == {key for key in TENSORS if not key.startswith("folder/")}
    for key, tensor in fresh.items():
        if AVERAGES_WHAT_IS_THERE and key.endswith(("loss_l1_kl", "grad_norm")):
            continue
        apart = (tensor - TENSORS[key]).abs().max()
        if key.endswith("grad_norm"):
            assert apart < 1e-3 * TENSORS[key], key
        else:
            assert apart < 1e-4, key
    assert json.loads(file.with_suffix(".json").read_text()) == SHAPES
    padding = "exclude" if AVERAGES_WHAT_IS_THERE else "dilute"
    for case in ("two_cameras", "two_sizes", "env_state_pre_norm"):
        assert_equal(case, differences(case, fresh, padding))


@pytest.mark.quick
@pytest.mark.parametrize("dialect", ["lerobot", "original"])
def test_names_go_there_and_back(dialect):
    state = model_of("env_state_and_cameras").state_dict()
    renamed = rename_out(state, dialect)
    back = rename_in(renamed, state, dialect, "here")
    assert state.keys() - back.keys() == {"cameras.mean", "cameras.std"}
    for key, tensor in back.items():
        assert torch.equal(tensor, state[key])
    if dialect == "lerobot":
        said = SHAPES["env_state_and_cameras"]
        assert {key: list(x.shape) for key, x in renamed.items()} == said


@pytest.mark.quick
def test_a_weight_that_is_missing_strange_or_of_another_shape_is_named():
    state = model_of("env_state").state_dict()
    good = rename_out(state, "lerobot")

    def refused(theirs: dict[str, torch.Tensor], *words: str) -> None:
        with pytest.raises(CheckpointError) as error:
            rename_in(theirs, state, "lerobot", "some.safetensors")
        for word in ("some.safetensors", *words):
            assert word in str(error.value)

    for key in good:
        if key != "vae_encoder_pos_enc":  # a constant, which we have ourselves
            rest = {name: x for name, x in good.items() if name != key}
            refused(rest, f"lacks '{key}'")
    head = "action_head.weight"
    refused(good | {head: good[head][:-1]}, head, "(5, 32)", "(6, 32)")
    refused(good | {"is_pad_head.weight": good[head]}, "holds 'is_pad_head.weight'")
    shifted = good["vae_encoder_pos_enc"].roll(1, 1)
    refused(good | {"vae_encoder_pos_enc": shifted}, "vae_encoder_pos_enc", "sines")


@pytest.mark.quick
def test_of_the_originals_seven_decoder_layers_the_first_is_read():
    state = model_of("one_camera").state_dict()
    theirs = rename_out(state, "original")
    for i in range(1, 7):
        theirs[f"transformer.decoder.layers.{i}.norm1.weight"] = torch.zeros(32)
    theirs["is_pad_head.weight"] = torch.zeros(1, 32)
    back = rename_in(theirs, state, "original", "here")
    assert torch.equal(back["decoder.0.norm1.weight"], state["decoder.0.norm1.weight"])
