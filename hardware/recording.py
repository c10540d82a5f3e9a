"""Demonstrations on a real arm, into the same files as in simulation.

An episode is kept in memory while it runs, and written whole when it ends: kill -9
loses the running episode at most, never one that was finished.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from act_minimal.control import Observation
from act_minimal.datasets.embodiment import UNITS, arm_attributes
from act_minimal.episodes import (
    Episode,
    list_episodes,
    load_episode,
    next_episode,
    save_next_episode,
)
from act_minimal.support.errors import UserError
from act_minimal.support.files import check_output_folder

from .safety.safe_robot import SafeRobot
from .safety.stop import Stop
from .teleop import Source, teleoperate

Verdict = Literal["keep", "discard", "redo", "quit"]


@dataclass
class Recorder:
    """Gathers one episode, tick by tick."""

    fps: float
    cameras: tuple[str, ...]
    rows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)

    def add(self, observation: Observation, action: np.ndarray, when: float) -> None:
        """One tick: what was seen, and what was sent (1, A)."""
        keys = ["qpos", "qvel", "effort", *(f"images/{c}" for c in self.cameras)]
        keys += ["env_state"] if "env_state" in observation else []
        for key in keys:
            self.rows.setdefault(key, []).append(observation[key][0].copy())
        self.rows.setdefault("action", []).append(action[0].astype(np.float32))
        self.times.append(when)

    def episode(self, attributes: dict[str, Any]) -> Episode:
        """The episode so far.

        Raises:
            UserError: it has no ticks.
        """
        if not self.times:
            raise UserError("the episode has no ticks; nothing was recorded")
        arrays = {k: np.stack(v) for k, v in self.rows.items()}
        periods = np.diff(self.times)
        timing = {
            "period_ms_p99": float(1000 * np.percentile(periods, 99)),
            "late_ticks": int((periods > 1.5 / self.fps).sum()),
        }
        return Episode(
            qpos=arrays["qpos"],
            qvel=arrays["qvel"],
            effort=arrays["effort"],
            action=arrays["action"],
            env_state=arrays.get("env_state"),
            images={c: arrays[f"images/{c}"] for c in self.cameras},
            fps=self.fps,
            sim=False,
            attributes=attributes | (timing if len(periods) else {}),
        )


def record_session(
    robot: SafeRobot,
    source: Source,
    out: Path,
    n: int,
    *,
    prepare: Callable[[int], object],
    over: Callable[[int], bool],
    verdict: Callable[[], Verdict],
    cameras: tuple[str, ...] = (),
    seconds: float = 60.0,
    attributes: Callable[[], dict[str, Any]] | None = None,
    say: Callable[[str], Any] = print,
) -> list[Path]:
    """Record until `out` holds `n` episodes.

    Args:
        robot: connected.
        source: open; drives the arm.
        out: folder; episodes that are there are kept, and counted.
        n: how many in all.
        prepare: called with the episode's number before it begins; False ends the
            session.
        over: asked at every tick, with its number, whether the episode ends.
        verdict: asked after each episode: keep it, discard it, redo the one before
            too (the last one kept in this session), or quit.
        cameras: recorded.
        seconds: that an episode may last.
        attributes: asked after each episode for what is written into it, such as
            the task.
        say: takes each line of progress.

    Returns:
        The paths of all episodes.

    Raises:
        UserError: `out` holds episodes of another arm or rate, the disk is full, or the
            arm was stopped; what was kept is kept.
    """
    check_output_folder(out, "episodes")
    if done := list_episodes(out):
        _expect_same_arm(done[-1], robot)
    mine: list[Path] = []  # kept in this session, which alone may be taken back
    while len(list_episodes(out)) < n:
        number = next_episode(out)
        if prepare(number) is False:
            break
        recorder = Recorder(robot.fps, cameras)

        def on_tick(
            tick: int,
            observation: Observation,
            action: np.ndarray,
            recorder: Recorder = recorder,
        ) -> bool:
            recorder.add(observation, action, robot.arm.observed_at)
            return over(tick)

        stopped = ""
        try:
            teleoperate(
                robot, source, round(seconds * robot.fps), on_tick, cameras=cameras
            )
        except Stop as error:
            stopped = str(error)
            say(f"episode {number} was stopped and is not kept: {stopped}")
            robot.stop.check()  # an emergency stop ends the session too
            robot.hold()  # and so does what is still as it was
            continue
        word = verdict()
        if word == "keep":
            extras: dict[str, Any] = attributes() if attributes else {}
            extras |= _about(robot)
            episode = recorder.episode({"success": True} | extras)
            path = save_next_episode(out, episode, compression="jpeg", quality=95)
            mine.append(path)
            say(f"{path.name}: {len(episode)} ticks kept")
        elif word == "redo" and mine:
            path = mine.pop()
            path.unlink(missing_ok=True)
            say(f"{path.name} is removed, to be recorded again")
        elif word == "redo":
            say(
                f"episode {number} is discarded; none before it was kept in this "
                "session, so none is removed"
            )
        elif word == "quit":
            break
        else:
            say(f"episode {number} is discarded")
    return list_episodes(out)


def _about(robot: SafeRobot) -> dict[str, str]:
    """What an episode says of the arm that it was recorded on."""
    name, joints = (getattr(robot.arm, key, "") for key in ("name", "joints"))
    return arm_attributes(name, joints, UNITS)


def _expect_same_arm(path: Path, robot: SafeRobot) -> None:
    """Whether an episode is of this arm at this rate, as far as it says so."""
    episode = load_episode(path, images=False)
    found: dict[str, Any] = {**episode.attributes, "fps": episode.fps}
    here = _about(robot) | {"fps": robot.fps}
    for key, value in here.items():
        if found.get(key, value) != value:
            raise UserError(
                f"{path} was recorded with {key} {found[key]}, but this arm has {key} "
                f"{value}; choose another folder"
            )
