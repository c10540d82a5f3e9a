"""The arm that virtual servos turn: MuJoCo, the scene of a task, and a witness.

The position loop is the simulated task's own; on top of it come the servo's steps, its
profile, its torque limits and its faults. Choices where nothing is published:

* stiffness is proportional to P_Coefficient, and P = 16 is the simulated task's;
* a full Torque_Limit is the arm's 3.5 N·m (3.35 of a SO-101), and for a SO-100's
  gripper twice the force that the simulated task gives it, since the driver halves the
  gripper's limit;
* a motor without torque still brakes, as its gears do: the arm sinks, it does not fall.
"""

from dataclasses import dataclass, field

import mujoco
import numpy as np

from act_minimal.sim.world import start

from ...virtual.contacts import Witness
from ...virtual.scene import VirtualScene
from ..kinematics import LINKS
from ..registers import STEPS
from .servo import Servo

# How each servo sits in the arm: the sense in which its steps count, seen from the
# simulated joint.
SENSE = {"so100": np.array([-1, 1, 1, 1, 1, 1]), "so101": np.ones(6, int)}
STEPS_PER_RAD = STEPS / (2 * np.pi)
USUAL_P = 16
GRIPPER_RESERVE = {"so100": 2.0, "so101": 1.0}
SOFT = 0.1  # share of the torque that may go at once: the arm has sunk by then


@dataclass
class ServoWitness(Witness):
    """What a SO-100 or SO-101 went through; angles in rad, the gripper's too."""

    lowest: np.ndarray = field(default_factory=lambda: np.full(6, np.inf))
    highest: np.ndarray = field(default_factory=lambda: np.full(6, -np.inf))
    speed: np.ndarray = field(default_factory=lambda: np.zeros(6))
    pull: np.ndarray = field(default_factory=lambda: np.zeros(6))
    """Farthest from its joint that a goal was moved still farther away, rad: what a
    push from outside does to the distance is not the goal's."""
    torque: np.ndarray = field(default_factory=lambda: np.zeros(6))
    """Largest share of the stall torque that each servo was allowed to use."""
    tip_low: np.ndarray = field(default_factory=lambda: np.full(3, np.inf))
    tip_high: np.ndarray = field(default_factory=lambda: np.full(3, -np.inf))
    """Box in which the fixed finger's tip was, m."""


def collide_with_itself(model: mujoco.MjModel) -> None:
    """Let the simulated arm's links stop each other, as real ones do.

    In the simulated task itself they pass through each other, and stay so: what was
    learned and measured there depends on it. Neighbours never collide in MuJoCo, but
    for the base, which is part of the world; it meets all links but the shoulder.
    """
    for name in LINKS:
        body = model.body(name).id
        meets = (
            (0, 4 | 8) if name == "base" else (1 if name == "shoulder" else 1 | 8, 1)
        )
        begin, count = model.body_geomadr[body], model.body_geomnum[body]
        # MuJoCo looks at a body's bits first, then at those of its shapes.
        model.body_contype[body], model.body_conaffinity[body] = meets
        model.geom_contype[begin : begin + count] = meets[0]
        model.geom_conaffinity[begin : begin + count] = meets[1]


class VirtualArm:
    """Six servos and the scene they work in.

    Args:
        scene: of a simulated task.
        mounting: steps that each servo shows at its joint's angle 0, (6,).
        robot: so100 or so101, whose joints the scene has.
    """

    def __init__(self, scene: VirtualScene, mounting: np.ndarray, robot: str = "so100"):
        assert scene.task is not None
        self.scene, self._sense = scene, SENSE[robot]
        self.model = scene.task.model()
        if robot == "so100":  # the model of a SO-101 does so by itself
            collide_with_itself(self.model)
        self.data = mujoco.MjData(self.model)
        self.seconds = float(self.model.opt.timestep)
        self.mounting = np.asarray(mounting, float)
        self.servos = [Servo(id=i + 1) for i in range(6)]
        self.witness = ServoWitness()
        self.supply, self.sag = 7.4, 0.0
        self._gain = self.model.actuator_gainprm[:6, 0].copy()
        self._force = self.model.actuator_forcerange[:6, 1].copy()
        self._force[5] *= GRIPPER_RESERVE[robot]
        self._tip = self.model.site("tcp").id
        self._moved: tuple[np.ndarray, float] | None = None
        self._tape: tuple[np.ndarray, float, float] | None = None
        self._strength = np.zeros(6)
        self._goals = np.zeros(6)
        self.powered = True
        self.data.qpos[:] = start(scene.task, scene.number)
        mujoco.mj_forward(self.model, self.data)
        self._show()
        for servo in self.servos:
            servo.power_up()
        self._goals = self.data.qpos[:6].copy()

    def lay(self, number: int) -> None:
        """Put the objects as in this start of the task; the arm stays where it is."""
        self.data.qpos[6:] = self.scene.lay(number)[6:]
        self.data.qvel[6:] = 0.0
        mujoco.mj_forward(self.model, self.data)

    def put(self, joints: np.ndarray) -> None:
        """Put the arm by hand, as one can without torque: angles (6,) rad."""
        self.data.qpos[:6] = joints
        self.data.qvel[:6] = 0.0
        mujoco.mj_forward(self.model, self.data)
        self._show()

    def move(self, joints: np.ndarray, speed: float) -> None:
        """Move the arm by hand to angles (6,) rad, at most so fast (rad/s); stay."""
        self._moved = np.asarray(joints, float), float(speed)

    def play(self, rows: np.ndarray, rate: float) -> None:
        """Take the arm by hand through angles (T, 6) rad, so many a second."""
        self._tape = np.asarray(rows, float).reshape(-1, 6), float(rate), 0.0

    def release(self) -> None:
        self._moved = self._tape = None

    def _move_by_hand(self) -> None:
        if self._tape is not None:
            rows, rate, seconds = self._tape
            seconds += self.seconds
            row = seconds * rate
            joints = [np.interp(row, np.arange(len(rows)), joint) for joint in rows.T]
            self.move(np.array(joints), np.inf)
            self._tape = (rows, rate, seconds) if row < len(rows) - 1 else None
        if self._moved is None:
            return
        joints, speed = self._moved
        measured = self.data.qpos[:6]
        step = speed * self.seconds
        self.put(measured + np.clip(joints - measured, -step, step))

    def joints_of(self, encoder: np.ndarray) -> np.ndarray:
        """Angles (6,) rad at steps of the shafts."""
        return (encoder - self.mounting) / (self._sense * STEPS_PER_RAD)

    def step(self) -> None:
        self._move_by_hand()
        strength = np.array([s.strength if self.powered else 0.0 for s in self.servos])
        stiffness = np.array([s.get("P_Coefficient") for s in self.servos]) / USUAL_P
        on = strength > 0
        gain = np.where(on, self._gain * stiffness, 0.0)
        self.model.actuator_gainprm[:6, 0] = gain
        self.model.actuator_biasprm[:6, 1] = -gain
        limit = np.where(on, self._force * strength, self._force)
        self.model.actuator_forcerange[:6] = np.stack([-limit, limit], axis=1)
        for servo in self.servos:
            servo.advance(self.seconds)
        target = self.joints_of(np.array([s.setpoint for s in self.servos]))
        low, high = self.model.jnt_range[:6].T
        self.data.ctrl[:6] = np.clip(target, low, high)
        mujoco.mj_step(self.model, self.data)
        self._show(on)
        self._watch(on, strength)

    def _show(self, on: np.ndarray | None = None) -> None:
        """Let the servos feel where they are."""
        encoder = self.mounting + self._sense * self.data.qpos[:6] * STEPS_PER_RAD
        speed = self._sense * self.data.qvel[:6] * STEPS_PER_RAD
        effort = self._sense * self.data.actuator_force[:6] / self._force
        if on is not None:
            effort = np.where(on, effort, 0.0)
        voltage = self.supply - self.sag * min(1.0, float(np.abs(effort).sum()))
        for i, servo in enumerate(self.servos):
            servo.encoder, servo.speed = float(encoder[i]), float(speed[i])
            servo.effort = float(np.clip(effort[i], -1, 1))
            servo.supply = voltage

    def _watch(self, on: np.ndarray, strength: np.ndarray) -> None:
        w, joints = self.witness, self.data.qpos[:6]
        np.minimum(w.lowest, joints, out=w.lowest)
        np.maximum(w.highest, joints, out=w.highest)
        np.maximum(w.torque, strength, out=w.torque)
        np.maximum(w.speed, np.abs(self.data.qvel[:6]), out=w.speed)
        goals = self.joints_of(np.array([s.goal() for s in self.servos]))
        pull = np.abs(goals - joints)
        moved_away = on & (pull > np.abs(self._goals - joints) + 1e-6)
        np.maximum(w.pull, np.where(moved_away, pull, 0.0), out=w.pull)
        self._goals = goals
        w.touch.look(self.model, self.data)
        tip = self.data.site_xpos[self._tip]
        np.minimum(w.tip_low, tip, out=w.tip_low)
        np.maximum(w.tip_high, tip, out=w.tip_high)
        if ((self._strength > SOFT) & ~on)[:5].any() and tip[2] > 0.12:
            w.falls += 1
        self._strength = strength
