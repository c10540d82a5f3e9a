"""Open-loop replay: recorded actions, sent to the same scenes again."""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..episodes import find_episodes, load_episode
from ..support.errors import SettingError, UserError
from ..support.files import check_output_file
from . import TASKS, make_task
from .film import Take
from .film import film as write_film
from .world import HOLD_TICKS, World


def replay(
    data: Path,
    n: int,
    *,
    task: str | None = None,
    film: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Replay the first `n` episodes of a folder; fewer if there are fewer.

    Args:
        task: one's own that they were recorded in, as "module:Class": a file that names
            code does not get it imported.
        film: also film the first twelve, into this mp4 file.

    Returns:
        `successes`, `n`, and for each of `episodes` its `success` and the largest
        difference of joint positions from the recording, in rad.

    Raises:
        UserError: no episodes, or an episode that was not recorded in a simulated
            task, at another rate, or with other joints.
    """
    if film:
        check_output_file(film, "film", ".mp4")
    if n < 1:
        raise SettingError(f"{n} episodes are to be replayed, expected at least 1")
    paths = find_episodes(data)[:n]
    rows, takes = [], []
    own = make_task(task) if task else None
    made = own
    for path in tqdm(paths, desc="replay", disable=not progress):
        episode = load_episode(path, images=False)
        name, scene = (episode.attributes.get(key) for key in ("task", "scene"))
        if name is None or scene is None or int(scene) < 0:  # an arm knows no scene
            raise UserError(
                f"{path} has no attributes 'task' and 'scene': only episodes that were "
                "recorded in simulation can be replayed in it"
            )
        if (own and own.name != name) or (not own and name not in TASKS):
            raise UserError(
                f"{path} was recorded in the task '{name}', expected "
                f"{own.name if own else 'one of ' + ', '.join(TASKS)}; a task of your "
                "own has to be named as module:Class, with --task"
            )
        made = own or make_task(str(name))
        if episode.fps != made.fps:
            raise UserError(
                f"{path} has {episode.fps:g} frames a second, but {made.name} ticks at "
                f"{made.fps} Hz: its actions would come at another speed"
            )
        if (joints := episode.action.shape[1]) != made.action_dim:
            raise UserError(
                f"{path} has actions of {joints} joints, but {made.name} has "
                f"{made.action_dim}"
            )
        world = World(made)
        world.reset([int(scene)])
        states, apart = [], 0.0
        for t in range(len(episode) + HOLD_TICKS):
            t_action = min(t, len(episode) - 1)
            if t < len(episode):
                seen = world.observe()["qpos"][0]
                apart = max(apart, float(np.abs(seen - episode.qpos[t]).max()))
            states.append(world.qpos[0].astype(np.float32))
            world.step(episode.action[t_action][None])
        ok = bool(world.success[0])
        rows.append({"episode": path.name, "success": ok, "largest_difference": apart})
        takes.append(Take(path.stem, np.stack(states), ok))
    if film and made:
        write_film(made, takes[:12], film, progress=progress)
    return {
        "n": len(rows),
        "successes": sum(row["success"] for row in rows),
        "episodes": rows,
    }
