"""A policy on an arm: first without moving, then trial by trial, with a tally.

The loop is `act_minimal.control.run`, the one that evaluates in simulation; the arm is
behind `safety.SafeRobot`.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from act_minimal.control import Observation, run
from act_minimal.errors import UserError
from act_minimal.evaluation import wilson
from act_minimal.execution import ExecutionConfig, make_executor
from act_minimal.files import write_json

from .safety import SafeRobot, Stop

FAR = 4.0  # standard deviations from the demonstrations' mean that are worth a word


class Judge(Protocol):
    """Who lays the objects before a trial, and says how it went."""

    def prepare(self, trial: int) -> None:
        """Before trial number `trial`: objects in place, nobody in reach."""
        ...

    def done(self) -> bool:
        """Asked at every tick: may the trial end now?"""
        ...

    def verdict(self) -> bool:
        """After the trial: was it a success?"""
        ...


@dataclass
class Trial:
    """What happened in one trial."""

    number: int
    success: bool
    seconds: float
    ticks: int
    stopped: str = ""
    """Why safety stopped it; "" if it did not. A stopped trial is a failure."""
    prediction_ms: list[float] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    interventions: dict[str, int] = field(default_factory=dict)


@dataclass
class Tally:
    """All trials so far."""

    trials: list[Trial]

    @property
    def successes(self) -> int:
        """How many succeeded."""
        return sum(t.success for t in self.trials)

    def __str__(self) -> str:
        n = len(self.trials)
        if n == 0:
            return "no trials yet"
        low, high = wilson(self.successes, n)
        return (
            f"{self.successes} of {n} succeeded: {100 * self.successes / n:.0f} % "
            f"(95 % interval {100 * low:.0f}-{100 * high:.0f} %)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        n = len(self.trials)
        return {
            "successes": self.successes,
            "n": n,
            "rate": self.successes / n if n else None,
            "interval": list(wilson(self.successes, n)) if n else None,
            "trials": [asdict(t) for t in self.trials],
        }


class TimedPolicy:
    """A policy whose predictions are timed."""

    def __init__(self, policy: Any):
        self.policy, self.cameras = policy, policy.cameras
        self.ms: list[float] = []

    def predict_chunk(self, observation: Observation) -> np.ndarray:
        """See `Policy.predict_chunk`."""
        start = time.perf_counter()
        chunk = self.policy.predict_chunk(observation)
        self.ms.append(1000 * (time.perf_counter() - start))
        return chunk


def check_fit(policy: Any, robot: SafeRobot) -> None:
    """Whether a policy can drive this arm with these cameras.

    Raises:
        UserError: names what differs.
    """
    config = policy.config
    if config.env_state_dim and not robot.tracker:
        raise UserError(
            "the policy was trained with the object's pose (env_state), which no real "
            "arm knows; train one with --cameras, or say who knows it, such as "
            "--objects virtual:PORT"
        )
    for key in ("state_dim", "action_dim"):
        if getattr(config, key) != robot.action_dim:
            raise UserError(
                f"the policy was trained with {key} {getattr(config, key)}, but the "
                f"arm has {robot.action_dim} joints"
            )
    if config.env_state_dim and robot.tracker:
        found = len(robot.tracker.look())
        if found != config.env_state_dim:
            raise UserError(
                f"the policy was trained with env_state of {config.env_state_dim} "
                f"numbers, but {robot.tracker.source} tells {found}"
            )
    missing = [c for c in policy.cameras if c not in robot.cameras]
    if missing:
        raise UserError(
            f"the policy looks through camera '{missing[0]}', but the cameras given "
            f"are: {', '.join(robot.cameras) or 'none'}; name them as in its "
            "demonstrations, such as --cameras top=0 wrist=2"
        )


def dry_run(
    policy: Any,
    robot: SafeRobot,
    execution: ExecutionConfig,
    ticks: int = 30,
) -> dict[str, Any]:
    """Look and predict for a while, and send nothing: what would the policy do?

    Returns:
        prediction_ms (median and worst), `jump` rad, the farthest that a first action
        is from where the arm is, `unfamiliar`, joints far from the demonstrations, and
        `frames`, the age of each camera's picture in ms.
    """
    timed = TimedPolicy(policy)
    executor = make_executor(execution, policy.chunk_size)
    executor.reset()
    jump, unfamiliar = 0.0, set()
    ages: dict[str, list[float]] = {c: [] for c in policy.cameras}
    for _ in range(ticks):
        observation = robot.observe(policy.cameras)
        chunk = timed.predict_chunk(observation)
        here = observation["qpos"][0]
        leap = np.delete(np.abs(chunk[0, 0] - here), robot.limits.grippers)
        jump = max(jump, float(leap.max()))
        scale = policy.scale("qpos")
        far = np.abs((here - scale.mean.cpu().numpy()) / scale.std.cpu().numpy()) > FAR
        unfamiliar |= set(np.flatnonzero(far).tolist())
        for name in policy.cameras:
            ages[name].append(1000 * robot.arm.frames[name].age)
        time.sleep(1 / robot.fps)
    return {
        "prediction_ms": {
            "median": float(np.median(timed.ms)),
            "worst": float(np.max(timed.ms)),
        },
        "jump": jump,
        "unfamiliar": sorted(unfamiliar),
        "frames": {name: float(np.median(a)) for name, a in ages.items()},
    }


def deploy(
    policy: Any,
    robot: SafeRobot,
    judge: Judge,
    *,
    execution: ExecutionConfig | None = None,
    trials: int = 10,
    seconds: float = 20.0,
    out: Path | None = None,
    say: Callable[[str], Any] = print,
) -> Tally:
    """Run trials and keep the tally; the robot is connected.

    Each trial begins with a slow ramp to the ready pose. Between trials the arm holds.

    Args:
        policy: what drives.
        robot: within its limits.
        judge: lays the objects and says how it went.
        execution: how chunks become actions.
        trials: how many in all; those in `out` count.
        seconds: that a trial may last.
        out: folder for tally.json, written after each trial; a second call goes on.
        say: takes each line of progress.

    Raises:
        UserError: the policy does not fit, or the bus is lost; trials done are kept.
    """
    check_fit(policy, robot)
    execution = execution or ExecutionConfig()
    path = out / "tally.json" if out else None
    tally = Tally(_load(path))
    executor = make_executor(execution, policy.chunk_size)
    for number in range(len(tally.trials), trials):
        judge.prepare(number)
        robot.go(robot.limits.ready)
        trial = _one(policy, robot, judge, executor, number, seconds)
        tally.trials.append(trial)
        if path:
            write_json(path, tally.to_json())
        outcome = "success" if trial.success else "failure"
        why = f" (stopped: {trial.stopped})" if trial.stopped else ""
        say(f"trial {number + 1}: {outcome} after {trial.seconds:.1f} s{why}; {tally}")
    return tally


def _one(
    policy: Any,
    robot: SafeRobot,
    judge: Judge,
    executor: Any,
    number: int,
    seconds: float,
) -> Trial:
    timed = TimedPolicy(policy)
    before = robot.interventions.counts.copy()
    robot.arm.ticker.start()
    start, stopped, ticks = time.monotonic(), "", 0

    def on_tick(tick: int, observation: Observation, action: np.ndarray) -> bool:
        nonlocal ticks
        ticks = tick
        return judge.done()

    try:
        run(robot, timed, executor, int(seconds * robot.fps), on_tick=on_tick)
    except Stop as error:
        stopped = str(error)
    took = time.monotonic() - start
    timing = robot.arm.ticker.report()
    return Trial(
        number=number,
        success=judge.verdict() and not stopped,
        seconds=took,
        ticks=ticks,
        stopped=stopped,
        prediction_ms=[float(np.median(timed.ms)), float(np.max(timed.ms))]
        if timed.ms
        else [],
        timing=timing,
        interventions=dict(robot.interventions.counts - before),
    )


def _load(path: Path | None) -> list[Trial]:
    if path is None or not path.exists():
        return []
    try:
        return [
            Trial(**row)
            for row in json.loads(path.read_text(encoding="utf-8"))["trials"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); move it away, and the tally begins anew"
        ) from error


class RoomJudge:
    """For a virtual arm: lays scene after scene, and sees whether the task was done.

    Args:
        port: of the virtual arm.
        scenes: one a trial.
    """

    def __init__(self, port: str | Path, scenes: Sequence[int]):
        from .so100.emulator.room import Room

        self.room, self.scenes = Room(port), list(scenes)
        self._asked = 0.0

    def prepare(self, trial: int) -> None:
        """Lay the scene."""
        self.room.lay(self.scenes[trial])

    def done(self) -> bool:
        """Whether the task is done; looks ten times a second."""
        now = time.monotonic()
        if now - self._asked < 0.1:
            return False
        self._asked = now
        return bool(self.room.look()["success"])

    def verdict(self) -> bool:
        """Whether the task is done now."""
        return bool(self.room.look()["success"])

    def close(self) -> None:
        """Leave the room."""
        self.room.close()
