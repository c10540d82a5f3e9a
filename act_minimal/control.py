"""The Robot contract and the one loop that drives it, in simulation and for real."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .execution import Executor
from .realtime import Inference, InTicks, LateExecutor, Waiting, deliver
from .support.errors import UserError

Observation = dict[str, np.ndarray]


class Predictor(Protocol):
    """What the loop needs of a `Policy`."""

    @property
    def cameras(self) -> tuple[str, ...]: ...

    def predict_chunk(self, observation: Observation) -> np.ndarray:
        """The next k actions of each arm, (n, k, A)."""
        ...


class Robot(Protocol):
    """`n` arms that tick together; a real arm is a robot with n = 1.

    Angles are in rad, gripper openings from 0 (closed) to 1 (open).
    """

    n: int
    fps: float  # control rate, Hz
    action_dim: int
    cameras: tuple[str, ...]

    def connect(self) -> None:
        """Get ready to move; nothing moves yet."""
        ...

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        """`qpos` (n, S), perhaps `env_state` (n, E), `images/<camera>` (n, H, W, 3)."""
        ...

    def act(self, action: np.ndarray) -> None:
        """Send joint targets (n, A) and wait for the end of the tick."""
        ...

    def close(self) -> None:
        """Let go, safely."""
        ...


def run(
    robot: Robot,
    policy: Predictor,
    executor: Executor | LateExecutor,
    max_ticks: int,
    *,
    inference: Inference | None = None,
    on_tick: Callable[[int, Observation, np.ndarray], Any] | None = None,
) -> int:
    """Drive a robot with a policy: observe, predict when asked, act; one tick a turn.

    Images are taken only at the ticks at which the policy looks.

    Args:
        robot: connected.
        executor: turns chunks into one action a tick; it is reset here.
        inference: who asks the policy, and how long that takes; by default no tick.
        on_tick: called with tick, observation and action (n, A) before the action is
            sent; a true return value ends the run before that.

    Returns:
        The number of ticks done.

    Raises:
        UserError: an action is NaN or infinite; it is not sent.
    """
    correct = getattr(policy, "correct", None)  # see residual.py
    late = executor if isinstance(executor, LateExecutor) else Waiting(executor)
    inference = inference or InTicks(policy)
    inference.reset()
    for tick in range(max_ticks):
        if tick > 0:
            deliver(late, inference, tick)
        begins = not inference.busy and (tick == 0 or late.wants_chunk())
        observation = robot.observe(policy.cameras if begins else ())
        if tick == 0:
            late.reset(hold_of(observation, robot.action_dim))
        if begins:
            inference.begin(observation, late.commit(inference.delay), tick)
            deliver(late, inference, tick)
        action = late.step()  # (n, A)
        if correct and late.age is not None:
            action = correct(observation, action, late.age)
        _refuse_nonsense(tick, action)
        if on_tick and on_tick(tick, observation, action):
            return tick
        robot.act(action)
    return max_ticks


def hold_of(observation: Observation, action_dim: int) -> np.ndarray:
    """(n, A) targets that keep arms where they are; NaN if joints are not actions."""
    qpos = observation["qpos"]
    if qpos.shape[1] == action_dim:
        return qpos
    return np.full((len(qpos), action_dim), np.nan)


def _refuse_nonsense(tick: int, action: np.ndarray) -> None:
    """NaN passes every comparison with a limit, so it must not get past here."""
    if np.isfinite(action).all():
        return
    arm, joint = np.argwhere(~np.isfinite(action))[0]
    raise UserError(
        f"the policy's action at tick {tick} is {action[arm, joint]} for joint {joint}"
        f"{f' of arm {arm}' if len(action) > 1 else ''}, expected a finite number; "
        "it was not sent"
    )
