"""The virtual SO-100 through its bus: how steady the loop is, how often it succeeds.

    uv run python -m benchmarks.so100_bus loop
    uv run python -m benchmarks.so100_bus success
    uv run python -m benchmarks.so100_bus faults

Arm and program are two processes on one machine, as on a laptop with a real arm.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from act_minimal.control import run
from act_minimal.errors import UserError
from act_minimal.evaluation import evaluate, evaluation_scenes, wilson
from act_minimal.execution import ExecutionConfig, make_executor
from act_minimal.policy import load_policy
from benchmarks.results import RESULTS, write
from hardware.cameras import parse_cameras
from hardware.deployment import RoomJudge, TimedPolicy, deploy
from hardware.safety import SafeRobot, so100_limits
from hardware.so100.arm import SO100, SO100Config
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.room import VirtualArmProcess
from hardware.so100.emulator.service import VirtualArmConfig, assemble

VISION = RESULTS.parent / "checkpoints" / "so100_pick_place_vision"
SIZE = (96, 128)


@contextlib.contextmanager
def virtual(folder: Path) -> Iterator[VirtualArmProcess]:
    """A virtual arm and its calibration file."""
    config = VirtualArmConfig(folder / "arm")
    save_calibration(folder / "arm.json", assemble(config)[1])
    with VirtualArmProcess(config) as process:
        yield process


def safe_robot(
    folder: Path, process: VirtualArmProcess, cameras: tuple[str, ...], fps: float
) -> SafeRobot:
    """The arm behind its limits."""
    eyes = parse_cameras(tuple(f"{c}=virtual:{process.port}" for c in cameras), SIZE)
    config = SO100Config(process.port, folder / "arm.json", fps=fps)
    return SafeRobot(SO100(config, eyes), so100_limits())


def loop(folder: Path, seconds: float) -> dict[str, Any]:
    """30 Hz with two cameras and the vision policy; 100 Hz without either."""
    with virtual(folder) as process:
        policy = load_policy(VISION)
        robot = safe_robot(folder, process, ("top", "wrist"), 30.0)
        robot.connect()
        try:
            robot.go(robot.limits.ready)
            timed = TimedPolicy(policy)
            robot.arm.ticker.start()
            executor = make_executor(ExecutionConfig(), policy.chunk_size)
            run(robot, timed, executor, int(30 * seconds))
            with_cameras = robot.arm.ticker.report() | {
                "prediction_ms_p50": float(np.median(timed.ms)),
                "prediction_ms_p99": float(np.percentile(timed.ms, 99)),
                "interventions": dict(robot.interventions.counts),
                "bus": vars(robot.arm.bus.traffic) | {"faults": {}},
            }
        finally:
            robot.close()
        bare = safe_robot(folder, process, (), 100.0)
        bare.connect()
        try:
            here = bare.observe()["qpos"].astype(float)
            bare.arm.ticker.start()
            for _ in range(int(100 * seconds / 5)):
                bare.observe()
                bare.act(here)
            without = bare.arm.ticker.report()
        finally:
            bare.close()
    return {"policy_30_hz": with_cameras, "bare_100_hz": without}


def success(folder: Path, n: int, seed: int) -> dict[str, Any]:
    """The vision policy on the same scenes, in simulation and through the bus."""
    policy = load_policy(VISION)
    sim = evaluate(policy, n=n, seed=seed, progress=True)
    with virtual(folder) as process:
        robot = safe_robot(folder, process, ("top", "wrist"), 30.0)
        robot.connect()
        try:
            judge = RoomJudge(process.port, evaluation_scenes(seed, n))
            tally = deploy(policy, robot, judge, trials=n, seconds=500 / 30)
        finally:
            robot.close()
        witness = process.room.look()["witness"]
    low, high = wilson(tally.successes, n)
    return {
        "simulation": sim.to_json(),
        "bus": {
            "success": tally.successes / n,
            "interval": [low, high],
            "n": n,
            "seed": seed,
            "stopped": [t.stopped for t in tally.trials if t.stopped],
            "failed_trials": [t.number for t in tally.trials if not t.success],
            "interventions": dict(robot.interventions.counts),
        },
        "witness": witness,
    }


FAULTS: dict[str, dict[str, Any]] = {
    "lost 2 %": {"lost": 0.02},
    "lost 30 %": {"lost": 0.3},
    "corrupted 2 %": {"corrupted": 0.02},
    "late": {"late": 0.2},
    "delay 5 ms": {"delay": 0.005},
    "noise": {"noise": 0.5},
    "missing servo": {"missing": 3},
    "doubled id": {"doubled": 3},
    "wrong model": {"wrong_model": 2},
    "old firmware": {"old_firmware": 5},
    "multi-turn": {"multi_turn": 3},
    "voltage sag": {"sag": 4.0},
    "overload": {"overload": 2},
    "overheat": {"overheat": 4},
    "unplugged": {"unplugged": True},
    "no power": {"no_power": True},
    "frozen camera": {"frozen_camera": "top"},
}


def in_connect(robot: SafeRobot, cut: Callable[[], None]) -> None:
    """The fault is there before the arm is connected."""
    cut()
    robot.connect()
    robot.observe(("top",))


def in_deploy(robot: SafeRobot, cut: Callable[[], None]) -> None:
    """The fault comes in the middle of a policy's run."""
    policy = load_policy(VISION)
    robot.connect()
    robot.go(robot.limits.ready)
    robot.arm.ticker.start()
    executor = make_executor(ExecutionConfig(), policy.chunk_size)

    def on_tick(tick: int, *_: Any) -> bool:
        if tick == 60:
            cut()
        return False

    run(robot, policy, executor, 180, on_tick=on_tick)


def faults(folder: Path) -> dict[str, Any]:
    """Every fault in every phase: what was said, and what somebody there saw."""
    limits = so100_limits()
    rows = []
    for phase in (in_connect, in_deploy):
        for name, switches in FAULTS.items():
            place = Path(tempfile.mkdtemp(dir=folder))
            with virtual(place) as process:
                robot = safe_robot(place, process, ("top", "wrist"), 30.0)
                said, crash = "", ""
                try:
                    phase(robot, lambda p=process, s=switches: p.room.faults(**s))
                except UserError as error:
                    said = str(error)
                except Exception as error:
                    crash = repr(error)
                landing = ""
                try:
                    robot.close()
                except UserError as error:
                    landing = str(error)
                except Exception as error:
                    crash = crash or repr(error)
                witness = process.room.look()["witness"]
            low, high = np.array(witness["lowest"]), np.array(witness["highest"])
            margin = 0.05
            rows.append(
                {
                    "phase": phase.__name__.removeprefix("in_"),
                    "fault": name,
                    "said": said.replace(str(place), "..."),
                    "landing": landing.replace(str(place), "..."),
                    "crash": crash,
                    "inside_joint_limits": bool(
                        (low[:5] >= limits.low[:5] - margin).all()
                        and (high[:5] <= limits.high[:5] + margin).all()
                    ),
                    "fastest": max(witness["speed"][:5]),
                    "farthest_pull": max(witness["pull"][:5]),
                    "lowest_tip": witness["tip_low"][2],
                    "falls": witness["falls"],
                }
            )
            print(rows[-1], flush=True)
            time.sleep(0.1)
    return {
        "table": rows,
        "crashes": sum(bool(r["crash"]) for r in rows),
        "outside_limits": sum(not r["inside_joint_limits"] for r in rows),
    }


def main(
    what: tyro.conf.Positional[Literal["loop", "success", "faults"]],
    seconds: float = 300.0,
    n: int = 60,
    seed: int = 5,
) -> None:
    """Measure one of the three, and write data/results/so100_<what>.json.

    Args:
        what: loop, success or faults.
        seconds: the loop runs for so long.
        n: trials through the bus.
        seed: of their scenes.
    """
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if what == "loop":
            content = loop(folder, seconds)
        elif what == "success":
            content = success(folder, n, seed)
        else:
            content = faults(folder)
    write(f"so100_{what}", time.perf_counter() - start, content)


if __name__ == "__main__":
    tyro.cli(main)
