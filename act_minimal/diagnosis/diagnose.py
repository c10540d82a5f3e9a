"""From a policy, its demonstrations and perhaps an arm to a `Diagnosis`."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..checkpoint import read_json, read_log
from ..dataset import Demonstrations
from ..evaluation import check_fit, evaluation_scenes
from ..execution import ExecutionConfig
from ..policy import Policy
from ..support.errors import UserError
from . import (
    data_checks,
    policy_checks,
    start_checks,
    training_checks,
    trial_checks,
)
from .evidence import Evidence, sample, spread
from .findings import CAUSES, Diagnosis, Skipped
from .trials import MakeRobot, Trials, rate, recorded, replay, roll_out

# What makes replays fail, so that they say nothing else.
FAIL_REPLAYS = {"joint_order", "joint_sign", "units", "rate"}
FAIL_REPLAYS |= {"joint_timing", "failed_episodes", "data_faults"}


def gather(policy: Policy, data: Path, folder: Path | None = None) -> Evidence:
    """What the checks of a policy with its data look at.

    Args:
        folder: its checkpoint; that of a training run tells how it was trained.
    """
    settings, log, held_out = {}, [], None
    if folder is not None and (folder / "progress.json").exists():
        settings = read_json(folder / "progress.json").get("settings", {})
        log = read_log(folder.parent.parent)
    demos = Demonstrations.load(
        data, use_env_state=policy.uses_env_state, limit=settings.get("limit")
    )
    check_data(policy, demos)
    if settings:
        share, seed = settings.get("val_fraction", 0), settings.get("seed", 0)
        held_out = demos.split(share, seed)[1]
    frames = sample(demos, policy.chunk_size, policy.cameras, held_out=held_out)
    return Evidence(policy, demos, frames, held_out, settings, log)


def check_data(policy: Policy, demos: Demonstrations) -> None:
    """UserError if these cannot be a policy's demonstrations."""
    there = {
        "state_dim": ("joints", demos.qpos.shape[1]),
        "action_dim": ("actions", demos.action.shape[1]),
        "env_state_dim": (
            "numbers of env_state",
            0 if demos.env_state is None else demos.env_state.shape[1],
        ),
    }
    for key, (what, found) in there.items():
        wanted = getattr(policy.config, key)
        if wanted != found:
            raise UserError(
                f"the policy was trained with {wanted} {what}, but {demos.folder} has "
                f"{found}: these are not its demonstrations"
            )


def simulated(policy: Policy, name: str) -> MakeRobot:
    """What makes the arms of a simulated task; UserError if the policy cannot drive it.

    The simulator is imported here: a policy with its data needs none.
    """
    from ..sim import make_task
    from ..sim.robot import SimRobot

    task = make_task(name)
    check_fit(policy, task)
    return lambda scenes: SimRobot(task, scenes, size=policy.image_sizes)


def recorded_trials(e: Evidence, folder: Path, execution: ExecutionConfig) -> Trials:
    """Trials that were recorded as episodes; UserError if they are of another arm."""
    found = recorded(folder, e.policy.cameras, e.demos.fps)
    images = {c: e.frames.observation[f"images/{c}"] for c in e.policy.cameras}
    start = None if e.demos.env_state is None else e.demos.env_state[0]
    expected = shapes(e.demos.qpos, e.demos.action, images, start)
    for trial in found:
        there = shapes(trial.qpos, trial.action, trial.images, trial.start)
        for name, shape in there.items():
            if shape != expected.get(name, shape):
                raise UserError(
                    f"{folder} has {name} of shape {shape}, but the demonstrations "
                    f"{expected[name]}"
                )
    return Trials(e, new=found, execution=execution)


def shapes(
    qpos: np.ndarray,
    action: np.ndarray,
    images: Mapping[str, np.ndarray],
    env_state: np.ndarray | None,
) -> dict[str, tuple[int, ...]]:
    """What has to be alike in demonstrations and trials, a frame."""
    found = {"qpos": qpos.shape[1:], "action": action.shape[1:]}
    found |= {f"images/{camera}": x.shape[1:] for camera, x in images.items()}
    return found if env_state is None else found | {"env_state": env_state.shape}


def look(e: Evidence, progress: bool = False) -> Diagnosis:
    """All checks that need neither an arm nor a simulator."""
    begun = time.perf_counter()
    found = Diagnosis(e.policy.name, str(e.demos.folder))
    found.outcomes += policy_checks.finite(e)
    checks = (*policy_checks.CHECKS, *training_checks.CHECKS, *data_checks.CHECKS)
    if found.named("not_finite"):
        checks = data_checks.CHECKS
    for check in tqdm(checks, desc="policy and data", disable=not progress):
        found.outcomes += check(e)
    if found.named("not_finite"):
        looked = {x.cause for x in found.outcomes}
        why = "the policy's answers are no numbers"
        found.outcomes += [Skipped(c, why) for c in CAUSES if c not in looked]
    found.seconds = time.perf_counter() - begun
    return found


def try_out(
    e: Evidence,
    make_robot: MakeRobot,
    execution: ExecutionConfig | None = None,
    *,
    n: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> Trials:
    """Replays, and rollouts on scenes of the demonstrations and on new ones."""
    run = execution or ExecutionConfig()
    known = [data_checks.scene_of(a) for a in e.demos.attributes]
    there = np.array([i for i, scene in enumerate(known) if scene is not None], int)
    some = [int(i) for i in spread(there, n)]
    scenes = [scene for i in some if (scene := known[i]) is not None]
    with tqdm(total=3, desc="trials", disable=not progress) as bar:
        replayed = replay(e.demos, make_robot, some) if some else []
        bar.update()
        old = roll_out(e.policy, make_robot, run, scenes) if scenes else []
        bar.update()
        new = roll_out(e.policy, make_robot, run, evaluation_scenes(seed, n))
        bar.update()
    return Trials(e, new, old, replayed, run, make_robot=make_robot, episodes=some)


def judge(found: Diagnosis, trials: Trials) -> Diagnosis:
    """The checks of trials, added to what was found before."""
    begun = time.perf_counter()
    for check in (*start_checks.CHECKS, *trial_checks.CHECKS):
        named = [x.cause for x in found.findings if x.level == "wrong"]
        trials.explained = next((c for c in named if c in FAIL_REPLAYS), "")
        found.outcomes += check(trials)
    kinds = {
        "replays": trials.replayed,
        "known scenes": trials.known,
        "new scenes" if trials.known else "trials": trials.new,
    }
    for name, some in kinds.items():
        if success := rate(some):
            found.rates[name] = success.to_json()
    found.seconds += time.perf_counter() - begun
    return found
