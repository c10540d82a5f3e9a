"""The Robot contract and the one loop that drives it, in simulation and for real."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .execution import Executor
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
    executor: Executor,
    max_ticks: int,
    *,
    on_tick: Callable[[int, Observation, np.ndarray], Any] | None = None,
) -> int:
    """Drive a robot with a policy: observe, predict when asked, act; one tick a turn.

    Images are taken only at the ticks at which the policy looks.

    Args:
        robot: connected.
        executor: turns chunks into one action a tick; it is reset here.
        on_tick: called with tick, observation and action (n, A) before the action is
            sent; a true return value ends the run before that.

    Returns:
        The number of ticks done.

    Raises:
        UserError: an action is NaN or infinite; it is not sent.
    """
    executor.reset()
    for tick in range(max_ticks):
        predicting = executor.needs_chunk()
        observation = robot.observe(policy.cameras if predicting else ())
        chunk = policy.predict_chunk(observation) if predicting else None  # (n, k, A)
        action = executor.step(chunk)  # (n, A)
        _refuse_nonsense(tick, action)
        if on_tick and on_tick(tick, observation, action):
            return tick
        robot.act(action)
    return max_ticks


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
