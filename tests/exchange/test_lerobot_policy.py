"""The door to LeRobot's checkpoints: what goes out acts there, what comes in acts here.

tests/golden/lerobot_0.4 was saved by LeRobot 0.4.4 itself, lerobot_0.3 by 0.3.3, and
the chunks that they then predicted are among the golden numbers. Where uv is at hand,
LeRobot opens what we write.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from act_minimal.checkpoint import (
    CheckpointError,
    load_policy,
    read_card,
    save_policy,
)
from act_minimal.dataset import Statistics
from act_minimal.datasets.embodiment import joint_names
from act_minimal.exchange.lerobot_policy import export_policy, import_policy
from act_minimal.exchange.lerobot_units import (
    ENV,
    MIDDLE,
    SENSE,
    STATE,
    lerobot_joints,
    to_degrees,
)
from act_minimal.execution import ExecutionConfig, TemporalEnsemble
from act_minimal.images import Resizing
from act_minimal.policy import Policy, make_policy
from act_minimal.settings import ACTConfig
from act_minimal.support.errors import SettingError
from act_minimal.support.files import MARKER
from benchmarks.lerobot import golden

from ..lerobot_room import needs_room

DATA = Path(__file__).parents[2] / "data" / "checkpoints"
THEIRS = golden.GOLDEN / "lerobot_0.4"
PRE_FILE = "policy_preprocessor_step_3_normalizer_processor.safetensors"
POST_FILE = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
ONLY_FIRST = {"decoder_layers": 3, "decoder_output": "first"}


# ---------------------------------------------------------------- helpers


def policy_of(**changes: Any) -> Policy:
    """An untrained policy of LeRobot's kind, small, with statistics of its own."""
    settings: dict[str, Any] = {
        **{"state_dim": 6, "action_dim": 6, "chunk_size": 8, "width": 32, "heads": 4},
        **{"feedforward": 48, "encoder_layers": 2, "cvae_layers": 2, "latent_dim": 6},
        **{"image_size": (64, 96), "dropout": 0.0, "padding_in_loss": "dilute"},
    }
    config = ACTConfig.of_size("paper", **{**settings, **changes})
    random = np.random.default_rng(0)
    widths = {"qpos": 6, "action": 6, "env_state": config.env_state_dim}
    mean = {k: random.normal(size=w).astype(np.float32) for k, w in widths.items()}
    std = {k: random.uniform(0.1, 2, w).astype(np.float32) for k, w in widths.items()}
    torch.manual_seed(0)
    policy = Policy(config, Statistics(mean, std))
    if policy.module.cameras is not None:  # a checkpoint's own statistics of images
        policy.module.cameras.mean += 0.1 * torch.randn(
            policy.module.cameras.mean.shape
        )
    return policy.eval()


def saved(folder: Path, **changes: Any) -> Path:
    return save_policy(folder, policy_of(**changes), {})


def observation_of(config: ACTConfig, rows: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    seen = {"qpos": random.normal(size=(rows, 6)).astype(np.float32)}
    if config.env_state_dim:
        shape = (rows, config.env_state_dim)
        seen["env_state"] = random.normal(size=shape).astype(np.float32)
    for camera, size in config.camera_sizes.items():
        shape = (rows, *size, 3)
        seen[f"images/{camera}"] = random.integers(0, 256, shape).astype(np.uint8)
    return seen


def theirs_of(seen: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """An observation by LeRobot's names; images (B, 3, H, W)."""
    names = {"qpos": STATE, "env_state": ENV}
    out = {}
    for key, x in seen.items():
        if key.startswith("images/"):
            name = f"observation.images.{key.removeprefix('images/')}"
            out[name] = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
        else:
            out[names[key]] = torch.from_numpy(x)
    return out


def golden_observation() -> dict[str, np.ndarray]:
    batch = golden.inputs("env_state")
    return {"qpos": batch[STATE].numpy(), "env_state": batch[ENV].numpy()}


def golden_chunk(which: str = "chunk") -> np.ndarray:
    return load_file(golden.GOLDEN / "lerobot_act.safetensors")[
        f"folder/{which}"
    ].numpy()


def predict(folder: Path, seen: dict[str, np.ndarray]) -> np.ndarray:
    return load_policy(folder).predict_chunk(seen)


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_tensors(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A copy of LeRobot's checkpoint, to be broken."""
    return Path(shutil.copytree(THEIRS, tmp_path / "theirs"))


# --------------------------------------------------------------------- in


@pytest.mark.quick
def test_a_checkpoint_that_lerobot_saved_acts_as_it_does_there(tmp_path):
    folder = import_policy(THEIRS, tmp_path / "ours")
    chunk = predict(folder, golden_observation())
    assert np.abs(chunk - golden_chunk()).max() < 1e-4
    policy = load_policy(folder)
    # LeRobot's ACT leaves a scene's state as it is.
    assert policy.scale("env_state").std.unique().tolist() == [1.0]
    assert policy.config.padding_in_loss == "dilute"
    card = json.loads((folder / "card.json").read_text())
    assert card["execution"] == {"mode": "receding", "execute": 8}


@pytest.mark.quick
def test_a_checkpoint_of_lerobot_0_3_acts_as_it_does_there(tmp_path):
    folder = import_policy(golden.GOLDEN / "lerobot_0.3", tmp_path / "ours")
    apart = predict(folder, golden_observation()) - golden_chunk("old")
    assert np.abs(apart).max() < 1e-4


def make_old(folder: Path) -> None:
    """Turns a checkpoint of 0.4 into one of before: statistics among the weights."""
    stats = load_file(folder / PRE_FILE)

    def add(tensors: dict[str, Any]) -> None:
        for key, tensor in stats.items():
            feature, _, name = key.rpartition(".")
            plain = feature.replace(".", "_")
            parts = ["normalize_inputs"]
            if feature == "action":
                parts = ["normalize_targets", "unnormalize_outputs"]
            for part in parts:
                tensors[f"{part}.buffer_{plain}.{name}"] = tensor.clone()

    edit_tensors(folder / "model.safetensors", add)
    for file in folder.glob("policy_*"):
        file.unlink()


@pytest.mark.quick
def test_statistics_among_the_weights_are_read_too(theirs, tmp_path):
    make_old(theirs)
    folder = import_policy(theirs, tmp_path / "ours")
    assert np.abs(predict(folder, golden_observation()) - golden_chunk()).max() < 1e-4


@pytest.mark.quick
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("mode", ["MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"])
def test_every_way_to_normalise_becomes_a_mean_and_a_deviation(
    theirs, tmp_path, mode, old
):
    low_name, high_name = {
        "MIN_MAX": ("min", "max"),
        "QUANTILES": ("q01", "q99"),
        "QUANTILE10": ("q10", "q90"),
        "IDENTITY": ("min", "max"),
    }[mode]
    low = torch.tensor([-1.0, 0, 1, 2, 3, 4])
    high = torch.tensor([1.0, 3, 5, 7, 9, 4])  # the last never moves
    for file in (PRE_FILE, POST_FILE):
        edit_tensors(
            theirs / file,
            lambda t: t.update(
                {f"{f}.{low_name}": low.clone() for f in (STATE, "action")}
                | {f"{f}.{high_name}": high.clone() for f in (STATE, "action")}
            ),
        )
    modes = {"VISUAL": "MEAN_STD", "STATE": mode, "ACTION": mode}
    for name, i in (("policy_preprocessor", 3), ("policy_postprocessor", 0)):
        edit_json(
            theirs / f"{name}.json",
            lambda c, i=i: c["steps"][i]["config"].update(norm_map=modes),
        )
    edit_json(theirs / "config.json", lambda c: c.update(normalization_mapping=modes))
    if old:
        make_old(theirs)
    policy = load_policy(import_policy(theirs, tmp_path / "ours"))
    x = torch.tensor([[0.5, 1, 2, 3, 4, 4.0]])
    span = torch.where(high == low, 1e-8, high - low)  # as LeRobot's documentation says
    wanted = x if mode == "IDENTITY" else 2 * (x - low) / span - 1
    for key in ("qpos", "action"):
        got = policy.scale(key).normalise(x)
        torch.testing.assert_close(got[:, :5], wanted[:, :5])
        torch.testing.assert_close(policy.scale(key).restore(got), x)


@pytest.mark.quick
def test_an_idle_joint_is_divided_by_what_lerobot_divides_by(theirs, tmp_path):
    def still(tensors: dict[str, Any]) -> None:
        tensors[f"{STATE}.std"][2] = 0.0
        tensors["action.std"][2] = 0.0

    for file in (PRE_FILE, POST_FILE):
        edit_tensors(theirs / file, still)
    policy = load_policy(import_policy(theirs, tmp_path / "ours"))
    assert policy.scale("qpos").std[2] == np.float32(1e-8)
    assert policy.scale("action").std[2] == np.float32(1e-8)  # training divides by it


def declare_unread(content: dict[str, Any]) -> None:
    """What a dataset of ours declares beside the joints' positions."""
    for name in ("velocity", "effort"):
        feature = {"type": "STATE", "shape": [6]}
        content["input_features"][f"observation.{name}"] = feature
    content["output_features"]["action.raw"] = {"type": "ACTION", "shape": [3]}


@pytest.mark.quick
@pytest.mark.parametrize("old", [False, True])
def test_states_that_lerobots_act_never_reads_are_passed_over(theirs, tmp_path, old):
    edit_json(theirs / "config.json", declare_unread)
    if old:
        make_old(theirs)
        start = "normalize_inputs.buffer_observation_velocity"
        edit_tensors(
            theirs / "model.safetensors",
            lambda t: t.update(
                {f"{start}.{name}": torch.ones(6) for name in ("mean", "std")}
            ),
        )
    folder = import_policy(theirs, tmp_path / "ours")
    assert np.abs(predict(folder, golden_observation()) - golden_chunk()).max() < 1e-4
    assert load_policy(folder).config.state_dim == 6


@pytest.mark.quick
@pytest.mark.parametrize("old", [False, True])
def test_what_stays_as_it_is_needs_no_statistics(theirs, tmp_path, old):
    """VISUAL is left MEAN_STD: there are no images, so nothing needs it."""
    modes = {"VISUAL": "MEAN_STD", "STATE": "IDENTITY", "ACTION": "IDENTITY"}
    edit_json(theirs / "config.json", lambda c: c.update(normalization_mapping=modes))
    if old:
        for file in theirs.glob("policy_*"):
            file.unlink()
    else:
        for part, i in (("preprocessor", 3), ("postprocessor", 0)):

            def empty(content: dict[str, Any], i: int = i) -> None:
                content["steps"][i].pop("state_file")
                content["steps"][i]["config"]["norm_map"] = modes

            edit_json(theirs / f"policy_{part}.json", empty)
    policy = load_policy(import_policy(theirs, tmp_path / "ours"))
    for key in ("qpos", "env_state", "action"):
        scale = policy.scale(key)
        assert (scale.mean.unique().tolist(), scale.std.unique().tolist()) == ([0], [1])


@pytest.mark.quick
def test_cameras_may_differ_in_size_and_have_any_name(tmp_path):
    there = export_policy(
        saved(tmp_path / "ours", **KINDS["two_sizes"]), tmp_path / "there"
    ).folder
    said = json.loads((there / "config.json").read_text())["input_features"]
    assert said["observation.images.top"]["shape"] == [3, 64, 96]
    assert said["observation.images.wrist"]["shape"] == [3, 40, 72]

    def plain(content: dict[str, Any]) -> None:  # a camera as older datasets name it
        for part in ("input_features", "features"):
            if part in content:
                content[part] = {
                    key.replace("images.wrist", "wrist"): x
                    for key, x in content[part].items()
                }

    edit_json(there / "config.json", plain)
    edit_json(there / "policy_preprocessor.json", lambda c: plain(steps_of(c, 3)))
    edit_tensors(
        there / PRE_FILE,
        lambda t: t.update(
            {k.replace("images.wrist", "wrist"): t.pop(k) for k in list(t)}
        ),
    )
    back = load_policy(import_policy(there, tmp_path / "back"))
    assert back.image_sizes == {"top": (64, 96), "wrist": (40, 72)}
    seen = observation_of(load_policy(tmp_path / "ours").config)
    apart = back.predict_chunk(seen) - predict(tmp_path / "ours", seen)
    assert np.abs(apart).max() < 1e-5


@pytest.mark.quick
def test_a_policy_that_resizes_says_so_when_it_leaves(tmp_path):
    policy = policy_of(cameras=("top",))
    policy.resizing = Resizing((64, 96), "pad", {"top": (240, 360)})
    save_policy(tmp_path / "ours", policy, {})
    [note] = export_policy(tmp_path / "ours", tmp_path / "there").notes
    assert "resizes its images, which LeRobot does not" in note
    assert "64 x 96 pixels" in note


def steps_of(content: dict[str, Any], i: int) -> dict[str, Any]:
    return content["steps"][i]["config"]


CONFIG, PRE, POST = (
    "config.json",
    "policy_preprocessor.json",
    "policy_postprocessor.json",
)
SHAPES = {"observation.images.a": (3, 64, 96), "observation.images.b": (3, 64, 64)}
VISUAL = {k: {"type": "VISUAL", "shape": s} for k, s in SHAPES.items()}
# What is broken, in which file, and the words that the message must have.
JSON_FAULTS: dict[str, tuple[str, Callable[[dict[str, Any]], Any], tuple[str, ...]]] = {
    "another policy": (CONFIG, lambda c: c.update(type="diffusion"), ("'diffusion'",)),
    "no type": (CONFIG, lambda c: c.pop("type"), ("lacks 'type'",)),
    "no setting": (CONFIG, lambda c: c.pop("n_heads"), ("lacks 'n_heads'",)),
    "bad setting": (CONFIG, lambda c: c.update(n_heads=5), ("heads is 5",)),
    "glu": (
        *(CONFIG, lambda c: c.update(feedforward_activation="glu")),
        ("activation is 'glu'", "relu"),
    ),
    "dilation": (
        *(CONFIG, lambda c: c.update(replace_final_stride_with_dilation=True)),
        ("replace_final_stride_with_dilation",),
    ),
    "no features": (
        *(CONFIG, lambda c: c.pop("input_features")),
        ("lacks 'input_features'",),
    ),
    "no state": (CONFIG, lambda c: c["input_features"].pop(STATE), (STATE,)),
    "no action": (CONFIG, lambda c: c["output_features"].clear(), ("'action'",)),
    "unknown feature": (
        CONFIG,
        lambda c: c["input_features"].update(
            {"observation.words": {"type": "LANGUAGE", "shape": [6]}}
        ),
        ("'observation.words'", "LANGUAGE", "observation.images.<camera>"),
    ),
    "a camera without statistics": (
        CONFIG,
        lambda c: c["input_features"].update(dict([next(iter(VISUAL.items()))])),
        ("'observation.images.a'", "as it is"),
    ),
    "more joints": (
        *(CONFIG, lambda c: c["input_features"][STATE].update(shape=[7])),
        ("'observation.state.mean'", "(6,)", "(7,)"),
    ),
    "more layers": (
        *(CONFIG, lambda c: c.update(n_encoder_layers=3)),
        ("lacks 'encoder.layers.2", "model.safetensors"),
    ),
    "no normaliser": (PRE, lambda c: c["steps"].pop(3), ("normalizer_processor",)),
    "no unnormaliser": (POST, lambda c: c["steps"].pop(0), ("unnormalizer_processor",)),
    "no state file": (
        *(PRE, lambda c: c["steps"][3].pop("state_file")),
        ("policy_preprocessor.json lacks 'observation.state.mean'",),
    ),
    "lost state file": (
        *(PRE, lambda c: c["steps"][3].update(state_file="gone.safetensors")),
        ("gone.safetensors is missing",),
    ),
    "unknown step": (
        *(PRE, lambda c: c["steps"].append({"registry_name": "delta_action"})),
        ("'delta_action'",),
    ),
    "renamed": (
        *(PRE, lambda c: steps_of(c, 0).update(rename_map={"a": "b"})),
        ("{'a': 'b'}", "rename_map"),
    ),
    "no eps": (PRE, lambda c: steps_of(c, 3).pop("eps"), ("lacks 'eps'",)),
    "feature not normalised": (
        *(PRE, lambda c: steps_of(c, 3)["features"].pop(STATE)),
        (STATE, "as it is"),
    ),
    "feature left out": (
        *(PRE, lambda c: steps_of(c, 3).update(normalize_observation_keys=[ENV])),
        (STATE, "as it is"),
    ),
    "no mode": (
        *(POST, lambda c: steps_of(c, 0)["norm_map"].pop("ACTION")),
        ("'ACTION'", "as it is"),
    ),
    "unknown mode": (
        *(PRE, lambda c: steps_of(c, 3)["norm_map"].update(STATE="LOG")),
        ("'LOG'", "MEAN_STD"),
    ),
    "other statistics": (
        *(PRE, lambda c: steps_of(c, 3)["norm_map"].update(STATE="QUANTILES")),
        ("'observation.state.q01'",),
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("fault", JSON_FAULTS)
def test_a_fault_in_the_settings_is_named_and_nothing_is_written(
    theirs, tmp_path, fault
):
    file, change, words = JSON_FAULTS[fault]
    edit_json(theirs / file, change)
    with pytest.raises(CheckpointError) as error:
        import_policy(theirs, tmp_path / "ours")
    for word in words:
        assert word in str(error.value)
    assert str(theirs) in str(error.value)
    assert not (tmp_path / "ours").exists()


TENSOR_FAULTS: dict[
    str, tuple[str, Callable[[dict[str, Any]], Any], tuple[str, ...]]
] = {
    "no weight": (
        *("model.safetensors", lambda t: t.pop("model.action_head.bias")),
        ("lacks 'action_head.bias'",),
    ),
    "weight of another shape": (
        "model.safetensors",
        lambda t: t.update({"model.action_head.bias": torch.zeros(7)}),
        ("'action_head.bias'", "(7,)", "(6,)"),
    ),
    "unknown weight": (
        *("model.safetensors", lambda t: t.update({"model.lora": torch.zeros(1)})),
        ("holds 'lora'",),
    ),
    "weight of no model": (
        *("model.safetensors", lambda t: t.update({"ema.bias": torch.zeros(1)})),
        ("holds 'ema.bias'",),
    ),
    "no mean": (
        *(PRE_FILE, lambda t: t.pop(f"{STATE}.mean")),
        (f"lacks '{STATE}.mean'",),
    ),
    "no deviation of the action": (
        *(POST_FILE, lambda t: t.pop("action.std")),
        ("lacks 'action.std'",),
    ),
    "never set": (
        *(PRE_FILE, lambda t: t[f"{STATE}.mean"].fill_(torch.inf)),
        (f"'{STATE}.mean'", "not finite"),
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_a_fault_in_the_tensors_is_named_and_nothing_is_written(
    theirs, tmp_path, fault
):
    file, change, words = TENSOR_FAULTS[fault]
    edit_tensors(theirs / file, change)
    with pytest.raises(CheckpointError) as error:
        import_policy(theirs, tmp_path / "ours")
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "ours").exists()


@pytest.mark.quick
def test_an_old_checkpoint_says_what_it_lacks(theirs, tmp_path):
    make_old(theirs)
    whole = load_file(theirs / "model.safetensors")

    def refused(*words: str, **changes: torch.Tensor | None) -> None:
        tensors = {key: x for key, x in (whole | changes).items() if x is not None}
        (theirs / "model.safetensors").unlink()
        save_file(tensors, theirs / "model.safetensors")
        with pytest.raises(CheckpointError) as error:
            import_policy(theirs, tmp_path / "ours")
        for word in words:
            assert word in str(error.value)

    start = "normalize_inputs.buffer_observation_"
    refused(f"'{STATE}.mean'", **{f"{start}state.mean": None})
    refused("state.velocity", **{f"{start}state.velocity.mean": torch.ones(6)})
    buffers = {key: None for key in whole if "buffer_" in key}
    refused("no statistics", "normalize_inputs", **buffers)
    edit_json(theirs / "config.json", lambda c: c.pop("normalization_mapping"))
    refused("lacks 'normalization_mapping'")


@pytest.mark.quick
def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="pretrained_model"):
        import_policy(tmp_path / "nowhere", tmp_path / "ours")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        import_policy(tmp_path / "empty", tmp_path / "ours")


# -------------------------------------------------------------------- out

KINDS: dict[str, dict[str, Any]] = {
    "two_cameras": {"cameras": ("top", "wrist")},
    "two_sizes": {"cameras": ("top", "wrist"), "image_size": ((64, 96), (40, 72))},
    "pre_norm": {"cameras": ("top",), "env_state_dim": 7, "pre_norm": True},
    "env_state": {"env_state_dim": 7, "activation": "gelu"},
    "without_cvae": {"env_state_dim": 7, "use_cvae": False},
    "seven_layers": {"env_state_dim": 7, **ONLY_FIRST},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_went_out_comes_back_in(tmp_path, kind):
    ours = saved(tmp_path / "ours", **KINDS[kind])
    there, notes = export_policy(ours, tmp_path / "there")
    assert notes == []
    back = import_policy(there, tmp_path / "back")
    policy, other = load_policy(ours), load_policy(back)
    seen = observation_of(policy.config)
    assert np.abs(predict(back, seen) - predict(ours, seen)).max() < 1e-5
    if kind != "seven_layers":
        for key, tensor in policy.module.state_dict().items():
            torch.testing.assert_close(other.module.state_dict()[key], tensor)
        if policy.cameras:  # else it does not know what an image would be
            assert other.config == policy.config


def test_the_committed_policy_goes_out_without_its_packed_encoder(tmp_path):
    ours = DATA / "so100_pick_place_state"
    with pytest.raises(
        CheckpointError, match=r"cvae_actions_per_token=10.*--drop-cvae"
    ):
        export_policy(ours, tmp_path / "there")
    there, notes = export_policy(ours, tmp_path / "there", drop_cvae=True)
    assert len(notes) == 2  # padding in the loss; no action encoder to train
    back = import_policy(there, tmp_path / "back")
    seen = observation_of(load_policy(ours).config)
    assert np.abs(predict(back, seen) - predict(ours, seen)).max() < 1e-5


@pytest.mark.quick
def test_the_files_are_those_that_lerobot_writes(tmp_path):
    import_policy(THEIRS, tmp_path / "ours")
    there = export_policy(tmp_path / "ours", tmp_path / "there").folder
    names = {x.name for x in there.iterdir()}
    assert names == {MARKER, *(x.name for x in THEIRS.iterdir())}
    said, theirs = (
        json.loads((x / "config.json").read_text()) for x in (there, THEIRS)
    )
    # Keys that 0.4.4 knows; without those that the first 0.4 did not, or do not matter.
    later = {"use_peft", "pretrained_path", "repo_id", "private", "tags", "license"}
    later |= {"optimizer_lr", "optimizer_lr_backbone", "optimizer_weight_decay"}
    assert theirs.keys() - said.keys() == later
    assert said.pop("normalization_mapping")["ENV"] == "MEAN_STD"
    assert said == {key: theirs[key] for key in said}
    for name, i in (("policy_preprocessor", 3), ("policy_postprocessor", 0)):
        ours, other = (
            json.loads((x / f"{name}.json").read_text()) for x in (there, THEIRS)
        )
        for content in (ours, other):
            content["steps"][i]["config"].pop("norm_map")
        assert ours == other
    for name in ("model.safetensors", PRE_FILE, POST_FILE):
        ours, other = load_file(there / name), load_file(THEIRS / name)
        assert {k: x.shape for k, x in ours.items()} == {
            k: x.shape for k, x in other.items() if k[-4:] not in (".min", ".max")
        }


def test_what_lerobot_cannot_do_is_refused_with_its_name(tmp_path):
    def refused(*words: str, **changes: Any) -> None:
        folder = saved(tmp_path / "ours", **changes)
        with pytest.raises(CheckpointError) as error:
            export_policy(folder, tmp_path / "there")
        for word in words:
            assert word in str(error.value)
        assert not (tmp_path / "there").exists()

    refused("camera_embedding=True", cameras=("top",), camera_embedding=True)
    refused("image_tokens='keypoints'", cameras=("top",), image_tokens="keypoints")
    refused("image_pool=2", "backbone='small'", cameras=("top",), image_pool=2,
            backbone="small")  # fmt: skip
    refused("no cameras and no env_state")
    statistics = Statistics(
        {k: np.zeros(6, np.float32) for k in ("qpos", "action", "action_delta")},
        {k: np.ones(6, np.float32) for k in ("qpos", "action", "action_delta")},
    )
    joints = {"state_dim": 6, "action_dim": 6}
    mlp = make_policy("bc_mlp", statistics, **joints)
    with pytest.raises(CheckpointError, match="bc_mlp"):
        export_policy(save_policy(tmp_path / "mlp", mlp, {}), tmp_path / "there")
    delta = make_policy("act", statistics, action_target="delta", **joints)
    with pytest.raises(CheckpointError, match="action_target='delta'"):
        export_policy(save_policy(tmp_path / "delta", delta, {}), tmp_path / "there")
    with pytest.raises(CheckpointError, match=r"no checkpoint folder"):
        export_policy(tmp_path / "nowhere", tmp_path / "there")


def test_cameras_get_new_names(tmp_path):
    ours = saved(tmp_path / "ours", cameras=("top", "wrist"))
    there = export_policy(ours, tmp_path / "there", cameras={"top": "front"}).folder
    features = json.loads((there / "config.json").read_text())["input_features"]
    assert list(features)[1:] == [
        "observation.images.front",
        "observation.images.wrist",
    ]
    back = import_policy(there, tmp_path / "back", cameras={"wrist": "side"})
    assert load_policy(back).cameras == ("front", "side")
    for door, folder in ((export_policy, ours), (import_policy, there)):
        with pytest.raises(SettingError, match="'hand'"):
            door(folder, tmp_path / "never", cameras={"hand": "top"})
    # Before there were several cameras, LeRobot called it "observation.image".
    edit_json(
        there / "config.json",
        lambda c: c["input_features"].pop("observation.images.wrist"),
    )
    for name in (
        "config.json",
        "policy_preprocessor.json",
        "policy_postprocessor.json",
    ):
        path = there / name
        path.write_text(path.read_text().replace("images.front", "image"))
    edit_tensors(
        there / PRE_FILE,
        lambda t: t.update(
            {f"observation.image.{x}": torch.ones(3, 1, 1) for x in ("mean", "std")}
        ),
    )
    assert load_policy(import_policy(there, tmp_path / "one")).cameras == ("image",)


@pytest.mark.quick
def test_how_chunks_are_executed_goes_along(tmp_path):
    ours = saved(tmp_path / "ours", env_state_dim=7)

    def said(*arguments: Any, **settings: Any) -> tuple[dict[str, Any], Any, Any]:
        execution = ExecutionConfig(*arguments, **settings) if arguments else None
        there = export_policy(ours, tmp_path / "there", execution=execution).folder
        content = json.loads((there / "config.json").read_text())
        card = json.loads(
            (import_policy(there, tmp_path / "back") / "card.json").read_text()
        )
        keys = ("n_action_steps", "temporal_ensemble_coeff")
        return card["execution"], *(content[key] for key in keys)

    assert said() == ({"mode": "receding", "execute": 8}, 8, None)
    assert said("receding") == ({"mode": "receding", "execute": 4}, 4, None)
    assert said("receding", 3) == ({"mode": "receding", "execute": 3}, 3, None)
    assert said("ensemble", m=0.1) == ({"mode": "ensemble", "m": 0.1}, 1, 0.1)
    turned = said("ensemble", m=0.1, order="newest_first")
    assert turned == ({"mode": "ensemble", "m": -0.1}, 1, -0.1)
    with pytest.raises(SettingError, match="every is 2"):
        said("ensemble", every=2)
    with pytest.raises(SettingError, match="execute is 9"):
        said("receding", 9)


@pytest.mark.quick
def test_a_mean_over_the_latent_is_a_smaller_weight_of_the_sum(tmp_path):
    ours = saved(tmp_path / "o", env_state_dim=7, kl_reduction="mean", kl_weight=3.0)
    there, _ = export_policy(ours, tmp_path / "there")
    assert json.loads((there / "config.json").read_text())["kl_weight"] == 0.5  # of 6
    ours = saved(tmp_path / "o", env_state_dim=7, loss="l2", padding_in_loss="exclude")
    notes = export_policy(ours, tmp_path / "there").notes
    assert ["l2" in notes[1], "padding" in notes[0], len(notes)] == [True, True, 2]


# ------------------------------------------------------------------ units


@pytest.mark.quick
@pytest.mark.parametrize("arm", ["so100", "so101"])
def test_degrees_are_those_of_a_calibrated_arm(arm):
    from hardware.so100.calibration import Calibration
    from hardware.so100.kinematics import ARMS
    from hardware.so100.kinematics import JOINTS as THEIR_JOINTS

    assert joint_names(arm, 6) == list(THEIR_JOINTS)
    model = ARMS[arm]
    np.testing.assert_allclose(MIDDLE[arm], model.middle[:5], atol=1e-12)
    assert list(SENSE[arm]) == list(model.sense[:5])
    rows = [(0, 900, 3100), (5, 800, 3200), (-9, 1000, 3000), (0, 700, 3300)]
    calibration = Calibration.of_ranges([*rows, (0, 0, 4095), (0, 1500, 2900)])
    low, high = calibration._columns()[:2]
    steps = np.random.default_rng(0).integers(1500, 2900, (50, 6))
    # LeRobot's rule, of its fact sheet: 4095 steps are 360 degrees, from the middle.
    theirs = (steps - (low + high) / 2) * 360 / 4095
    theirs[:, 5] = (steps[:, 5] - low[5]) / (high[5] - low[5]) * 100
    ours = calibration.state_of(steps, model)
    np.testing.assert_allclose(to_degrees(arm)(ours), theirs, atol=1e-9)
    np.testing.assert_allclose(to_degrees(arm).inverse()(theirs), ours, atol=1e-12)


@pytest.mark.parametrize("kind", ["two_cameras", "env_state"])
def test_in_degrees_the_policy_does_the_same(tmp_path, kind):
    ours = saved(tmp_path / "ours", **KINDS[kind])
    there, _ = export_policy(ours, tmp_path / "there", units="so100")
    seen = observation_of(load_policy(ours).config)
    line = to_degrees("so100")
    degrees = seen | {"qpos": line(seen["qpos"]).astype(np.float32)}
    kept = import_policy(there, tmp_path / "kept")  # still in LeRobot's units
    assert load_policy(kept).scale("qpos").std.min() > 0
    apart = predict(kept, degrees) - line(predict(ours, seen))
    assert np.abs(apart).max() < 1e-3  # degrees
    back = import_policy(there, tmp_path / "back", units="so100")
    assert np.abs(predict(back, seen) - predict(ours, seen)).max() < 1e-5
    # Training there is training here: the loss has no units.
    k = load_policy(ours).chunk_size
    torch.manual_seed(0)
    batch = {key: torch.as_tensor(x) for key, x in seen.items()}
    batch |= {"is_pad": torch.zeros(2, k, dtype=torch.bool)}
    action, eps = torch.randn(2, k, 6), torch.randn(2, 6)
    converted = torch.tensor(line(action.numpy()), dtype=torch.float32)
    here, _ = load_policy(ours).loss(batch | {"action": action}, eps)
    qpos = torch.as_tensor(degrees["qpos"])
    other, _ = load_policy(kept).loss(batch | {"qpos": qpos, "action": converted}, eps)
    torch.testing.assert_close(other, here, atol=1e-4, rtol=1e-4)


@pytest.mark.quick
def test_for_two_openarms_the_policy_does_the_same_left_arm_first(tmp_path):
    rng = np.random.default_rng(0)
    keys = {"qpos": 16, "action": 16, "env_state": 3}
    statistics = Statistics(
        {key: rng.normal(size=n).astype(np.float32) for key, n in keys.items()},
        {key: rng.uniform(0.2, 2, n).astype(np.float32) for key, n in keys.items()},
    )
    dims = {"state_dim": 16, "action_dim": 16, "env_state_dim": 3}
    policy = make_policy("act", statistics, chunk_size=4, **dims)
    ours = save_policy(tmp_path / "ours", policy, {})
    there, _ = export_policy(ours, tmp_path / "there", units="openarm")
    seen = {
        key: rng.normal(size=(2, keys[key])).astype(np.float32)
        for key in ("qpos", "env_state")
    }
    joints = lerobot_joints("openarm")  # as datasets are converted

    def theirs(numbers: np.ndarray) -> np.ndarray:
        return joints.theirs(numbers.reshape(-1, 16)).reshape(numbers.shape)

    kept = import_policy(there, tmp_path / "kept")  # still in LeRobot's units
    found = predict(kept, seen | {"qpos": theirs(seen["qpos"])})
    expected = theirs(predict(ours, seen))
    assert np.abs(found - expected).max() < 1e-3  # degrees
    assert np.abs(expected - predict(ours, seen)).max() > 10
    back = import_policy(there, tmp_path / "back", units="openarm")
    assert np.abs(predict(back, seen) - predict(ours, seen)).max() < 1e-5
    assert read_card(there)["joints"][:8] == joint_names("openarm", 16)[8:]  # left
    assert read_card(back)["joints"] == joint_names("openarm", 16)
    with pytest.raises(SettingError, match=r"6 joints shoulder_pan.*'qpos' has 16"):
        export_policy(ours, tmp_path / "no", units="so100")


def policy_of_width(joints):
    """Untrained, for so many joints."""
    keys = {"qpos": joints, "action": joints, "env_state": 2}
    statistics = Statistics(
        {key: np.zeros(n) for key, n in keys.items()},
        {key: np.ones(n) for key, n in keys.items()},
    )
    dims = {"state_dim": joints, "action_dim": joints, "env_state_dim": 2}
    return make_policy("act", statistics, **dims)


@pytest.mark.quick
def test_the_units_of_another_robot_than_the_cards_are_refused(tmp_path):
    ours = save_policy(tmp_path / "ours", policy_of_width(6), {"robot": "so100"})
    words = "units is 'so101'.*its robot is a so100, expected 'so100'"
    with pytest.raises(SettingError, match=words):
        export_policy(ours, tmp_path / "no", units="so101")
    there, _ = export_policy(ours, tmp_path / "there", units="so100")
    with pytest.raises(SettingError, match=words):
        import_policy(there, tmp_path / "no", units="so101")
    arm = save_policy(tmp_path / "koch", policy_of_width(6), {"robot": "koch"})
    with pytest.raises(SettingError, match="its robot is a koch, expected 'keep'"):
        export_policy(arm, tmp_path / "no", units="so100")
    assert not (tmp_path / "no").exists()


@pytest.mark.quick
def test_only_six_joints_have_units(tmp_path):
    ours = save_policy(tmp_path / "ours", policy_of_width(14), {})
    with pytest.raises(SettingError, match=r"6 joints.*'qpos' has 14"):
        export_policy(ours, tmp_path / "there", units="so100")


# ------------------------------------------------------- LeRobot opens them


def executed(policy: Policy, seen: dict[str, np.ndarray], execution: str) -> Any:
    """(6, B, A) of the same six ticks as `lerobot_golden.act_on`."""
    ensemble = TemporalEnsemble(policy.chunk_size, 0.1)
    actions, chunk = [], policy.predict_chunk(seen)
    for tick in range(6):
        moved = seen | {"qpos": seen["qpos"] + np.float32(0.1) * tick}
        if execution == "ensemble":
            actions.append(ensemble.step(policy.predict_chunk(moved)))
        else:
            if tick % 4 == 0:
                chunk = policy.predict_chunk(moved)
            actions.append(chunk[:, tick % 4])
    return np.stack(actions)


@needs_room
@pytest.mark.timeout(900)
def test_lerobot_opens_what_we_write_and_we_what_it_writes(tmp_path, lerobot_python):
    words, wanted = [], []
    for i, kind in enumerate(KINDS):
        ours = saved(tmp_path / kind, **KINDS[kind])
        mode = "ensemble" if i % 2 else "receding"
        execution = ExecutionConfig(mode, 4 if mode == "receding" else None, m=0.1)
        units = "keep" if i else "so100"
        there = export_policy(
            ours, tmp_path / f"{kind}_there", execution=execution, units=units
        ).folder
        policy = load_policy(ours)
        seen = observation_of(policy.config)
        if units == "so100":
            policy = load_policy(import_policy(there, tmp_path / "degrees"))
        save_file(theirs_of(seen), tmp_path / f"{kind}_seen")
        words += [there, tmp_path / f"{kind}_seen"]
        wanted.append((policy.predict_chunk(seen), executed(policy, seen, mode)))
    for case in ("env_state_and_cameras", "two_sizes"):
        name = tmp_path / f"saved_{case}"
        saved_there, seen_file = Path(f"{name}_there"), Path(f"{name}_seen")
        golden.in_room("save", saved_there, case)
        back = import_policy(saved_there, Path(f"{name}_back"))
        policy = load_policy(back)
        batch = golden.inputs(case)
        seen = {key: x for key, x in batch.items() if key.startswith("observation")}
        save_file(seen, seen_file)
        words += [saved_there, seen_file]
        ours = {"qpos": seen[STATE].numpy()}
        if ENV in seen:
            ours["env_state"] = seen[ENV].numpy()
        for i in range(2):
            pixels = seen[f"observation.images.camera{i}"]
            ours[f"images/camera{i}"] = pixels.permute(0, 2, 3, 1).numpy()
        wanted.append((policy.predict_chunk(ours), None))
        # And once more: what came from there goes back.
        again = export_policy(back, Path(f"{name}_again")).folder
        words += [again, seen_file]
        wanted.append(wanted[-1])
    golden.in_room("act", tmp_path / "done", *words)
    done = load_file(tmp_path / "done")
    for i, (chunk, actions) in enumerate(wanted):
        apart = np.abs(done[f"{i}/chunk"].numpy() - chunk).max()
        print(words[2 * i].name, "chunk", apart)
        scale = max(1.0, np.abs(chunk).max())  # degrees have few digits behind the dot
        assert apart < 1e-4 * scale
        if actions is not None:
            apart = np.abs(done[f"{i}/actions"].numpy() - actions).max()
            print(words[2 * i].name, "actions", apart)
            assert apart < 1e-4 * scale
