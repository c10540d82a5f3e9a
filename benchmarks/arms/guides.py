"""The guides from teleoperation to a measured success, command by command."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.checkpoint import find_checkpoint
from act_minimal.episodes import list_episodes, load_episode
from act_minimal.support.errors import UserError
from act_minimal.support.files import read_json
from hardware.robots import PAIR, TASKS, virtual_arms
from hardware.virtual.client import SceneClient

from ..results import ROOT
from .campaign import KEPT


def outcome(run: Path, demos: Path, deployed: Path, seed: int) -> dict[str, Any]:
    """What came of a guide's commands, by the folders that they left."""
    card = read_json(find_checkpoint(run) / "card.json")
    tally = read_json(deployed / "tally.json")
    episodes = [load_episode(p) for p in list_episodes(demos)]
    late = [float(e.attributes["late_ticks"]) for e in episodes]
    p99 = [float(e.attributes["period_ms_p99"]) for e in episodes]
    return {
        "training": {"episodes": card["episodes"], "seconds": card["seconds"]},
        "demonstrations": {
            "n": len(episodes),
            "ticks": sum(len(e) for e in episodes),
            "late_ticks": int(sum(late)),
            "period_ms_p99": float(np.median(p99)),
        },
        "deploy": {
            "success": tally["rate"],
            "interval": tally["interval"],
            "n": tally["n"],
            "seed": seed,
        },
    }


def act(words: list[str]) -> list[str]:
    """What `uv run act` runs, by this very interpreter."""
    return [sys.executable, "-m", "act_minimal.command.main", *words]


# --- SO-100 ---------------------------------------------------------------------------

SO100_GUIDE = (
    "act record --robot so100 --out demos --n 50 --port arm --calibration arm.json "
    "--leader leader --leader-calibration leader.json "
    "--cameras top=virtual:arm wrist=virtual:arm --scenes 0",
    "act train --data demos --out real --cameras top wrist --size medium "
    "--chunk-size 50 --model cvae_actions_per_token 10 image_pool 2 --batch-size 32 "
    "--shift-px 4 --state-noise 0.02 --steps 7500 --threads 2",
    "act deploy --policy real --port arm --calibration arm.json "
    "--cameras top=virtual:arm wrist=virtual:arm --scenes {seed} --trials {n}",
)


PAIR_GUIDE = (
    "act record --robot so100_pair --out demos --n 50 --apart 1 "
    "--port arm_left,arm_right --calibration arm.json "
    "--leader leader_left,leader_right --leader-calibration leader.json "
    "--objects virtual:arm_left,arm_right --scenes 0",
    "act train --data demos --out real --cameras --chunk-size 50 "
    "--model cvae_actions_per_token 10 --lr 0.002 --state-noise 0.02 --steps 4000 "
    "--threads 1",
    "act deploy --policy real --robot so100_pair --apart 1 "
    "--port arm_left,arm_right --calibration arm.json "
    "--objects virtual:arm_left,arm_right --scenes {seed} --trials {n}",
)
SERVO_GUIDES = {"so100": SO100_GUIDE, PAIR: PAIR_GUIDE}


def servo_guide(robot: str, n: int, seed: int) -> dict[str, Any]:
    """Virtual arms and leaders of the same kind; see `outcome`."""
    folder = KEPT / f"{robot}_teleop"
    folder.mkdir(parents=True, exist_ok=True)
    commands = [line.format(n=n, seed=seed) for line in SERVO_GUIDES[robot]]
    with contextlib.ExitStack() as arms:
        for name, leader in (("arm", False), ("leader", True)):
            for arm in virtual_arms(
                robot,
                folder / name,
                TASKS[robot],
                leader=leader,
                seed=5 * leader,
                calibration=folder / f"{name}.json",
            ):
                arms.enter_context(arm)
        for line in commands:
            subprocess.run(act(line.split()[1:]), cwd=folder, check=True)
    run, demos = folder / "real", folder / "demos"
    deployed = folder / f"runs/deploy/real_{robot}"
    return {"commands": commands} | outcome(run, demos, deployed, seed)


# --- OpenArm --------------------------------------------------------------------------

OPENARM_GUIDE = ROOT / "hardware" / "openarm" / "GUIDE.md"


def guide_commands() -> list[list[str]]:
    """The words of each `act` line of the guide's section 0, in their order."""
    guide = OPENARM_GUIDE.read_text(encoding="utf-8")
    section = guide.partition("\n## 0.")[2].partition("\n## ")[0]
    text = section.replace("\\\n", " ")
    lines = re.findall(r"^uv run act (.+)$", text, flags=re.MULTILINE)
    return [line.partition("#")[0].split() for line in lines]


def first_of(commands: list[list[str]]) -> dict[str, list[str]]:
    """The first command of each name."""
    return {words[0]: words for words in reversed(commands)}


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
                with contextlib.suppress(UserError), SceneClient(port):
                    break
                time.sleep(0.1)
        yield
    finally:
        for port, arm in arms.items():
            with contextlib.suppress(UserError), SceneClient(port) as scene:
                scene.ask(stop=True)
            arm.wait(10)


def openarm_guide(
    n: int, seed: int, episodes: int | None, steps: int | None
) -> dict[str, Any]:
    """The commands of its guide's section 0, with other numbers where given."""
    folder = KEPT / "openarm_guide"
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
