"""Demonstrations with something done to them, for claims about data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.episodes import (
    Episode,
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from act_minimal.sim.so100.arm import gripper_to_jaw
from act_minimal.sim.so100.changed_scenes import Change, ChangedPickPlace
from act_minimal.sim.world import World
from act_minimal.support.errors import UserError
from course.toolkit.faults import aside, cut_short, performed, two_styles
from course.toolkit.runs import alone

TRIES = 8
LIFTED = 0.02  # m: the cube's centre is no longer that of one on the table
MISSED = 0.04  # m: so far from where it was seen lies a cube that is not grasped
# As `act record` stores images.
COMPRESSED: Any = {"compression": "jpeg", "quality": 95}


def some(n: int, share: float, rng: np.random.Generator) -> set[int]:
    """So large a share of n numbers, by lot."""
    return set(rng.permutation(n)[: round(share * n)].tolist())


def truncated(share: float, episodes: list[Episode], seed: int) -> list[Episode]:
    """A share of them ends somewhere in its middle."""
    rng = np.random.default_rng([seed, 31])
    cut = some(len(episodes), share, rng)
    return [
        cut_short(e, int(len(e) * rng.uniform(0.3, 0.7))) if i in cut else e
        for i, e in enumerate(episodes)
    ]


def failed(share: float, episodes: list[Episode], seed: int) -> list[Episode]:
    """In a share of them the hand closes beside the cube, and goes on without it."""
    rng = np.random.default_rng([seed, 32])
    chosen = some(len(episodes), share, rng)
    return [missing(e, rng) if i in chosen else e for i, e in enumerate(episodes)]


def missing(episode: Episode, rng: np.random.Generator) -> Episode:
    """It is performed beside the cube; again where the jaw takes it along all the same.

    Raises:
        UserError: the cube is lifted wherever it lies.
    """
    for _ in range(TRIES):
        turn = rng.uniform(0, 2 * np.pi)
        moved = MISSED * np.cos(turn), MISSED * np.sin(turn)
        found = performed(episode, episode.action, moved)
        assert found.env_state is not None
        if found.env_state[:, 2].max() < LIFTED:
            return found
    raise UserError(f"{TRIES} tries: the cube is lifted wherever it lies")


def retimed(most: float, episodes: list[Episode], seed: int) -> list[Episode]:
    """All take as long as the median one; times a factor of its own, up to `most`.

    The factors, from 1 / most to most, are spread evenly, by lot.
    """
    rng, found = np.random.default_rng([seed, 33]), []
    usual = float(np.median([len(episode) for episode in episodes]))
    factors = most ** rng.permutation(np.linspace(-1, 1, len(episodes)))
    for episode, factor in zip(episodes, factors, strict=True):
        found.append(paced(episode, usual * factor))
    return found


def paced(episode: Episode, length: float) -> Episode:
    """Performed again in so many ticks; in more like its own where the cube is lost.

    Raises:
        UserError: it is lost at its own pace, too.
    """
    rest = np.repeat(episode.action[-1:], 20, 0)  # until the cube is at rest
    for try_ in range(TRIES):
        share = try_ / (TRIES - 1)
        ticks = round((1 - share) * length + share * len(episode))
        times = np.linspace(0, len(episode) - 1, ticks)
        columns = [
            np.interp(times, np.arange(len(episode)), a) for a in episode.action.T
        ]
        found = performed(episode, np.concatenate([np.stack(columns, 1), rest]))
        if found.attributes["success"]:
            return found
    raise UserError(f"{TRIES} tries: the cube is lost at every pace")


def second_style(episodes: list[Episode], seed: int) -> list[Episode]:
    """All look aside first."""
    return [aside(episode) for episode in episodes]


def redrawn(episode: Episode, change: Change) -> Episode:
    """The same moments, drawn in a changed scene."""
    world = World(ChangedPickPlace(change))
    assert episode.env_state is not None
    joints = episode.qpos.astype(float)
    joints[:, 5] = gripper_to_jaw(joints[:, 5])
    for camera, images in episode.images.items():
        drawn = np.empty_like(images)
        for t, pose in enumerate(np.concatenate([joints, episode.env_state], 1)):
            world.qpos[0] = pose
            drawn[t] = world.render(camera, images.shape[1:3])
        episode.images[camera] = drawn
    world.close()
    return episode


def camera_moves(episodes: list[Episode], seed: int) -> list[Episode]:
    """The upper camera stands up to 3 cm elsewhere, to every side, each time."""
    rng = np.random.default_rng([seed, 34])
    return [
        redrawn(e, Change(camera=tuple(rng.uniform(-0.03, 0.03, 3).tolist())))
        for e in episodes
    ]


def light_drifts(episodes: list[Episode], seed: int) -> list[Episode]:
    """The light goes from half to one and a half times the usual, over all of them."""
    factors = np.linspace(0.5, 1.5, len(episodes))
    return [
        redrawn(e, Change(light=(f, f, f)))
        for e, f in zip(episodes, factors, strict=True)
    ]


ALTERATIONS: dict[str, Callable[[list[Episode], int], list[Episode]]] = {
    **{f"truncated_{p}": partial(truncated, p / 100) for p in (10, 20, 30)},
    **{f"failed_{p}": partial(failed, p / 100) for p in (10, 20, 30)},
    "even_speed": partial(retimed, 1.0),
    "uneven_speed": partial(retimed, 1.6),
    "second_style": second_style,
    "camera_moves": camera_moves,
    "light_drifts": light_drifts,
    "two_styles": lambda episodes, seed: two_styles(episodes),
}


def altered(how: str, data: Path, seed: int) -> Path:
    """A folder of the altered demonstrations, beside that of the others; made once.

    Where somebody has made the folder already, `how` may be a name of their own.
    """
    out, paths = data.with_name(f"{data.name}_{how}"), list_episodes(data)
    with alone(out):
        if len(list_episodes(out)) < len(paths):
            episodes = [load_episode(path) for path in paths]
            for i, episode in enumerate(ALTERATIONS[how](episodes, seed)):
                if not episode_path(out, i).exists():
                    save_episode(episode_path(out, i), episode, **COMPRESSED)
    return out
