"""A policy: observations in physical units in, chunks of actions out.

The network (`model.py`, `baselines.py`) sees normalised tensors only. A `Policy`
puts the normalisation around it, so whoever drives a robot, simulated or real, deals
in radians and pixels. The same file writes and reads the checkpoint folder.

Letters: B batch, k chunk, A action, S state, E env_state, N cameras, H W image,
Z latent.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from act_minimal.baselines import MLP, MLPConfig
from act_minimal.checkpoint import (
    CheckpointError,
    card_text,
    check_tensors,
    find_checkpoint,
    read_card,
    read_json,
    read_tensors,
    write_tensors,
)
from act_minimal.dataset import Statistics
from act_minimal.errors import SettingError, UserError
from act_minimal.files import atomic_folder, write_json, write_text
from act_minimal.model import ACT, ACTConfig, act_loss
from act_minimal.resizing import Resizing
from act_minimal.settings import ActionTarget, PolicyKind, Size, check_value


class ObservationError(UserError):
    """An observation that this policy cannot read."""


class Scale(nn.Module):
    """Per-joint mean and standard deviation, kept as buffers beside the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(np.asarray(mean, np.float32)))
        self.register_buffer("std", torch.tensor(np.asarray(std, np.float32)))

    def normalise(self, x: Tensor) -> Tensor:
        """Physical units to zero mean and unit deviation."""
        return (x - self.mean) / self.std

    def restore(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return x * self.std + self.mean


class Policy(nn.Module):
    """What the control loop, the evaluation and the training loop know of a policy.

    Args:
        module: the network; maps normalised tensors to normalised actions (B, k, A).
        statistics: mean and deviation of "qpos", of "action" (or "action_delta", see
            `action_target`) and, if the network reads it, of "env_state".
        action_target: "absolute" predicts joint targets as recorded; "delta" predicts
            them relative to the present `qpos`, which needs S = A and the
            statistics of `Windows.statistics(delta=True)`.
        name: the kind under which `load_policy` rebuilds it.

    Attributes:
        resizing: what is done to images before the network reads them; None: nothing.
    """

    resizing: Resizing | None = None

    def __init__(
        self,
        module: ACT | MLP,
        statistics: Statistics,
        action_target: ActionTarget = "absolute",
        name: PolicyKind = "act",
    ) -> None:
        check_value("action_target", action_target, ActionTarget)
        super().__init__()
        self.module = module
        self.config = config = module.config
        self.name = name
        self.card: dict[str, Any] = {}  # of the checkpoint that it was loaded from
        self.action_target: ActionTarget = action_target
        widths = {"qpos": config.state_dim, "env_state": config.env_state_dim}
        if action_target == "delta" and config.state_dim != config.action_dim:
            raise UserError(
                f"action_target 'delta' needs as many actions as joints, but the data "
                f"has {config.action_dim} actions and {config.state_dim} joints"
            )
        self._target_key = "action_delta" if action_target == "delta" else "action"
        widths[self._target_key] = config.action_dim
        self.stats = nn.ModuleDict()
        for key, width in widths.items():
            if width == 0:
                continue
            if key not in statistics.mean:
                raise UserError(
                    f"the statistics hold {sorted(statistics.mean)} but not '{key}', "
                    f"which this policy needs"
                )
            scale = Scale(statistics.mean[key], statistics.std[key])
            if scale.mean.shape != (width,):
                raise UserError(
                    f"the statistics of '{key}' have shape {tuple(scale.mean.shape)}, "
                    f"but this policy expects ({width},)"
                )
            self.stats[key] = scale

    @property
    def chunk_size(self) -> int:
        """k, the number of actions that one prediction holds."""
        return self.config.chunk_size

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that an observation must bring, in order."""
        return tuple(self.config.cameras)

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """(H, W) of the images that an observation should bring, by camera."""
        recorded = self.resizing.recorded if self.resizing else None
        return dict(recorded or self.config.camera_sizes)

    @property
    def uses_env_state(self) -> bool:
        """Whether an observation must bring "env_state" (simulation only)."""
        return self.config.env_state_dim > 0

    @property
    def latent_dim(self) -> int:
        """Z, or 0 where there is no CVAE and so no noise to draw in training."""
        config = self.config
        if isinstance(config, ACTConfig) and config.use_cvae:
            return config.latent_dim
        return 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.scale("qpos").mean.device

    def scale(self, key: str) -> Scale:
        """Mean and deviation of "qpos", "env_state" or the target."""
        scale = self.stats[key]
        assert isinstance(scale, Scale)
        return scale

    def _inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """The part of a batch that is also there at run time, normalised."""
        inputs: dict[str, Any] = {"qpos": self.scale("qpos").normalise(batch["qpos"])}
        if self.uses_env_state:
            inputs["env_state"] = self.scale("env_state").normalise(batch["env_state"])
        if self.cameras:
            images = [batch[f"images/{c}"] for c in self.cameras]
            # (B, H, W, 3) -> (B, 3, H, W) a camera; still uint8 unless augmented
            inputs["images"] = [x.permute(0, 3, 1, 2) for x in images]
            if len({x.shape[1:] for x in images}) == 1:  # (B, N, 3, H, W)
                inputs["images"] = torch.stack(images, 1).permute(0, 1, 4, 2, 3)
        return inputs

    def _target(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the network should have said: (B, k, A), normalised."""
        action = batch["action"]
        if self.action_target == "delta":
            action = action - batch["qpos"][:, None]  # (B, k, A) - (B, 1, A)
        return self.scale(self._target_key).normalise(action)

    def _physical(self, actions: Tensor, qpos: Tensor) -> Tensor:
        """The inverse of `_target`."""
        actions = self.scale(self._target_key).restore(actions)
        return actions + qpos[:, None] if self.action_target == "delta" else actions

    def loss(
        self,
        batch: Mapping[str, Tensor],
        eps: Tensor | None = None,
        valid_count: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss of a batch in physical units.

        Args:
            batch: "qpos" (B, S), "action" (B, k, A), "is_pad" (B, k), and what else
                the policy reads.
            eps: standard normal noise (B, Z) for the CVAE's sample. Ignored without
                a CVAE.
            valid_count: denominator of the L1 instead of this batch's own count; see
                `model.act_loss`.

        Returns:
            The loss to minimise, and its parts by name ("l1", "kl").
        """
        target = self._target(batch)
        inputs = self._inputs(batch)
        inputs |= {"action": target, "is_pad": batch["is_pad"]}
        output = self.module(inputs, eps)
        config = self.config if isinstance(self.config, ACTConfig) else self.config.act
        return act_loss(output, target, batch["is_pad"], config, valid_count)

    def forward(
        self,
        batch: Mapping[str, Tensor],
        eps: Tensor | None = None,
        valid_count: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same as `loss`: the name that DistributedDataParallel calls."""
        return self.loss(batch, eps, valid_count)

    @torch.no_grad()
    def validation_loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Error of the prediction that the robot would get: z = 0, no dropout.

        The original code validates with the posterior's z, which has seen the actions
        that it is asked for, so its best checkpoint need not be best on the robot.

        Returns:
            L1 in normalised units, a scalar, and L1 per joint in physical units (A,);
            both are means over the steps that are not padding.
        """
        training = self.training
        self.eval()
        prediction = self.module(self._inputs(batch)).actions.float()
        self.train(training)
        valid = ~batch["is_pad"][:, :, None]  # (B, k, 1)
        count = valid.sum().clamp(min=1)
        error = (prediction - self._target(batch)).abs() * valid
        per_joint = error.sum((0, 1)) / count * self.scale(self._target_key).std
        return error.sum() / (count * error.shape[2]), per_joint

    def predict_chunk(
        self, observation: Mapping[str, np.ndarray | Tensor]
    ) -> np.ndarray:
        """Predicts the next k actions of B robots at once, with z = 0.

        A NaN in the observation or the weights comes out as NaN: whoever drives a
        robot must see it.

        Args:
            observation: "qpos" (B, S) rad; "env_state" (B, E) if `uses_env_state`;
                "images/<camera>" (B, H, W, 3) uint8 RGB for each of `cameras`, of
                `image_sizes`; with `resizing` larger or smaller ones, too, as long as
                their proportions are the same. Other keys are ignored.

        Returns:
            Actions (B, k, A), float32, in the units of the demonstrations.

        Raises:
            ObservationError: a key is missing or has another shape or type.
        """
        batch = self._read(observation)
        training = self.training
        if training:
            self.eval()
        with torch.inference_mode():
            actions = self.module(self._inputs(batch)).actions
            actions = self._physical(actions.float(), batch["qpos"])
        if training:
            self.train()
        return actions.cpu().numpy()

    def _read(
        self, observation: Mapping[str, np.ndarray | Tensor]
    ) -> dict[str, Tensor]:
        """Checks an observation and moves it to the device."""
        expected: dict[str, tuple[int, ...]] = {"qpos": (self.config.state_dim,)}
        if self.uses_env_state:
            expected["env_state"] = (self.config.env_state_dim,)
        for camera, size in self.config.camera_sizes.items():
            expected[f"images/{camera}"] = (*size, 3)
        batch: dict[str, Tensor] = {}
        rows = None
        for key, shape in expected.items():
            if key not in observation:
                raise ObservationError(
                    f"the observation has no '{key}': this policy reads "
                    f"{', '.join(expected)}, and the observation holds "
                    f"{', '.join(observation) or 'nothing'}"
                )
            value, hint = torch.as_tensor(observation[key]), ""
            is_image = key.startswith("images/")
            if is_image and self.resizing:
                camera = key.removeprefix("images/")
                brought = self.resizing.bring(camera, value.cpu().numpy())
                value = torch.as_tensor(brought)
                h, w = self.resizing.recorded[camera]
                hint = f", or {h} x {w} pixels, or the same proportions as these"
            if value.ndim != 1 + len(shape) or tuple(value.shape[1:]) != shape:
                wanted = ", ".join(map(str, ("B", *shape)))
                raise ObservationError(
                    f"'{key}' in the observation has shape {tuple(value.shape)}, "
                    f"but this policy expects ({wanted}){hint}"
                )
            if rows is not None and len(value) != rows:
                raise ObservationError(
                    f"'{key}' in the observation holds {len(value)} robots, "
                    f"but 'qpos' holds {rows}"
                )
            rows = len(value)
            if is_image and value.dtype != torch.uint8:
                raise ObservationError(
                    f"'{key}' in the observation is {value.dtype}, "
                    f"but this policy expects uint8 RGB from 0 to 255"
                )
            dtype = torch.uint8 if is_image else torch.float32
            batch[key] = value.to(self.device, dtype)
        return batch


class ACTPolicy(Policy):
    """ACT behind the contract; with a chunk of one, the transformer baseline."""

    def __init__(
        self,
        config: ACTConfig,
        statistics: Statistics,
        action_target: ActionTarget = "absolute",
        name: PolicyKind = "act",
        pretrained_weights: bool = True,
    ) -> None:
        module = ACT(config, pretrained_weights)
        super().__init__(module, statistics, action_target, name)


class MLPPolicy(Policy):
    """The multilayer perceptron behind the contract."""

    def __init__(
        self,
        config: MLPConfig,
        statistics: Statistics,
        action_target: ActionTarget = "absolute",
        name: PolicyKind = "bc_mlp",
    ) -> None:
        super().__init__(MLP(config), statistics, action_target, name)


def network_config(kind: PolicyKind) -> type[ACTConfig | MLPConfig]:
    """The settings that the network of this kind of policy has."""
    return MLPConfig if kind == "bc_mlp" else ACTConfig


def make_policy(
    kind: PolicyKind,
    statistics: Statistics,
    *,
    size: Size = "small",
    action_target: ActionTarget = "absolute",
    **settings: Any,
) -> Policy:
    """Builds an untrained policy; its weights come from torch's random state.

    Args:
        kind: "act"; "bc_transformer" (ACT with a chunk of one and no CVAE);
            "bc_mlp".
        statistics: see `Policy`.
        size: the dial of `ACTConfig.of_size`; the perceptron has one size only.
        action_target: see `Policy`.
        **settings: fields of `ACTConfig` or `MLPConfig`: state_dim and action_dim
            always, cameras, chunk_size and so on as needed.

    Raises:
        SettingError: an unknown kind or setting; the message lists the known.
    """
    if kind not in get_args(PolicyKind):
        raise SettingError(
            f"unknown policy '{kind}': known are {', '.join(get_args(PolicyKind))}"
        )
    known = [field.name for field in fields(network_config(kind))]
    for key in settings:
        if key not in known:
            raise SettingError(
                f"a {kind} policy has no setting '{key}': known are {', '.join(known)}"
            )
    if kind == "bc_transformer":
        for key, only in (("chunk_size", 1), ("use_cvae", False)):
            if settings.setdefault(key, only) != only:
                raise SettingError(
                    f"{key} is {settings[key]}, but a bc_transformer has {only}; "
                    f"policy 'act' predicts chunks, with use_cvae False or True"
                )
    try:
        if kind == "bc_mlp":
            return MLPPolicy(MLPConfig(**settings), statistics, action_target)
        config = ACTConfig.of_size(size, **settings)
        return ACTPolicy(config, statistics, action_target, kind)
    except (TypeError, ValueError) as error:
        raise SettingError(f"a {kind} policy cannot be built: {error}") from error


def save_policy(
    folder: Path | str,
    policy: Policy,
    card: Mapping[str, Any],
    *,
    made_by: str = "save_policy",
) -> Path:
    """Writes a checkpoint folder, whole or not at all.

    Args:
        folder: where; an older checkpoint there is replaced if the same writer made it.
        policy: what.
        card: what a person wants to know of it: data, seed, steps, success, command.
            Library versions are added.
        made_by: who writes it, such as "act demo".

    Raises:
        CheckpointError: the disk is full, or `folder` holds something else.
    """
    with atomic_folder(folder, CheckpointError, made_by=made_by) as temporary:
        write_policy(temporary, policy, card)
    return Path(folder)


def write_policy(folder: Path, policy: Policy, card: Mapping[str, Any]) -> None:
    """Writes the files of a checkpoint into a folder that is there already."""
    config = {
        "kind": policy.name,
        "action_target": policy.action_target,
        "model": asdict(policy.config),
    }
    if policy.resizing is not None:
        config["resizing"] = policy.resizing.to_json()
    versions = {name: version(name) for name in ("act-minimal", "torch", "numpy")}
    card = {**card, "versions": versions}
    write_json(folder / "config.json", config)
    write_json(folder / "card.json", card)
    write_tensors(folder / "model.safetensors", policy.module.state_dict())
    write_tensors(folder / "stats.safetensors", policy.stats.state_dict())
    parameters = sum(p.numel() for p in policy.parameters())
    state = ["qpos", "env_state"] if policy.uses_env_state else ["qpos"]
    about = (
        f"Reads {', '.join([*state, *policy.cameras])}; predicts {policy.chunk_size} "
        f"actions at a time ({policy.action_target}); {parameters:,} parameters."
    )
    text = card_text(f"Policy: {policy.name}", about, card)
    write_text(folder / "README.md", text)


def load_policy(folder: Path | str, device: str | torch.device = "cpu") -> Policy:
    """Reads a checkpoint folder, or the newest checkpoint of a training run.

    Raises:
        CheckpointError: names the file, and the key where there is one.
    """
    folder = find_checkpoint(Path(folder))
    policy = _untrained(folder / "config.json", folder / "stats.safetensors")
    path = folder / "model.safetensors"
    weights = read_tensors(path)
    check_tensors(weights, policy.module.state_dict(), path)
    policy.module.load_state_dict(weights)
    policy.card = read_card(folder)
    return policy.to(device).eval()


def _untrained(config_path: Path, stats_path: Path) -> Policy:
    """The policy that these files describe, with random weights."""
    config = read_json(config_path)
    for key in ("kind", "action_target", "model"):
        if key not in config:
            raise CheckpointError(f"{config_path} lacks '{key}'")
    for key, kinds in (("kind", PolicyKind), ("action_target", ActionTarget)):
        if config[key] not in get_args(kinds):
            raise CheckpointError(
                f"'{key}' in {config_path} is '{config[key]}': known are "
                f"{', '.join(get_args(kinds))}"
            )
    kind, target = config["kind"], config["action_target"]
    try:
        shape = network_config(kind)(**config["model"])
        resizing = Resizing.from_json(config.get("resizing"), shape.cameras)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"'model' in {config_path}: {error}") from error
    tensors = read_tensors(stats_path)
    try:
        arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
        statistics = Statistics.from_arrays(arrays)
        if isinstance(shape, MLPConfig):
            policy = MLPPolicy(shape, statistics, target, kind)
        else:
            policy = ACTPolicy(shape, statistics, target, kind, False)
    except UserError as error:
        raise CheckpointError(f"{stats_path}: {error}") from error
    policy.resizing = resizing
    return policy
