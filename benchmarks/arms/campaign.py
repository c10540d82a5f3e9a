"""A fault campaign: what breaks in which phase of an arm's life, and who saw what.

Shared by `so100_faults` and `openarm_faults`. Each brings an arm, its faults, and a
judge: somebody beside the arm, who looks at the arm alone.
"""

import hashlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from act_minimal.control import Observation, Predictor, run
from act_minimal.episodes import list_episodes, load_episode
from act_minimal.execution import ExecutionConfig, make_executor
from act_minimal.support.errors import UserError
from act_minimal.support.files import read_json, write_json
from hardware.recording import record_session
from hardware.robots import RobotConfig, make_robot, plugged_in
from hardware.safety.safe_robot import SafeRobot
from hardware.safety.stop import EmergencyStop, Stop
from hardware.virtual.client import SceneClient

from ..results import RESULTS, machine


def code_digest() -> str:
    """A short hash of the arms' code and of this folder's."""
    root, digest = RESULTS.parents[1], hashlib.sha256()
    for folder in ("hardware", "benchmarks/arms"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


# What was measured is found again, but not with other code.
KEPT = RESULTS.parents[1] / "runs" / "benchmarks" / f"arms_{code_digest()}"
CHUNK = 50  # ticks
REPETITIONS = 3  # of each fault in each phase
KEEPS = {"record": 1, "killed": 2}  # episodes that a phase has to leave
# A fault of the computer, for which an arm has no switch.
KILLED = ("killed", "kill -9")

Faults = dict[str, dict[str, Any]]
"""Name -> switches of the virtual arm, as its scene takes them."""


@dataclass
class Swaying:
    """A pose, and a slow sway of some joints by 0.3 rad: as a leader, as a policy."""

    pose: np.ndarray
    fps: float
    joints: tuple[int, ...] = (0,)
    tick: int = 0
    cameras: tuple[str, ...] = ()
    chunk_size: int = CHUNK

    def open(self) -> None: ...

    def close(self) -> None: ...

    def other(self) -> str:
        return ""  # no keys

    def wish(self, here: np.ndarray) -> np.ndarray:
        """Where it is at the next tick, (A,)."""
        self.tick += 1
        sway = np.zeros(len(self.pose))
        sway[list(self.joints)] = 0.3 * np.sin(2 * self.tick / self.fps)
        return self.pose + sway

    def predict_chunk(self, observation: Observation) -> np.ndarray:
        """The next wishes, (1, k, A); half of them count as done."""
        begin = self.tick
        chunk = np.stack([self.wish(self.pose) for _ in range(self.chunk_size)])
        self.tick = begin + self.chunk_size // 2
        return chunk[None]


@dataclass
class Trial:
    """One row: an arm, and a phase of its life in which something breaks.

    Phases are methods; a phase in which a hand moves the arm is in `by_hand`.
    """

    folder: Path
    robot: SafeRobot
    scene: Any
    """Of the virtual arm: takes wishes, and tells what its witness saw."""
    switches: dict[str, Any]
    policy: Callable[[], Predictor] | None = None
    """Loads what drives in `deploy`; without it, what sways in `record` does."""
    cameras: tuple[str, ...] = ()
    """Those that are looked through and recorded."""
    sways: tuple[int, ...] = (0,)
    """Joints that sway in `record`."""
    by_hand: tuple[str, ...] = field(default=(), init=False)
    called: dict[str, str] = field(default_factory=dict, init=False)
    """What is new in each row, and what the table calls it."""

    def __post_init__(self) -> None:
        self.called[str(self.folder)] = "..."

    def cut(self) -> None:
        """The fault comes now."""
        self.scene.faults(**self.switches)

    def ticks(self, seconds: float) -> int:
        return round(seconds * self.robot.fps)

    def swaying(self) -> Swaying:
        """What stands in for a hand at a leader arm."""
        return Swaying(self.robot.limits.ready, self.robot.fps, self.sways)

    def connect(self) -> None:
        """The fault is there before the arm is connected."""
        self.cut()
        self.robot.connect()
        self.robot.arm.ticker.start()
        for _ in range(self.ticks(1.5)):  # a frozen picture shows only in time
            self.robot.observe(self.cameras)
            self.robot.arm.ticker.wait()

    def record(self) -> None:
        """One episode is kept; the fault comes in the middle of the second."""
        self._record(self.cut)

    def killed(self) -> None:
        """Kill -9 in the middle of the second episode; the next program goes on."""

        def end() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        program = multiprocessing.get_context("fork").Process(
            target=self._record, args=(end,)
        )
        program.start()
        program.join()
        if program.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"the recording ended with {program.exitcode}")
        (kept,) = list_episodes(self.folder / "demos")
        before = kept.read_bytes()
        self.cut()
        time.sleep(1.0)  # nobody drives the arm
        self._record(lambda: None)
        if kept.read_bytes() != before:
            raise RuntimeError(f"{kept.name} was changed by the next program")

    def _record(self, middle: Callable[[], None]) -> None:
        """Record until there are two episodes; `middle` is called in the second."""
        self.robot.connect()
        taken = len(list_episodes(self.folder / "demos"))

        def over(tick: int) -> bool:
            if taken == 1 and tick == self.ticks(1.0):
                middle()
            return tick >= self.ticks(2.0 + taken)

        def verdict() -> Literal["keep"]:
            nonlocal taken
            taken += 1
            return "keep"

        def note(text: str) -> None:  # a stop ends the session here
            if "was stopped" in text:
                raise Stop(text)

        record_session(
            self.robot,
            self.swaying(),
            self.folder / "demos",
            2,
            prepare=lambda number: None,
            over=over,
            verdict=verdict,
            cameras=self.cameras,
            say=note,
        )

    def deploy(self) -> None:
        """The fault comes in the middle of a policy's run."""
        policy: Any = self.policy() if self.policy else self.swaying()
        self.robot.connect()
        self.robot.go(self.robot.limits.ready)
        self.robot.arm.ticker.start()
        executor = make_executor(ExecutionConfig(), policy.chunk_size)

        def on_tick(tick: int, *_: Any) -> bool:
            if tick == self.ticks(2.0):
                self.cut()
            return False

        run(self.robot, policy, executor, self.ticks(6.0), on_tick=on_tick)

    def judge(self, phase: str, seen: dict[str, Any], said: str) -> dict[str, Any]:
        """What somebody beside the arm saw: `safe`, and the numbers behind it.

        `seen` is what the scene says at the end, `said` what the program ended with.
        """
        raise NotImplementedError


@contextmanager
def bench(
    config: RobotConfig, task: str | None = None
) -> Iterator[tuple[SafeRobot, SceneClient, dict[str, str]]]:
    """A virtual arm behind its limits, its scene, and what a table calls its folder."""
    with plugged_in(config, task) as here, SceneClient(here.port) as scene:
        robot = make_robot(here, (96, 128), EmergencyStop())
        yield robot, scene, {str(Path(here.port).parent): "..."}


def row_of(phase: str, trial: Trial) -> dict[str, Any]:
    """One row of the table: the phase goes wrong, and the arm is put to rest."""
    said = crash = landing = ""
    trial.scene.ask(forget=True)
    try:
        getattr(trial, phase)()
    except UserError as error:
        said = str(error)
    except Exception as error:
        crash = repr(error)
    try:
        trial.robot.close()
    except UserError as error:
        landing = str(error)
    except Exception as error:
        crash = crash or repr(error)
    seen = trial.scene.look()
    for one, name in trial.called.items():
        said, landing = said.replace(one, name), landing.replace(one, name)
    row: dict[str, Any] = {"said": said, "landing": landing, "crash": crash}
    if phase in KEEPS:
        kept = list_episodes(trial.folder / "demos")
        row["lost_episodes"] = max(KEEPS[phase] - len(kept), 0)
        for path in kept:
            load_episode(path)
    return row | trial.judge(phase, seen, said)


def campaign(
    name: str,
    phases: Iterable[str],
    faults: Faults,
    plugged: Callable[[Path, dict[str, Any]], AbstractContextManager[Trial]],
    minutes: float | None = None,
) -> dict[str, Any] | None:
    """Every fault in every phase, and kill -9 while recording, REPETITIONS times each.

    Rows are kept as they are made, and found again by the next call; once all are
    there, they are given back and no longer kept. `plugged` plugs in a new arm for one
    row, given a folder and the switches; no row is begun after so many `minutes`.

    Returns:
        The result file's content, and the `seconds` that all rows took; None if there
        is more to do.
    """
    begin, path = time.monotonic(), KEPT / f"{name}.json"
    rows: list[dict[str, Any]] = read_json(path) if path.exists() else []
    done = {(row["phase"], row["fault"], row["repetition"]) for row in rows}
    cells = [(phase, fault) for phase in phases for fault in faults] + [KILLED]
    wanted = [(*cell, i) for cell in cells for i in range(REPETITIONS)]
    for phase, fault, repetition in wanted:
        if (phase, fault, repetition) in done:
            continue
        if minutes is not None and time.monotonic() - begin > 60 * minutes:
            print(f"{len(rows)} of {len(wanted)} rows are kept in {path}; call again")
            return None
        start = time.monotonic()
        with (
            tempfile.TemporaryDirectory() as folder,
            plugged(Path(folder), faults.get(fault, {})) as trial,
        ):
            row = row_of(phase, trial)
        cell = {"phase": phase, "fault": fault, "repetition": repetition}
        rows.append(cell | row)
        print(rows[-1], flush=True)
        rows[-1] |= {"machine": machine(), "seconds": time.monotonic() - start}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, rows)
    path.unlink(missing_ok=True)
    machines = [row.pop("machine") for row in rows]
    assert all(one == machines[0] for one in machines), "rows of several machines"
    seconds = sum(row.pop("seconds") for row in rows)
    rows.sort(key=lambda r: wanted.index((r["phase"], r["fault"], r["repetition"])))
    return {
        "seconds": round(seconds, 1),
        "n": len(rows),
        "table": rows,
        "crashes": sum(bool(r["crash"]) for r in rows),
        "unsafe": sum(not r["safe"] for r in rows),
        "lost_episodes": sum(r.get("lost_episodes", 0) for r in rows),
    }
