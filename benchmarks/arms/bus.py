"""Virtual arms through their buses: how often a policy succeeds, how steady a loop is.

Arms and program are two processes on one machine, as on a laptop with real arms. An
OpenArm's emulated frames take the time that frames of 8 bytes take at 1 Mbit/s. A goal
is answered with feedback, so one exchange commands a motor and reads it.
"""

import math
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.checkpoint import find_checkpoint, load_policy
from act_minimal.control import run
from act_minimal.evaluation import evaluate, evaluation_scenes
from act_minimal.execution import ExecutionConfig, make_executor
from act_minimal.sim import make_task
from hardware.deployment import SceneJudge, TimedPolicy, Trial, deploy
from hardware.openarm.arm import OpenArm
from hardware.openarm.motors import IDS
from hardware.robots import (
    OPENARM,
    VIRTUAL,
    RobotConfig,
    make_openarm,
    make_robot,
    plugged_in,
)
from hardware.safety.safe_robot import SafeRobot
from hardware.safety.stop import EmergencyStop
from hardware.so100.arm import SO100

from ..results import RESULTS, ROOT
from .campaign import Swaying

CHECKPOINTS = RESULTS.parent / "checkpoints"
VISION = CHECKPOINTS / "so100_pick_place_vision"
STATE = CHECKPOINTS / "openarm_handover_state"
RATE = 200.0  # Hz
SWAYING = (5, 6, 13, 14)  # the wrists
INFERENCE, FADE = 0.25, ExecutionConfig("fade")  # s a prediction, where they are late
AMPLITUDE = 0.05  # rad, of the elbows, while exchanges are counted


class Slow:
    """A policy whose predictions take at least so many seconds."""

    def __init__(self, policy: Any, seconds: float):
        self.policy, self.seconds = policy, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def predict_chunk(self, *given: Any) -> np.ndarray:
        end = time.monotonic() + self.seconds
        chunk = self.policy.predict_chunk(*given)
        time.sleep(max(0.0, end - time.monotonic()))
        return chunk


def success(
    config: RobotConfig,
    path: Path,
    task: str,
    n: int,
    seed: int,
    execution: ExecutionConfig | None = None,
    inference: float = 0.0,
) -> dict[str, Any]:
    """A policy on the same scenes, in simulation and through a virtual arm's bus.

    Args:
        inference: s that a prediction takes at least, in both.
    """
    policy: Any = load_policy(find_checkpoint(path))
    delay = math.ceil(inference * make_task(task).fps)
    sim = evaluate(policy, task, execution, n=n, seed=seed, delay=delay)
    policy = Slow(policy, inference) if inference else policy
    with plugged_in(replace(config, cameras=policy.cameras), task) as here:
        robot = make_robot(here, policy.image_sizes, EmergencyStop())
        with closing(SceneJudge([here.port], evaluation_scenes(seed, n))) as judge:
            with closing(robot):
                robot.connect()
                seconds = make_task(task).max_ticks / robot.fps
                tally = deploy(
                    policy,
                    robot,
                    judge,
                    execution=execution,
                    trials=n,
                    seconds=seconds,
                )
            witness = judge.scene.clients[0].look()["witness"]
    place = path.resolve()
    name = place.relative_to(ROOT) if place.is_relative_to(ROOT) else place.name
    return {
        "policy": str(name),
        "task": task,
        "inference": inference,
        "simulation": sim.to_json(),
        "bus": {
            "success": tally.success.rate,
            "interval": list(tally.success.interval),
            "n": n,
            "seed": seed,
            "stopped": [t.stopped for t in tally.trials if t.stopped],
            "failed_trials": [t.number for t in tally.trials if not t.success],
            "jitter_ms_p99": [t.timing["jitter_ms_p99"] for t in tally.trials],
            "interventions": dict(robot.interventions.counts),
        }
        | lateness(tally.trials),
        "witness": witness,
    }


def lateness(trials: list[Trial]) -> dict[str, Any]:
    """Of trials whose chunks came late: ticks missed, and the worst of `Trial.late`."""
    if not any(t.late for t in trials):
        return {}
    names = ("delay", "delay_worst", "age_worst", "seam", "holds", "dropped")
    return {
        "rate_hz": [t.timing["rate_hz"] for t in trials],
        "ticks": sum(t.ticks for t in trials),
        "late_ticks": [
            round(t.timing["late_share"] * t.timing["ticks"]) for t in trials
        ],
        **{name: [t.late[name] for t in trials] for name in names},
    }


# --- loops ----------------------------------------------------------------------------


def policy_loop(robot: SafeRobot, policy: Any, seconds: float) -> dict[str, Any]:
    """A policy drives from the ready pose; the robot is connected."""
    robot.go(robot.limits.ready)
    timed = TimedPolicy(policy)
    robot.arm.ticker.start()
    executor = make_executor(ExecutionConfig(), policy.chunk_size)
    run(robot, timed, executor, int(robot.fps * seconds))
    return robot.arm.ticker.report() | {
        "prediction_ms_p50": float(np.median(timed.ms)),
        "prediction_ms_p99": float(np.percentile(timed.ms, 99)),
        "interventions": dict(robot.interventions.counts),
    }


def so100_loop(path: Path, seconds: float) -> dict[str, Any]:
    """30 Hz with two cameras and a vision policy; 100 Hz without either."""
    with plugged_in(RobotConfig(VIRTUAL)) as here:
        policy = load_policy(path)
        with closing(make_robot(here, policy.image_sizes, EmergencyStop())) as robot:
            robot.connect()
            with_cameras = policy_loop(robot, policy, seconds)
            assert isinstance(robot.arm, SO100)
            with_cameras["bus"] = vars(robot.arm.bus.traffic) | {"faults": {}}
        faster = replace(here, fps=100.0, cameras=())
        with closing(make_robot(faster, {}, EmergencyStop())) as bare:
            bare.connect()
            here_now = bare.observe()["qpos"].astype(float)
            bare.arm.ticker.start()
            for _ in range(int(100 * seconds / 5)):
                bare.observe()
                bare.act(here_now)
            without = bare.arm.ticker.report()
    return {"repetitions": 1, "policy_30_hz": with_cameras, "bare_100_hz": without}


class Diligent:
    """Predicts as a policy, and sways: the arms move for minutes without a task."""

    def __init__(self, policy: Any, sway: Swaying):
        self.policy, self.sway = policy, sway
        self.cameras, self.chunk_size = policy.cameras, policy.chunk_size
        sway.chunk_size = policy.chunk_size

    def predict_chunk(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        self.policy.predict_chunk(observation)
        return self.sway.predict_chunk(observation)


def fresh(arm: OpenArm, since: float) -> bool:
    """Whether every motor has answered after that moment."""
    now = time.monotonic()
    return all(bus.age(id) <= now - since for bus in arm.buses for id in IDS)


def exchanges(config: RobotConfig, seconds: float) -> dict[str, Any]:
    """16 motors commanded and read at 200 Hz, and then as fast as it goes."""
    arm, _ = make_openarm(config)
    arm.ticker.rate = RATE
    with closing(arm):
        arm.connect()
        here = arm.measure()[0]
        old = 0

        def exchange(tick: int) -> None:
            nonlocal old
            goal = here.copy()
            goal[[3, 11]] += AMPLITUDE * np.sin(2 * np.pi * tick / RATE)  # the elbows
            begin = time.monotonic()
            arm.send(goal)
            old += not fresh(arm, begin)

        arm.ticker.start()
        for tick in range(int(RATE * seconds)):
            exchange(tick)
            arm.ticker.wait()
        paced = arm.ticker.report() | {"ticks_without_all_answers": old}
        old, n = 0, 2000
        begin = time.perf_counter()
        for tick in range(n):
            exchange(tick)
        rate = n / (time.perf_counter() - begin)
        return {
            "bare_200_hz": paced,
            "unpaced": {"rate_hz": rate, "n": n, "ticks_without_all_answers": old},
        }


def openarm_loop(path: Path, seconds: float, exchange_seconds: float) -> dict[str, Any]:
    """Exchanges at 200 Hz and unpaced; 50 Hz with a state policy, which sways."""
    virtual = RobotConfig(VIRTUAL, OPENARM)
    with plugged_in(virtual) as here:
        content: dict[str, Any] = {"repetitions": 1}
        content |= exchanges(here, exchange_seconds)
    with (
        plugged_in(virtual) as here,
        EmergencyStop() as stop,
        closing(make_robot(here, {}, stop)) as robot,
    ):
        robot.connect()
        sway = Swaying(robot.limits.ready, robot.fps, SWAYING)
        driver = Diligent(load_policy(path), sway)
        content["policy_50_hz"] = policy_loop(robot, driver, seconds)
        assert isinstance(robot.arm, OpenArm)
        content["buses"] = [
            vars(bus.traffic) | {"strangers": len(bus.traffic.strangers)}
            for bus in robot.arm.buses
        ]
    return content
