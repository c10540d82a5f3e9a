"""A policy on an arm: first without moving, then trial by trial, with a tally.

The loop is `act_minimal.control.run`, the one that evaluates in simulation; the arm is
behind `safety.SafeRobot`.
"""

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from act_minimal.control import Observation, run
from act_minimal.datasets.embodiment import check_card
from act_minimal.evaluation import Rate, fingerprint
from act_minimal.execution import LATE, ExecutionConfig
from act_minimal.realtime import (
    InThread,
    LateExecutor,
    Switch,
    check_mode,
    make_late_executor,
)
from act_minimal.support.errors import UserError
from act_minimal.support.files import check_output_folder, read_json, write_json

from .safety.safe_robot import SafeRobot
from .safety.stop import Stop

TALLY = "tally.json"
GOES_ON = (*LATE, "ensemble")  # modes in which the arm does, while a policy predicts
LOOKS = 3  # predictions that are timed before the first trial
PATIENCE = 5.0  # s that a prediction may take while the arm goes on
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
    success: bool | None
    """None: nobody said; such a trial is kept, and counts in no rate."""
    seconds: float
    ticks: int
    stopped: str = ""
    """Why safety stopped it; "" if it did not. A stopped trial is a failure."""
    prediction_ms: list[float] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    interventions: dict[str, int] = field(default_factory=dict)
    scene: int | None = None
    """Number of the scene that was laid; None where a person laid the objects."""
    late: dict[str, float] = field(default_factory=dict)
    """Where the arm goes on while a policy predicts, in ticks: `delay` and `age` of the
    observation behind an action, median and worst; `holds`; largest `seam` in rad; and
    chunks `dropped`."""


@dataclass
class Tally:
    """All trials so far, of one policy on one arm in one task."""

    trials: list[Trial]
    about: dict[str, Any] = field(default_factory=dict)
    """See `about_trials`."""

    @property
    def success(self) -> Rate:
        """Of the trials that were judged."""
        judged = [t.success for t in self.trials if t.success is not None]
        return Rate(sum(judged), len(judged))

    def __str__(self) -> str:
        judged = self.success
        open_ = len(self.trials) - judged.n
        rest = f"; {open_} not judged" if open_ else ""
        return f"so far {judged}{rest}" if judged.n else f"none judged yet{rest}"

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        judged = self.success
        none = {"successes": 0, "n": 0, "rate": None, "interval": None}
        return (judged.to_json() if judged.n else none) | {
            "about": self.about,
            "trials": [asdict(t) for t in self.trials],
        }


class TimedPolicy:
    """A policy whose predictions are timed, and whose faults are one sentence."""

    def __init__(self, policy: Any):
        self.policy = policy
        self.told_max = getattr(policy, "told_max", 0)
        self.correct = getattr(policy, "correct", None)
        self.ms: list[float] = []

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.policy.cameras

    def predict_chunk(
        self, observation: Observation, *prefix: np.ndarray
    ) -> np.ndarray:
        """See `Policy.predict_chunk`.

        Raises:
            UserError: the policy raised something, or answered with another shape.
        """
        start = time.perf_counter()
        try:
            chunk = self.policy.predict_chunk(observation, *prefix)
        except UserError:
            raise
        except Exception as error:  # it is somebody's own code
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(str(error).split())
            raise UserError(
                f"the policy raised {type(error).__name__}"
                f"{f': {said}' if said else ''} ({last.filename}, line {last.lineno})"
            ) from error
        self.ms.append(1000 * (time.perf_counter() - start))
        expected = (1, self.policy.chunk_size, observation["qpos"].shape[1])
        if np.shape(chunk) != expected:
            raise UserError(
                f"the policy answered with an array of shape {np.shape(chunk)}, "
                f"expected {expected}: one arm, its chunk size, its joints"
            )
        return chunk


def check_fit(policy: Any, robot: SafeRobot) -> None:
    """Whether a policy can drive this arm with these cameras.

    Raises:
        UserError: names what differs.
    """
    config = policy.config
    for key in ("state_dim", "action_dim"):
        if getattr(config, key) != robot.action_dim:
            raise UserError(
                f"the policy was trained with {key} {getattr(config, key)}, but the "
                f"arm has {robot.action_dim} joints"
            )
    if config.env_state_dim and not robot.tracker:
        raise UserError(
            "the policy was trained with the object's pose (env_state), which no real "
            "arm knows; train one with --cameras, or say who knows it, such as "
            "--objects virtual:PORT"
        )
    if config.env_state_dim and robot.tracker:
        found = len(robot.tracker.look())
        if found != config.env_state_dim:
            raise UserError(
                f"the policy was trained with env_state of {config.env_state_dim} "
                f"numbers, but {robot.tracker.source} tells {found}"
            )
    check_card(getattr(policy, "card", {}), robot.fps, robot.name, robot.joints)
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
    """Look and predict for a while, and send nothing of it: what would a policy do?

    Returns:
        prediction_ms (median and worst), `jump` rad, the farthest that a first action
        is from where the arm is, `unfamiliar`, joints far from the demonstrations, and
        `frames`, the age of each camera's picture in ms.
    """
    timed = TimedPolicy(policy)
    make_late_executor(execution, policy.chunk_size)  # refuses what does not suit
    check_mode(policy, execution)
    jump, unfamiliar = 0.0, set()
    ages: dict[str, list[float]] = {c: [] for c in policy.cameras}
    for _ in range(ticks):
        robot.stop.watch()
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
    delay = _ticks(max(timed.ms[1:], default=0.0), robot.fps)
    if execution.mode in GOES_ON and delay > 1:
        make_late_executor(execution, policy.chunk_size, delay)
        check_mode(policy, execution, delay)
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
    about: Mapping[str, str] | None = None,
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
        about: what else its trials belong to: names of the robot and of the task.
        say: takes each line of progress.

    Raises:
        UserError: the policy does not fit, `out` holds trials of another one, or the
            bus is lost; trials done are kept.
    """
    check_fit(policy, robot)
    execution = execution or ExecutionConfig()
    scenes = getattr(judge, "scenes", None)
    whose = about_trials(policy, execution, **(about or {}))
    tally = open_tally(out, whose, scenes)
    path = out / TALLY if out else None
    if done := len(tally.trials):
        say(f"{min(done, trials)} of {trials} already done in {out}: {tally}")
    timed, delay, inference = TimedPolicy(policy), 0, None
    if execution.mode in GOES_ON and len(tally.trials) < trials:
        delay = delay_of(timed, robot)
        if execution.mode == "ensemble" and delay == 1:
            delay = 0  # it is there within the tick
    check_mode(policy, execution, delay)
    executor = make_late_executor(execution, policy.chunk_size, delay)
    if delay:
        say(f"a prediction takes {delay} ticks; the arm goes on meanwhile")
        inference = InThread(timed, delay, PATIENCE)
    for number in range(len(tally.trials), trials):
        judge.prepare(number)
        robot.go(robot.limits.ready)
        trial = _one(timed, robot, judge, executor, inference, number, seconds)
        trial.scene = scenes[number] if scenes else None
        tally.trials.append(trial)
        try:  # whoever is asked may stop everything: the trial was run all the same
            if trial.success is None:
                trial.success = judge.verdict()
        finally:
            outcome = {True: "success", False: "failure", None: "not judged"}
            why = f" (stopped: {trial.stopped})" if trial.stopped else ""
            try:
                if path:
                    write_json(path, tally.to_json())
            finally:  # a full disk must not hide it either
                say(
                    f"trial {number + 1}: {outcome[trial.success]} after "
                    f"{trial.seconds:.1f} s{why}; {tally}{_late_text(trial.late)}"
                )
    return tally


def _late_text(late: Mapping[str, float]) -> str:
    if not late:
        return ""
    return (
        f"; predictions took {late['delay']:.0f} ticks (at most "
        f"{late['delay_worst']:.0f}), observations were {late['age']:.0f} ticks old "
        f"(at most {late['age_worst']:.0f}), largest seam {late['seam']:.3f} rad, "
        f"{late['holds']:.0f} ticks without an action"
        + (f", {n:.0f} chunks dropped" if (n := late.get("dropped", 0.0)) else "")
    )


def _one(
    timed: TimedPolicy,
    robot: SafeRobot,
    judge: Judge,
    executor: LateExecutor,
    inference: InThread | None,
    number: int,
    seconds: float,
) -> Trial:
    """Run one trial, which nobody has judged yet unless it was stopped."""
    timed.ms.clear()
    executor.reset(np.zeros((1, robot.action_dim)))  # nothing is left of another trial
    angles = np.ones(robot.action_dim, bool)
    angles[list(robot.limits.grippers)] = False
    before = robot.interventions.counts.copy()
    robot.arm.ticker.start()
    start, stopped = time.monotonic(), ""
    try:
        run(
            robot,
            timed,
            executor,
            round(seconds * robot.fps),
            inference=inference,
            on_tick=lambda *_: judge.done(),
        )
    except Stop as error:
        stopped = str(error)
    took = time.monotonic() - start
    timing = robot.arm.ticker.report()
    return Trial(
        number=number,
        success=False if stopped else None,
        seconds=took,
        ticks=int(timing["ticks"]),
        stopped=stopped,
        prediction_ms=[float(np.median(timed.ms)), float(np.max(timed.ms))]
        if timed.ms
        else [],
        timing=timing,
        interventions=dict(robot.interventions.counts - before),
        late=lateness(executor, inference, angles) if inference else {},
    )


def delay_of(timed: TimedPolicy, robot: SafeRobot) -> int:
    """Ticks that a prediction takes on this machine; the longest of some, but one."""
    for _ in range(1 + LOOKS):
        timed.predict_chunk(robot.observe(timed.cameras))
    return _ticks(max(timed.ms[-LOOKS:]), robot.fps)


def _ticks(ms: float, fps: float) -> int:
    return math.ceil(ms / 1000 * fps)


def lateness(
    executor: LateExecutor, inference: InThread, angles: np.ndarray
) -> dict[str, float]:
    """What a trial's tally says of chunks that came late; see `Trial.late`."""
    assert isinstance(executor, Switch)
    ages = [age for age in executor.ages if age is not None] or [0]
    delays = inference.delays or [0]
    return {
        "delay": float(np.median(delays)),
        "delay_worst": float(max(delays)),
        "age": float(np.median(ages)),
        "age_worst": float(max(ages)),
        "seam": max((float(x[:, angles].max()) for x in executor.seams), default=0.0),
        "holds": float(len(executor.hold_ticks)),
        "dropped": float(executor.dropped),
    }


def about_trials(
    policy: Any, execution: ExecutionConfig, **names: Any
) -> dict[str, Any]:
    """What all trials of a tally have in common.

    Args:
        policy: what drives; known again by its weights and settings.
        execution: how its chunks become actions.
        **names: of the robot, of the task, and what else must be alike.
    """
    policy_is = f"{policy.name} {fingerprint(policy)}"
    return {"policy": policy_is, **names, "execution": execution.to_json()}


def open_tally(
    out: Path | None, about: Mapping[str, Any], scenes: Sequence[int] | None
) -> Tally:
    """The trials that a folder holds, or none yet.

    Args:
        out: the folder; None keeps no tally.
        about: what its trials have to belong to; see `about_trials`.
        scenes: one a trial, where scenes are laid; more or fewer than before will do.

    Raises:
        UserError: it holds trials of something else, or something else than trials.
    """
    tally = Tally([], dict(about))
    if out is None:
        return tally
    check_output_folder(out, "a tally of trials")
    path = out / TALLY
    if not path.exists():
        return tally
    anew = "choose another --out, or move that file away to begin anew"
    try:
        content = read_json(path)
        tally.trials = [Trial(**row) for row in content["trials"]]
        found = dict(content.get("about") or {})
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no tally of trials ({error}); {anew}") from error
    for key, value in about.items() if tally.trials else ():
        if key not in found:
            raise UserError(
                f"{path} does not say of which {key} its trials are, as an earlier "
                f"version wrote it; {anew}"
            )
        if found[key] != value:
            raise UserError(
                f"{path} holds trials with {key} {found[key]}, but this is {key} "
                f"{value}; {anew}"
            )
    laid = [trial.scene for trial in tally.trials]
    wanted = list(scenes[: len(laid)]) if scenes else [None] * len(laid)
    if laid[: len(wanted)] != wanted:
        raise UserError(
            f"{path} holds trials with scenes {_said(laid)}, but now scenes "
            f"{_said(wanted)} are asked for; {anew}"
        )
    return tally


def _said(scenes: Sequence[int | None]) -> str:
    if not scenes or scenes[0] is None:
        return "laid by a person"
    return f"{scenes[0]} to {scenes[-1]}"


class SceneJudge:
    """For virtual arms: lays scene after scene, and sees whether the task was done.

    Args:
        ports: of the virtual arms; each does the task in a scene of its own.
        scenes: one a trial.
    """

    def __init__(self, ports: Sequence[str | Path], scenes: Sequence[int]):
        from .virtual.client import Scenes

        self.scene, self.scenes = Scenes(ports), list(scenes)
        self._asked = 0.0

    def prepare(self, trial: int) -> None:
        """Lay the scene."""
        self.scene.lay(self.scenes[trial])

    def done(self) -> bool:
        """Whether the task is done; looks ten times a second."""
        now = time.monotonic()
        if now - self._asked < 0.1:
            return False
        self._asked = now
        return self.scene.done()

    def verdict(self) -> bool:
        """Whether the task is done now."""
        return self.scene.done()

    def close(self) -> None:
        """Disconnect."""
        self.scene.close()
