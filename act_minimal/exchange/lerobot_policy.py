"""LeRobot's checkpoints, written and read, in the layout of LeRobot 0.4.

    config.json                                     what the policy sees, and its shape
    model.safetensors                               weights (`lerobot_names.py`)
    policy_preprocessor.json   + .safetensors       steps before it, normalisation
    policy_postprocessor.json  + .safetensors       steps after it, the way back

Checkpoints before 0.4, with their statistics as buffers among the weights, are read,
too. LeRobot lets pass what has no statistics, and starts from random weights where a
file lacks some; here both are errors.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import (
    CheckpointError,
    load_policy,
    read_card,
    read_json,
    read_tensors,
    save_policy,
    write_tensors,
)
from ..dataset import Statistics
from ..datasets.embodiment import (
    ABOUT_ARM,
    UNITS,
    expect_robot,
    joint_names,
    lerobot_joint_names,
)
from ..execution import LATE, ExecutionConfig
from ..model import ACT
from ..policy import Policy
from ..residual import refuse_head
from ..settings import SLOW, ACTConfig
from ..support.errors import SettingError
from ..support.files import atomic_folder, check_new_folder, write_json
from .lerobot_names import Dialect, rename_in, rename_out
from .lerobot_normalisation import read_normalisers, write_steps
from .lerobot_units import (
    ACTION,
    CAMERA,
    ENV,
    STATE,
    LinearMap,
    PolicyUnits,
    to_degrees,
)

EXPORT, IMPORT = "act export-lerobot", "act import-lerobot"  # who made a folder

FEATURES = {"qpos": STATE, "env_state": ENV, "action": ACTION}
# LeRobot's setting: ours.
SETTINGS = {
    "chunk_size": "chunk_size",
    "dim_model": "width",
    "dim_feedforward": "feedforward",
    "n_heads": "heads",
    "n_encoder_layers": "encoder_layers",
    "n_decoder_layers": "decoder_layers",
    "pre_norm": "pre_norm",
    "feedforward_activation": "activation",
    "dropout": "dropout",
    "use_vae": "use_cvae",
    "n_vae_encoder_layers": "cvae_layers",
    "latent_dim": "latent_dim",
    "kl_weight": "kl_weight",
}
# What LeRobot and the original repository have no setting for.
FIXED = {
    "decoder_output": "last",
    "cvae_actions_per_token": 1,
    "kl_reduction": "sum",
    "loss": "l1",
    "padding_in_loss": "dilute",
    "pretrained": "none",
    "image_tokens": "grid",
    "image_pool": 1,
    "camera_embedding": False,
}


class Exported(NamedTuple):
    """An exported checkpoint, and in what LeRobot would treat it differently."""

    folder: Path
    notes: list[str]


# ------------------------------------------------------------------- out


def export_policy(
    folder: Path | str,
    out: Path | str,
    *,
    units: PolicyUnits = "keep",
    execution: ExecutionConfig | None = None,
    drop_cvae: bool = False,
    cameras: Mapping[str, str] | None = None,
) -> Exported:
    """Writes an ACT checkpoint as LeRobot 0.4 reads it; there it acts the same.

    Args:
        folder: of our checkpoint or training run.
        out: the folder to write: new, or one that this function made.
        units: what joints are turned into (`lerobot_units.py`); "keep" leaves them.
        execution: how LeRobot's `select_action` shall execute chunks; by default the
            whole chunk, LeRobot's own way.
        drop_cvae: leave the action encoder out. It is used in training only.
        cameras: our names of cameras -> the names they have there; those that are not
            in it keep theirs.

    Raises:
        CheckpointError: LeRobot's ACT cannot do what this policy does; names the
            settings.
        SettingError: LeRobot cannot execute chunks that way, or the joints have no
            units to convert.
    """
    check_new_folder(out, EXPORT, CheckpointError)
    refuse_head(folder, "LeRobot's ACT")
    policy = load_policy(folder)
    if not isinstance(policy.config, ACTConfig):
        raise CheckpointError(f"{folder} is a {policy.name} policy, expected an ACT")
    config = policy.config
    names = _renamed(config.cameras, cameras)
    _refuse_foreign(policy, Path(folder), drop_cvae)
    state = {key: x.float() for key, x in policy.module.state_dict().items()}
    stats = {
        key: (policy.scale(key).mean.numpy(), policy.scale(key).std.numpy())
        for key in policy.stats
    }
    if units != "keep":
        expect_robot(policy.card, units, folder)
        _convert(state, stats, to_degrees(units), units)
    if drop_cvae:
        state = {key: x for key, x in state.items() if not key.startswith("cvae.")}
    if config.decoder_output == "first":
        state = {k: x for k, x in state.items() if not re.match(r"decoder\.[1-9]", k)}
    weights = rename_out(state, "lerobot")
    with atomic_folder(out, CheckpointError, made_by=EXPORT) as temporary:
        settings = _settings_out(config, execution, drop_cvae, names)
        write_json(temporary / "config.json", settings)
        card = {k: v for k, v in policy.card.items() if k in ABOUT_ARM}
        if units != "keep":
            joints = lerobot_joint_names(units, config.state_dim)
            card |= {"robot": units, "joints": joints, "units": "degrees"}
        if card:  # LeRobot's own files have no place for it
            write_json(temporary / "card.json", card)
        tensors = {f"model.{key}": x for key, x in weights.items()}
        write_tensors(temporary / "model.safetensors", tensors)
        named = {}
        for i, name in enumerate(("mean", "std")):
            for key, pair in stats.items():
                named[f"{FEATURES[key]}.{name}"] = torch.tensor(pair[i])
            for camera, rows in zip(
                names, state.get(f"cameras.{name}", ()), strict=True
            ):
                named[f"{CAMERA}{camera}.{name}"] = rows
        write_steps(temporary, settings, named)
    return Exported(Path(out), _notes(policy, drop_cvae))


def _refuse_foreign(policy: Policy, folder: Path, drop_cvae: bool) -> None:
    config = policy.config
    assert isinstance(config, ACTConfig)
    wrong = []
    if config.cameras:
        for name in ("image_tokens", "image_pool", "camera_embedding"):
            if getattr(config, name) != FIXED[name]:
                found = getattr(config, name)
                wrong.append(f"{name}={found!r} (it knows {FIXED[name]!r})")
        if config.backbone == "small":
            wrong.append("backbone='small' (it knows ResNets)")
    elif not policy.uses_env_state:
        wrong.append("no cameras and no env_state (it needs one of them)")
    if policy.action_target != "absolute":
        wrong.append(f"action_target={policy.action_target!r} (it knows 'absolute')")
    if config.head != "l1":
        wrong.append(f"head={config.head!r} (it knows 'l1')")
    for name in SLOW:
        if told := getattr(config, name):
            wrong.append(f"{name}={told} (it knows no committed actions)")
    if config.use_cvae and config.cvae_actions_per_token > 1 and not drop_cvae:
        wrong.append(
            f"cvae_actions_per_token={config.cvae_actions_per_token} (it knows 1; "
            "export with --drop-cvae: the policy acts the same, as only training uses "
            "it)"
        )
    if wrong:
        raise CheckpointError(
            f"LeRobot's ACT cannot do what {folder} does: {'; '.join(wrong)}"
        )


def _notes(policy: Policy, drop_cvae: bool) -> list[str]:
    config, notes = policy.config, []
    assert isinstance(config, ACTConfig)
    if policy.resizing is not None:
        height, width = policy.resizing.size
        notes.append(
            "this policy resizes its images, which LeRobot does not: bring them there "
            f"to {height} x {width} pixels, the size that its network reads"
        )
    if config.padding_in_loss != FIXED["padding_in_loss"]:
        notes.append(
            "LeRobot before 0.6 counts padding as zero error, this policy was trained "
            "without: training on there weighs L1 against KL differently"
        )
    if config.loss != FIXED["loss"]:
        notes.append(
            f"LeRobot trains with l1, this policy was trained with {config.loss}"
        )
    if drop_cvae and config.use_cvae:
        notes.append("without its action encoder LeRobot would train it with z = 0")
    return notes


def _settings_out(
    config: ACTConfig,
    execution: ExecutionConfig | None,
    drop_cvae: bool,
    cameras: Sequence[str],
) -> dict[str, Any]:
    """LeRobot's config.json, with no key that 0.4.0 did not know."""
    inputs: dict[str, Any] = {STATE: {"type": "STATE", "shape": [config.state_dim]}}
    if config.env_state_dim:
        inputs[ENV] = {"type": "ENV", "shape": [config.env_state_dim]}
    for camera, size in zip(cameras, config.camera_sizes.values(), strict=True):
        inputs[CAMERA + camera] = {"type": "VISUAL", "shape": [3, *size]}
    theirs = {name: getattr(config, ours) for name, ours in SETTINGS.items()}
    if drop_cvae:
        theirs["use_vae"] = False
    if config.decoder_output == "first":
        theirs["n_decoder_layers"] = 1
    if config.kl_reduction == "mean":
        theirs["kl_weight"] = config.kl_weight / config.latent_dim
    return {
        "type": "act",
        "n_obs_steps": 1,
        "input_features": inputs,
        "output_features": {ACTION: {"type": "ACTION", "shape": [config.action_dim]}},
        "device": "cpu",
        "use_amp": False,
        "push_to_hub": False,
        "normalization_mapping": dict.fromkeys(
            ("VISUAL", "STATE", "ENV", "ACTION"), "MEAN_STD"
        ),
        "vision_backbone": config.backbone if config.cameras else "resnet18",
        "pretrained_backbone_weights": None,
        "replace_final_stride_with_dilation": False,
        **theirs,
        **_execution_out(execution or ExecutionConfig("open_loop"), config.chunk_size),
    }


def _execution_out(execution: ExecutionConfig, chunk_size: int) -> dict[str, Any]:
    if ":" in execution.mode or execution.mode in LATE:
        raise SettingError(
            f"mode is '{execution.mode}', which LeRobot does not have, expected "
            "open_loop, receding or ensemble"
        )
    if execution.mode == "ensemble":
        if execution.every != 1:
            raise SettingError(
                f"every is {execution.every}, expected 1: LeRobot's ensemble asks for "
                "a chunk at every tick"
            )
        # Counting from the newest with m is counting from the oldest with -m.
        m = execution.m if execution.order == "oldest_first" else -execution.m
        return {"n_action_steps": 1, "temporal_ensemble_coeff": m}
    steps = chunk_size
    if execution.mode == "receding":
        steps = execution.execute or max(1, chunk_size // 2)
        if not 1 <= steps <= chunk_size:
            raise SettingError(
                f"execute is {steps}, expected 1 to the chunk size {chunk_size}"
            )
    return {"n_action_steps": steps, "temporal_ensemble_coeff": None}


def _renamed(
    cameras: Sequence[str], new_names: Mapping[str, str] | None
) -> tuple[str, ...]:
    for name in new_names or {}:
        if name not in cameras:
            raise SettingError(
                f"cameras renames {name!r}, expected one of {list(cameras)}"
            )
    return tuple((new_names or {}).get(name, name) for name in cameras)


def _convert(
    state: dict[str, Tensor],
    stats: dict[str, tuple[np.ndarray, np.ndarray]],
    convert: LinearMap,
    units: PolicyUnits,
) -> None:
    """Makes a policy read and answer in other units; changes both dicts.

    The statistics follow the map. Where it turns a joint's sense round, the weights
    that read or write the joint change their sign, so that deviations stay positive.
    Of two arms LeRobot begins with the other one, and so do statistics and weights.
    """
    arms = 2 if units == "openarm" else 1
    convert = LinearMap(np.tile(convert.scale, arms), np.tile(convert.offset, arms))
    width = len(convert.scale)
    order = np.roll(np.arange(width), width // 2 if arms == 2 else 0)
    for key in ("qpos", "action"):
        mean, std = (np.asarray(x, np.float64) for x in stats[key])
        if mean.shape != (width,):
            raise SettingError(
                f"units is {units!r}, which is for the {width} joints "
                f"{', '.join(joint_names(units, width))}; this policy's '{key}' has "
                f"{len(mean)} numbers"
            )
        mean, std = convert(mean)[order], (std * np.abs(convert.scale))[order]
        stats[key] = mean.astype(np.float32), std.astype(np.float32)
    sign = torch.tensor(np.sign(convert.scale), dtype=torch.float32)
    for key in ("qpos_proj", "cvae.qpos_proj", "cvae.action_proj"):
        if f"{key}.weight" in state:
            weight = state[f"{key}.weight"]  # (D, p A), p actions a token
            tokens = weight.reshape(len(weight), -1, width)  # (D, p, A)
            state[f"{key}.weight"] = (tokens * sign)[..., order].reshape(weight.shape)
    for key in ("action_head.weight", "action_head.bias"):
        x = state[key]
        state[key] = (x * (sign[:, None] if x.dim() == 2 else sign))[order]


# -------------------------------------------------------------------- in


@dataclass
class Foreign:
    """What a checkpoint of another project says, in our terms."""

    config: ACTConfig
    weights: Mapping[str, Tensor]  # by their names, without "model."
    dialect: Dialect
    stats: dict[str, tuple[np.ndarray, np.ndarray]]  # qpos, env_state, action
    images: Sequence[tuple[np.ndarray, ...]]  # (3, 1, 1) each, a row a camera
    where: Path | str
    card: dict[str, Any]


def import_policy(
    folder: Path | str,
    out: Path | str,
    *,
    units: PolicyUnits = "keep",
    cameras: Mapping[str, str] | None = None,
) -> Path:
    """Reads LeRobot's ACT checkpoint, of 0.4 or before, and writes it as ours.

    Args:
        folder: with config.json and model.safetensors, LeRobot's `pretrained_model`.
        out: the folder to write: new, or one that this function made.
        units: those of LeRobot's side, as in `export_policy`.
        cameras: LeRobot's names of cameras, without "observation.images." -> the names
            they get here.

    Raises:
        CheckpointError: something is missing, or has another shape, or is nothing that
            this package's ACT can do; names the file and the key.
        SettingError: the joints have no units to convert, or a camera is unknown.
    """
    check_new_folder(out, IMPORT, CheckpointError)
    foreign = read_lerobot(Path(folder))
    names = _renamed(foreign.config.cameras, cameras)
    foreign.config = replace(foreign.config, cameras=names)
    return save_foreign(foreign, out, units)


def save_foreign(foreign: Foreign, out: Path | str, units: PolicyUnits) -> Path:
    """Builds the policy, fills it, writes it."""
    config, stats = foreign.config, dict(foreign.stats)

    with torch.device("meta"):  # names and shapes, without numbers
        expected = ACT(config, pretrained_weights=False).state_dict()
    state = rename_in(foreign.weights, expected, foreign.dialect, foreign.where)
    if units != "keep":
        _convert(state, stats, to_degrees(units).inverse(), units)
    for i, name in enumerate(("mean", "std")):
        if foreign.images:
            rows = np.stack([pair[i] for pair in foreign.images])
            state[f"cameras.{name}"] = torch.tensor(rows, dtype=torch.float32)
    mean, std = ({key: pair[i] for key, pair in stats.items()} for i in (0, 1))
    policy = Policy(config, Statistics(mean, std), pretrained_weights=False)
    policy.module.load_state_dict(state)
    card = foreign.card | {"imported_file": str(foreign.where)}
    if units != "keep":
        if card.get("units") == UNITS:
            raise SettingError(
                f"units is {units!r}, but the card beside {foreign.where} says that "
                f"its joints are in {UNITS} already; expected 'keep'"
            )
        expect_robot(card, units, foreign.where)
        names = joint_names(units, config.state_dim)
        card |= {"robot": units, "joints": names, "units": UNITS}
    return save_policy(out, policy.eval(), card, made_by=IMPORT)


def read_lerobot(folder: Path) -> Foreign:
    """Reads a folder of LeRobot's; see `import_policy`."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder {folder}; expected LeRobot's 'pretrained_model' with "
            "config.json and model.safetensors"
        )
    settings = read_json(path)
    config, cameras = _settings_in(settings, path)
    file = folder / "model.safetensors"
    tensors = read_tensors(file)
    weights = {
        k.removeprefix("model."): x for k, x in tensors.items() if k[:6] == "model."
    }
    rest = {key: x for key, x in tensors.items() if key[:6] != "model."}
    buffer = re.compile(r"(un)?normalize_(inputs|targets|outputs)\.buffer_.*")
    for key in rest:
        if not buffer.fullmatch(key):
            raise CheckpointError(f"{file} holds '{key}', which no ACT of LeRobot has")
    inputs, outputs = read_normalisers(folder, settings, rest, file)
    stats = {"qpos": inputs.mean_std(STATE, "STATE", (config.state_dim,))}
    if width := config.env_state_dim:
        stats["env_state"] = inputs.mean_std(ENV, "ENV", (width,))
    width = config.action_dim
    stats["action"] = outputs.mean_std(ACTION, "ACTION", (width,), divides=False)
    images = [inputs.mean_std(key, "VISUAL", (3, 1, 1)) for key in cameras]
    kept = {k: v for k, v in read_card(folder).items() if k in ABOUT_ARM}
    card = kept | {"imported_from": "LeRobot", "execution": _execution_in(settings)}
    return Foreign(config, weights, "lerobot", stats, images, file, card)


def _settings_in(settings: dict[str, Any], path: Path) -> tuple[ACTConfig, list[str]]:
    """Our settings, and LeRobot's names of the cameras in order."""

    def get(key: str, within: Mapping[str, Any] = settings) -> Any:
        if key not in within:
            raise CheckpointError(f"{path} lacks '{key}'")
        return within[key]

    if get("type") != "act":
        raise CheckpointError(
            f"'type' in {path} is {settings['type']!r}, expected 'act'"
        )
    if get("replace_final_stride_with_dilation"):
        raise CheckpointError(
            f"'replace_final_stride_with_dilation' in {path} is true, expected false: "
            "the ResNets here have no dilation"
        )
    widths: dict[str, int] = {}
    cameras: dict[str, tuple[int, ...]] = {}
    for key, feature in {**get("input_features"), **get("output_features")}.items():
        kind, shape = get("type", feature), tuple(get("shape", feature))
        if kind == "VISUAL" and key.startswith("observation."):
            cameras[key] = shape
        elif (kind, key) in (("STATE", STATE), ("ENV", ENV), ("ACTION", ACTION)):
            widths[key] = shape[0]
        elif kind not in ("STATE", "ACTION"):  # its ACT reads those two names alone
            raise CheckpointError(
                f"{path} has a feature '{key}' of type {kind}, expected '{STATE}', "
                f"'{ENV}', '{ACTION}' or '{CAMERA}<camera>'"
            )
    for key in (STATE, ACTION):
        if key not in widths:
            raise CheckpointError(
                f"{path} has no feature '{key}', which ACT here needs"
            )
    ours: dict[str, Any] = {key: get(name) for name, key in SETTINGS.items()}
    if cameras:
        sizes = tuple(shape[1:] for shape in cameras.values())
        ours |= {"backbone": get("vision_backbone"), "image_size": sizes}
    try:
        config = ACTConfig(
            state_dim=widths[STATE],
            action_dim=widths[ACTION],
            env_state_dim=widths.get(ENV, 0),
            cameras=tuple(re.sub(r"^observation\.(images\.)?", "", k) for k in cameras),
            **FIXED,
            **ours,
        )
    except SettingError as error:
        raise CheckpointError(f"{path} cannot be an ACT here: {error}") from error
    return config, list(cameras)


def _execution_in(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How LeRobot's `select_action` would execute its chunks, as `act eval` says it."""
    m = settings.get("temporal_ensemble_coeff")
    if m is not None:
        return {"mode": "ensemble", "m": m}
    steps = settings.get("n_action_steps", settings["chunk_size"])
    return {"mode": "receding", "execute": steps}
