"""Policies: units, observations, checkpoints."""

import errno
import json
import os
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from act_minimal.checkpoint import CheckpointError, load_policy, save_policy
from act_minimal.dataset import Statistics
from act_minimal.images import Resizing, resize
from act_minimal.policy import ObservationError, Policy, Scale, make_policy
from act_minimal.support.errors import SettingError, UserError

from .made_up import random_statistics

pytestmark = pytest.mark.quick

S, E, K, B = 3, 4, 5, 2
TINY = {"width": 16, "feedforward": 16, "heads": 2, "encoder_layers": 1}
SIZE = (16, 24)
TURNED = np.zeros((B, 24, 16, 3), np.uint8)
KINDS = ("act", "bc_transformer", "bc_mlp")


def statistics() -> Statistics:
    return random_statistics(
        {"qpos": S, "action": S, "action_delta": S, "env_state": E}
    )


def policy(kind="act", cameras=(), target="absolute", **changes) -> Policy:
    shape = {"hidden": 16} if kind == "bc_mlp" else dict(TINY)
    if kind != "bc_transformer":
        shape["chunk_size"] = K
    shape |= {"state_dim": S, "action_dim": S, "env_state_dim": E, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape |= {"action_target": target, "cameras": cameras, "image_size": SIZE}
        return make_policy(kind, statistics(), **shape)


def observation(cameras=(), rows=B) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    shapes = {f"images/{camera}": (rows, *SIZE, 3) for camera in cameras}
    images = {k: random.integers(0, 256, s, np.uint8) for k, s in shapes.items()}
    qpos = random.normal(size=(rows, S)).astype(np.float32)
    env_state = random.normal(size=(rows, E)).astype(np.float32)
    return {"qpos": qpos, "env_state": env_state, **images}


def batch(rows=B, k=K) -> dict[str, torch.Tensor]:
    numbers = {key: torch.from_numpy(x) for key, x in observation(rows=rows).items()}
    random = np.random.default_rng(2)
    action = torch.from_numpy(random.normal(size=(rows, k, S)).astype(np.float32))
    is_pad = torch.zeros(rows, k, dtype=torch.bool)
    is_pad[-1, -2:] = True
    return {**numbers, "action": action, "is_pad": is_pad}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cameras", [(), ("top", "wrist")])
def test_every_kind_predicts_and_comes_back_from_its_folder(kind, cameras, tmp_path):
    made = policy(kind, cameras)
    seen = observation(cameras)
    chunk = made.predict_chunk(seen)
    assert chunk.shape == (B, 1 if kind == "bc_transformer" else K, S)
    assert chunk.dtype == np.float32
    save_policy(tmp_path / "p", made, {"seed": 3})
    back = load_policy(tmp_path / "p")
    assert type(back) is type(made)
    assert (back.name, back.cameras, back.config) == (kind, cameras, made.config)
    np.testing.assert_array_equal(back.predict_chunk(seen), chunk)


def test_single_step_transformer_is_act_without_chunks_and_cvae():
    config = policy("bc_transformer").config
    assert config.chunk_size == 1
    assert not config.use_cvae


@pytest.mark.parametrize("target", ["absolute", "delta"])
def test_prediction_is_in_physical_units(target):
    made, seen, stats = policy(target=target).eval(), observation(), statistics()
    inputs = {
        key: torch.from_numpy((seen[key] - stats.mean[key]) / stats.std[key])
        for key in ("qpos", "env_state")
    }
    with torch.no_grad():
        raw = made.module(inputs).actions.numpy()
    key = "action" if target == "absolute" else "action_delta"
    expected = raw * stats.std[key] + stats.mean[key]
    if target == "delta":
        expected = expected + seen["qpos"][:, None]
    np.testing.assert_allclose(made.predict_chunk(seen), expected, atol=1e-5)


@pytest.mark.parametrize("target", ["absolute", "delta"])
@pytest.mark.parametrize("kind", ["act", "bc_mlp"])
def test_loss_compares_in_the_units_of_the_target(target, kind):
    extra = {"use_cvae": False} if kind == "act" else {}
    made = policy(kind, target=target, **extra)
    stats, data = statistics(), batch()
    predicted = made.predict_chunk({k: data[k] for k in ("qpos", "env_state")})
    key = "action" if target == "absolute" else "action_delta"
    # Both prediction and action lose the same qpos, so it falls out of the error.
    error = np.abs(predicted - data["action"].numpy()) / stats.std[key]
    expected = error[~data["is_pad"].numpy()].mean()
    loss, parts = made.loss(data)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert parts["l1"].item() == pytest.approx(expected, rel=1e-4)
    assert parts["kl"].item() == 0


def test_delta_targets_see_the_difference_and_not_the_place():
    made, data = policy("bc_mlp", target="delta"), batch()
    seen = made._target(data)
    moved = data | {"action": data["action"] + 5, "qpos": data["qpos"] + 5}
    np.testing.assert_allclose(made._target(moved), seen, atol=1e-5)


def test_validation_is_at_z_0_without_padding_in_physical_units():
    made, data = policy(dropout=0.5), batch()
    made.train()
    l1, joints = made.validation_loss(data)
    assert made.training
    predicted = made.predict_chunk({k: data[k] for k in ("qpos", "env_state")})
    error = np.abs(predicted - data["action"].numpy())[~data["is_pad"].numpy()]
    np.testing.assert_allclose(joints, error.mean(0), rtol=1e-4)
    expected = (error / statistics().std["action"]).mean()
    assert l1.item() == pytest.approx(expected, rel=1e-4)


def test_a_prediction_leaves_the_mode_and_global_state_as_they_were():
    made, seen = policy(dropout=0.5), observation()
    made.train()
    before = torch.random.get_rng_state()
    chunk = made.predict_chunk(seen)
    assert made.training
    assert all(module.training for module in made.modules())
    np.testing.assert_array_equal(made.predict_chunk(seen), chunk)
    np.testing.assert_array_equal(made.eval().predict_chunk(seen), chunk)
    assert not made.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("asked", [{"chunk_size": 50}, {"use_cvae": True}])
def test_a_single_step_baseline_is_not_given_what_it_has_not(asked):
    with pytest.raises(SettingError, match="but a bc_transformer has"):
        make_policy("bc_transformer", statistics(), state_dim=S, action_dim=S, **asked)


def test_noise_of_the_cvae_matters_in_training_only():
    made, data = policy(), batch()
    assert made.latent_dim == made.config.latent_dim
    zeros = torch.zeros(B, made.latent_dim)
    assert made.loss(data, zeros)[0] != made.loss(data, zeros + 1)[0]
    assert policy("bc_mlp").latent_dim == 0
    assert policy(use_cvae=False).latent_dim == 0


def test_cameras_go_by_name_and_other_keys_are_ignored():
    made, seen = policy(cameras=("top", "wrist")), observation(("wrist", "top"))
    chunk = made.predict_chunk(seen)
    shuffled = {"images/spare": 0, **dict(reversed(seen.items()))}
    np.testing.assert_array_equal(made.predict_chunk(shuffled), chunk)
    top, wrist = seen["images/top"], seen["images/wrist"]
    swapped = seen | {"images/top": wrist, "images/wrist": top}
    assert not np.array_equal(made.predict_chunk(swapped), chunk)


def test_nan_is_not_hidden():
    seen = observation()
    seen["qpos"][1, 0] = np.nan
    chunk = policy().predict_chunk(seen)
    assert np.isnan(chunk[1]).all()
    assert np.isfinite(chunk[0]).all()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("qpos", None, "no 'qpos': this policy reads qpos, env_state, images/top"),
        ("images/top", None, "no 'images/top'.*holds qpos, env_state"),
        ("qpos", np.zeros(S), r"'qpos'.*\(3,\).*expects \(B, 3\)"),
        ("env_state", np.zeros((B, E + 1)), r"\(2, 5\).*expects \(B, 4\)"),
        ("env_state", np.zeros((B + 1, E)), "holds 3 robots, but 'qpos' holds 2"),
        ("images/top", TURNED, r"\(2, 24, 16, 3\).*expects \(B, 16, 24, 3\)"),
        ("images/top", np.zeros((B, 16, 24, 3)), "float64.*expects uint8"),
    ],
)
def test_bad_observations_are_named(key, value, message):
    seen = observation(("top",)) | {key: value}
    if value is None:
        del seen[key]
    with pytest.raises(ObservationError, match=message):
        policy(cameras=("top",)).predict_chunk(seen)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("diffusion", {}, r"'diffusion', expected one of .'act', 'bc_tr"),
        ("act", {"target": "relative"}, "action_target is 'relative', expected one"),
        ("act", {"widht": 3}, r"no setting 'widht': known are .*width"),
        ("bc_mlp", {"width": 3}, r"no setting 'width': known are .*hidden"),
        ("act", {"heads": 3}, "heads is 3"),
        ("bc_mlp", {"hidden": 0}, "hidden is 0"),
    ],
)
def test_unknown_names_list_the_known(kind, settings, message):
    with pytest.raises(SettingError, match=message):
        policy(kind, **settings)


def test_statistics_must_fit():
    few = statistics()
    del few.mean["env_state"]
    with pytest.raises(UserError, match="not 'env_state'"):
        make_policy("bc_mlp", few, state_dim=S, action_dim=S, env_state_dim=E)
    with pytest.raises(UserError, match=r"'qpos' have shape \(3,\).*\(7,\)"):
        make_policy("bc_mlp", statistics(), state_dim=7, action_dim=S)
    with pytest.raises(UserError, match="3 actions and 4 joints"):
        policy("bc_mlp", target="delta", state_dim=4)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-10, 10, width=32), min_size=S, max_size=S),
    st.floats(0.0625, 128, width=32),
)
def test_scale_restores_what_it_normalised(values, std):
    scale = Scale(np.arange(S), np.full(S, std))
    x = torch.tensor(values)
    back = scale.restore(scale.normalise(x))
    np.testing.assert_allclose(back, x, atol=1e-4, rtol=1e-4)


@pytest.fixture
def folder(tmp_path):
    card = {"data": "demos", "success": "9/10", "command": "act train | tee"}
    return save_policy(tmp_path / "p", policy(), card)


def test_folder_is_for_people_too(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("config.json", "card.json", "README.md", "act_minimal.json"),
        *("model.safetensors", "stats.safetensors"),
    }
    text = (folder / "README.md").read_text()
    assert "| success | 9/10 |" in text
    assert r"act train \| tee" in text
    assert json.loads((folder / "card.json").read_text())["versions"]["torch"]
    assert [path.name for path in folder.parent.iterdir()] == ["p"]


def test_full_disk_keeps_the_older_checkpoint(folder, monkeypatch):
    before = load_policy(folder).predict_chunk(observation())

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="no space left on the disk"):
            save_policy(folder, policy("bc_mlp"), {})
    after = load_policy(folder).predict_chunk(observation())
    np.testing.assert_array_equal(after, before)
    assert [path.name for path in folder.parent.iterdir()] == ["p"]
    save_policy(folder, policy("bc_mlp"), {})
    assert load_policy(folder).name == "bc_mlp"


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("name", ["model.safetensors", "stats.safetensors"])
def test_damaged_tensors_are_named(folder, name):
    whole = (folder / name).read_bytes()
    for size in (0, 4, 100, len(whole) - 1):
        (folder / name).write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            load_policy(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_policy(folder)


def test_checkpoints_that_disagree_with_themselves_are_named(folder):
    model, stats = folder / "model.safetensors", folder / "stats.safetensors"
    edit_tensors(model, lambda t: t.update(extra=t["queries"]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors holds 'extra'"):
        load_policy(folder)
    edit_tensors(model, lambda t: (t.pop("extra"), t.pop("queries")))
    with pytest.raises(CheckpointError, match=r"model\.safetensors lacks 'queries'"):
        load_policy(folder)
    edit_config(folder, lambda c: c["model"].update(chunk_size=K + 1))
    edit_tensors(model, lambda t: t.update(queries=np.zeros((K, 16), np.float32)))
    with pytest.raises(CheckpointError, match=r"'queries'.*\(5, 16\).*\(6, 16\)"):
        load_policy(folder)
    edit_tensors(stats, lambda t: t.pop("qpos.mean"))
    with pytest.raises(CheckpointError, match=r"stats\.safetensors.*qpos"):
        load_policy(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(kind="vqbet"), "'vqbet': known are act, bc_transformer"),
        (lambda c: c.update(action_target="x"), "'action_target'.*absolute, delta"),
        (lambda c: c.pop("kind"), "lacks 'kind'"),
        (lambda c: c["model"].update(colour=3), "'model'.*colour"),
        (lambda c: c["model"].update(heads=3), "'model'.*heads is 3"),
    ],
)
def test_bad_configs_are_named(folder, change, message):
    edit_config(folder, change)
    with pytest.raises(CheckpointError, match=message) as found:
        load_policy(folder)
    assert "config.json" in str(found.value)


def test_what_is_no_checkpoint_is_named(folder, tmp_path):
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        load_policy(folder)
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_policy(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="has saved no checkpoint"):
        load_policy(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_cameras_may_differ_in_size(kind, tmp_path):
    sizes = {"top": (32, 48), "wrist": (41, 19)}
    made = policy(kind, tuple(sizes))
    settings = asdict(made.config) | {"image_size": tuple(sizes.values())}
    config = type(made.config)(**settings)
    torch.manual_seed(0)
    made = type(made)(config, statistics(), name=kind)
    assert made.image_sizes == sizes
    random, seen = np.random.default_rng(0), observation()
    for camera, size in sizes.items():
        seen[f"images/{camera}"] = random.integers(0, 256, (B, *size, 3), np.uint8)
    chunk = made.predict_chunk(seen)
    data = batch(k=made.chunk_size)
    data |= {key: torch.from_numpy(x) for key, x in seen.items() if "images" in key}
    loss, _ = made.loss(data, eps=torch.zeros(B, made.latent_dim))
    loss.backward()
    assert np.isfinite(chunk).all()
    back = load_policy(save_policy(tmp_path / "p", made, {}))
    assert back.config == config
    np.testing.assert_array_equal(back.predict_chunk(seen), chunk)
    with pytest.raises(ObservationError, match=r"images/wrist.*\(B, 41, 19, 3\)"):
        made.predict_chunk(seen | {"images/wrist": seen["images/top"]})


@pytest.mark.parametrize("mode", ["pad", "stretch"])
def test_a_policy_resizes_what_it_is_shown_as_its_folder_says(mode, tmp_path):
    made = policy("act", ("top",))
    made.resizing = Resizing(SIZE, mode, {"top": (60, 100)})
    assert made.image_sizes == {"top": (60, 100)}
    back = load_policy(save_policy(tmp_path / "p", made, {}))
    assert back.resizing == made.resizing
    random = np.random.default_rng(0)
    large = random.integers(0, 256, (B, 60, 100, 3), np.uint8)
    small = np.stack([resize(image, SIZE, mode) for image in large])
    seen = observation()
    by_hand = policy("act", ("top",)).predict_chunk(seen | {"images/top": small})
    for images in (large, small, torch.from_numpy(large)):
        chunk = back.predict_chunk(seen | {"images/top": images})
        np.testing.assert_array_equal(chunk, by_hand)
    other = large[:, :, :60]
    words = r"\(B, 16, 24, 3\), or 60 x 100 pixels, or the"
    with pytest.raises(ObservationError, match=words):
        back.predict_chunk(seen | {"images/top": other})
    with pytest.raises(ObservationError, match=r"float32.*uint8"):
        back.predict_chunk(seen | {"images/top": small.astype(np.float32)})
    edit_config(tmp_path / "p", lambda c: c["resizing"].update(mode="crop"))
    with pytest.raises(CheckpointError, match=r"config\.json: .*the mode 'crop'"):
        load_policy(tmp_path / "p")


def test_a_checkpoint_without_resizing_is_written_as_before(tmp_path):
    save_policy(tmp_path / "p", policy("act", ("top",)), {})
    content = json.loads((tmp_path / "p" / "config.json").read_text())
    assert set(content) == {"kind", "action_target", "model"}
    assert content["model"]["image_size"] == list(SIZE)
