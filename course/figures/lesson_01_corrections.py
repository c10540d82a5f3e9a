"""Lesson 01: an expert to ask anywhere, and demonstrations under disturbance.

The demonstrators of `sim/so100/expert.py` plan a whole episode from its start. To
correct a policy (DAgger) somebody must say what to do in a state that no plan passes
through. `Corrector` does: a function of the present state alone, staged by where the
cube is and whether it is held, with the scripted expert's waypoints and inverse
kinematics.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.episodes import (
    Episode,
    list_episodes,
    load_episode,
    save_next_episode,
)
from act_minimal.sim import make_task
from act_minimal.sim.recording import SETTLE, scene_seed
from act_minimal.sim.so100.arm import jaw_to_gripper
from act_minimal.sim.so100.expert import (
    CLOSED,
    GRASP_ABOVE,
    OPEN,
    PAN_AXIS,
    Expert,
    Reach,
    Style,
)
from act_minimal.sim.so100.pick_place import BIN_CENTRE, BIN_INNER
from act_minimal.sim.world import World
from act_minimal.support.errors import UserError

TASK = "so100_pick_place"
LEAD = 0.14  # rad: how far targets run ahead of the joints, as the demonstrations' do
JAW_LEAD = 0.3  # the same for the gripper's opening
HELD_BELOW = 0.2  # gripper opening: a cube between the fingers stops them at 0.11
HOVER, CARRY = 0.07, 0.14  # m: higher than the scripted expert, a straight way dips
Act = Callable[[int, np.ndarray], np.ndarray | None]


class Corrector:
    """The expert with feedback: from any state (13,) to the action (6,) wanted there.

    A Markov expert: the same state always gets the same action, whatever went before.
    """

    def __init__(self):
        import mujoco  # here: `..sim` has to choose first how it draws

        self.reach = Reach()
        self.data = mujoco.MjData(self.reach.model)
        self.site = mujoco.mj_name2id(
            self.reach.model, mujoco.mjtObj.mjOBJ_SITE, "grasp"
        )
        self.task = make_task(TASK)
        over = np.array([*BIN_CENTRE, CARRY])
        self.over_bin = self.reach(over, None, _towards(BIN_CENTRE))
        self.in_bin = self.reach(np.array([*BIN_CENTRE, 0.055]), None, self.over_bin)
        self._known: dict[tuple, tuple[np.ndarray, ...]] = {}

    def fingers(self, qpos: np.ndarray) -> np.ndarray:
        """Where the grasp point is, m (3,)."""
        import mujoco

        self.data.qpos[:] = qpos[:6]
        mujoco.mj_kinematics(self.reach.model, self.data)
        return self.data.site_xpos[self.site].copy()

    def stage(self, qpos: np.ndarray) -> str:
        """What is to be done next in a state (13,)."""
        point, cube = self.fingers(qpos), qpos[6:9]
        opening = float(self.task.state(qpos[None])[0, 5])
        aside = np.linalg.norm(point[:2] - cube[:2])
        up = point[2] - cube[2] - GRASP_ABOVE
        from_bin = np.abs(cube[:2] - BIN_CENTRE).max()
        if from_bin < BIN_INNER / 2 and cube[2] < 0.045:
            return "leave"
        if np.linalg.norm(point - cube) < 0.025 and opening < HELD_BELOW:
            if from_bin < 0.02:
                return "release" if cube[2] < 0.06 else "lower"
            return "carry" if cube[2] > 0.075 else "lift"
        if from_bin < 0.03 and cube[2] > 0.045:
            return "release"  # it is on its way down
        if aside < 0.012 and abs(up) < 0.012:
            return "close"
        wide = opening > 0.55
        return "descend" if aside < 0.02 and up < HOVER + 0.03 and wide else "approach"

    def __call__(self, qpos: np.ndarray) -> np.ndarray:
        """The action (6,) for one state of the simulator, qpos (13,)."""
        stage = self.stage(qpos)
        if stage in ("leave", "release", "carry"):
            low = stage == "release"
            arm = self.in_bin if low else self.over_bin
        elif stage == "lower":
            arm = self.in_bin
        else:
            before, grasp, above = self._waypoints(qpos[6:13])
            arm = {"approach": before, "lift": above}.get(stage, grasp)
        jaw = CLOSED if stage in ("close", "lift", "carry", "lower") else OPEN
        state = self.task.state(qpos[None])[0]
        ahead = arm - state[:5]
        ahead *= min(1.0, LEAD / max(np.abs(ahead).max(), 1e-9))
        grip = np.clip(jaw - state[5], -JAW_LEAD, JAW_LEAD)
        return np.append(state[:5] + ahead, state[5] + grip)

    def _waypoints(self, pose: np.ndarray) -> tuple[np.ndarray, ...]:
        """Joints before, at and above the grasp; solved once a millimetre."""
        yaw = 2 * np.arctan2(pose[6], pose[3])
        yaw = (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4  # a cube has four sides
        key = (*np.round(pose[:2], 3), round(float(pose[2]), 2), round(yaw, 2))
        if key not in self._known:
            grasp = pose[:3] + np.array([0, 0, GRASP_ABOVE])
            high = np.array([*grasp[:2], CARRY])
            try:
                hover = grasp + np.array([0, 0, HOVER])
                before = self.reach(hover, yaw, _towards(grasp[:2]))
                lower = self.reach(grasp, yaw, before)
                self._known[key] = before, lower, self.reach(high, yaw, before)
            except UserError:  # pushed out of reach: wait over the table
                self._known[key] = (self.over_bin,) * 3
        return self._known[key]


class Paused(Expert):
    """The scripted expert, but with pauses of random length (s) after its moves."""

    def __init__(self, seconds: tuple[float, float]):
        super().__init__(make_task(TASK), "scripted")
        self.seconds = seconds

    def plan(self, start: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, 2])
        first = np.append(start[:5], jaw_to_gripper(start[5]))
        style = Style(pauses=rng.uniform(*self.seconds, 6))
        return self._moves(first, start[6:13], style)


PAUSES = {"paused": (0.5, 0.5), "hesitant": (0.0, 1.0)}  # s


def make_expert(kind: str) -> Callable[[np.ndarray, int], Act]:
    """What makes an `Act` of a scene's start (13,) and number.

    Args:
        kind: "scripted" or "human"; "paused", the scripted expert that waits 0.5 s
            after each move, or "hesitant", 0 to 1 s; "feedback", a `Corrector`.
    """
    if kind == "feedback":
        corrector = Corrector()
        return lambda start, scene: lambda tick, qpos: corrector(qpos)
    if kind in PAUSES:
        planner: Expert = Paused(PAUSES[kind])
    else:
        planner = Expert(make_task(TASK), kind)
    return lambda start, scene: follow(planner.plan(start, scene))


def follow(plan: np.ndarray) -> Act:
    """Carry out a plan (T, 6), then hold its end for a moment."""

    def act(tick: int, qpos: np.ndarray) -> np.ndarray | None:
        return plan[min(tick, len(plan) - 1)] if tick < len(plan) + SETTLE else None

    return act


def slow_noise(
    ticks: int, scale: float, fps: int, rng: np.random.Generator
) -> np.ndarray:
    """(ticks, 6) noise of deviation `scale` rad that lasts 0.15 s; none on the jaw.

    White noise would be gone before the servos follow it.
    """
    keep = np.exp(-1 / (0.15 * fps))
    noise = np.zeros((ticks, 6))
    for t in range(1, ticks):
        kick = rng.normal(0, scale * np.sqrt(1 - keep**2), 5)
        noise[t, :5] = keep * noise[t - 1, :5] + kick
    return noise


def play(
    world: World,
    scene: int,
    act: Act,
    *,
    noise: np.ndarray | None = None,
    drive: Act | None = None,
    ticks: int = 500,
) -> Episode:
    """One scene: `act` says what is right, and that is recorded as the action.

    What is *done* may differ: the right action plus `noise` (T, 6) (DART), or what
    another policy wants, `drive` (DAgger). The labels then say how the expert would
    come back. The world is laid out at the scene; it is over when `act` gives None.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for tick in range(ticks):
        qpos = np.asarray(world.qpos[0])
        action = None if world.success[0] else act(tick, qpos)
        done = action if drive is None else drive(tick, qpos)
        if action is None or done is None:
            break
        seen = {k: v[0] for k, v in world.observe().items()}
        for key, value in (seen | {"action": action.astype(np.float32)}).items():
            rows.setdefault(key, []).append(value)
        if noise is not None:
            done = done + noise[min(tick, len(noise) - 1)]
        world.step(done[None])
    arrays: dict[str, Any] = {key: np.stack(value) for key, value in rows.items()}
    return Episode(
        **arrays,
        fps=world.task.fps,
        attributes={"success": bool(world.success[0]), "scene": scene, "task": TASK},
    )


def record(
    out: Path, n: int, kind: str = "scripted", *, seed: int = 0, disturb: float = 0.0
) -> Path:
    """Record `n` successful demonstrations, of other kinds than `act record` knows.

    A folder that holds `n` episodes is left as it is; `disturb` is a deviation in rad.

    Raises:
        UserError: the expert fails far too often.
    """
    done = list_episodes(out)
    found, first = len(done), scene_seed(seed, 0)
    if found >= n:
        return out
    if done:  # go on after the last scene
        first = int(load_episode(done[-1]).attributes["scene"]) + 1
    world, expert = World(make_task(TASK)), make_expert(kind)
    for scene in range(first, scene_seed(seed, 3 * n + 20)):
        world.reset([scene])
        act = expert(np.array(world.qpos[0]), scene)
        rng = np.random.default_rng([scene, 3])
        noise = slow_noise(world.task.max_ticks, disturb, world.task.fps, rng)
        episode = play(world, scene, act, noise=noise)
        if episode.attributes["success"]:
            save_next_episode(out, episode)
            found += 1
        if found == n:
            return out
    raise UserError(f"{out}: only {found} of {n} demonstrations succeeded")


def _towards(point: np.ndarray) -> np.ndarray:
    """Joints (5,) bent towards a point on the table: where a solver starts well."""
    x, y = point - PAN_AXIS
    return np.array([np.arctan2(y, x) + np.pi / 2, -1.5, 1.5, 1.2, -1.57])
