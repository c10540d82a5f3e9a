"""Both arms that virtual motors turn: a MuJoCo model, and a witness.

The model's own actuators are switched off; the motors' torques are applied to the
joints. A motor without torque turns freely: without power the arm falls.
"""

import copy
from dataclasses import dataclass, field

import mujoco
import numpy as np

from act_minimal.support.errors import UserError

from ...virtual.contacts import Witness
from ..kinematics import ARMS
from ..model import places_of
from ..motors import ARM_MOTORS, SIDES
from ..protocol import Status
from .motor import Motor

RAISED = 0.12  # m above where the wrist hangs, or a table: from there it falls
HELD = 2.0  # N·m in all: an arm that loses more than this at once is let fall
STIFF = 20.0  # N·m/rad in an elbow: from there on an arm holds itself


@dataclass
class MotorWitness(Witness):
    """What the arms went through, in the order of the sixteen motors.

    Angles are in rad, the grippers' are openings.
    """

    lowest: np.ndarray = field(default_factory=lambda: np.full(16, np.inf))
    highest: np.ndarray = field(default_factory=lambda: np.full(16, -np.inf))
    speed: np.ndarray = field(default_factory=lambda: np.zeros(16))
    """Of the motors, rad/s."""
    torque: np.ndarray = field(default_factory=lambda: np.zeros(16))
    """Of the motors, N·m."""
    hand_low: np.ndarray = field(default_factory=lambda: np.full((2, 3), np.inf))
    hand_high: np.ndarray = field(default_factory=lambda: np.full((2, 3), -np.inf))
    """Box in which each arm's wrist was, m, right and left."""


class VirtualOpenArm:
    """Sixteen motors and the scene they work in.

    Args:
        model: the scene, with arms of version 2; it is copied.
        zeros: (16,) rad, where on its shaft each motor has its angle 0; all
            zero for an arm that is set up.
        state: (16,) how it stands at first; it hangs if not given.
        table: m, its top, on which an arm may lie instead of hanging.
        leader: it stays in the hand that puts it somewhere, grippers too, and has no
            physics of its own.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        zeros: np.ndarray | None = None,
        state: np.ndarray | None = None,
        *,
        table: float | None = None,
        leader: bool = False,
    ):
        self.model = copy.copy(model)
        self.kinematics = ARMS["v2"]
        self.places = places_of(model, self.kinematics)
        self.data = mujoco.MjData(self.model)
        self.seconds = float(model.opt.timestep)
        self.witness = MotorWitness()
        self.powered = [True, True]
        self.leader = leader
        self._tape: tuple[np.ndarray, float, float] | None = None
        self._switch_off_actuators()
        # A simulated task may float its arms, which is the driver's work on real ones.
        self.model.body_gravcomp[:] = 0.0
        zeros = np.zeros(16) if zeros is None else zeros
        self.motors = [
            [
                Motor(m.id, m.master, m.type, zero=float(zeros[8 * side + i]))
                for i, m in enumerate(ARM_MOTORS)
            ]
            for side in range(len(SIDES))
        ]
        self._all = [motor for side in self.motors for motor in side]
        self._held = np.zeros(2)
        self._hand: list[np.ndarray | None] = [None for _ in SIDES]
        mujoco.mj_resetData(self.model, self.data)
        self.put(np.zeros(16), hold=False)
        self._down = self._hands()[:, 2].copy()  # m, where a hand has fallen to
        if table is not None:
            self._down = np.maximum(self._down, table)
        if state is not None:
            self.put(state)

    def _switch_off_actuators(self) -> None:
        model = self.model
        of_joint = model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT
        joint = np.where(of_joint, model.actuator_trnid[:, 0], 0)
        ours = of_joint & np.isin(model.jnt_dofadr[joint], self.places.dof)
        model.actuator_gainprm[ours] = model.actuator_biasprm[ours] = 0.0

    @property
    def state(self) -> np.ndarray:
        """(16,) where the joints are: rad, and openings."""
        return self.kinematics.state_of(self.places.angles_of(self.data.qpos))

    def put(self, state: np.ndarray, *, hold: bool = True) -> None:
        """Put the arms by hand, as one can without torque: a state (16,).

        They are held there until their motors do it; else they fall.
        """
        angles = self.kinematics.angles_of(np.asarray(state, float))
        self.places.set_angles(self.data.qpos, angles)
        self.data.qvel[self.places.dof] = 0.0
        mujoco.mj_forward(self.model, self.data)
        for motor, angle in zip(self._all, angles, strict=True):
            motor.shaft, motor.speed = float(angle), 0.0
        self._hand = [angles.copy() if hold else None for _ in SIDES]
        self._tape = None

    def play(self, rows: np.ndarray, rate: float) -> None:
        """Take the arms by hand through states (T, 16), so many a second."""
        rows = np.asarray(rows, float)
        if rows.ndim != 2 or rows.shape[1] != len(self._all) or not len(rows):
            raise UserError(f"a way has shape {rows.shape}, expected (T, 16)")
        self._tape = rows, float(rate), 0.0

    def _play_on(self) -> None:
        if self._tape is None:
            return
        rows, rate, seconds = self._tape
        row = min(seconds * rate, len(rows) - 1.0)
        state = [np.interp(row, np.arange(len(rows)), joint) for joint in rows.T]
        self._hand = [self.kinematics.angles_of(np.array(state)) for _ in SIDES]
        going = row < len(rows) - 1
        self._tape = (rows, rate, seconds + self.seconds) if going else None

    def let_go(self) -> None:
        self._hand = [None for _ in SIDES]

    def _hold(self) -> None:
        """What a hand holds does not move; it lets go of an arm that holds itself."""
        self._play_on()
        for side, angles in enumerate(self._hand):
            if angles is None:
                continue
            goals = [motor.goal for motor in self.motors[side][:7]]
            if all(goals) and (goals[3].kp if goals[3] else 0.0) > STIFF:
                self._hand[side] = None
                continue
            joints = self.places.angles_of(self.data.qpos)
            held = slice(8 * side, 8 * side + (8 if self.leader else 7))
            joints[held] = angles[held]
            self.places.set_angles(self.data.qpos, joints)
            self.data.qvel[self.places.dof[held]] = 0.0

    def lay(self, qpos: np.ndarray) -> None:
        """Put the scene's objects as in a model's positions (nq,); the arms go on."""
        angles = self.places.angles_of(self.data.qpos)
        speeds = self.data.qvel[self.places.dof].copy()
        self.data.qpos[:], self.data.qvel[:] = qpos, 0.0
        self.places.set_angles(self.data.qpos, angles)
        self.data.qvel[self.places.dof] = speeds
        mujoco.mj_forward(self.model, self.data)

    def power(self, side: int, on: bool) -> None:
        if on and not self.powered[side]:
            for motor in self.motors[side]:
                motor.power_up()
        elif not on:
            for motor in self.motors[side]:
                motor.status, motor.goal, motor.torque = Status.DISABLED, None, 0.0
        self.powered[side] = on

    def step(self) -> None:
        self._hold()
        angles = self.places.angles_of(self.data.qpos)
        speeds = self.places.velocities_of(self.data.qvel)
        # Floats, because numbers of NumPy are slow one by one.
        rows = zip(self._all, angles.tolist(), speeds.tolist(), strict=True)
        torques = np.array([m.drive(a, s, self.seconds) for m, a, s in rows])
        for side in range(2):
            if not self.powered[side]:
                torques[8 * side : 8 * side + 8] = 0.0
        self.data.qfrc_applied[self.places.dof] = torques * self.places.ratio
        if self.leader:
            mujoco.mj_kinematics(self.model, self.data)
        else:
            mujoco.mj_step(self.model, self.data)
        self._watch(angles, speeds, torques)

    def _hands(self) -> np.ndarray:
        return self.data.xpos[list(self.places.hands)]

    def _watch(
        self, angles: np.ndarray, speeds: np.ndarray, torques: np.ndarray
    ) -> None:
        w = self.witness
        state = self.kinematics.state_of(angles)
        np.minimum(w.lowest, state, out=w.lowest)
        np.maximum(w.highest, state, out=w.highest)
        np.maximum(w.speed, np.abs(speeds), out=w.speed)
        np.maximum(w.torque, np.abs(torques), out=w.torque)
        if not self.leader:
            w.touch.look(self.model, self.data)
        hands = self._hands()
        np.minimum(w.hand_low, hands, out=w.hand_low)
        np.maximum(w.hand_high, hands, out=w.hand_high)
        for side in range(2):
            arm = torques[8 * side : 8 * side + 7]
            held = float(np.abs(arm).sum())
            lost = not arm.any() and self._held[side] > HELD
            if lost and hands[side, 2] > self._down[side] + RAISED:
                w.falls += 1
            self._held[side] = held
