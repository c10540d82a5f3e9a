"""The virtual SO-100 through its bus: how steady the loop is, how often it succeeds.

    uv run python -m benchmarks.so100_bus loop
    uv run python -m benchmarks.so100_bus success
    uv run python -m benchmarks.so100_bus faults
    uv run python -m benchmarks.so100_bus teleop

Arm and program are two processes on one machine, as on a laptop with a real arm.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from act_minimal.evaluation import evaluate, evaluation_scenes, wilson
from act_minimal.policy import load_policy
from act_minimal.sim.so100 import joint_limits
from benchmarks.campaign import Faults, Trial, campaign
from benchmarks.guides import outcome
from benchmarks.loops import policy_loop
from benchmarks.results import RESULTS, write
from hardware.cameras import parse_cameras
from hardware.deployment import RoomJudge, deploy
from hardware.safety import SafeRobot, so100_limits
from hardware.so100.arm import IDS, SO100, SO100Config
from hardware.so100.bus import Bus
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.room import VirtualArmProcess
from hardware.so100.emulator.service import VirtualArmConfig, assemble
from hardware.so100.emulator.touch import Touch
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
            with_cameras = policy_loop(robot, policy, seconds)
            with_cameras["bus"] = traffic_of(robot)
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


FAULTS: Faults = {
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
class SO100Trial(Trial):
    """An SO-100 on the bench, with two cameras and the vision policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.by_hand = ("calibrate",)

    def calibrate(self) -> None:
        """The fault comes while the joints are swept by hand."""
        assert isinstance(self.robot.arm, SO100)
        bus = Bus(self.robot.arm.config.port, names=dict(zip(IDS, JOINTS, strict=True)))
        bus.open()
        looks = 0

        def moving() -> bool:
            nonlocal looks
            looks += 1
            if looks == 20:
                self.cut()
            low, high = joint_limits().T
            share = min(1.0, abs((looks % 40) / 20 - 1))
            self.room.put(low + share * (high - low))
            return looks < 60

        def ask(text: str) -> None:
            self.room.put(joint_limits().mean(axis=1))

        try:
            found = calibrate(bus, ask, lambda text: None, moving=moving)
            (self.folder / "new.json").unlink(missing_ok=True)  # of the trial before
            save_calibration(self.folder / "new.json", found)
        finally:
            bus.close()

    def judge(self, phase: str, seen: dict[str, Any], said: str) -> dict[str, Any]:
        """Against the limits; while a hand moves the arm, torque must never come on."""
        witness = seen["witness"]
        if phase in self.by_hand:
            pulled = max(witness["torque"])
            return {"safe": pulled == 0, "by_hand": True, "strongest": pulled}
        limits = self.robot.limits
        low, high = np.array(witness["lowest"]), np.array(witness["highest"])
        inside = bool(
            (low[:5] >= limits.low[:5] - OVERSHOOT).all()
            and (high[:5] <= limits.high[:5] + OVERSHOOT).all()
        )
        fastest, pull = max(witness["speed"][:5]), max(witness["pull"][:5])
        touch = Touch(witness["touch"]["deepest"], pressed=witness["touch"]["pressed"])
        safe = (
            inside
            and fastest <= float(limits.speed[0]) + 0.5
            and pull <= float(limits.step[0]) + OVERSHOOT
            and touch.well
            and not witness["falls"]
        )
        return {
            "safe": safe,
            "inside_joint_limits": inside,
            "fastest": fastest,
            "farthest_pull": pull,
            "deepest": touch.deepest,
            "pressed_for": touch.pressed,
            "falls": witness["falls"],
        }


PHASES = ("connect", "calibrate", "record", "deploy")


@contextlib.contextmanager
def plugged(folder: Path, switches: dict[str, Any]) -> Iterator[SO100Trial]:
    """A new arm for one row."""
    with virtual(folder) as process:
        robot = safe_robot(folder, process, ("top", "wrist"), 30.0)
        yield SO100Trial(
            folder, robot, process.room, switches, lambda: load_policy(VISION), ("top",)
        )


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
    commands = [line.format(n=n, seed=seed) for line in GUIDE]
    found = outcome(
        folder / "real", folder / "demos", folder / "runs/deploy/real_so100", seed
    )
    return {"commands": commands} | found


def main(
    what: tyro.conf.Positional[Literal["loop", "success", "faults", "teleop"]],
    seconds: float = 300.0,
    n: int = 60,
    seed: int = 5,
    minutes: float | None = None,
) -> None:
    """Measure one of the four, and write data/results/so100_<what>.json.

    Args:
        what: loop, success, faults or teleop.
        seconds: the loop runs for so long.
        n: trials through the bus.
        seed: of their scenes.
        minutes: of faults: no row is begun later, and the next call goes on.
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
            content = campaign("so100_faults", PHASES, FAULTS, plugged, minutes)
            if content is None:
                return
            start = time.perf_counter() - content["seconds"]
    write(f"so100_{what}", time.perf_counter() - start, content)


if __name__ == "__main__":
    tyro.cli(main)
