"""Where demonstrations were given: beside the zone (C36), and where it fails (C37)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from act_minimal.checkpoint import load_policy
from act_minimal.episodes import (
    episode_path,
    list_episodes,
    load_episode,
    save_episode,
)
from act_minimal.evaluation import Rate
from act_minimal.sim import PickPlace
from act_minimal.sim.recording import demonstrate, scene_seed
from act_minimal.sim.so100.pick_place import ZONE_SIZE
from act_minimal.sim.world import start

from ..rollouts import (
    Row,
    record_once,
    roll_out,
    rows_of,
    side_by_side,
)
from .claim import Claim, Training, jobs_of, outcome, tried

# --- C36 ------------------------------------------------------------------------------

BESIDE = (0.0, 1.0, 2.0, 3.0, 5.0)  # cm


class Beside(PickPlace):
    """The cube lies so many cm beside the zone of the demonstrations.

    Left of its middle, or farther from the arm: there the scripted expert can do it.
    """

    def __init__(self, cm: float):
        self.cm = cm
        if cm:
            self.name = f"{PickPlace.name} ({cm:g} cm beside the zone)"

    def sample(
        self, rng: np.random.Generator, place: np.ndarray | None = None
    ) -> np.ndarray:
        """A start; the first number of `place` goes along the two sides."""
        if self.cm:
            place = rng.random(3) if place is None else place
            side, along = divmod(2 * place[0], 1)
            edge = [
                -self.cm / 100 / ZONE_SIZE,
                0.25 + along / 2,
            ]  # over the zone's edge
            place = np.array([*np.roll(edge, int(side)), place[2]])
        return super().sample(rng, place)


def beside_row(path: Path, n: int, seed: int, cm: float, rollouts: int) -> Row:
    """A policy's rollouts at one distance."""
    import torch

    torch.set_num_threads(1)
    kept = path / f"rollouts_beside_{cm:g}"
    found = roll_out(load_policy(path), rollouts, seed, kept, Beside(cm))
    print(path.name, cm, "cm", found, flush=True)
    return {"policy": f"{n} demonstrations", "cm": cm, "seed": seed} | found.to_json()


def expert_row(seed: int, cm: float, n: int) -> Row:
    """Whether it can be done there at all: the scripted expert."""
    found = demonstrate(Beside(cm), range(n), "scripted", seed)
    rate = Rate(sum(bool(e.attributes["success"]) for _, e in found), n)
    return {"policy": "expert", "cm": cm, "seed": seed} | rate.to_json()


def measure_beside(settings: Training) -> Row:
    """Policies after 50 and 200 demonstrations inside the zone, and the expert."""
    numbers = (50, 200)
    jobs = {
        n: jobs_of(f"c36_{n}", settings, {"demonstrations": n}, "human", n)
        for n in numbers
    }
    trained = rows_of(
        [j for n in numbers for j in jobs[n]], settings.runs, settings.jobs
    )
    todo = [
        (settings.runs / job.name, n, job.seed, cm, settings.n)
        for n in numbers
        for job in jobs[n]
        for cm in BESIDE
    ]
    rows = side_by_side(beside_row, todo, settings.jobs)
    rows += [
        expert_row(seed, cm, settings.n) for cm in BESIDE for seed in settings.seeds
    ]
    return tried(settings, trained, rows, ("policy", "cm"))


def beside(policy: str, cm: float) -> str:
    """A number, as prose names it."""
    return f"{{{{policy='{policy}' cm={cm}}}}}"


C36 = Claim(
    "C36",
    "Objects may lie up to 5 cm beside the demonstrated places.",
    "A checklist; no number is given.",
    measure_beside,
    Training(),
    ours="The cube's pose as input. 50 demonstrations: inside their zone "
    f"{beside('50 demonstrations', 0.0)}, 1 cm beside it "
    f"{beside('50 demonstrations', 1.0)}, 2 cm {beside('50 demonstrations', 2.0)}, 3 "
    f"cm {beside('50 demonstrations', 3.0)}, 5 cm {beside('50 demonstrations', 5.0)}; "
    f"200 demonstrations: {beside('200 demonstrations', 0.0)}, "
    f"{beside('200 demonstrations', 1.0)}, {beside('200 demonstrations', 2.0)}, "
    f"{beside('200 demonstrations', 3.0)}, {beside('200 demonstrations', 5.0)}. The "
    f"scripted expert {beside('expert', 1.0)}, {beside('expert', 2.0)}, "
    f"{beside('expert', 3.0)} and {beside('expert', 5.0)}.",
)


# --- C37 ------------------------------------------------------------------------------

BASE, MORE = 25, 25  # demonstrations
SEARCHED = 200  # rollouts that show where it fails, on scenes of their own
CHOICE = 10 * MORE  # scenes that somebody could demonstrate next


def nearest_scenes(wrong: np.ndarray, offered: np.ndarray, n: int) -> list[int]:
    """Rows of `offered` (M, 3): the next nearest to each of `wrong` (F, 3) in turn."""
    chosen: list[int] = []
    far = np.linalg.norm(offered[None] - wrong[:, None], axis=-1)  # (F, M)
    while len(chosen) < n:
        for row in far:
            row = row.copy()
            row[chosen] = np.inf
            chosen.append(int(row.argmin()))
    return chosen[:n]


def places(scenes: Sequence[int]) -> np.ndarray:
    """(n, 3) where cubes lie, over the zone's edge, and their yaw over 90 degrees."""
    poses = np.stack([start(PickPlace(), scene)[6:13] for scene in scenes])
    yaw = 2 * np.arctan2(poses[:, 6], poses[:, 3])
    return np.concatenate([poses[:, :2] / ZONE_SIZE, yaw[:, None] / (np.pi / 2)], 1)


def targeted(policy: Path, data: Path, seed: int, out: Path) -> None:
    """The first demonstrations, and more from where a policy that had them fails."""
    found = roll_out(load_policy(policy), SEARCHED, seed + 50, policy / "search")
    wrong = places([r.scene for r in found.rollouts if not r.success])
    first = list_episodes(data)[:BASE]
    attempts = [
        int(str(load_episode(p).attributes["attempt"])) for p in list_episodes(data)
    ]
    offered = range(attempts[BASE - 1] + 1, attempts[BASE - 1] + 1 + CHOICE)
    scenes = places([scene_seed(seed, i) for i in offered])
    order = nearest_scenes(wrong, scenes, 2 * MORE)
    for i, path in enumerate(first):
        if not episode_path(out, i).exists():
            save_episode(episode_path(out, i), load_episode(path))
    number = len(first)
    chosen = [offered[i] for i in order]
    for _, episode in demonstrate(PickPlace(), chosen, "human", seed):
        if number < BASE + MORE and episode.attributes["success"]:
            if not episode_path(out, number).exists():
                save_episode(episode_path(out, number), episode)
            number += 1
    assert number == BASE + MORE


def measure_targeted(settings: Training) -> Row:
    """25 demonstrations, and 25 more: the next ones, or where the policy fails."""

    def jobs(name: str, data: str, **more: Any) -> list[Any]:
        labels = {"demonstrations": data}
        return jobs_of(f"c37_{name}", settings, labels, "human", BASE + MORE, **more)

    first = jobs("first", f"first {BASE}", limit=BASE)
    rows = rows_of(first, settings.runs, settings.jobs)
    rows += rows_of(
        jobs("next", f"{BASE} and the next {MORE}"), settings.runs, settings.jobs
    )
    last = []
    for before, job in zip(
        first, jobs("failing", f"{BASE} and {MORE} where it fails"), strict=True
    ):
        data = settings.runs / job.data
        how = f"targeted_{settings.steps}"
        record_once(data, "human", BASE + MORE, job.seed)
        out = data.with_name(f"{data.name}_{how}")
        if len(list_episodes(out)) < BASE + MORE:
            targeted(settings.runs / before.name, data, job.seed, out)
        last.append(replace(job, altered=how))
    rows += rows_of(last, settings.runs, settings.jobs)
    return {"steps": settings.steps} | outcome(settings, rows, ["demonstrations"])


C37 = Claim(
    "C37",
    "Where the policy drifts, give more demonstrations there: they are worth more than "
    "as many anywhere.",
    "An article: 50 more where it drifts; no number is given.",
    measure_targeted,
    Training(),
    ours="Human-like, equal updates: 25 demonstrations "
    "{{demonstrations='first 25'}}; 25 more from anywhere {{demonstrations='25 and the "
    "next 25'}}; 25 more near the scenes that the first policy failed "
    "{{demonstrations='25 and 25 where it fails'}}.",
)
