"""Films of rollouts, drawn from their recorded states."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mujoco
import numpy as np
from tqdm.auto import tqdm

from ..support.errors import UserError
from ..support.files import atomic_file, check_output_file
from ..support.gl import open_renderer
from ..support.video import VideoWriter
from .world import Task

# Okabe and Ito's blue and vermilion, told apart by colour-blind people too.
SUCCESS, FAILURE = (0, 114, 178), (213, 94, 0)
SPEED = 2  # films run at twice the real speed
RATE = 30  # frames a second, or about that
AFTER = 20  # frames that a finished rollout is shown for


@dataclass
class Take:
    """One rollout for a film: title, states (T, nq) and how it ended."""

    title: str
    qpos: np.ndarray
    success: bool


def pick(rollouts: Sequence[Any], title: str, n: int) -> list[Take]:
    """Up to `n` rollouts: failures first, at most half of them, then successes."""
    failures = [r for r in rollouts if not r.success]
    successes = [r for r in rollouts if r.success]
    few = failures[: max(n // 2, n - len(successes))]
    chosen = few + successes[: n - len(few)]
    return [Take(f"{title} {r.scene}", r.qpos, r.success) for r in chosen]


def film(
    task: Task,
    takes: Sequence[Take],
    path: Path,
    *,
    columns: int = 4,
    size: tuple[int, int] = (240, 320),
    progress: bool = True,
) -> Path:
    """Write an mp4 of rollouts side by side; a rollout that is over stands still.

    A frame and a word tell success (blue) from failure (vermilion). `size` (H, W) is
    each rollout's.

    Raises:
        SettingError: the name does not end in .mp4, or cannot be written to.
        UserError: nothing to film, or no room for it.
        GLError: this machine cannot draw.
    """
    check_output_file(path, "film", ".mp4")
    if not takes:
        raise UserError(f"there is no rollout to film into {path}")
    columns = min(columns, len(takes))
    scene = task.film_model()
    scene.vis.global_.offheight, scene.vis.global_.offwidth = size
    # A film is looked at by people: smooth edges are worth the time.
    scene.vis.quality.offsamples = 4
    data = mujoco.MjData(scene)
    renderer = open_renderer(scene, *size)
    thin = max(1, round(task.fps / RATE))
    stride = SPEED * thin  # one film frame every so many ticks
    frames = max(len(take.qpos) for take in takes) // stride + AFTER
    rows = -(-len(takes) // columns)
    blank = np.full((*size, 3), 255, np.uint8)
    last: list[np.ndarray | None] = [None] * len(takes)
    whole = (rows * size[0], columns * size[1])
    try:
        with (
            atomic_file(path) as temporary,
            closing(VideoWriter(temporary, task.fps // thin, whole, "film")) as video,
        ):
            for frame in tqdm(range(frames), desc="film", disable=not progress):
                cells = []
                for i, take in enumerate(takes):
                    tick = min(frame * stride, len(take.qpos) - 1)
                    over = frame * stride >= len(take.qpos)
                    cell = last[i]
                    if cell is None or not over:
                        data.qpos[:] = take.qpos[tick]
                        mujoco.mj_kinematics(scene, data)
                        mujoco.mj_comPos(scene, data)
                        mujoco.mj_camlight(scene, data)
                        renderer.update_scene(data, "scene")
                        cell = last[i] = renderer.render()
                    cells.append(_caption(cell, take, over, tick / task.fps))
                cells += [blank] * (rows * columns - len(cells))
                grid = [
                    np.hstack(cells[r * columns : (r + 1) * columns])
                    for r in range(rows)
                ]
                video.add(np.vstack(grid)[None])
    finally:
        renderer.close()
    return path


def _caption(image: np.ndarray, take: Take, over: bool, seconds: float) -> np.ndarray:
    image = image.copy()
    text = f"{take.title}  {seconds:.1f} s"
    colour = (40, 40, 40)
    if over:
        colour = SUCCESS if take.success else FAILURE
        text = f"{take.title}: " + ("success" if take.success else "failure")
        cv2.rectangle(
            image, (0, 0), (image.shape[1] - 1, image.shape[0] - 1), colour, 5
        )
    cv2.rectangle(image, (5, 5), (image.shape[1] - 6, 26), (255, 255, 255), -1)
    cv2.putText(image, text, (10, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, 16)
    return image
