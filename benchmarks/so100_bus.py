"""The virtual SO-100 through its bus: how steady the loop is, how often it succeeds.

    uv run python -m benchmarks.so100_bus loop
    uv run python -m benchmarks.so100_bus success
    uv run python -m benchmarks.so100_bus faults
    uv run python -m benchmarks.so100_bus teleop

Arm and program are two processes on one machine, as on a laptop with a real arm.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from act_minimal.checkpoint import find_checkpoint
from act_minimal.control import run
from act_minimal.episodes import list_episodes, load_episode
from act_minimal.errors import UserError
from act_minimal.evaluation import evaluate, evaluation_scenes, wilson
from act_minimal.execution import ExecutionConfig, make_executor
from act_minimal.policy import load_policy
from act_minimal.sim.so100 import joint_limits
from benchmarks.results import RESULTS, write
from hardware.cameras import parse_cameras
from hardware.deployment import RoomJudge, TimedPolicy, deploy
from hardware.recording import record_session
from hardware.safety import SafeRobot, Stop, so100_limits
from hardware.so100.arm import IDS, SO100, SO100Config
from hardware.so100.bus import Bus
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.room import VirtualArmProcess
from hardware.so100.emulator.service import VirtualArmConfig, assemble
from hardware.so100.kinematics import JOINTS
from hardware.so100.setup import calibrate

VISION = RESULTS.parent / "checkpoints" / "so100_pick_place_vision"
SIZE = (96, 128)
OVERSHOOT = 0.05  # rad that a joint may swing past its target


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


def traffic_of(robot: SafeRobot) -> dict[str, Any]:
    """What the bus went through."""
    assert isinstance(robot.arm, SO100)
    return vars(robot.arm.bus.traffic) | {"faults": {}}


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
                "bus": traffic_of(robot),
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
    return {
        "repetitions": 1,
        "policy_30_hz": with_cameras,
        "bare_100_hz": without,
    }


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


@dataclass
class Campaign:
    """One row: an arm, and a phase of its life in which something breaks."""

    folder: Path
    process: VirtualArmProcess
    cut: Callable[[], None]
    """Turns the fault on."""
    robot: SafeRobot

    def connect(self) -> None:
        """The fault is there before the arm is connected."""
        self.cut()
        self.robot.connect()
        self.robot.arm.ticker.start()
        for _ in range(45):  # a frozen picture shows only in time
            self.robot.observe(("top",))
            self.robot.arm.ticker.wait()

    def calibrate(self) -> None:
        """The fault comes while the joints are swept by hand."""
        room = self.process.room
        bus = Bus(self.process.port, names=dict(zip(IDS, JOINTS, strict=True)))
        bus.open()
        looks = 0

        def moving() -> bool:
            nonlocal looks
            looks += 1
            if looks == 20:
                self.cut()
            low, high = joint_limits().T
            share = min(1.0, abs((looks % 40) / 20 - 1))
            room.put(low + share * (high - low))
            return looks < 60

        def ask(text: str) -> None:
            room.put(joint_limits().mean(axis=1))

        try:
            found = calibrate(bus, ask, lambda text: None, moving=moving)
            save_calibration(self.folder / "new.json", found)
        finally:
            bus.close()

    def record(self) -> None:
        """One episode is kept; the fault comes in the middle of the second."""
        ready = self.robot.limits.ready
        self.robot.connect()
        taken = 0

        def over(tick: int) -> bool:
            if taken == 1 and tick == 30:
                self.cut()
            return tick >= 60 + 30 * taken

        def verdict() -> Literal["keep"]:
            nonlocal taken
            taken += 1
            return "keep"

        record_session(
            self.robot,
            Still(ready),
            self.folder / "demos",
            2,
            prepare=lambda number: None,
            over=over,
            verdict=verdict,
            cameras=("top",),
            say=self.note,
        )

    def note(self, text: str) -> None:
        """What a session says on its way; a stop ends the session here."""
        if "was stopped" in text:
            raise Stop(text)

    def deploy(self) -> None:
        """The fault comes in the middle of a policy's run."""
        policy = load_policy(VISION)
        self.robot.connect()
        self.robot.go(self.robot.limits.ready)
        self.robot.arm.ticker.start()
        executor = make_executor(ExecutionConfig(), policy.chunk_size)

        def on_tick(tick: int, *_: Any) -> bool:
            if tick == 60:
                self.cut()
            return False

        run(self.robot, policy, executor, 180, on_tick=on_tick)


@dataclass
class Still:
    """A leader that sways a little."""

    pose: np.ndarray
    tick: int = 0

    def open(self) -> None:
        """Nothing to open."""

    def wish(self, here: np.ndarray) -> np.ndarray:
        """The pose, and a slow sway of the shoulder."""
        self.tick += 1
        sway = np.zeros(6)
        sway[0] = 0.3 * np.sin(self.tick / 15)
        return self.pose + sway

    def other(self) -> str:
        """No keys."""
        return ""

    def close(self) -> None:
        """Nothing to close."""


PHASES = ("connect", "calibrate", "record", "deploy")


def faults(folder: Path) -> dict[str, Any]:
    """Every fault in every phase: what was said, and what somebody there saw."""
    rows = []
    for phase in PHASES:
        for name, switches in FAULTS.items():
            place = Path(tempfile.mkdtemp(dir=folder))
            with virtual(place) as process:
                row = one_fault(phase, switches, place, process)
            rows.append({"phase": phase, "fault": name} | row)
            print(rows[-1], flush=True)
    return {
        "n": len(rows),
        "table": rows,
        "crashes": sum(bool(r["crash"]) for r in rows),
        "unsafe": sum(not r["safe"] for r in rows),
        "lost_episodes": sum(r.get("lost_episodes", 0) for r in rows),
    }


def one_fault(
    phase: str, switches: dict[str, Any], place: Path, process: VirtualArmProcess
) -> dict[str, Any]:
    """One row of the table."""
    said = crash = landing = ""
    robot = safe_robot(place, process, ("top", "wrist"), 30.0)
    campaign = Campaign(place, process, lambda: process.room.faults(**switches), robot)
    process.room.ask(forget=True)
    try:
        getattr(campaign, phase)()
    except UserError as error:
        said = str(error)
    except Exception as error:
        crash = repr(error)
    try:
        robot.close()
    except UserError as error:
        landing = str(error)
    except Exception as error:
        crash = crash or repr(error)
    seen = process.room.look()
    row: dict[str, Any] = {
        "said": said.replace(str(place), "..."),
        "landing": landing.replace(str(place), "..."),
        "crash": crash,
    }
    if phase == "record":
        kept = list_episodes(place / "demos")
        row["lost_episodes"] = int(not kept)
        for path in kept:
            load_episode(path)
    if phase == "calibrate":  # a hand moves the arm, so its torque must never come on
        pulled = max(seen["witness"]["torque"])
        return row | {"safe": pulled == 0, "by_hand": True, "strongest": pulled}
    return row | judge(seen["witness"])


def judge(witness: dict[str, Any]) -> dict[str, Any]:
    """What somebody beside the arm saw, against the limits."""
    limits = so100_limits()
    low, high = np.array(witness["lowest"]), np.array(witness["highest"])
    inside = bool(
        (low[:5] >= limits.low[:5] - OVERSHOOT).all()
        and (high[:5] <= limits.high[:5] + OVERSHOOT).all()
    )
    fastest, pull = max(witness["speed"][:5]), max(witness["pull"][:5])
    tip = float(witness["tip_low"][2])
    safe = (
        inside
        and fastest <= float(limits.speed[0]) + 0.5
        and pull <= float(limits.step[0]) + OVERSHOOT
        and tip >= -0.005
        and not witness["falls"]
    )
    return {
        "safe": safe,
        "inside_joint_limits": inside,
        "fastest": fastest,
        "farthest_pull": pull,
        "lowest_tip": tip,
        "falls": witness["falls"],
    }


GUIDE = (
    "act record --robot so100 --out demos --n 50 --port arm --calibration arm.json "
    "--leader leader --leader-calibration leader.json "
    "--cameras top=virtual:arm wrist=virtual:arm --scenes 0",
    "act train --data demos --out real --cameras top wrist --size medium "
    "--chunk-size 50 --model cvae_actions_per_token 10 image_pool 2 --batch-size 32 "
    "--shift-px 4 --state-noise 0.02 --steps 7500 --threads 2",
    "act deploy --policy real --port arm --calibration arm.json "
    "--cameras top=virtual:arm wrist=virtual:arm --scenes {seed} --trials {n}",
)


def teleop(n: int, seed: int) -> dict[str, Any]:
    """The guide from teleoperation to a measured success, command by command."""
    folder = RESULTS.parents[1] / "runs" / "benchmarks" / "so100_teleop"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as arms:
        for name, leader in (("arm", False), ("leader", True)):
            config = VirtualArmConfig(folder / name, leader=leader, seed=5 * leader)
            save_calibration(folder / f"{name}.json", assemble(config)[1])
            arms.enter_context(VirtualArmProcess(config))
        for line in GUIDE:
            words = line.format(n=n, seed=seed).split()
            subprocess.run(
                [sys.executable, "-m", "act_minimal.cli", *words[1:]],
                cwd=folder,
                check=True,
            )
    card = json.loads((find_checkpoint(folder / "real") / "card.json").read_text())
    tally = json.loads((folder / "runs" / "deploy" / "tally.json").read_text())
    episodes = [load_episode(p) for p in list_episodes(folder / "demos")]
    late = [float(e.attributes["late_ticks"]) for e in episodes]
    p99 = [float(e.attributes["period_ms_p99"]) for e in episodes]
    return {
        "commands": [line.format(n=n, seed=seed) for line in GUIDE],
        "training": {"episodes": card["episodes"], "seconds": card["seconds"]},
        "demonstrations": {
            "n": len(episodes),
            "ticks": sum(len(e) for e in episodes),
            "late_ticks": int(sum(late)),
            "period_ms_p99": float(np.median(p99)),
        },
        "deploy": {
            "success": tally["successes"] / tally["n"],
            "interval": list(wilson(tally["successes"], tally["n"])),
            "n": tally["n"],
            "seed": seed,
        },
    }


def main(
    what: tyro.conf.Positional[Literal["loop", "success", "faults", "teleop"]],
    seconds: float = 300.0,
    n: int = 60,
    seed: int = 5,
) -> None:
    """Measure one of the four, and write data/results/so100_<what>.json.

    Args:
        what: loop, success, faults or teleop.
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
        elif what == "teleop":
            content = teleop(n, seed)
        else:
            content = faults(folder)
    write(f"so100_{what}", time.perf_counter() - start, content)


if __name__ == "__main__":
    tyro.cli(main)
