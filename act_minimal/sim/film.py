"""Films of rollouts, drawn from their recorded states."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imageio.v2 as imageio
import mujoco
import numpy as np
from tqdm.auto import tqdm

from ..files import atomic_file
from ..gl import open_renderer
from .world import Task

# Okabe and Ito's blue and vermilion, told apart by colour-blind people too.
SUCCESS, FAILURE = (0, 114, 178), (213, 94, 0)
SPEED = 2  # films run at twice the real speed
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

    A frame and a word tell success (blue) from failure (vermilion).
    """
    model = task.model()
    model.vis.global_.offheight, model.vis.global_.offwidth = size
    # A film is looked at by people: smooth edges are worth the time.
    model.vis.quality.offsamples = 4
    data = mujoco.MjData(model)
    renderer = open_renderer(model, *size)
    stride = SPEED  # one film frame every so many ticks, played at the task's rate
    frames = max(len(take.qpos) for take in takes) // stride + AFTER
    rows = -(-len(takes) // columns)
    blank = np.full((*size, 3), 255, np.uint8)
    last: list[np.ndarray | None] = [None] * len(takes)
    try:
        with (
            atomic_file(path.with_suffix(".mp4")) as temporary,
            imageio.get_writer(
                temporary, format="FFMPEG", fps=task.fps, macro_block_size=None
            ) as writer,  # type: ignore[call-overload]
        ):
            for frame in tqdm(range(frames), desc="film", disable=not progress):
                cells = []
                for i, take in enumerate(takes):
                    tick = min(frame * stride, len(take.qpos) - 1)
                    over = frame * stride >= len(take.qpos)
                    cell = last[i]
                    if cell is None or not over:
                        data.qpos[:] = take.qpos[tick]
                        mujoco.mj_kinematics(model, data)
                        mujoco.mj_comPos(model, data)
                        mujoco.mj_camlight(model, data)
                        renderer.update_scene(data, "scene")
                        cell = last[i] = renderer.render()
                    cells.append(_caption(cell, take, over, tick / task.fps))
                cells += [blank] * (rows * columns - len(cells))
                grid = [
                    np.hstack(cells[r * columns : (r + 1) * columns])
                    for r in range(rows)
                ]
                writer.append_data(np.vstack(grid))
    finally:
        renderer.close()
    return path.with_suffix(".mp4")


def _caption(image: np.ndarray, take: Take, over: bool, seconds: float) -> np.ndarray:
    """The picture with its title, and how it ended once it is over."""
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
