"""Trials on an arm, kept tick by tick, for `act diagnose`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from act_minimal.control import Observation
from act_minimal.diagnosis.trials import Trial, Watch
from act_minimal.execution import ExecutionConfig

from .deployment import Judge, deploy
from .safety.safe_robot import SafeRobot


class Watched:
    """A safe robot whose observations and actions are kept, and who lays its scenes.

    Only what a policy's loop sees is kept, and what its arm is told within the limits,
    not the ramps between trials.
    """

    def __init__(self, robot: SafeRobot, judge: Judge):
        self.robot, self.judge = robot, judge
        self.watches: list[Watch] = []
        self.seen: Observation = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.robot, name)

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        """As the robot's."""
        self.seen = self.robot.observe(cameras)
        return self.seen

    def act(self, action: np.ndarray) -> None:
        """As the robot's."""
        self.robot.act(action)
        sent = self.robot.sent
        assert sent is not None
        self.watches[-1].add(self.seen, 0, sent)

    def prepare(self, trial: int) -> None:
        """As the judge's; a new trial begins."""
        self.judge.prepare(trial)
        self.watches.append(Watch())

    def done(self) -> bool:
        """As the judge's."""
        return self.judge.done()

    def verdict(self) -> bool:
        """As the judge's."""
        return self.judge.verdict()

    def trials(self, successes: Sequence[bool | None]) -> list[Trial]:
        """What was kept, with what came of it; trials without a tick are left out."""
        return [
            watch.trial(success)
            for watch, success in zip(
                self.watches[: len(successes)], successes, strict=True
            )
            if watch.rows
        ]


def arm_trials(
    policy: Any,
    robot: SafeRobot,
    judge: Judge,
    *,
    execution: ExecutionConfig,
    n: int,
    seconds: float,
    say: Callable[[str], Any] = print,
) -> list[Trial]:
    """Trials of a policy on an arm that is connected; see `deployment.deploy`."""
    watched: Any = Watched(robot, judge)
    tally = deploy(
        policy,
        watched,
        watched,
        execution=execution,
        trials=n,
        seconds=seconds,
        say=say,
    )
    return watched.trials([trial.success for trial in tally.trials])
