"""What ACT's weights are called here, in LeRobot, and in the original repository.

The three networks are one (docs/model_choices.md lists the switches that make them so),
and a weight differs between them in its name, and twice in an axis of length 1.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..checkpoint import CheckpointError
from ..model import sinusoid_1d

Dialect = Literal["lerobot", "original"]

# Beginnings of names: here, LeRobot's, the original's. The first that fits counts.
NAMES = (
    ("cvae.cls", "vae_encoder_cls_embed.weight", "cls_embed.weight"),
    ("cvae.qpos_proj.", "vae_encoder_robot_state_input_proj.", "encoder_joint_proj."),
    ("cvae.action_proj.", "vae_encoder_action_input_proj.", "encoder_action_proj."),
    ("cvae.encoder.", "vae_encoder.", "encoder."),
    ("cvae.latent_proj.", "vae_encoder_latent_output_proj.", "latent_proj."),
    ("latent_proj.", "encoder_latent_input_proj.", "latent_out_proj."),
    ("qpos_proj.", "encoder_robot_state_input_proj.", "input_proj_robot_state."),
    # The original has no network that sees both a scene's state and images.
    ("env_proj.", "encoder_env_state_input_proj.", "input_proj_env_state."),
    ("position", "encoder_1d_feature_pos_embed.weight", "additional_pos_embed.weight"),
    ("cameras.backbone.", "backbone.", "backbones.0.0.body."),
    ("cameras.tokens.proj.", "encoder_img_feat_input_proj.", "input_proj."),
    ("encoder.", "encoder.", "transformer.encoder."),
    ("queries", "decoder_pos_embed.weight", "query_embed.weight"),
    ("decoder.", "decoder.layers.", "transformer.decoder.layers."),
    ("decoder_norm.", "decoder.norm.", "transformer.decoder.norm."),
    ("action_head.", "action_head.", "action_head."),
)
POSITIONS = {"lerobot": "vae_encoder_pos_enc", "original": "pos_table"}
# There, but of no influence: a head that no loss trains and nobody reads; the layers
# that the original builds and does not use; counters of unfrozen batch norm.
IDLE = {
    "lerobot": re.compile(r".*\.num_batches_tracked"),
    "original": re.compile(
        r"is_pad_head\..*|transformer\.decoder\.layers\.[1-9]\d*\..*"
        r"|.*\.num_batches_tracked"
    ),
}


def their_name(key: str, dialect: Dialect) -> str:
    """LeRobot's or the original's name of one of our weights, without "model."."""
    for ours, lerobot, original in NAMES:
        if key == ours or (ours.endswith(".") and key.startswith(ours)):
            theirs = lerobot if dialect == "lerobot" else original
            name = theirs + key[len(ours) :]
            return name.replace(".cross_attn.", ".multihead_attn.")
    raise KeyError(key)


def their_shape(key: str, tensor: Tensor) -> tuple[int, ...]:
    """The shape that one of our weights has there."""
    if key == "cvae.cls":
        return (1, *tensor.shape)  # an embedding of one row
    if key == "cameras.tokens.proj.weight":
        return (*tensor.shape, 1, 1)  # a 1 x 1 convolution
    return tuple(tensor.shape)


def _weights_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what the others keep elsewhere: the statistics of images."""
    return {
        key: x for key, x in state.items() if key not in ("cameras.mean", "cameras.std")
    }


def rename_out(state: Mapping[str, Tensor], dialect: Dialect) -> dict[str, Tensor]:
    """Our state dict under their names, without "model." before them."""
    out = {}
    for key, tensor in _weights_of(state).items():
        out[their_name(key, dialect)] = tensor.reshape(their_shape(key, tensor))
    if "cvae.cls" in state:
        length = 2 + len(state["queries"])
        table = sinusoid_1d(length, state["queries"].shape[1])
        out[POSITIONS[dialect]] = table[None]
    return out


def rename_in(
    theirs: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dialect: Dialect,
    where: Path | str,
) -> dict[str, Tensor]:
    """Their weights under our names, for the names and shapes of `expected`.

    Returns:
        A state dict like `expected`, but for "cameras.mean" and "cameras.std".

    Raises:
        CheckpointError: a weight is missing, of another shape, or unknown here.
    """
    out, seen = {}, set()
    for key, ours in _weights_of(expected).items():
        name, shape = their_name(key, dialect), their_shape(key, ours)
        seen.add(name)
        if name not in theirs:
            raise CheckpointError(
                f"{where} lacks '{name}', which its configuration needs"
            )
        if tuple(theirs[name].shape) != shape:
            raise CheckpointError(
                f"'{name}' in {where} has shape {tuple(theirs[name].shape)}, expected "
                f"{shape} by its configuration"
            )
        out[key] = theirs[name].reshape(ours.shape).to(ours.dtype)
    table = POSITIONS[dialect]
    if "cvae.cls" in expected and table in theirs:
        seen.add(table)
        expects = sinusoid_1d(2 + len(out["queries"]), out["queries"].shape[1])
        found = theirs[table].float().squeeze(0)
        if found.shape != expects.shape or not torch.allclose(
            found, expects, atol=1e-4
        ):
            raise CheckpointError(
                f"'{table}' in {where} differs from the sines and cosines of "
                f"{tuple(expects.shape)} that this network adds to its tokens"
            )
    for name in theirs:
        if name not in seen and not IDLE[dialect].fullmatch(name):
            raise CheckpointError(
                f"{where} holds '{name}', which its configuration does not know"
            )
    return out
