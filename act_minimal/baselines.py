"""The network that ACT is compared with: a plain multilayer perceptron.

Single-step behaviour cloning is this network with a chunk of one action. The other
single-step baseline, a transformer, needs no network of its own: it is ACT with a
chunk of one and no CVAE (see `policy.make_policy`).

Letters: B batch, k chunk, A action, S state, E env_state, N cameras, H W image.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from act_minimal.model import ACTConfig, ACTOutput, Cameras, ImageSize, as_tuples
from act_minimal.settings import Bounds, Count, Whole, check_settings


@dataclass(frozen=True)
class MLPConfig:
    """Everything that decides the shape and the loss of an `MLP`."""

    state_dim: Count
    """S, the number of joints in `qpos`."""
    action_dim: Count
    """A, the number of joints commanded."""
    env_state_dim: Whole = 0
    """E, the width of `env_state`; 0 leaves it out."""
    cameras: tuple[str, ...] = ()
    """Camera names, in the order in which their features are joined."""
    image_size: ImageSize = (96, 128)
    """Height and width of all cameras' images, or one such pair for each camera."""
    chunk_size: Count = 1
    """k; 1 is behaviour cloning as the textbooks have it."""
    hidden: Count = 256
    """Width of each hidden layer."""
    depth: Count = 3
    """Number of hidden layers."""
    image_features: Count = 64
    """Numbers that each camera contributes to the perceptron's input."""
    dropout: Annotated[float, Bounds(0, below=1)] = 0.0
    """Off by default: on a CPU it costs more than the layer that it follows."""
    loss: Literal["l1", "l2"] = "l1"
    """As ACT, so that the comparison is about the network and not the loss."""
    padding_in_loss: Literal["exclude", "dilute"] = "exclude"
    """As ACT; with a chunk of one nothing is ever padded."""

    def __post_init__(self) -> None:
        # JSON gives lists; the class promises tuples.
        object.__setattr__(self, "cameras", tuple(self.cameras))
        object.__setattr__(self, "image_size", as_tuples(self.image_size))
        check_settings(self)
        # Checks the rest, too.
        object.__setattr__(self, "image_size", self.act.image_size)

    @property
    def camera_sizes(self) -> dict[str, tuple[int, int]]:
        """(H, W) of each camera's images."""
        return self.act.camera_sizes

    @property
    def act(self) -> ACTConfig:
        """The settings shared with ACT: its camera network and its loss."""
        return ACTConfig(
            state_dim=self.state_dim,
            action_dim=self.action_dim,
            env_state_dim=self.env_state_dim,
            cameras=self.cameras,
            image_size=self.image_size,
            chunk_size=self.chunk_size,
            width=self.image_features,
            use_cvae=False,
            keypoint_tokens=1,
            loss=self.loss,
            padding_in_loss=self.padding_in_loss,
        )


class MLP(nn.Module):
    """Normalised [qpos, env_state, image features] to k normalised actions.

    Args:
        config: the shape.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.state_dim + config.env_state_dim
        self.cameras = None
        if config.cameras:
            self.cameras = Cameras(config.act, pretrained_weights=False)
            inputs += len(config.cameras) * config.image_features
        layers: list[nn.Module] = []
        for _ in range(config.depth):
            layers += [nn.Linear(inputs, config.hidden), nn.GELU()]
            if config.dropout:
                layers.append(nn.Dropout(config.dropout))
            inputs = config.hidden
        outputs = config.chunk_size * config.action_dim
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, batch: dict[str, Any], eps: Tensor | None = None) -> ACTOutput:
        """Predicts a chunk; `eps` is accepted and ignored: there is no latent here.

        Args:
            batch: "qpos" (B, S), optional "env_state" (B, E) and "images"
                (B, N, 3, H, W), all normalised.
            eps: unused.

        Returns:
            Actions (B, k, A), normalised, with no posterior.
        """
        parts = [batch["qpos"]]
        if self.config.env_state_dim:
            parts.append(batch["env_state"])
        if self.cameras is not None:
            features, position = self.cameras(batch["images"])  # (B, N, F), (N, F)
            parts.append((features + position).flatten(1))  # (B, N F)
        flat = self.layers(torch.cat(parts, dim=1))  # (B, k A)
        shape = (-1, self.config.chunk_size, self.config.action_dim)
        return ACTOutput(flat.view(shape), None, None)  # (B, k, A)
