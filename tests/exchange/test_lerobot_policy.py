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

from ..lerobot_environment import needs_environment
from ..made_up import random_statistics

pytestmark = pytest.mark.mostly_quick

DATA = Path(__file__).parents[2] / "data" / "checkpoints"
THEIRS = golden.GOLDEN / "lerobot_0.4"
PRE_FILE = "policy_preprocessor_step_3_normalizer_processor.safetensors"
POST_FILE = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
CONFIG = "config.json"
PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
WEIGHTS = "model.safetensors"
ONLY_FIRST = {"decoder_layers": 3, "decoder_output": "first"}


def policy_of(**changes: Any) -> Policy:
    """An untrained policy of LeRobot's kind, small, with statistics of its own."""
    settings: dict[str, Any] = {
        **{"state_dim": 6, "action_dim": 6, "chunk_size": 8, "width": 32, "heads": 4},
        **{"feedforward": 48, "encoder_layers": 2, "cvae_layers": 2, "latent_dim": 6},
        **{"image_size": (64, 96), "dropout": 0.0, "padding_in_loss": "dilute"},
    }
    config = ACTConfig.of_size("paper", **{**settings, **changes})
    widths = {"qpos": 6, "action": 6, "env_state": config.env_state_dim}
    torch.manual_seed(0)
    policy = Policy(config, random_statistics(widths))
    if policy.module.cameras is not None:  # a checkpoint's own statistics of images
        mean = policy.module.cameras.mean
        mean += 0.1 * torch.randn(mean.shape)
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


def assert_golden(folder: Path, which: str = "chunk") -> None:
    """The policy in a folder predicts what LeRobot's did."""
    chunks = load_file(golden.GOLDEN / "lerobot_act.safetensors")
    apart = predict(folder, golden_observation()) - chunks[f"folder/{which}"].numpy()
    assert np.abs(apart).max() < 1e-4


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


def steps_of(content: dict[str, Any], i: int) -> dict[str, Any]:
    return content["steps"][i]["config"]


Change = Callable[[dict[str, Any]], Any]


def put(**settings: Any) -> Change:
    return lambda content: content.update(settings)


def put_in(key: str, **settings: Any) -> Change:
    return lambda content: content[key].update(settings)


def lose(*keys: str | int) -> Change:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content.pop(keys[-1])

    return change


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A copy of LeRobot's checkpoint, to be broken."""
    return Path(shutil.copytree(THEIRS, tmp_path / "theirs"))


def test_a_checkpoint_that_lerobot_saved_acts_as_it_does_there(tmp_path):
    folder = import_policy(THEIRS, tmp_path / "ours")
    assert_golden(folder)
    policy = load_policy(folder)
    # LeRobot's ACT leaves a scene's state as it is.
    assert policy.scale("env_state").std.unique().tolist() == [1.0]
    assert policy.config.padding_in_loss == "dilute"
    card = json.loads((folder / "card.json").read_text())
    assert card["execution"] == {"mode": "receding", "execute": 8}


def test_a_checkpoint_of_lerobot_0_3_acts_as_it_does_there(tmp_path):
    folder = import_policy(golden.GOLDEN / "lerobot_0.3", tmp_path / "ours")
    assert_golden(folder, "old")


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


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("mode", ["MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"])
def test_every_way_to_normalise_becomes_a_mean_and_a_deviation(
    theirs, tmp_path, mode, old
):
    quantiles = {"QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
    low_name, high_name = quantiles.get(mode, ("min", "max"))
    low = torch.tensor([-1.0, 0, 1, 2, 3, 4])
    high = torch.tensor([1.0, 3, 5, 7, 9, 4])  # the last never moves
    ends = {
        f"{feature}.{name}": value
        for name, value in ((low_name, low), (high_name, high))
        for feature in (STATE, "action")
    }
    for file in (PRE_FILE, POST_FILE):
        copies = {key: value.clone() for key, value in ends.items()}
        edit_tensors(theirs / file, put(**copies))
    modes = {"VISUAL": "MEAN_STD", "STATE": mode, "ACTION": mode}
    for file, i in ((PRE, 3), (POST, 0)):
        edit_json(theirs / file, lambda c, i=i: steps_of(c, i).update(norm_map=modes))
    edit_json(theirs / CONFIG, put(normalization_mapping=modes))
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


@pytest.mark.parametrize("old", [False, True])
def test_states_that_lerobots_act_never_reads_are_passed_over(theirs, tmp_path, old):
    edit_json(theirs / "config.json", declare_unread)
    if old:
        make_old(theirs)
        start = "normalize_inputs.buffer_observation_velocity"
        ones = {f"{start}.{name}": torch.ones(6) for name in ("mean", "std")}
        edit_tensors(theirs / WEIGHTS, put(**ones))
    folder = import_policy(theirs, tmp_path / "ours")
    assert_golden(folder)
    assert load_policy(folder).config.state_dim == 6


def forget_statistics(folder: Path, modes: dict[str, str], old: bool) -> None:
    """Turns a checkpoint into one that normalises so, and has no statistics at all."""
    edit_json(folder / CONFIG, put(normalization_mapping=modes))
    for file, i in ((PRE, 3), (POST, 0)):
        edit_json(folder / file, lose("steps", i, "state_file"))
        edit_json(folder / file, lambda c, i=i: steps_of(c, i).update(norm_map=modes))
    for file in (PRE_FILE, POST_FILE):
        (folder / file).unlink()
    for file in folder.glob("policy_*") if old else ():
        file.unlink()


@pytest.mark.parametrize("old", [False, True])
def test_what_stays_as_it_is_needs_no_statistics(theirs, tmp_path, old):
    """VISUAL is left MEAN_STD: there are no images, so nothing needs it."""
    modes = {"VISUAL": "MEAN_STD", "STATE": "IDENTITY", "ACTION": "IDENTITY"}
    forget_statistics(theirs, modes, old)
    policy = load_policy(import_policy(theirs, tmp_path / "ours"))
    for key in ("qpos", "env_state", "action"):
        scale = policy.scale(key)
        assert (scale.mean.unique().tolist(), scale.std.unique().tolist()) == ([0], [1])


@pytest.mark.parametrize("old", [False, True])
def test_pictures_that_stay_as_they_are_need_no_statistics_either(tmp_path, old):
    ours = saved(tmp_path / "ours", cameras=("top", "wrist"))
    there = export_policy(ours, tmp_path / "there").folder
    modes = dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), "IDENTITY")
    forget_statistics(there, modes, old)
    back = load_policy(import_policy(there, tmp_path / "back"))
    plain = load_policy(ours)
    assert plain.module.cameras is not None
    for scale in (plain.module.cameras, plain.scale("qpos"), plain.scale("action")):
        scale.mean.zero_()
        scale.std.fill_(1.0)
    seen = observation_of(plain.config)
    wanted = plain.predict_chunk(seen)
    assert np.abs(back.predict_chunk(seen) - wanted).max() < 1e-5
    assert np.abs(predict(ours, seen) - wanted).max() > 1e-2


def test_cameras_may_differ_in_size_and_have_any_name(tmp_path):
    ours = saved(tmp_path / "ours", **KINDS["two_sizes"])
    there = export_policy(ours, tmp_path / "there").folder
    said = json.loads((there / "config.json").read_text())["input_features"]
    assert said["observation.images.top"]["shape"] == [3, 64, 96]
    assert said["observation.images.wrist"]["shape"] == [3, 40, 72]

    for path in (there / CONFIG, there / PRE):  # a camera as older datasets name it
        path.write_text(path.read_text().replace("images.wrist", "wrist"))
    tensors = load_file(there / PRE_FILE)
    renamed = {k.replace("images.wrist", "wrist"): x for k, x in tensors.items()}
    (there / PRE_FILE).unlink()
    save_file(renamed, there / PRE_FILE)
    back = load_policy(import_policy(there, tmp_path / "back"))
    assert back.image_sizes == {"top": (64, 96), "wrist": (40, 72)}
    seen = observation_of(load_policy(tmp_path / "ours").config)
    apart = back.predict_chunk(seen) - predict(tmp_path / "ours", seen)
    assert np.abs(apart).max() < 1e-5


def test_a_policy_that_resizes_says_so_when_it_leaves(tmp_path):
    policy = policy_of(cameras=("top",))
    policy.resizing = Resizing((64, 96), "pad", {"top": (240, 360)})
    save_policy(tmp_path / "ours", policy, {})
    [note] = export_policy(tmp_path / "ours", tmp_path / "there").notes
    assert "resizes its images, which LeRobot does not" in note
    assert "64 x 96 pixels" in note


CAMERA = {"observation.images.a": {"type": "VISUAL", "shape": (3, 64, 96)}}
WORDS = {"observation.words": {"type": "LANGUAGE", "shape": [6]}}
DILATION = "replace_final_stride_with_dilation"
STEP = ("steps", 3, "config")
# Which file, what is broken in it, and the words that the message must have.
FAULTS: list[tuple[str, Change, tuple[str, ...]]] = [
    (CONFIG, put(type="diffusion"), ("'diffusion'",)),
    (CONFIG, lose("type"), ("lacks 'type'",)),
    (CONFIG, lose("n_heads"), ("lacks 'n_heads'",)),
    (CONFIG, put(n_heads=5), ("heads is 5",)),
    (CONFIG, put(feedforward_activation="glu"), ("activation is 'glu'", "relu")),
    (CONFIG, put(**{DILATION: True}), (DILATION,)),
    (CONFIG, lose("input_features"), ("lacks 'input_features'",)),
    (CONFIG, lose("input_features", STATE), (STATE,)),
    (CONFIG, lambda c: c["output_features"].clear(), ("'action'",)),
    (
        *(CONFIG, put_in("input_features", **WORDS)),
        ("'observation.words'", "LANGUAGE", "observation.images.<camera>"),
    ),
    (
        *(CONFIG, put_in("input_features", **CAMERA)),
        ("'observation.images.a'", "as it is"),
    ),
    (
        *(CONFIG, lambda c: c["input_features"][STATE].update(shape=[7])),
        ("'observation.state.mean'", "(6,)", "(7,)"),
    ),
    (CONFIG, put(n_encoder_layers=3), ("lacks 'encoder.layers.2", WEIGHTS)),
    (PRE, lose("steps", 3), ("normalizer_processor",)),
    (POST, lose("steps", 0), ("unnormalizer_processor",)),
    (PRE, lose("steps", 3, "state_file"), (f"{PRE} lacks 'observation.state.mean'",)),
    (
        *(PRE, lambda c: c["steps"][3].update(state_file="gone.safetensors")),
        ("gone.safetensors is missing",),
    ),
    (
        *(PRE, lambda c: c["steps"].append({"registry_name": "delta_action"})),
        ("'delta_action'",),
    ),
    (
        *(PRE, lambda c: steps_of(c, 0).update(rename_map={"a": "b"})),
        ("{'a': 'b'}", "rename_map"),
    ),
    (PRE, lose(*STEP, "eps"), ("lacks 'eps'",)),
    (PRE, lose(*STEP, "features", STATE), (STATE, "as it is")),
    (
        *(PRE, lambda c: steps_of(c, 3).update(normalize_observation_keys=[ENV])),
        (STATE, "as it is"),
    ),
    (
        *(POST, lose("steps", 0, "config", "norm_map", "ACTION")),
        ("'ACTION'", "as it is"),
    ),
    (
        *(PRE, lambda c: steps_of(c, 3)["norm_map"].update(STATE="LOG")),
        ("'LOG'", "MEAN_STD"),
    ),
    (
        *(PRE, lambda c: steps_of(c, 3)["norm_map"].update(STATE="QUANTILES")),
        ("'observation.state.q01'",),
    ),
    (WEIGHTS, lose("model.action_head.bias"), ("lacks 'action_head.bias'",)),
    (
        *(WEIGHTS, put(**{"model.action_head.bias": torch.zeros(7)})),
        ("'action_head.bias'", "(7,)", "(6,)"),
    ),
    (WEIGHTS, put(**{"model.lora": torch.zeros(1)}), ("holds 'lora'",)),
    (WEIGHTS, put(**{"ema.bias": torch.zeros(1)}), ("holds 'ema.bias'",)),
    (PRE_FILE, lose(f"{STATE}.mean"), (f"lacks '{STATE}.mean'",)),
    (POST_FILE, lose("action.std"), ("lacks 'action.std'",)),
    (
        *(PRE_FILE, lambda t: t[f"{STATE}.mean"].fill_(torch.inf)),
        (f"'{STATE}.mean'", "not finite"),
    ),
]


@pytest.mark.parametrize(("file", "change", "words"), FAULTS)
def test_a_fault_is_named_and_nothing_is_written(theirs, tmp_path, file, change, words):
    json_file = file.endswith(".json")
    (edit_json if json_file else edit_tensors)(theirs / file, change)
    with pytest.raises(CheckpointError) as error:
        import_policy(theirs, tmp_path / "ours")
    for word in words:
        assert word in str(error.value)
    assert not json_file or str(theirs) in str(error.value)
    assert not (tmp_path / "ours").exists()


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


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="pretrained_model"):
        import_policy(tmp_path / "nowhere", tmp_path / "ours")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        import_policy(tmp_path / "empty", tmp_path / "ours")


KINDS: dict[str, dict[str, Any]] = {
    "two_cameras": {"cameras": ("top", "wrist")},
    "two_sizes": {"cameras": ("top", "wrist"), "image_size": ((64, 96), (40, 72))},
    "pre_norm": {"cameras": ("top",), "env_state_dim": 7, "pre_norm": True},
    "env_state": {"env_state_dim": 7, "activation": "gelu"},
    "without_cvae": {"env_state_dim": 7, "use_cvae": False},
    "seven_layers": {"env_state_dim": 7, **ONLY_FIRST},
}


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_the_files_are_those_that_lerobot_writes(tmp_path):
    import_policy(THEIRS, tmp_path / "ours")
    there = export_policy(tmp_path / "ours", tmp_path / "there").folder
    names = {x.name for x in there.iterdir()}
    assert names == {MARKER, *(x.name for x in THEIRS.iterdir())}
    said, theirs = (json.loads((x / CONFIG).read_text()) for x in (there, THEIRS))
    # Keys that 0.4.4 knows; without those that the first 0.4 did not, or do not matter.
    later = {"use_peft", "pretrained_path", "repo_id", "private", "tags", "license"}
    later |= {"optimizer_lr", "optimizer_lr_backbone", "optimizer_weight_decay"}
    assert theirs.keys() - said.keys() == later
    assert said.pop("normalization_mapping")["ENV"] == "MEAN_STD"
    assert said == {key: theirs[key] for key in said}
    for name, i in ((PRE, 3), (POST, 0)):
        ours, other = (json.loads((x / name).read_text()) for x in (there, THEIRS))
        for content in (ours, other):
            steps_of(content, i).pop("norm_map")
        assert ours == other
    for name in (WEIGHTS, PRE_FILE, POST_FILE):
        ours, other = (
            {k: x.shape for k, x in load_file(folder / name).items()}
            for folder in (there, THEIRS)
        )
        extremes = {key for key in other if key.endswith((".min", ".max"))}
        assert ours == {key: other[key] for key in other.keys() - extremes}


@pytest.mark.slow
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
    pool = {"image_pool": 2, "backbone": "small"}
    refused("image_pool=2", "backbone='small'", cameras=("top",), **pool)
    refused("no cameras and no env_state")
    statistics = random_statistics({"qpos": 6, "action": 6, "action_delta": 6})
    joints = {"state_dim": 6, "action_dim": 6}
    mlp = make_policy("bc_mlp", statistics, **joints)
    with pytest.raises(CheckpointError, match="bc_mlp"):
        export_policy(save_policy(tmp_path / "mlp", mlp, {}), tmp_path / "there")
    delta = make_policy("act", statistics, action_target="delta", **joints)
    with pytest.raises(CheckpointError, match="action_target='delta'"):
        export_policy(save_policy(tmp_path / "delta", delta, {}), tmp_path / "there")
    with pytest.raises(CheckpointError, match=r"no checkpoint folder"):
        export_policy(tmp_path / "nowhere", tmp_path / "there")


@pytest.mark.slow
def test_cameras_get_new_names(tmp_path):
    ours = saved(tmp_path / "ours", cameras=("top", "wrist"))
    there = export_policy(ours, tmp_path / "there", cameras={"top": "front"}).folder
    features = json.loads((there / "config.json").read_text())["input_features"]
    images = "observation.images"
    assert list(features)[1:] == [f"{images}.front", f"{images}.wrist"]
    back = import_policy(there, tmp_path / "back", cameras={"wrist": "side"})
    assert load_policy(back).cameras == ("front", "side")
    for door, folder in ((export_policy, ours), (import_policy, there)):
        with pytest.raises(SettingError, match="'hand'"):
            door(folder, tmp_path / "never", cameras={"hand": "top"})
    # Before there were several cameras, LeRobot called it "observation.image".
    edit_json(there / CONFIG, lose("input_features", f"{images}.wrist"))
    for path in (there / CONFIG, there / PRE, there / POST):
        path.write_text(path.read_text().replace("images.front", "image"))
    ones = {f"observation.image.{x}": torch.ones(3, 1, 1) for x in ("mean", "std")}
    edit_tensors(there / PRE_FILE, put(**ones))
    assert load_policy(import_policy(there, tmp_path / "one")).cameras == ("image",)


def test_how_chunks_are_executed_goes_along(tmp_path):
    ours = saved(tmp_path / "ours", env_state_dim=7)

    def said(*arguments: Any, **settings: Any) -> tuple[dict[str, Any], Any, Any]:
        execution = ExecutionConfig(*arguments, **settings) if arguments else None
        there = export_policy(ours, tmp_path / "there", execution=execution).folder
        content = json.loads((there / "config.json").read_text())
        back = load_policy(import_policy(there, tmp_path / "back"))
        keys = ("n_action_steps", "temporal_ensemble_coeff")
        return back.card["execution"], *(content[key] for key in keys)

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


def test_a_mean_over_the_latent_is_a_smaller_weight_of_the_sum(tmp_path):
    ours = saved(tmp_path / "o", env_state_dim=7, kl_reduction="mean", kl_weight=3.0)
    there, _ = export_policy(ours, tmp_path / "there")
    assert json.loads((there / "config.json").read_text())["kl_weight"] == 0.5  # of 6
    ours = saved(tmp_path / "o", env_state_dim=7, loss="l2", padding_in_loss="exclude")
    notes = export_policy(ours, tmp_path / "there").notes
    assert ["l2" in notes[1], "padding" in notes[0], len(notes)] == [True, True, 2]


@pytest.mark.parametrize("arm", ["so100", "so101"])
def test_degrees_are_those_of_a_calibrated_arm(arm):
    from hardware.so100.calibration import Calibration
    from hardware.so100.kinematics import ARMS, JOINTS

    assert joint_names(arm, 6) == list(JOINTS)
    model = ARMS[arm]
    np.testing.assert_allclose(MIDDLE[arm], model.middle[:5], atol=1e-12)
    assert list(SENSE[arm]) == list(model.sense[:5])
    rows = [(0, 900, 3100), (5, 800, 3200), (-9, 1000, 3000), (0, 700, 3300)]
    calibration = Calibration.of_ranges([*rows, (0, 0, 4095), (0, 1500, 2900)])
    low, high = calibration._columns(model)[:2]
    steps = np.random.default_rng(0).integers(1500, 2900, (50, 6))
    # LeRobot's rule, of its fact sheet: 4095 steps are 360 degrees, from the middle.
    theirs = (steps - (low + high) / 2) * 360 / 4095
    theirs[:, 5] = (steps[:, 5] - low[5]) / (high[5] - low[5]) * 100
    ours = calibration.state_of(steps, model)
    np.testing.assert_allclose(to_degrees(arm)(ours), theirs, atol=1e-9)
    np.testing.assert_allclose(to_degrees(arm).inverse()(theirs), ours, atol=1e-12)


@pytest.mark.slow
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


def test_for_two_openarms_the_policy_does_the_same_left_arm_first(tmp_path):
    ours = save_policy(tmp_path / "ours", policy_of_width(16, chunk_size=4), {})
    there, _ = export_policy(ours, tmp_path / "there", units="openarm")
    rows = np.random.default_rng(0).normal(size=(2, 18)).astype(np.float32)
    seen = {"qpos": rows[:, :16], "env_state": rows[:, 16:]}
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


def policy_of_width(joints, **settings):
    """Untrained, for so many joints."""
    statistics = random_statistics({"qpos": joints, "action": joints, "env_state": 2})
    dims = {"state_dim": joints, "action_dim": joints, "env_state_dim": 2}
    return make_policy("act", statistics, **dims, **settings)


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


def test_only_six_joints_have_units(tmp_path):
    ours = save_policy(tmp_path / "ours", policy_of_width(14), {})
    with pytest.raises(SettingError, match=r"6 joints.*'qpos' has 14"):
        export_policy(ours, tmp_path / "there", units="so100")


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


@pytest.mark.slow
@needs_environment
@pytest.mark.timeout(900)
def test_lerobot_opens_what_we_write_and_we_what_it_writes(tmp_path, lerobot_python):
    words, wanted = [], []
    for i, kind in enumerate(KINDS):
        ours = saved(tmp_path / kind, **KINDS[kind])
        mode = "ensemble" if i % 2 else "receding"
        execution = ExecutionConfig(mode, 4 if mode == "receding" else None, m=0.1)
        units = "keep" if i else "so100"
        said = {"execution": execution, "units": units}
        there = export_policy(ours, tmp_path / f"{kind}_there", **said).folder
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
        golden.in_lerobot("save", saved_there, case)
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
    golden.in_lerobot("act", tmp_path / "done", *words)
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
