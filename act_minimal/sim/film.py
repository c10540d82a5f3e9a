"""Films of rollouts, drawn from their recorded states, with what the policy intends."""

import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import mujoco
import numpy as np
from tqdm.auto import tqdm

from ..support.errors import UserError
from ..support.files import atomic_file, check_output_file
from ..support.gl import open_renderer
from ..support.video import VideoWriter
from .world import Task, World

if TYPE_CHECKING:
    from ..policy import Policy

# Okabe and Ito's blue and vermilion, told apart by colour-blind people too.
SUCCESS, FAILURE = (0, 114, 178), (213, 94, 0)
CHUNK = (0.0, 0.62, 0.45)  # their green
SPEED = 2  # films run at twice the real speed
RATE = 15  # frames a second, or about that
AFTER = 15  # frames that a finished rollout is shown for
STILL = 1e-3  # rad or m: a state that is this near to the one drawn looks the same
RIBBON = 3  # actions that a piece of the ribbon spans: pieces take time to draw
WIDE = 500  # pixels; wider films are drawn with one sample a pixel, in half the time


@dataclass
class Take:
    """One rollout for a film: title, states (T, nq), how it ended, who drove it."""

    title: str
    qpos: np.ndarray
    success: bool
    policy: "Policy | None" = None
    """If given, the film shows at every frame what it would do from there."""


def pick(
    rollouts: Sequence[Any], title: str, n: int, policy: "Policy | None" = None
) -> list[Take]:
    """Up to `n` rollouts: failures first, at most half of them, then successes."""
    failures = [r for r in rollouts if not r.success]
    successes = [r for r in rollouts if r.success]
    few = failures[: max(n // 2, n - len(successes))]
    chosen = few + successes[: n - len(few)]
    return [Take(f"{title} {r.scene}", r.qpos, r.success, policy) for r in chosen]


class Stage:
    """Draws a task's film model in any of its states; a context manager.

    Args:
        size: (H, W) of its pictures.
        smooth: four samples a pixel, at twice the time.

    Raises:
        GLError: this machine cannot draw.
    """

    def __init__(self, task: Task, size: tuple[int, int], *, smooth: bool = True):
        self.task, self.model = task, task.film_model()
        self.model.vis.global_.offheight, self.model.vis.global_.offwidth = size
        self.model.vis.quality.offsamples = 4 if smooth else 0
        self._data = mujoco.MjData(self.model)
        self._renderer = open_renderer(self.model, *size)
        # Sites whose path is drawn; a task without them has no chunk in its films.
        self.tips = [self.model.site(x).id for x in getattr(task, "tips", ())]

    def draw(
        self, qpos: np.ndarray, camera: str, chunk: np.ndarray | None = None
    ) -> np.ndarray:
        """A picture (H, W, 3) uint8 of the state (nq,), and of the chunk (k, A).

        The next action is a ball where it wants the fingertips, the later ones a
        ribbon that fades.
        """
        paths = [] if chunk is None else list(self.fingertips(qpos, chunk))
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)
        self._renderer.update_scene(self._data, camera)
        for path in paths:
            self._ball(path[0])
            share = np.linspace(1, 0.05, len(path))
            knots = sorted({*range(0, len(path), RIBBON), len(path) - 1})
            for start, end in itertools.pairwise(knots):
                geom = self._geom(mujoco.mjtGeom.mjGEOM_CAPSULE, share[end])
                mujoco.mjv_connector(
                    geom, mujoco.mjtGeom.mjGEOM_CAPSULE, 0.0035, path[start], path[end]
                )
        return self._renderer.render()

    def fingertips(self, qpos: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """Where actions (k, A) from a state (nq,) want each fingertip: (tips, k, 3)."""
        points = np.empty((len(self.tips), len(chunk), 3))
        joints = self.model.actuator_trnid[:, 0]
        driven = self.model.jnt_qposadr[joints]  # rows of qpos, an actuator each
        self._data.qpos[:] = qpos
        for j, target in enumerate(self.task.ctrl(chunk)):
            self._data.qpos[driven] = target
            mujoco.mj_kinematics(self.model, self._data)
            points[:, j] = self._data.site_xpos[self.tips]
        return points

    def _ball(self, where: np.ndarray) -> None:
        geom = self._geom(mujoco.mjtGeom.mjGEOM_SPHERE, 1.0)
        geom.pos[:], geom.size[:] = where, 0.007

    def _geom(self, kind: mujoco.mjtGeom, alpha: float) -> mujoco.MjvGeom:
        scene = self._renderer.scene
        geom = scene.geoms[scene.ngeom]
        rgba = np.array([*CHUNK, alpha], np.float32)
        mujoco.mjv_initGeom(
            geom, kind, np.zeros(3), np.zeros(3), np.eye(3).ravel(), rgba
        )
        geom.category = mujoco.mjtCatBit.mjCAT_DECOR  # casts no shadow
        geom.emission = 0.4
        scene.ngeom += 1
        return geom

    def close(self) -> None:
        self._renderer.close()


def film(
    task: Task,
    takes: Sequence[Take],
    path: Path,
    *,
    columns: int = 4,
    size: tuple[int, int] = (360, 480),
    cameras: Sequence[str] | None = None,
    progress: bool = True,
) -> Path:
    """Write an mp4 of rollouts side by side; a rollout that is over stands still.

    The line over a picture has its name, and a colour and a word when it is over:
    success (blue) or failure (vermilion). Where a take has its policy, a ball shows
    where the next action wants the fingertips, and a fading ribbon the rest of the
    chunk that it would predict from there.

    Args:
        size: (H, W) of each picture.
        cameras: side by side for each rollout; by default two views (the task's
            `film_cameras`) of up to four rollouts, one of more.

    Raises:
        SettingError: the name does not end in .mp4, or cannot be written to.
        UserError: nothing to film, or no room for it.
        GLError: this machine cannot draw.
    """
    check_output_file(path, "film", ".mp4")
    if not takes:
        raise UserError(f"there is no rollout to film into {path}")
    views = cameras or getattr(task, "film_cameras", ("scene",))
    if cameras is None:
        views = views[: 2 if len(takes) <= 4 else 1]
    columns = min(columns, len(takes))
    rows = -(-len(takes) // columns)
    line = max(20, size[0] // 10)
    panel = (size[0] + line, size[1] * len(views))
    whole = (rows * panel[0], columns * panel[1])
    blank = np.full((*panel, 3), 255, np.uint8)
    thin = max(1, round(task.fps / RATE))
    stride = SPEED * thin  # one film frame every so many ticks
    frames = max(len(take.qpos) for take in takes) // stride + AFTER
    last, drawn_at = [blank] * len(takes), [np.full(1, np.inf)] * len(takes)
    with (
        closing(Stage(task, size, smooth=whole[1] <= WIDE)) as stage,
        closing(World(task)) as world,
        atomic_file(path) as temporary,
        closing(VideoWriter(temporary, task.fps // thin, whole, "film", 2)) as video,
    ):
        for frame in tqdm(range(frames), desc="film", disable=not progress):
            for i, take in enumerate(takes):
                tick = min(frame * stride, len(take.qpos) - 1)
                over = frame * stride >= len(take.qpos)
                qpos = take.qpos[tick]
                if np.abs(qpos - drawn_at[i]).max() > STILL:
                    chunk = _chunk(world, take, tick) if stage.tips else None
                    drawn = [stage.draw(qpos, view, chunk) for view in views]
                    last[i] = np.vstack([blank[:line], np.hstack(drawn)])
                    drawn_at[i] = qpos
                _caption(last[i][:line], take, over, tick / task.fps)
            cells = last + [blank] * (rows * columns - len(takes))
            grid = [
                np.hstack(cells[r * columns : (r + 1) * columns]) for r in range(rows)
            ]
            video.add(np.vstack(grid)[None])
    return path


def _chunk(world: World, take: Take, tick: int) -> np.ndarray | None:
    """What the policy predicts (k, A) from the state of a tick."""
    if take.policy is None:
        return None
    world.qpos[0] = take.qpos[tick]
    seen = world.observe(take.policy.cameras, take.policy.image_sizes)
    if getattr(take.policy, "samples", False):
        take.policy.reseed(0)  # else the ribbon would flicker
    return take.policy.predict_chunk(seen)[0]


def _caption(line: np.ndarray, take: Take, over: bool, seconds: float) -> None:
    """Write into the line (h, W, 3) over a rollout's pictures."""
    text, ink, paper = f"{take.title}  {seconds:.1f} s", (40, 40, 40), (255, 255, 255)
    if over:
        text = f"{take.title}: " + ("success" if take.success else "failure")
        ink, paper = paper, SUCCESS if take.success else FAILURE
    line[:] = paper
    height, width = line.shape[:2]
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, height // 18)
    scale = height / 40
    (wide, _), _ = cv2.getTextSize(text, font, scale, thick)
    scale *= min(1.0, (width - 16) / wide)
    cv2.putText(
        line, text, (8, round(0.7 * height)), font, scale, ink, thick, cv2.LINE_AA
    )
