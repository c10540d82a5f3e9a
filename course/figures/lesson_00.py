"""Lesson 00: the arm under sliders, films of who can do the task, a short doctor."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from act_minimal.command import doctor
from act_minimal.evaluation import Evaluation, evaluation_scenes
from act_minimal.policy import Policy
from act_minimal.sim import PickPlace
from act_minimal.sim.film import Take, film
from act_minimal.sim.so100 import arm as so100
from act_minimal.sim.so100.expert import Expert
from act_minimal.sim.world import World, start
from act_minimal.support.gl import open_renderer

from ..toolkit.films import Film, show_film
from ..toolkit.paths import ROOT, home
from ..toolkit.plots import figure
from ..toolkit.widgets import Explorer, slider

TASK = PickPlace()
SIZE = (240, 320)  # H, W of the arm's picture: 8 ms without a GPU
NAMES = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_flex", "wrist_roll")


class Arm:
    """One scene of the task that sliders pose; nothing moves by itself."""

    def __init__(self, scene: int = 3, size: tuple[int, int] = SIZE):
        import mujoco  # here: `..sim` has to choose first how it draws

        self.model = TASK.film_model()
        self.model.vis.global_.offheight, self.model.vis.global_.offwidth = size
        self.data = mujoco.MjData(self.model)
        self.data.qpos[:] = start(TASK, scene)
        self.renderer = open_renderer(self.model, *size)
        self.grasp = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, "grasp")

    def pose(self, joints: np.ndarray, gripper: float) -> None:
        """Set five joint angles, rad, and the gripper's opening, 0 to 1."""
        jaw = so100.gripper_to_jaw(gripper)
        self.put(np.array([*joints, jaw, *self.data.qpos[6:]]))

    def put(self, qpos: np.ndarray) -> None:
        """Set all of the simulator's positions, (13,)."""
        import mujoco

        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def fingers(self) -> np.ndarray:
        """Where the grasp point between the fingers is, m (3,)."""
        return self.data.site_xpos[self.grasp].copy()

    def cube(self) -> np.ndarray:
        """Where the cube's middle is, m (3,)."""
        return self.data.qpos[6:9].copy()

    def picture(self) -> np.ndarray:
        """The scene from the side, (H, W, 3) uint8."""
        self.renderer.update_scene(self.data, "scene")
        return self.renderer.render()


def arm_explorer(scene: int = 3) -> Explorer:
    """A slider for each joint of the simulated arm."""
    arm = Arm(scene)
    low, high = np.ceil(np.degrees(so100.joint_limits()[:5])).astype(int).T
    first = np.round(np.degrees(so100.HOME[:5])).astype(int)
    fig, axes = figure(width=5.0, height=3.75)
    image = axes.imshow(np.zeros((*SIZE, 3), np.uint8))
    axes.set_axis_off()

    def draw(gripper: float, **degrees: float) -> tuple[Figure, str]:
        arm.pose(np.radians([degrees[name] for name in NAMES]), gripper / 100)
        image.set_data(arm.picture())
        x, y, z = 100 * arm.fingers()
        apart = 100 * np.linalg.norm(arm.fingers() - arm.cube())
        return fig, (
            f"The fingers are at x = {x:.1f}, y = {y:.1f}, z = {z:.1f} cm, "
            f"{apart:.1f} cm from the cube; the gripper is {gripper} % open."
        )

    joints = {
        name: slider(
            f"{name.replace('_', ' ')}, °", int(low[i]), int(high[i]) - 1, int(first[i])
        )
        for i, name in enumerate(NAMES)
    }
    return Explorer(
        "Can you bring the fingers to within 2 cm of the red cube? Which joints have "
        "to move?",
        draw,
        **joints,
        gripper=slider("gripper, % open", 0, 100, 32),
    )


# --- films ----------------------------------------------------------------------------


def expert_takes(kind: str, scenes: Sequence[int]) -> list[Take]:
    """An expert's attempts at some scenes, as the simulator's positions."""
    world, expert = World(TASK), Expert(TASK, kind)
    takes = []
    for scene in scenes:
        world.reset([scene])
        states = []
        for action in expert.plan(np.array(world.qpos[0]), scene):
            states.append(world.qpos[0].astype(np.float32))
            world.step(action[None])
        takes.append(Take(f"{kind} {scene}", np.stack(states), bool(world.success[0])))
    return takes


def film_experts() -> Film:
    """The scripted and the human-like expert, two scenes each."""
    scenes = evaluation_scenes(0, 2)
    takes = expert_takes("scripted", scenes) + expert_takes("human", scenes)
    good = sum(take.success for take in takes)
    return _film(
        takes,
        "experts_2_0",
        "The simulated arm puts a red cube into a blue bin at twice the real speed: "
        f"2 scenes by a script, the same 2 human-like; {good} of {len(takes)} succeed.",
    )


def film_rollouts(found: Evaluation, policy: Policy, n: int) -> Film:
    """The first `n` rollouts, not the best ones, and what the policy predicts."""
    some = found.rollouts[:n]
    takes = [Take(f"scene {r.scene}", r.qpos, r.success, policy) for r in some]
    good = sum(r.success for r in some)
    return _film(
        takes,
        f"policy_{n}_{found.seed}",
        f"Rollouts of the policy in {n} fresh scenes at twice the real speed, each cut "
        f"off when it is over: {good} of {n} put the cube into the bin. A fading "
        "ribbon shows the fingertips' next predicted positions.",
        ("scene",),
    )


def first_and_all(found: Evaluation, n: int) -> str:
    """How the first `n` rollouts went, beside all of them."""
    good = sum(r.success for r in found.rollouts[:n])
    return (
        f"the first {n} scenes: {good} of {n}; all scenes: {found.successes} of "
        f"{found.n}"
    )


def _film(
    takes: list[Take], name: str, alt: str, cameras: tuple[str, ...] | None = None
) -> Film:
    path = home() / "films" / f"{name}.mp4"
    made = film(TASK, takes, path, columns=2, cameras=cameras, progress=False)
    return show_film(made, alt)


# --- the machine ----------------------------------------------------------------------


@dataclass(frozen=True)
class Health:
    """What the doctor found, without what is different on every machine."""

    checks: tuple[doctor.Check, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing that the course needs is missing."""
        return doctor.is_ready(list(self.checks))

    def lines(self) -> list[str]:
        """What is in order, in a line; what is not, in a line each."""
        fine = dict.fromkeys(c.name for c in self.checks if c.status in ("ok", "info"))
        rows = [("Ready. " if self.ready else "Not ready. ") + "Looked at, and fine:"]
        rows[0] += f" {', '.join(fine)}."
        for check in self.checks:
            if check.status in ("missing", "warning"):
                fix = f" To mend it: {check.fix}" if check.fix else ""
                rows.append(f"{check.name} ({check.status}): {check.found}.{fix}")
        return rows

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return "<br>".join(html.escape(line) for line in self.lines())


def health() -> Health:
    """Ask the doctor; `act doctor` prints all of it."""
    return Health(tuple(doctor.diagnose()))


def checkpoint(name: str = "so100_pick_place_state") -> Path:
    """Folder of a policy that comes with the course."""
    return ROOT / "data" / "checkpoints" / name
