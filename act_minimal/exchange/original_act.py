"""Checkpoints of ACT's original repository, tonyzhaozh/act, read.

Its weights are those of LeRobot's ACT under other names (`lerobot_names.py`). It
builds seven decoder layers and uses the first, so the first is read. What a checkpoint
does not say, such as the cameras' names, is asked for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..backbones import IMAGENET_MEAN, IMAGENET_STD
from ..checkpoint import CheckpointError, read_json, read_tensors
from ..settings import ACTConfig
from ..support.errors import SettingError
from .lerobot_policy import FIXED, Foreign, save_foreign
from .lerobot_units import PolicyUnits


def import_original(
    weights: Path | str | Mapping[str, Tensor],
    statistics: Path | str | Mapping[str, Any],
    out: Path | str,
    *,
    cameras: tuple[str, ...],
    image_size: tuple[int, int] = (480, 640),
    heads: int = 8,
    units: PolicyUnits = "keep",
) -> Path:
    """Reads a checkpoint of ACT's original repository, and writes it as ours.

    Its .ckpt and .pkl files are pickles, which run whatever code is in them, so they
    are not opened here; the error says how to convert them.

    Args:
        weights: a .safetensors file with its state dict, or the state dict.
        statistics: a .safetensors or .json file with qpos_mean, qpos_std, action_mean
            and action_std, or a mapping with these.
        out: the folder to write: new, or one that an import made.
        cameras: names, in the order that it was trained with.
        image_size: (H, W) of its images, pixels.
        heads: attention heads, the one thing that its weights do not tell.
        units: see `import_policy`.

    Raises:
        CheckpointError: something is missing or has another shape; names it.
    """
    state = _opened(weights, "weights")
    found = {
        key: np.asarray(x, np.float32)
        for key, x in _opened(statistics, "statistics").items()
        if key in ("qpos_mean", "qpos_std", "action_mean", "action_std")
    }
    where = weights if isinstance(weights, str | Path) else "the state dict"
    image = tuple(
        np.array(x, np.float32)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD)
    )
    state = {key.removeprefix("model."): x for key, x in state.items()}
    config = _shape_of(state, where, cameras, image_size, heads)
    for key, width in (("qpos", config.state_dim), ("action", config.action_dim)):
        for name in (f"{key}_mean", f"{key}_std"):
            if name not in found:
                raise CheckpointError(f"the statistics lack '{name}'")
            if found[name].shape != (width,):
                raise CheckpointError(
                    f"'{name}' in the statistics has shape {found[name].shape}, "
                    f"expected ({width},) by the weights"
                )
    foreign = Foreign(
        config=config,
        weights=state,
        dialect="original",
        stats={k: (found[f"{k}_mean"], found[f"{k}_std"]) for k in ("qpos", "action")},
        images=[image] * len(cameras),
        where=where,
        card={"imported_from": "the original ACT repository"},
    )
    return save_foreign(foreign, out, units)


def _opened(source: Path | str | Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """A mapping as it is, or what a file holds that is no pickle."""
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if path.suffix == ".json" and what == "statistics":
        return read_json(path)
    how = (
        "import torch; from safetensors.torch import save_file; "
        f"save_file({{k: v.contiguous() for k, v in torch.load({path.name!r}, 'cpu')"
        ".items()}, 'policy.safetensors')"
        if what == "weights"
        else "import json, pickle; from pathlib import Path; "
        f"d = pickle.loads(Path({path.name!r}).read_bytes()); "
        "Path('stats.json').write_text(json.dumps("
        "{k: x.tolist() for k, x in d.items() if k.endswith(('_mean', '_std'))}))"
    )
    raise CheckpointError(
        f"{path} is not opened, because a pickle runs whatever code is in it; where "
        f"you trust it, convert it with: {how}"
    )


def _shape_of(
    state: Mapping[str, Tensor],
    where: Path | str,
    cameras: tuple[str, ...],
    image_size: tuple[int, int],
    heads: int,
) -> ACTConfig:
    def shape(key: str) -> tuple[int, ...]:
        if key not in state:
            raise CheckpointError(f"{where} lacks '{key}'; expected the original's ACT")
        return tuple(state[key].shape)

    def count(start: str) -> int:
        found = {k[len(start) :].split(".")[0] for k in state if k.startswith(start)}
        return len(found)

    if any(key.startswith("backbones.1.") for key in state):
        raise CheckpointError(
            f"{where} has a backbone for each camera ('backbones.1.'), expected one "
            "that all cameras share"
        )
    if not cameras:
        raise SettingError("cameras is empty, expected the names it was trained with")
    chunk, width = shape("query_embed.weight")
    bottleneck = "backbones.0.0.body.layer1.0.conv3.weight" in state
    deep = "backbones.0.0.body.layer3.5.conv1.weight" in state
    try:
        return ACTConfig(
            state_dim=shape("encoder_joint_proj.weight")[1],
            action_dim=shape("action_head.weight")[0],
            cameras=tuple(cameras),
            image_size=image_size,
            chunk_size=chunk,
            width=width,
            feedforward=shape("transformer.encoder.layers.0.linear1.weight")[0],
            heads=heads,
            encoder_layers=count("transformer.encoder.layers."),
            pre_norm="transformer.encoder.norm.weight" in state,
            activation="relu",
            dropout=0.1,
            cvae_layers=count("encoder.layers."),
            latent_dim=shape("latent_out_proj.weight")[1],
            kl_weight=10.0,
            backbone="resnet50" if bottleneck else "resnet34" if deep else "resnet18",
            **FIXED,
        )
    except SettingError as error:
        raise CheckpointError(f"{where} cannot be an ACT here: {error}") from error
