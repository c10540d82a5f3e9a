"""Lesson 05: the vision policy along a demonstration: keypoints and attention."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from act_minimal.backbones import Keypoints
from act_minimal.episodes import load_episode
from act_minimal.model import ACT
from act_minimal.policy import Policy

from ..toolkit.plots import COLOURS, MARKERS, figure, label, still_layout
from ..toolkit.widgets import Explorer, slider

PIXELS = 16  # of a camera image (96 x 128) to a cell of the committed policy's map
TOKENS = ("z", "joints", *(f"{c} {i}" for c in ("top", "wrist") for i in (1, 2, 3, 4)))


@dataclass(frozen=True)
class Recorded:
    """What the vision policy attends to, along one demonstration.

    Attributes:
        seconds: (n,) since the start.
        images: (n, N, H, W, 3) uint8, of the cameras top and wrist.
        weight: (n, k, tokens) attention of each action, mean over heads; sums to 1.
        points: (n, N, C, 2) keypoints, x and y in pixels.
        effect: (n, k, N, C) by how many degrees an action moves (all arm joints
            together) when this keypoint moves by one pixel.
    """

    seconds: np.ndarray
    images: np.ndarray
    weight: np.ndarray
    points: np.ndarray
    effect: np.ndarray


def along(policy: Policy, episode: Path, every: int = 10) -> Recorded:
    """Run the vision policy along a recorded episode, and keep what its parts say."""
    found = load_episode(episode)
    model = policy.module
    assert isinstance(model, ACT)
    assert model.cameras is not None
    cameras, head = model.cameras, model.cameras.tokens
    assert isinstance(head, Keypoints)
    chosen = range(0, len(found), every)
    rows: list[tuple[np.ndarray, ...]] = []
    for t in chosen:
        seen = np.stack([found.images[c][t] for c in policy.cameras])  # (N, H, W, 3)
        batch = {
            "qpos": policy.scale("qpos").normalise(torch.tensor(found.qpos[t])[None]),
            "images": torch.tensor(seen)[None].permute(0, 1, 4, 2, 3),
        }
        kept: list[Tensor] = []

        def keep(module: nn.Module, given: tuple, kept: list[Tensor] = kept) -> None:
            kept.append(given[0])  # (N, C, h, w)

        hook = head.register_forward_pre_hook(keep)
        weight = model.attention_maps(batch)[-1][0].mean(0)  # (k, tokens)
        hook.remove()
        with torch.no_grad():
            scores = kept[0].flatten(2) * head.sharpness  # (N, C, h w)
            cells = cameras.get_buffer("table0")  # both cameras have one size
            keypoints = scores.softmax(-1) @ cells  # (N, C, 2): row, column
            effect = _effect(policy, model, batch, keypoints, kept[0].shape[2:])
        cells = torch.tensor([n - 1 for n in kept[0].shape[2:]])
        # The centre of cell 0 is at 7.5.
        pixels = PIXELS * ((keypoints + 1) / 2 * cells + 0.5) - 0.5
        rows.append((seen, weight.numpy(), pixels.flip(-1).numpy(), effect))
    images, weights, points, effects = (np.stack(x) for x in zip(*rows, strict=True))
    assert len(TOKENS) == weights.shape[2]
    assert cameras.pool * 8 == PIXELS
    return Recorded(np.array(chosen) / found.fps, images, weights, points, effects)


def _effect(policy: Policy, model: ACT, batch: dict, keypoints: Tensor, cells: Any):
    """(k, N, C) degrees a pixel, by moving one keypoint at a time."""
    n, channels, _ = keypoints.shape
    assert model.cameras is not None
    assert model.qpos_proj is not None
    moved = keypoints.repeat(1 + 2 * n * channels, 1, 1, 1)  # (1 + 2 N C, N, C, 2)
    for axis in (0, 1):
        pixel = 2 / ((cells[axis] - 1) * PIXELS)
        for i in range(n * channels):
            row = 1 + axis * n * channels + i
            moved[row, i // channels, i % channels, axis] += pixel
    tokens = model.cameras.tokens.proj(moved.flatten(2))  # (R, N, t D)
    tokens = tokens.reshape(len(moved), -1, model.config.width)  # (R, N t, D)
    z = torch.zeros(1, model.config.latent_dim)
    own = torch.stack([model.latent_proj(z), model.qpos_proj(batch["qpos"])], 1)
    x = torch.cat([own.expand(len(moved), -1, -1), tokens], 1)
    places = model.cameras.position.expand(n, -1, -1)
    if model.cameras.embedding is not None:
        places = places + model.cameras.embedding
    position = torch.cat([model.position, places.flatten(0, 1)])
    memory = model.encoder(x, position)
    actions = policy.scale("action").restore(model.decode(memory, memory + position))
    change = (actions[1:] - actions[0])[..., :5]  # (2 N C, k, arm joints)
    change = change.unflatten(0, (2, n, channels)).square().sum((0, -1)).sqrt()
    return np.rad2deg(change.permute(2, 0, 1).numpy())  # (k, N, C)


def camera_explorer(seen: Recorded) -> Explorer:
    """Sliders over time and action: keypoints on both images, weight of each token."""
    fig, axes = figure(3, width=8.0, height=3.2)
    pictures, dots = [], []
    for i, name in enumerate(("top", "wrist")):
        pictures.append(axes[i].imshow(seen.images[0, i]))
        # Filled markers with a dark edge are seen on bright and on dark ground.
        how: Any = {"marker": MARKERS[i], "c": COLOURS[2], "ec": "black", "lw": 0.5}
        dots.append(axes[i].scatter(*seen.points[0, i].T, **how))
        axes[i].set_axis_off()
        axes[i].set_title(f"{name}, 64 keypoints", fontsize=10, loc="left")
    hatch = ["", "", *["//"] * 4, *[".."] * 4]
    colours = ["black", "grey", *[COLOURS[0]] * 4, *[COLOURS[1]] * 4]
    bars = axes[2].bar(range(len(TOKENS)), 0.1, color=colours, hatch=hatch, ec="white")
    axes[2].set_xticks(range(len(TOKENS)), TOKENS, rotation=90)
    axes[2].set_ylim(0, min(1.0, 1.05 * float(seen.weight.max())))
    label(axes[2], "token", "attention")
    largest, k = seen.effect.max(), seen.weight.shape[1]
    still_layout(fig)

    def draw(moment: int, action: int) -> tuple[Figure, str]:
        weight = seen.weight[moment, action - 1]
        effect = seen.effect[moment, action - 1]
        for i in range(2):
            pictures[i].set_data(seen.images[moment, i])
            dots[i].set_offsets(seen.points[moment, i])
            dots[i].set_sizes(2 + 250 * effect[i] / largest)
        for bar, height in zip(bars, weight, strict=True):
            bar.set_height(height)
        camera, point = np.unravel_index(effect.argmax(), effect.shape)
        x, y = seen.points[moment, camera, point]
        own = weight[:2].sum()
        return fig, (
            f"t = {seen.seconds[moment]:.1f} s, action {action} of {k}: "
            f"{100 * weight[2:6].sum():.0f} % of the attention on the top camera, "
            f"{100 * weight[6:].sum():.0f} % on the wrist camera, {100 * own:.0f} % on "
            f"z and joints. A keypoint's size is its effect; the strongest, "
            f"{effect.max():.2f} degrees a pixel, is at ({x:.0f}, {y:.0f}) of the "
            f"{('top', 'wrist')[camera]} image (n = 1 demonstration)."
        )

    wrist = seen.effect[:, :, 1].max(-1)  # (n, k)
    moment, action = np.unravel_index(wrist.argmax(), wrist.shape)  # at the grasp
    return Explorer(
        "Which camera gets the attention while the arm is far from the cube, and which "
        "when it grasps? Do late actions attend to other tokens than early ones?",
        draw,
        moment=slider("moment", 0, len(seen.seconds) - 1, int(moment)),
        action=slider("action in the chunk", 1, k, int(action) + 1),
    )
