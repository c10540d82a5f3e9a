"""Demonstrations by an expert, recorded as episodes; a second call goes on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm.auto import tqdm

from ..datasets.embodiment import UNITS, arm_attributes, joint_names
from ..episodes import (
    Episode,
    episode_path,
    list_episodes,
    load_episode,
    next_episode,
    save_next_episode,
)
from ..support.errors import SettingError, UserError
from ..support.files import check_output_folder, sole_writer
from ..support.validation import Side, check_value
from .demonstrators import Demonstrator, make_expert
from .world import DEMONSTRATION_SCENES, SCENES_A_RUN, Task, Unreachable, World

TOGETHER = 8  # scenes recorded side by side
SETTLE = 20  # ticks a demonstration may take to come to rest after its plan


def record(
    task: Task,
    out: Path,
    n: int,
    *,
    demonstrator: str = "scripted",
    seed: int = 0,
    cameras: Sequence[str] = (),
    size: tuple[int, int] = (96, 128),
    compression: Literal["raw", "jpeg"] = "jpeg",
    progress: bool = True,
) -> list[Path]:
    """Record `n` successful demonstrations into `out`; returns the first `n` paths.

    Attempt number i always gives the same episode, whatever was recorded before, so a
    recording that was killed goes on to the very files it would have written.

    Args:
        out: folder; episodes that are there already are kept and counted. Where some
            were removed, the next one gets the number after the highest.
        demonstrator: "scripted" or "human".
        seed: decides scenes and styles.
        cameras: recorded at `size` (H, W).

    Raises:
        SettingError: a setting is out of range, or the task has no such camera.
        UserError: `out` holds another recording, the disk is full, or the expert fails
            far too often.
    """
    _check_settings(task, n, seed, cameras, size)
    check_output_folder(out, "episodes")
    origin = {"task": task.name, "demonstrator": demonstrator, "seed": seed}
    with sole_writer(out):
        done = list_episodes(out)
        first = _next_attempt(out, done, origin, cameras, size)
        count = len(done)
        if count >= n:
            return done[:n]
        most = first + 2 * (n - count) + 50
        bar = tqdm(total=n, initial=count, desc="recording", disable=not progress)
        attempts = range(first, most)
        with ThreadPoolExecutor(1) as writer, bar:
            saving = None
            for attempt, episode in demonstrate(
                task, attempts, demonstrator, seed, cameras=cameras, size=size
            ):
                if not episode.attributes["success"]:
                    continue
                episode.attributes["attempt"] = attempt
                if saving:
                    saving.result()
                saving = writer.submit(
                    save_next_episode, out, episode, compression=compression, quality=95
                )
                count += 1
                bar.update()
                if count == n:
                    saving.result()
                    return list_episodes(out)[:n]
        raise UserError(
            f"{out}: only {count} of {n} demonstrations succeeded in {most} attempts; "
            "the task or the expert has changed"
        )


def demonstrate(
    task: Task,
    attempts: Sequence[int],
    demonstrator: str,
    seed: int,
    *,
    cameras: Sequence[str] = (),
    size: tuple[int, int] = (96, 128),
) -> Iterator[tuple[int, Episode]]:
    """Yield (attempt, episode) in order, failures too (attribute `success`)."""
    expert = make_expert(task, demonstrator)  # refuses an unknown demonstrator
    world = World(task, TOGETHER)
    origin = {"task": task.name, "demonstrator": demonstrator, "seed": seed}
    try:
        for start in range(0, len(attempts), TOGETHER):
            group = attempts[start : start + TOGETHER]
            scenes = [scene_seed(seed, i) for i in group]
            world.reset(scenes + scenes[:1] * (TOGETHER - len(group)))
            found = [_plan(expert, world, j, s) for j, s in enumerate(scenes)]
            here = world.observe()["qpos"]
            plans = [here[[j]] if x is None else x for j, x in enumerate(found)]
            for j, episode in enumerate(_play(world, plans, cameras, size)):
                episode.attributes |= origin | {"scene": scenes[j]}
                if found[j] is None:
                    episode.attributes["success"] = False
                yield group[j], episode
    finally:
        world.close()


def scene_seed(seed: int, attempt: int) -> int:
    """The number of a demonstration's scene."""
    return DEMONSTRATION_SCENES + SCENES_A_RUN * seed + attempt


def _plan(expert: Demonstrator, world: World, j: int, scene: int) -> np.ndarray | None:
    """Actions (T, A) of an attempt; None where a style aims beyond the arm's reach."""
    try:
        return expert.plan(world.qpos[j], scene)
    except Unreachable:
        return None


def _play(
    world: World, plans: list[np.ndarray], cameras: Sequence[str], size: tuple[int, int]
) -> list[Episode]:
    n = len(plans)
    rows: list[dict[str, list]] = [{} for _ in plans]
    alive = np.arange(n)
    while len(alive):
        observation = world.observe(cameras, size, alive)
        tick = int(world.ticks[alive[0]])
        action = np.zeros((world.n, world.task.action_dim))
        for j in alive:
            action[j] = plans[j][min(tick, len(plans[j]) - 1)]
            for key in observation:
                rows[j].setdefault(key, []).append(observation[key][j])
            rows[j].setdefault("action", []).append(action[j].astype(np.float32))
        world.step(action, alive)
        over = [len(plans[j]) + (0 if world.success[j] else SETTLE) for j in alive]
        alive = alive[world.ticks[alive] < over]
    robot = world.task.robot
    known = joint_names(robot, world.task.action_dim)
    joints = known or list(world.task.joints)
    about_arm = arm_attributes(robot, joints, UNITS)
    episodes = []
    for j in range(n):
        arrays = {key: np.stack(value) for key, value in rows[j].items()}
        images = {c: arrays[f"images/{c}"] for c in cameras}
        episodes.append(
            Episode(
                qpos=arrays["qpos"],
                qvel=arrays["qvel"],
                effort=arrays["effort"],
                action=arrays["action"],
                env_state=arrays["env_state"],
                images=images,
                fps=world.task.fps,
                attributes={"success": bool(world.success[j]), **about_arm},
            )
        )
    return episodes


def _check_settings(
    task: Task, n: int, seed: int, cameras: Sequence[str], size: tuple[int, int]
) -> None:
    if not 1 <= n <= SCENES_A_RUN // 3:
        raise SettingError(f"n is {n}, expected from 1 to {SCENES_A_RUN // 3} episodes")
    if seed < 0:
        raise SettingError(f"seed is {seed}, expected at least 0")
    check_value("size", tuple(size), tuple[Side, Side])
    for camera in cameras:
        if camera not in task.cameras or list(cameras).count(camera) > 1:
            raise SettingError(
                f"no camera '{camera}' to record once in {task.name}; "
                f"its cameras are: {', '.join(task.cameras)}"
            )


def _next_attempt(
    out: Path,
    done: list[Path],
    origin: dict,
    cameras: Sequence[str],
    size: tuple[int, int],
) -> int:
    """The attempt after the last episode's, if those here are of this recording."""
    last = episode_path(out, next_episode(out) - 1)
    if done and done[-1] != last:
        raise UserError(
            f"{out} holds {done[-1].name}, which is no name that a recording gives; "
            "choose another folder"
        )
    attempt = -1
    wanted = origin | {"cameras": {c: tuple(size) for c in cameras}}
    for path in {done[0], done[-1]} if done else ():
        episode = load_episode(path)
        found: dict = {key: episode.attributes.get(key) for key in origin}
        found["cameras"] = {c: i.shape[1:3] for c, i in episode.images.items()}
        for key, value in wanted.items():
            if found[key] != value:
                raise UserError(
                    f"{path} was recorded with {key} {found[key]}, but now {key} "
                    f"{value} is asked for; choose another folder"
                )
        attempt = max(attempt, int(episode.attributes["attempt"]))
    return attempt + 1
