"""Both arms that virtual motors turn: a MuJoCo model, and a witness.

The model may be any that has the arms' joints. Its own actuators are switched off; the
motors' torques are applied to the joints, and friction and damping are the model's. A
motor without torque turns freely, as the real ones do: without power the arm falls.
"""

import copy
from dataclasses import dataclass, field

import mujoco
import numpy as np

from act_minimal.support.errors import UserError

from ...virtual.contacts import Witness
from ..kinematics import ARMS, Kinematics
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
        model: the scene; it is copied.
        kinematics: which version of the arm it shows.
        zeros: (16,) rad, where on its shaft each motor believes the angle 0 to be; all
            zero for an arm that is set up.
        state: (16,) how it stands at first; it hangs if not given.
        table: m, its top, on which an arm may lie instead of hanging.
        leader: it stays in the hand that puts it somewhere, grippers too, and has no
            physics of its own.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        kinematics: Kinematics = ARMS["v2"],
        zeros: np.ndarray | None = None,
        state: np.ndarray | None = None,
        *,
        table: float | None = None,
        leader: bool = False,
    ):
        self.model = copy.copy(model)
        self.kinematics = kinematics
        self.places = places_of(model, kinematics)
        self.data = mujoco.MjData(self.model)
        self.seconds = float(model.opt.timestep)
        self.witness = MotorWitness()
        self.powered = [True, True]
        self.leader = leader
        self._tape: tuple[np.ndarray, float, float] | None = None
        self._still_the_actuators()
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

    def _still_the_actuators(self) -> None:
        model, ours = self.model, set(self.places.dof.tolist())
        for i in range(model.nu):
            joint = model.actuator_trnid[i, 0]
            if (
                model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT
                and int(model.jnt_dofadr[joint]) in ours
            ):
                model.actuator_gainprm[i] = 0.0
                model.actuator_biasprm[i] = 0.0

    @property
    def state(self) -> np.ndarray:
        """(16,) where the joints are: rad, and openings."""
        return self.kinematics.state_of(self.places.angles_of(self.data.qpos))

    def put(self, state: np.ndarray, *, hold: bool = True) -> None:
        """Put the arms by hand, as one can without torque: a state (16,).

        Args:
            state: where.
            hold: keep them there until their motors do; else they fall.
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
        """Take the arms by hand through states (T, 16), so many a second.

        Raises:
            UserError: they are no states.
        """
        rows = np.asarray(rows, float)
        if rows.ndim != 2 or rows.shape[1] != len(self._all) or not len(rows):
            raise UserError(f"a way has shape {rows.shape}, expected (T, 16)")
        self._tape = rows, float(rate), 0.0

    def _play_on(self) -> None:
        """Where the hand is by now."""
        if self._tape is None:
            return
        rows, rate, seconds = self._tape
        place = min(seconds * rate, len(rows) - 1.0)
        here, share = int(place), place % 1.0
        state = (1 - share) * rows[here] + share * rows[min(here + 1, len(rows) - 1)]
        self._hand = [self.kinematics.angles_of(state) for _ in SIDES]
        going = place < len(rows) - 1
        self._tape = (rows, rate, seconds + self.seconds) if going else None

    def let_go(self) -> None:
        """Take the hands away."""
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
            here = self.places.angles_of(self.data.qpos)
            rows = slice(8 * side, 8 * side + (8 if self.leader else 7))
            here[rows] = angles[rows]
            self.places.set_angles(self.data.qpos, here)
            self.data.qvel[self.places.dof[rows]] = 0.0

    def lay(self, qpos: np.ndarray, *, arms: bool = False) -> None:
        """Put the scene's objects as in a model's positions (nq,).

        Args:
            qpos: of the whole model.
            arms: put the arms there, too; else they go on as they were.
        """
        angles = self.places.angles_of(qpos if arms else self.data.qpos)
        speeds = self.data.qvel[self.places.dof].copy()
        self.data.qpos[:], self.data.qvel[:] = qpos, 0.0
        self.places.set_angles(self.data.qpos, angles)
        if not arms:
            self.data.qvel[self.places.dof] = speeds
        mujoco.mj_forward(self.model, self.data)
        for motor, angle in zip(self._all, angles, strict=True):
            motor.shaft = float(angle)
        if arms:
            self._hand = [angles.copy() for _ in SIDES]

    def power(self, side: int, on: bool) -> None:
        """Switch the supply of one arm."""
        if on and not self.powered[side]:
            for motor in self.motors[side]:
                motor.power_up()
        elif not on:
            for motor in self.motors[side]:
                motor.status, motor.goal, motor.torque = Status.DISABLED, None, 0.0
        self.powered[side] = on

    def step(self) -> None:
        """One step of physics, `self.seconds` long."""
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
