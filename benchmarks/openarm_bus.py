"""Virtual OpenArms through their buses: how often a policy succeeds, and the guide.

    uv run python -m benchmarks.openarm_bus success
    uv run python -m benchmarks.openarm_bus guide

Arms and program are two processes on one machine. `openarm_loop` measures how steady
the loop is, `openarm_faults` what happens when something breaks.
"""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import tyro

from act_minimal.checkpoint import find_checkpoint
from act_minimal.errors import UserError
from act_minimal.evaluation import evaluate, evaluation_scenes, wilson
from act_minimal.policy import load_policy
from act_minimal.sim import make_task
from benchmarks.guides import outcome
from benchmarks.results import RESULTS, ROOT, write
from hardware.deployment import RoomJudge, deploy
from hardware.robots import VIRTUAL, RobotConfig, make_robot, plugged_in
from hardware.safety import EmergencyStop
from hardware.so100.emulator.room import Room

STATE = RESULTS.parent / "checkpoints" / "openarm_handover_state"
GUIDE = ROOT / "hardware" / "openarm" / "GUIDE.md"


def success(path: Path, task: str, n: int, seed: int) -> dict[str, Any]:
    """A policy on the same scenes, in simulation and through the buses."""
    policy = load_policy(find_checkpoint(path))
    sim = evaluate(policy, task, n=n, seed=seed)
    arms = RobotConfig(VIRTUAL, "openarm", cameras=policy.cameras)
    with plugged_in(arms, task) as here:
        robot = make_robot(here, policy.image_sizes, EmergencyStop())
        with contextlib.closing(RoomJudge(here.port, evaluation_scenes(seed, n))) as j:
            robot.connect()
            try:
                seconds = make_task(task).max_ticks / robot.fps
                tally = deploy(policy, robot, j, trials=n, seconds=seconds)
            finally:
                robot.close()
            witness = j.room.look()["witness"]
    return {
        "policy": policy_name(path),
        "task": task,
        "simulation": sim.to_json(),
        "bus": {
            "success": tally.successes / n,
            "interval": list(wilson(tally.successes, n)),
            "n": n,
            "seed": seed,
            "stopped": [t.stopped for t in tally.trials if t.stopped],
            "failed_trials": [t.number for t in tally.trials if not t.success],
            "jitter_ms_p99": [t.timing["jitter_ms_p99"] for t in tally.trials],
            "interventions": dict(robot.interventions.counts),
        },
        "witness": witness,
    }


def policy_name(path: Path) -> str:
    """Its place in the repository, or its folder's name."""
    place = path.resolve()
    return str(place.relative_to(ROOT) if place.is_relative_to(ROOT) else place.name)


def guide_commands() -> list[list[str]]:
    """The words of each `act` line of the guide's section 0, in their order."""
    section = (
        GUIDE.read_text(encoding="utf-8").partition("\n## 0.")[2].partition("\n## ")[0]
    )
    text = section.replace("\\\n", " ")
    lines = re.findall(r"^uv run act (.+)$", text, flags=re.MULTILINE)
    return [line.partition("#")[0].split() for line in lines]


def first_of(commands: list[list[str]]) -> dict[str, list[str]]:
    """The first command of each name."""
    told: dict[str, list[str]] = {}
    for words in commands:
        told.setdefault(words[0], words)
    return told


def said(words: list[str], flag: str) -> str:
    """The value of a flag in a command."""
    return words[words.index(flag) + 1]


def changed(words: list[str], **flags: Any) -> list[str]:
    """A command with other values of these flags, where it has them."""
    words = words.copy()
    for name, value in flags.items():
        if value is not None and f"--{name}" in words:
            words[words.index(f"--{name}") + 1] = str(value)
    return words


@contextlib.contextmanager
def arms_up(commands: list[list[str]], folder: Path) -> Iterator[None]:
    """The virtual arms of these commands, until the block ends."""
    arms = {
        folder / said(words, "--port"): subprocess.Popen(act(words), cwd=folder)
        for words in commands
    }
    try:
        for port, arm in arms.items():
            while arm.poll() is None:
                with contextlib.suppress(UserError), Room(port):
                    break
                time.sleep(0.1)
        yield
    finally:
        for port, arm in arms.items():
            with contextlib.suppress(UserError), Room(port) as room:
                room.ask(stop=True)
            arm.wait(10)


def act(words: list[str]) -> list[str]:
    """What `uv run act` runs, by this very interpreter."""
    return [sys.executable, "-m", "act_minimal.cli", *words]


def guide(n: int, seed: int, episodes: int | None, steps: int | None) -> dict[str, Any]:
    """The guide from virtual arms to a measured success, command by command."""
    folder = ROOT / "runs" / "benchmarks" / "openarm_guide"
    folder.mkdir(parents=True, exist_ok=True)
    commands = guide_commands()
    virtual = [words for words in commands if words[0] == "virtual"]
    told = first_of(commands)
    record = changed(told["record"], n=episodes)
    train = changed(told["train"], steps=steps)
    trials = changed(told["deploy"], trials=n, scenes=seed)
    with arms_up(virtual, folder):
        for words in (told["health"], record, train, trials):
            subprocess.run(act(words), cwd=folder, check=True)
    ran = [*virtual, told["health"], record, train, trials]
    run, demos, deployed = (folder / said(w, "--out") for w in (train, record, trials))
    lines = {"commands": [" ".join(["act", *words]) for words in ran]}
    return lines | outcome(run, demos, deployed, seed)


def main(
    what: tyro.conf.Positional[Literal["success", "guide"]],
    policy: Path = STATE,
    task: str = "openarm_handover",
    n: int = 60,
    seed: int = 5,
    episodes: int | None = None,
    steps: int | None = None,
    out: str | None = None,
) -> None:
    """Measure one of the two, and write data/results/openarm_bus_<what>.json.

    Args:
        what: success or guide.
        policy: success: which one.
        task: success: on which task.
        n: trials through the buses.
        seed: of their scenes.
        episodes: guide: other than it says, to try it.
        steps: guide: other than it says, to try it.
        out: another name of the result's file.
    """
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    if what == "success":
        content = success(policy, task, n, seed)
    else:
        content = guide(n, seed, episodes, steps)
    write(out or f"openarm_bus_{what}", time.perf_counter() - start, content)


if __name__ == "__main__":
    tyro.cli(main)
