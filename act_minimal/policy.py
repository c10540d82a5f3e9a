"""A policy: observations in physical units in, chunks of actions out.

The network (`model.py`) sees normalised tensors only. A `Policy` puts the normalisation
around it, so whoever drives a robot deals in radians and pixels. `checkpoint.py` writes
and reads policies.

Letters: B batch, k chunk, A action, S state, E env_state, N cameras, H W image,
Z latent.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dataset import Statistics
from .images import Resizing
from .model import ACT, MLP
from .settings import (
    NETWORK,
    ACTConfig,
    ActionTarget,
    MLPConfig,
    NetworkConfig,
    PolicyKind,
    Size,
    make_config,
)
from .support.errors import UserError
from .support.plugins import load_class
from .support.validation import ClassPath, check_value


class ObservationError(UserError):
    """An observation that this policy cannot read."""


def check_prefix(
    prefix: np.ndarray | None, rows: int, most: int, size: int
) -> np.ndarray:
    """Committed actions (rows, d, size) with d <= most, or none; ObservationError."""
    if prefix is None:
        return np.zeros((rows, 0, size), np.float32)
    shape = np.shape(prefix)
    if len(shape) != 3 or shape[::2] != (rows, size) or shape[1] > most:
        raise ObservationError(
            f"the prefix has shape {shape}, but this policy expects ({rows}, up to "
            f"{most}, {size})"
        )
    return np.asarray(prefix, np.float32)


def check_noise(noise: Any, rows: int, chunk: int, size: int) -> np.ndarray:
    """Noise (rows, chunk, size) for a policy that samples, or ObservationError."""
    if np.shape(noise) != (rows, chunk, size):
        raise ObservationError(
            f"the noise has shape {np.shape(noise)}, but this policy expects "
            f"({rows}, {chunk}, {size})"
        )
    return np.asarray(noise, np.float32)


def future_place(d: int, lag: int) -> int | None:
    """Which of d committed actions says where the arm will be after them.

    None where the arm's lag is not shorter: then nothing is shifted.
    """
    return d - 1 - lag if d > lag else None


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
        config: which network it has: ACT, a perceptron or one's own.
        statistics: mean and deviation of "qpos", of "action" (or "action_delta", see
            `action_target`) and, if the network reads it, of "env_state".
        action_target: "absolute" predicts joint targets as recorded; "delta" predicts
            them relative to the present `qpos`, which needs S = A and the
            statistics of `Windows.statistics(delta=True)`.
        name: the kind under which `load_policy` rebuilds it.
        pretrained_weights: False when a checkpoint will replace them anyway.

    Attributes:
        resizing: what is done to images before the network reads them; None: nothing.
    """

    resizing: Resizing | None = None

    def __init__(
        self,
        config: NetworkConfig,
        statistics: Statistics,
        action_target: ActionTarget = "absolute",
        name: PolicyKind | ClassPath = "act",
        pretrained_weights: bool = True,
    ) -> None:
        check_value("action_target", action_target, ActionTarget)
        super().__init__()
        self.module: Any  # the network
        if isinstance(config, ACTConfig):
            self.module = ACT(config, pretrained_weights)
        elif isinstance(config, MLPConfig):
            self.module = MLP(config)
        else:
            self.module = load_class(name, NETWORK)(config)
        self.config = config
        self.name = name
        self.reseed(0)
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
    def told_max(self) -> int:
        """Committed actions that `predict_chunk` can make use of; 0: of none."""
        return self._future_max or getattr(self.config, "prefix_max", 0)

    @property
    def samples(self) -> bool:
        """Whether a prediction depends on noise: see `heads.py`, and `reseed`."""
        return bool(getattr(getattr(self.module, "head", None), "samples", False))

    @property
    def shows_noise(self) -> bool:
        """Whether training shows the network actions with noise."""
        return bool(getattr(getattr(self.module, "head", None), "noisy", False))

    def reseed(self, seed: int) -> None:
        """Begin the noise of predictions anew."""
        self.random = torch.Generator().manual_seed(seed)

    def _noise(self, rows: int, random: torch.Generator) -> dict[str, Tensor]:
        """The noise (rows, k, A) of a prediction, if it depends on any."""
        if not self.samples:
            return {}
        shape = rows, self.chunk_size, self.config.action_dim
        return {"noise": torch.randn(shape, generator=random).to(self.device)}

    @property
    def _future_max(self) -> int:
        return getattr(self.config, "future_max", 0)

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
        return self.scale("qpos").mean.device

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What an observation must bring, at the network's sizes, without B."""
        shapes: dict[str, tuple[int, ...]] = {"qpos": (self.config.state_dim,)}
        if self.uses_env_state:
            shapes["env_state"] = (self.config.env_state_dim,)
        for camera, size in self.config.camera_sizes.items():
            shapes[f"images/{camera}"] = (*size, 3)
        return shapes

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
        if self._future_max:
            rows = batch["qpos"].shape[0]  # not len(), which would fix it in an export
            none = torch.zeros(rows, dtype=torch.int64, device=self.device)
            inputs["ahead"] = batch.get("ahead", none)
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
        """Training loss of a batch in physical units, and its parts ("l1", "kl").

        Args:
            batch: "qpos" (B, S), "action" (B, k, A), "is_pad" (B, k), and what else
                the policy reads.
            eps: standard normal noise (B, Z) for the CVAE's sample.
            valid_count: see `model.act_loss`.
        """
        target = self._target(batch)
        inputs = self._inputs(batch)
        inputs |= {"action": target, "is_pad": batch["is_pad"]}
        inputs |= {key: batch[key] for key in ("noise", "time") if key in batch}
        if "prefix_noise" in batch:
            inputs["prefix_size"] = batch["prefix_size"]
            longest = batch["prefix_noise"].shape[1]
            inputs["prefix"] = target[:, :longest] + batch["prefix_noise"]  # (B, P, A)
        return self.module.loss(inputs, eps, valid_count)

    def forward(self, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """`loss`, by the name that DistributedDataParallel calls."""
        return self.loss(*arguments)

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
        fixed = torch.Generator().manual_seed(0)
        inputs = self._inputs(batch) | self._noise(len(batch["qpos"]), fixed)
        prediction = self.module(inputs).actions.float()
        self.train(training)
        valid = ~batch["is_pad"][:, :, None]  # (B, k, 1)
        count = valid.sum().clamp(min=1)
        error = (prediction - self._target(batch)).abs() * valid
        per_joint = error.sum((0, 1)) / count * self.scale(self._target_key).std
        return error.sum() / (count * error.shape[2]), per_joint

    def predict_chunk(
        self,
        observation: Mapping[str, np.ndarray | Tensor],
        prefix: np.ndarray | None = None,
    ) -> np.ndarray:
        """Predicts the next k actions of B robots at once, with z = 0.

        A NaN in the observation or the weights comes out as NaN: whoever drives a
        robot must see it.

        Args:
            observation: "qpos" (B, S) rad; "env_state" (B, E) if `uses_env_state`;
                "images/<camera>" (B, H, W, 3) uint8 RGB for each of `cameras`, of
                `image_sizes`; with `resizing` larger or smaller ones, too, as long as
                their proportions are the same. "noise" (B, k, A), standard normal, for
                a policy that `samples`, where it shall not draw its own. Other keys are
                ignored.
            prefix: (B, d, A) actions that will be sent whatever is predicted, the first
                ones of the chunk; at most `told_max`.

        Returns:
            Actions (B, k, A), float32, in the units of the demonstrations. The first d
            are the prefix.

        Raises:
            ObservationError: a key is missing or has another shape or type.
        """
        batch = self._read(observation)
        given = self._read_prefix(prefix, len(batch["qpos"]))  # (B, d, A)
        d = given.shape[1]
        training = self.training
        if training:
            self.eval()
        with torch.inference_mode():
            place = None
            if self._future_max:
                place = future_place(d, getattr(self.config, "future_lag", 0))
                ahead = 0 if place is None else d
                batch["ahead"] = torch.full((len(given),), ahead, device=self.device)
            if place is not None:
                batch["qpos"] = given[:, place]
            inputs = self._inputs(batch)
            if d and not self._future_max:
                padded = F.pad(given, (0, 0, 0, self.told_max - d))  # (B, P, A)
                size = torch.full((len(given),), d, device=self.device)
                inputs |= self._prefix(padded, size, batch["qpos"])
            if self.samples and "noise" in observation:
                size = len(given), self.chunk_size, self.config.action_dim
                noise = check_noise(observation["noise"], *size)
                inputs["noise"] = torch.from_numpy(noise).to(self.device)
            else:
                inputs |= self._noise(len(given), self.random)
            actions = self.module(inputs).actions
            actions = self._physical(actions.float(), batch["qpos"])
            rest = actions[:, d:] if place is None else actions  # (B, k - d or k, A)
            actions = torch.cat([given, rest], 1)[:, : self.chunk_size]
        if training:
            self.train()
        return actions.cpu().numpy()

    def sample_chunks(
        self,
        observation: Mapping[str, np.ndarray],
        n: int,
        seed: int | torch.Generator = 0,
    ) -> np.ndarray:
        """N predictions (n, B, k, A) of B robots at once; alike unless it `samples`.

        Their noise is of this seed; that of other predictions goes on as it was.
        """
        random = seed
        if isinstance(seed, int):
            random = torch.Generator().manual_seed(seed)
        assert isinstance(random, torch.Generator)
        many = {key: np.repeat(x, n, axis=0) for key, x in observation.items()}
        for name, noise in self._noise(len(many["qpos"]), random).items():
            many[name] = noise.cpu().numpy()
        chunks = self.predict_chunk(many)  # (B n, k, A)
        return chunks.reshape(-1, n, *chunks.shape[1:]).swapaxes(0, 1)

    def _read_prefix(self, prefix: np.ndarray | None, rows: int) -> Tensor:
        """Committed actions (B, d, A), of which there may be none."""
        given = check_prefix(prefix, rows, self.told_max, self.config.action_dim)
        return torch.from_numpy(given).to(self.device)

    def _prefix(self, given: Tensor, size: Tensor, qpos: Tensor) -> dict[str, Tensor]:
        """What the network reads of committed actions (B, P, A), size (B,) of them."""
        if self.action_target == "delta":
            given = given - qpos[:, None]
        given = self.scale(self._target_key).normalise(given)
        return {"prefix": given, "prefix_size": size}

    def _read(
        self, observation: Mapping[str, np.ndarray | Tensor]
    ) -> dict[str, Tensor]:
        expected = self.input_shapes
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


def make_policy(
    kind: PolicyKind | ClassPath,
    statistics: Statistics,
    *,
    size: Size = "small",
    action_target: ActionTarget = "absolute",
    **settings: Any,
) -> Policy:
    """Builds an untrained policy; its weights come from torch's random state.

    Args:
        kind: "act"; "bc_transformer" (ACT with a chunk of one and no CVAE);
            "bc_mlp"; or a network of one's own, as "module:Class".
        size: the dial of `ACTConfig.of_size`; the perceptron has one size only.
        **settings: fields of `ACTConfig` or `MLPConfig`: state_dim and action_dim
            always, cameras, chunk_size and so on as needed.

    Raises:
        SettingError: an unknown kind or setting; the message lists the known.
    """
    config = make_config(kind, size, **settings)
    return Policy(config, statistics, action_target, kind)
