"""C29: seven heads on ACT's memory, and a nearest neighbour, under equal conditions.

At the post of lesson F2, where both ways are right, all heads have one learning rate
and equal updates, and the walks on each side are counted. In the simulated tasks every
head gets the same number of trials on data and scenes of its own, which choose its
rate; then equal updates, and once equal seconds. There the head l1 is ACT with its
CVAE; the others have none. The nearest neighbour is not tuned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch

from act_minimal.checkpoint import load_policy
from act_minimal.command.demo import STATE, recipe_for
from act_minimal.dataset import Demonstrations
from act_minimal.evaluation import jerk
from act_minimal.heads import HEADS
from act_minimal.policy import Policy
from act_minimal.settings import TrainConfig
from act_minimal.support.files import read_json, write_json
from act_minimal.training import train
from course.figures import lesson_f2 as post

from ..results import machine
from ..rollouts import (
    ENSEMBLE,
    HALF,
    PICK_PLACE,
    Job,
    Row,
    every_seed,
    grouped,
    mean,
    record_once,
    roll_out,
    rows_of,
    side_by_side,
    total,
)
from .claim import Claim, Extension, Training

RATES = (1e-3, 2e-3, 4e-3)  # learning rates of the trials
TRIAL = 100  # the trials' seed: their demonstrations and scenes are nobody else's
TASKS = {
    "human": (PICK_PLACE, "human"),
    "scripted": (PICK_PLACE, "scripted"),
    "handover": ("openarm_handover", "human"),
    "insertion": ("openarm_insertion", "human"),
}
LABELS = ("task", "head", "demonstrations", "budget", "execution")
NEIGHBOURS = 10


@dataclass
class Ways(Training):
    """Sizes of C29."""

    tasks: tuple[str, ...] = ("post", *TASKS)
    heads: tuple[str, ...] = tuple(HEADS)
    demonstrations: tuple[int, ...] = (25, 50, 100, 200)
    """Of pick-and-place by human-like demonstrators; elsewhere 50."""
    seconds: float = 60.0
    """Of training, where all heads get equal time: pick-and-place, 50 human-like."""


def settings_of(task: str, head: str, rate: float, steps: int) -> Row:
    """How a head is trained: as `act demo` trains ACT, but for head, rate, updates."""
    recipe = STATE if task == PICK_PLACE else recipe_for(task, vision=False)
    model = dict(recipe.act.get("model", {})) | {"head": head}
    if task != PICK_PLACE:
        steps = recipe.act["steps"]
    return recipe.act | {"model": model, "lr": rate, "steps": steps, "threads": 1}


def trials(settings: Ways) -> list[Job]:
    """The same for each head: a policy with every rate."""
    jobs: list[Job] = []
    for head in settings.heads:
        for rate in RATES:
            how = settings_of(PICK_PLACE, head, rate, settings.steps)
            labels = {"head": head, "lr": rate}
            name = f"ways_trial_{head}_{rate:g}"
            jobs += every_seed((TRIAL,), name, labels, how, {"half": HALF})
    return jobs


def chosen(rows: list[Row]) -> dict[str, float]:
    """The rate of each head that succeeded most often in its trials."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["head"] not in best or row["rate"] > best[row["head"]]["rate"]:
            best[row["head"]] = row
    return {head: row["lr"] for head, row in best.items()}


def jobs(settings: Ways, rates: Mapping[str, float]) -> list[Job]:
    """Every head in every simulated task, with every number of demonstrations."""
    found: list[Job] = []
    for name in (task for task in settings.tasks if task in TASKS):
        task, who = TASKS[name]
        for head in settings.heads:
            how = settings_of(task, head, rates[head], settings.steps)
            for n in settings.demonstrations if name == "human" else (50,):
                for seconds in (None, settings.seconds):
                    if seconds and (name != "human" or n != 50):
                        continue
                    budget = "seconds" if seconds else "updates"
                    labels = {"task": task, "world": name, "head": head}
                    labels |= {"demonstrations": n, "budget": budget}
                    found += every_seed(
                        settings.seeds,
                        f"ways_{name}_{head}_{n}_{budget}",
                        labels,
                        how,
                        {"half": HALF},
                        who,
                        n,
                        n=settings.n,
                        seconds=seconds,
                    )
    return found


# --- a policy without a network -------------------------------------------------------


class Nearest:
    """Chunks of the nearest demonstrated moments, weighted by exp(-distance).

    The idea of VINN (Pari et al. 2021), with the state in place of a picture's features
    and chunks in place of single actions.
    """

    name, cameras, uses_env_state = "nearest", (), True

    def __init__(self, demos: Demonstrations, chunk_size: int):
        assert demos.env_state is not None
        self.chunk_size = chunk_size
        self.image_sizes: dict[str, tuple[int, int]] = {}
        seen = np.concatenate([demos.qpos, demos.env_state], 1)  # (N, S + E)
        self.mean, self.std = seen.mean(0), seen.std(0) + 1e-2
        self.seen = torch.from_numpy((seen - self.mean) / self.std).float()
        last = np.repeat(demos.starts + demos.lengths - 1, demos.lengths)  # (N,)
        rows = np.arange(len(seen))[:, None] + np.arange(chunk_size)  # (N, k)
        self.chunks = demos.action[np.minimum(rows, last[:, None])]  # (N, k, A)
        state, action = demos.qpos.shape[1], demos.action.shape[1]
        self.config = SimpleNamespace(
            state_dim=state,
            action_dim=action,
            env_state_dim=demos.env_state.shape[1],
        )

    def predict_chunk(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Actions (B, k, A)."""
        now = np.concatenate([observation["qpos"], observation["env_state"]], 1)
        place = torch.from_numpy((now - self.mean) / self.std).float()
        far, which = torch.cdist(place, self.seen).topk(NEIGHBOURS, largest=False)
        weight = (-far).softmax(1).numpy()  # (B, neighbours)
        return np.einsum("bn,bnka->bka", weight, self.chunks[which.numpy()])


def nearest_rows(world: str, n: int, seed: int, settings: Ways) -> list[Row]:
    """The nearest neighbour, executed by halves and with temporal ensembling."""
    task, who = TASKS[world]
    job = every_seed((seed,), "", {"task": task}, {}, {}, who, n)[0]
    data = record_once(settings.runs / job.data, who, n, seed, task)
    policy = Nearest(Demonstrations.load(data, use_env_state=True), 50)
    labels = {"task": task, "world": world, "head": "nearest", "demonstrations": n}
    rows = []
    for name, execution in (("half", HALF), ("ensemble", ENSEMBLE)):
        who_drives = cast(Policy, policy)
        found = roll_out(who_drives, settings.n, seed, None, task, execution)
        rows.append(
            labels
            | {"budget": "none", "seed": seed, "execution": name, "steps": 0}
            | {"train_seconds": 0.0}
            | found.to_json()
        )
        print(world, "nearest", name, found, flush=True)
    return rows


# --- the post, and the time of a chunk ------------------------------------------------


def post_row(head: str, seed: int, settings: Ways) -> Row:
    """Lesson F2's walks with one head and seed; kept."""
    torch.set_num_threads(1)
    path = settings.runs / f"ways_post_{head}_{seed}.json"
    how = {"n": settings.n, "learning": post.LEARNING, "network": post.network(head)}
    if path.exists() and (kept := read_json(path))["how"] == how:
        return kept["row"]
    data = post.teachers(settings.runs / f"post_{seed}", seed)
    out = settings.runs / f"ways_post_{head}_{seed}"
    places = {"data": data, "out": out, "seed": seed}
    config = TrainConfig(**post.LEARNING, **places, model=post.network(head))
    trained = train(config, progress=False)
    walks = post.walk(trained.policy, settings.n, seed=seed)
    row = {
        "task": "post",
        "world": "post",
        "head": head,
        "demonstrations": post.TEACHERS,
        "budget": "updates",
        "execution": "half",
        "seed": seed,
        "steps": trained.steps,
        "train_seconds": round(trained.seconds, 1),
        "went_left": int(walks.left.sum()),
        "one_place_left": float(post.choices(trained.policy, 200, seed).mean()),
        "jerk": float(np.mean([jerk(path, 30.0) for path in walks.paths])),
        "ms": post.milliseconds(trained.policy),
        **walks.rate.to_json(),
    }
    write_json(path, {"how": how, "row": row})
    print(head, seed, walks, flush=True)
    return row


def chunk_times(found: list[Job], runs: Path) -> list[Row]:
    """How long a chunk takes, of one policy a head of pick-and-place."""
    wanted = {"world": "human", "demonstrations": 50, "budget": "updates"}
    rows = []
    for job in found:
        if job.seed == 0 and all(job.labels[k] == v for k, v in wanted.items()):
            policy = load_policy(runs / job.name)
            seen = {
                "qpos": np.zeros((1, 6), np.float32),
                "env_state": np.zeros((1, 7), np.float32),
            }
            ms = post.milliseconds(policy, seen)
            rows.append({"head": job.labels["head"], "ms": ms})
    return rows


def measure(settings: Ways) -> Row:
    """Trials, then every head everywhere."""
    seeds = settings.seeds
    rows: list[Row] = []
    if "post" in settings.tasks:
        todo = [(head, seed, settings) for head in settings.heads for seed in seeds]
        rows += side_by_side(post_row, todo, settings.jobs)
    simulated = [task for task in settings.tasks if task in TASKS]
    tried, times = list[Row](), list[Row]()
    if simulated:
        tried = rows_of(trials(settings), settings.runs, settings.jobs)
        found = jobs(settings, chosen(tried))
        rows += rows_of(found, settings.runs, settings.jobs)
        times = chunk_times(found, settings.runs)
        todo = [
            (world, n, seed, settings)
            for world in simulated
            for n in (settings.demonstrations if world == "human" else (50,))
            for seed in seeds
        ]
        near = side_by_side(nearest_rows, todo, settings.jobs)
        rows += [row for part in near for row in part]
    keys = ("head", "lr", "rate", "interval", "n", "seed")
    return {
        "seeds": seeds,
        "machine_of_times": machine(),
        "trials": [{k: row[k] for k in keys} for row in tried],
        "chunk_ms": times,
        "summary": summarise([row | {"task": row["world"]} for row in rows]),
        "runs": rows,
        "seconds": sum(row.get("job_seconds", row["train_seconds"]) for row in rows),
    }


def summarise(rows: list[Row]) -> list[Row]:
    """Over the seeds."""
    found = []
    for label, group in grouped(rows, LABELS):
        row = label | total(group) | {"jerk": mean(group, "jerk")}
        row["train_seconds"] = mean(group, "train_seconds")
        row["steps"] = mean(group, "steps")
        if "ms" in group[0]:  # at the post
            row["ms"] = mean(group, "ms")
            row["went_left"] = sum(r["went_left"] for r in group) / row["n"]
            shares = [r["one_place_left"] for r in group]
            row["rarer_way"] = sum(min(p, 1 - p) for p in shares) / len(shares)
        found.append(row)
    return found


def at_post(head: str) -> str:
    """A number of the post, as prose names it."""
    return f"{{{{task=post head={head}}}}}"


def at_human(head: str) -> str:
    """The same of pick-and-place with 50 human-like demonstrations."""
    return (
        f"{{{{task=human head={head} demonstrations=50 budget=updates "
        "execution=half}}"
    )


C29 = Claim(
    "C29",
    "Diffusion and flow keep several ways that ACT averages, and cost more time.",
    "Tables that compare ACT with diffusion in articles; none says what was measured.",
    measure,
    Ways(steps=1000),
    ours="Two ways around a post, half of the teachers each, one small network with "
    f"another head each time: L1 passes {at_post('l1')}, two passes (MIP) "
    f"{at_post('mip')}, flow {at_post('flow')}, L1 flow {at_post('l1_flow')}, "
    f"diffusion {at_post('diffusion')}, a mixture {at_post('mdn')}, bins "
    f"{at_post('bins')}. Asked again and again for one observation the flow takes the "
    f"rarer way in {at_post('flow -> rarer_way percent')}; L1 and MIP always take one. "
    f"A chunk takes {at_post('l1 -> ms 1')} ms with L1; with five steps of a flow "
    f"{at_post('flow -> ms 1')} ms, of a diffusion {at_post('diffusion -> ms 1')} ms.",
    verdict="under a condition",
    line="For one observation flow keeps both ways and L1 takes one; looking again in "
    "time, both pass a post.",
    why="L1 takes a side by where the hand starts; between the sides lies a band in "
    "which its first chunk leads through the post (lesson F2). A second pass without "
    "noise (MIP) passes as often as a flow.",
    extension=Extension(
        "pick-and-place with 25 to 200 demonstrations, handover, insertion, equal "
        "seconds, and a nearest neighbour",
        "Pick-and-place, 50 human-like demonstrations, equal updates: L1 "
        + at_human("l1")
        + ", MIP "
        + at_human("mip")
        + ", flow "
        + at_human("flow")
        + ", diffusion "
        + at_human("diffusion")
        + ".",
    ),
)
