"""Does the doctor name what is wrong? Every fault, injected into a run that works.

    uv run python -m benchmarks.diagnosis
    uv run python -m benchmarks.diagnosis --only sign units

Each fault is diagnosed, rolled out, and rolled out again without it; healthy policies
of both arms are diagnosed beside them. Runs are kept in --runs and found again: a call
that was stopped goes on.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import tyro
from tqdm.auto import tqdm

from act_minimal.checkpoint import find_checkpoint, load_policy
from act_minimal.command.demo import STATE, TWO_ARMS_STATE, VISION
from act_minimal.dataset import Windows
from act_minimal.diagnosis.diagnose import gather, judge, look, try_out
from act_minimal.diagnosis.findings import Diagnosis
from act_minimal.diagnosis.trials import rate, roll_out
from act_minimal.episodes import episode_path, list_episodes, load_episode, save_episode
from act_minimal.evaluation import Rate, evaluation_scenes
from act_minimal.policy import Policy
from act_minimal.settings import TrainConfig
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from act_minimal.sim.robot import SimRobot
from act_minimal.support.files import read_json, write_json
from course.toolkit.faults import FAULTS, Fault, truncated, without_floor

from .results import write

CHECKPOINTS = Path("data/checkpoints")
STATE_ACT = STATE.act | {"threads": 1, "val_fraction": 0.1}
SMALL_VISION = VISION.act | {"cameras": VISION.cameras, "steps": 2000}
TOGETHER = 50

Row = dict[str, Any]


@dataclass
class Settings:
    """What is run, and where it is kept."""

    runs: Path = Path("runs/diagnosis")
    """Folder of demonstrations, training runs and rows."""
    only: tuple[str, ...] = ()
    """Names of faults or healthy policies; by default all."""
    n: int = 100
    """Rollouts with each fault, and without it."""
    seed: int = 0
    """Of demonstrations, weights and scenes."""


@dataclass(frozen=True)
class Healthy:
    """A policy that works."""

    name: str
    task: str = "so100_pick_place"
    demonstrations: int = 50
    demonstrator: str = "human"
    seed: int = 0
    cameras: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None
    """Of its training; None: it is shipped in data/checkpoints, by this name."""


SHIPPED = (
    Healthy("so100_pick_place_state"),
    Healthy("so100_pick_place_vision", demonstrations=200, cameras=("top", "wrist")),
    Healthy("openarm_handover_state", "openarm_handover"),
    Healthy("so100_belt_plain", "so100_belt"),
)
TRAINED = (
    *(Healthy(f"state, seed {s}", seed=s, settings=STATE_ACT) for s in (0, 1, 2)),
    Healthy("scripted teachers", demonstrator="scripted", settings=STATE_ACT),
    Healthy("flow", settings=STATE_ACT | {"model": {"head": "flow"}}),
    Healthy(
        "two arms, insertion",
        "openarm_insertion",
        demonstrator="scripted",
        settings=TWO_ARMS_STATE.act | {"threads": 1, "val_fraction": 0.1},
    ),
)
HEALTHY = SHIPPED + TRAINED


def demonstrations(
    runs: Path, task: str, who: str, n: int, seed: int, cameras: Sequence[str] = ()
) -> Path:
    """Recorded once."""
    kind = "vision" if cameras else "state"
    out = runs / "demonstrations" / f"{task}_{kind}_{who}_{n}_{seed}"
    if len(list_episodes(out)) < n:
        record(make_task(task), out, n, demonstrator=who, seed=seed, cameras=cameras)
    return out


def altered(data: Path, fault: Fault, out: Path, n: int) -> Path:
    """Copies of demonstrations with a fault, made once."""
    if fault.data is None:
        return data
    if len(list_episodes(out)) < n:
        episodes = [load_episode(path) for path in list_episodes(data)[:n]]
        for i, episode in enumerate(fault.data(episodes)):
            if not episode_path(out, i).exists():
                save_episode(episode_path(out, i), episode)
    return out


def trained(
    out: Path, data: Path, settings: dict[str, Any], seed: int, floor: float | None
) -> Path:
    """A run's folder, trained once."""
    from act_minimal.training import train

    config = TrainConfig(data=data, out=out, seed=seed, **settings)
    usual = Windows.statistics
    changed = usual if floor is None else without_floor(floor)
    with mock.patch.object(Windows, "statistics", changed):
        train(config)
    return out


def rolled_out(policy: Policy, fault: Fault | None, n: int, seed: int) -> Rate:
    """Success with a fault, or with none."""
    some, scenes = fault or Fault("none", "arm", ()), evaluation_scenes(seed, n)
    trials = []
    for start in range(0, n, TOGETHER):
        group = scenes[start : start + TOGETHER]
        trials += roll_out(
            policy,
            lambda s: some.robot(s, policy.image_sizes),
            some.execution,
            group,
        )
    found = rate(trials)
    assert found is not None
    return found


def summary(found: Diagnosis, causes: Sequence[str]) -> Row:
    """A row's part of a diagnosis."""
    named = [x.cause for x in found.findings if x.level != "note"]
    places = [named.index(c) + 1 for c in causes if c in named]
    return {
        "place": min(places, default=None),
        "found": [
            {"cause": x.cause, "level": x.level, "measured": x.measured}
            for x in found.findings
        ],
        "verdict": found.verdict,
        "seconds": round(found.seconds, 1),
    }


def diagnosed(
    policy: Policy, data: Path, folder: Path, fault: Fault, settings: Settings
) -> Diagnosis:
    """With an arm and an execution that have the fault, if it is there."""
    evidence = gather(policy, data, folder)
    found = look(evidence)
    trials = try_out(
        evidence,
        lambda scenes: fault.robot(scenes, policy.image_sizes),
        fault.execution,
        seed=settings.seed + 1,
    )
    return judge(found, trials)


def one_fault(fault: Fault, settings: Settings) -> Row:
    """A row of the confusion table, and of the table of cures."""
    runs, seed = settings.runs, settings.seed
    name = fault.name.replace(" ", "_").replace(",", "")
    vision = fault.base != "state"
    n = 200 if fault.base == "vision" else 100 if vision else 50
    cameras = ("top", "wrist") if vision else ()
    data = demonstrations(
        runs, "so100_pick_place", "human", 200 if vision else n, seed, cameras
    )
    base = {"state": STATE_ACT, "small_vision": SMALL_VISION | {"limit": 100}}
    if fault.base == "vision":
        folder = healthy_run = CHECKPOINTS / "so100_pick_place_vision"
    else:
        healthy_run = trained(
            runs / f"{fault.base}_healthy", data, base[fault.base], seed, None
        )
        folder = healthy_run
    cured_data, cured = data, healthy_run
    if fault.trains:
        data = altered(data, fault, runs / "demonstrations" / name, n)
        more = base[fault.base] | fault.settings
        folder = trained(runs / name, data, more, seed, fault.std_floor)
        if fault.data is truncated:
            kept = [i for i in range(n) if i % 3]
            cured_data = runs / "demonstrations" / f"{name}_without"
            for place, i in enumerate(kept):
                path = episode_path(cured_data, place)
                if not path.exists():
                    save_episode(path, load_episode(episode_path(data, i)))
            cured = trained(
                runs / f"{name}_cured", cured_data, base[fault.base], seed, None
            )
        elif fault.std_floor:
            cured = trained(runs / f"{name}_cured", data, more, seed, None)
    checkpoint = find_checkpoint(folder)
    policy = load_policy(checkpoint)
    if fault.policy:
        policy = fault.policy(policy)
    found = diagnosed(policy, data, checkpoint, fault, settings)
    row = {"fault": fault.name, "where": fault.where, "causes": list(fault.causes)}
    row |= summary(found, fault.causes)
    row["with_it"] = rolled_out(policy, fault, settings.n, seed).to_json()
    none = None
    if fault.std_floor:  # the arm still has its additional number
        none = dataclasses.replace(fault, name="cured")
    row["cure"] = fault.cure
    row["cured"] = rolled_out(load_policy(cured), none, settings.n, seed).to_json()
    return row


def one_healthy(healthy: Healthy, settings: Settings) -> Row:
    """A row of the table of policies that work."""
    data = demonstrations(
        settings.runs,
        healthy.task,
        healthy.demonstrator,
        healthy.demonstrations,
        healthy.seed,
        healthy.cameras,
    )
    folder = CHECKPOINTS / healthy.name
    if healthy.settings is not None:
        name = healthy.name.replace(" ", "_").replace(",", "")
        folder = trained(
            settings.runs / f"healthy_{name}",
            data,
            healthy.settings,
            healthy.seed,
            None,
        )
    checkpoint = find_checkpoint(folder)
    policy, task = load_policy(checkpoint), make_task(healthy.task)
    evidence = gather(policy, data, checkpoint)
    found = look(evidence)
    looked = found.seconds
    trials = try_out(
        evidence,
        lambda scenes: SimRobot(task, scenes, size=policy.image_sizes),
        seed=settings.seed + 1,
    )
    judge(found, trials)
    return {
        "policy": healthy.name,
        "task": healthy.task,
        "success": found.rates["new scenes"],
        "look_seconds": round(looked, 1),
        **summary(found, ()),
    }


def kept(path: Path, make: Any) -> Row:
    """A row that is made once."""
    if not path.exists():
        begun = time.perf_counter()
        row = make()
        write_json(path, row | {"all_seconds": round(time.perf_counter() - begun, 1)})
    return read_json(path)


def main(settings: Settings) -> None:
    """Measure all, and write the result file."""
    rows: dict[str, list[Row]] = {"faults": [], "healthy": []}
    jobs: list[tuple[str, Any, Any]] = [("faults", f, one_fault) for f in FAULTS]
    jobs += [("healthy", h, one_healthy) for h in HEALTHY]
    for kind, one, make in tqdm(jobs, desc="diagnosis"):
        if settings.only and one.name not in settings.only:
            continue
        name = f"{kind}_{one.name}_{settings.seed}_{settings.n}".replace(" ", "_")
        place = settings.runs / "rows" / f"{name}.json"
        row = kept(place, lambda one=one, make=make: make(one, settings))
        tqdm.write(
            json.dumps(
                {
                    k: row.get(k)
                    for k in (
                        "fault",
                        "policy",
                        "place",
                        "verdict",
                        "with_it",
                        "success",
                    )
                }
            )
        )
        rows[kind].append(row)
    if settings.only:
        return
    named = [r for r in rows["faults"] if r["place"] in (1, 2)]
    wrong = [
        r for r in rows["healthy"] if any(f["level"] == "wrong" for f in r["found"])
    ]
    content = {
        "named_first_or_second": len(named),
        "of": len(rows["faults"]),
        "healthy_with_a_wrong_finding": len(wrong),
        "seed": settings.seed,
        "success_with": [{"fault": r["fault"], **r["with_it"]} for r in rows["faults"]],
        "success_cured": [{"fault": r["fault"], **r["cured"]} for r in rows["faults"]],
        **rows,
    }
    spent = sum(row["all_seconds"] for part in rows.values() for row in part)
    write("diagnosis", spent, content)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
