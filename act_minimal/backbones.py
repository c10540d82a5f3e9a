"""Pictures to tokens: the vision half of ACT (`model.py` has the rest).

Every camera goes through one backbone, those of one size in one batch. Letters in shape
comments: B batch, N cameras, H W image, C channels, h w feature map, t tokens a camera,
D width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .support.errors import UserError

if TYPE_CHECKING:
    from .settings import ACTConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB
CHANNELS = {"small": 64, "resnet18": 512, "resnet34": 512, "resnet50": 2048}
STRIDES = {"small": 8, "resnet18": 32, "resnet34": 32, "resnet50": 32}  # pixels a cell


def small_backbone() -> nn.Sequential:
    """Convolutions for laptops: 64 channels at an eighth of the image's size."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, stride=4),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.GroupNorm(8, 64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 1, bias=False),  # a softmax would not see a bias
    )


class FrozenNorm(nn.Module):
    """Batch norm that no longer learns; the `NormedConv` before it does its work."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x


class NormedConv(nn.Module):
    """A convolution with the frozen batch norm behind it in its own weights.

    To scale the weights is a thousandth of the work of scaling the features, and the
    gradient goes through it all the same.
    """

    def __init__(self, conv: nn.Conv2d, norm: FrozenNorm):
        super().__init__()
        self.weight = conv.weight
        self.stride, self.padding = conv.stride, conv.padding
        self.norm = (norm,)  # a tuple: not a part of this module, it has its own place

    def forward(self, x: Tensor) -> Tensor:
        gain, bias, mean, var = self.norm[0].buffers()  # (C,) each
        scale = gain * (var + 1e-5).rsqrt()
        weight = self.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, bias - mean * scale, self.stride, self.padding)


def resnet(name: str, pretrained: bool) -> nn.Sequential:
    """A ResNet's convolutions with frozen batch norm: a 32nd of the image's size."""
    import torchvision  # slow to import, and only ResNets need it

    net = torchvision.models.get_model(name, norm_layer=FrozenNorm)
    if pretrained:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        try:
            # Tensors only, and checked against the hash in the file's name.
            state = weights.get_state_dict(check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"pretrained 'imagenet' needs {weights.url}, which could not be had "
                f"({error}): connect to the network once, or put that file into "
                f"{torch.hub.get_dir()}/checkpoints, or choose pretrained 'none'"
            ) from error
        counts = [key for key in state if key.endswith("num_batches_tracked")]
        net.load_state_dict({k: x for k, x in state.items() if k not in counts})
    children = list(net.named_children())[:-2]  # without pooling and classifier
    # Pooling first, ReLU has a quarter of the work, and the maximum stays the same.
    children[2:4] = reversed(children[2:4])
    net = nn.Sequential(OrderedDict(children))
    for parent in list(net.modules()):
        for (attribute, conv), (_, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenNorm):
                setattr(parent, attribute, NormedConv(conv, norm))
    return net


def sinusoid_2d(height: int, width: int, channels: int) -> Tensor:
    """DETR's sine embedding of a grid, (height * width, channels).

    Rows and columns count from 1 and are scaled to end at 2 pi; the first half of
    the channels holds the row, the second the column.
    """
    half = channels // 2
    rate = 10000.0 ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)

    def axis(n: int) -> Tensor:
        position = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1e-6)
        angle = 2 * math.pi * position[:, None] * rate  # (n, half / 2)
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)  # (n, half)

    rows = axis(height)[:, None].expand(height, width, half)
    columns = axis(width)[None].expand(height, width, half)
    return torch.cat([rows, columns], -1).flatten(0, 1).float()


class Keypoints(nn.Module):
    """Spatial softmax (Finn et al., 2016): where each channel looks, in [-1, 1]."""

    def __init__(self, channels: int, width: int, tokens: int):
        super().__init__()
        self.proj = nn.Linear(2 * channels, tokens * width)
        self.tokens = tokens
        # Over some 200 cells a plain softmax starts nearly flat, with every keypoint in
        # the middle; starting sharp halved the error after the same 500 steps.
        self.sharpness = nn.Parameter(torch.full((channels, 1), 8.0))

    @staticmethod
    def cell_positions(height: int, width: int) -> Tensor:
        """Row and column of each cell, (h w, 2)."""
        rows, columns = (torch.linspace(-1, 1, n) for n in (height, width))
        return torch.cartesian_prod(rows, columns)

    def forward(self, features: Tensor, cells: Tensor) -> Tensor:
        """From (B N, C, h, w), whose cells are at `cells` (h w, 2), to (B N, t, D)."""
        scores = features.flatten(2) * self.sharpness  # (B N, C, h w)
        weights = scores.softmax(-1)
        points = (weights @ cells).flatten(1)  # (B N, 2 C)
        return self.proj(points).unflatten(-1, (self.tokens, -1))


class Grid(nn.Module):
    """One token for each cell of the feature map, as the original."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.proj = nn.Linear(channels, width)  # a 1 x 1 convolution

    def forward(self, features: Tensor) -> Tensor:
        """From (B N, C, h, w) to (B N, h w, D)."""
        return self.proj(features.flatten(2).mT)


class Cameras(nn.Module):
    """Images of all cameras to tokens and their positions.

    Cameras of one size go through the backbone in one batch. `pretrained_weights` is
    False when a checkpoint will replace them anyway.
    """

    position: Tensor  # (t, D) where in the image a keypoint token comes from
    mean: Tensor  # (N, 3, 1, 1)
    std: Tensor  # (N, 3, 1, 1)

    def __init__(self, config: ACTConfig, pretrained_weights: bool = True):
        super().__init__()
        n, width, sizes = len(config.cameras), config.width, config.camera_sizes
        self.shapes = [(3, *size) for size in sizes.values()]
        same = {
            x: [i for i, y in enumerate(self.shapes) if x == y] for x in self.shapes
        }
        self.groups = list(same.values())  # cameras of one size: [[0, 1]] if all are
        self.pool = config.image_pool
        if config.backbone == "small":
            self.backbone = small_backbone()
        else:
            wanted = pretrained_weights and config.pretrained == "imagenet"
            self.backbone = resnet(config.backbone, wanted)
        self.backbone.to(memory_format=torch.channels_last)
        # The small one would drop what is left over; ResNets fill up by themselves.
        self.fill = STRIDES["small"] if config.backbone == "small" else 1
        channels = CHANNELS[config.backbone]
        self.keypoints = config.image_tokens == "keypoints"
        if self.keypoints:
            self.tokens = Keypoints(channels, width, config.keypoint_tokens)
            self.position = nn.Parameter(torch.randn(config.keypoint_tokens, width))
        else:
            self.tokens = Grid(channels, width)
        for k, group in enumerate(self.groups):
            cell = self.pool * STRIDES[config.backbone]  # pixels
            h, w = (math.ceil(side / cell) for side in self.shapes[group[0]][1:])
            table = (
                Keypoints.cell_positions(h, w)
                if self.keypoints
                else sinusoid_2d(h, w, width)
            )
            self.register_buffer(f"table{k}", table, persistent=False)
        self.embedding = None
        if config.camera_embedding:
            self.embedding = nn.Parameter(torch.randn(n, 1, width))
        # One row a camera, so that a checkpoint can bring statistics of its own.
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(
                name, torch.tensor(values).repeat(n, 1)[..., None, None]
            )

    def forward(self, images: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens (B, N t, D), camera after camera, and their positions (N t, D).

        Args:
            images: (B, N, 3, H, W) RGB, uint8 or float in [0, 1]; or, for cameras of
                different sizes, one (B, 3, H, W) a camera. A permuted view of
                (B, N, H, W, 3) is best: its memory is already channels-last.

        Raises:
            ValueError: the images are not of the config's shape.
        """
        views = images.unbind(1) if isinstance(images, Tensor) else images
        if [tuple(x.shape[1:]) for x in views] != self.shapes:
            raise ValueError(
                f"images have shape {[tuple(x.shape) for x in views]}, expected (B, N, "
                f"3, H, W), or (B, 3, H, W) a camera, with (3, H, W) = {self.shapes}"
            )
        tokens, positions = list(views), list(views)
        if self.keypoints:
            positions = list(self.position.expand(len(views), -1, -1))  # (t, D) each
        whole = images if isinstance(images, Tensor) and len(self.groups) == 1 else None
        for k, group in enumerate(self.groups):
            x = torch.stack([views[i] for i in group], 1) if whole is None else whole
            of_group = self._tokens(x, k).unbind(1)  # (B, t, D) each
            for i, of_camera in zip(group, of_group, strict=True):
                tokens[i] = of_camera
                if not self.keypoints:
                    positions[i] = self.get_buffer(f"table{k}")
        if self.embedding is not None:
            pairs = zip(positions, self.embedding, strict=True)
            positions = [position + camera for position, camera in pairs]
        return torch.cat(tokens, 1), torch.cat(positions)

    def _tokens(self, images: Tensor, k: int) -> Tensor:
        """Tokens (B, n, t, D) of the images (B, n, 3, H, W) of group k."""
        mean, std = self.mean, self.std
        if len(self.groups) > 1:
            # Not indexed by a list, which would travel to a GPU at every step: the
            # processor waits for that, and no CUDA graph can be recorded of it.
            group = self.groups[k]
            mean, std = (torch.stack([x[i] for i in group]) for x in (mean, std))
        full = 255.0 if images.dtype == torch.uint8 else 1.0
        x = images.flatten(0, 1).to(mean.dtype)  # (B n, 3, H, W)
        if self.pool > 1:
            x = F.avg_pool2d(x, self.pool, ceil_mode=True)
        x = x.unflatten(0, images.shape[:2])  # (B, n, 3, H, W)
        # (x / full - mean) / std in one pass
        x = torch.addcmul(-mean / std, x, 1 / (full * std))
        if any(short := [-side % self.fill for side in x.shape[-2:]]):
            x = F.pad(x, (0, short[1], 0, short[0]))  # with the mean colour
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        cells = [self.get_buffer(f"table{k}")] if self.keypoints else []
        return self.tokens(self.backbone(x), *cells).unflatten(0, images.shape[:2])
