"""`act demo`: demonstrations, training, rollouts, film and result, in one command.

A second call after Ctrl-C or kill -9 goes on from the files that the first one left.
"""

import math
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from ..checkpoint import load_policy, save_policy
from ..evaluation import Evaluation, evaluate, evaluation_scenes
from ..execution import ExecutionConfig
from ..settings import TrainConfig
from ..support.console import make_console
from ..support.errors import UserError
from ..support.files import atomic_file, check_output_folder, read_json, write_json
from ..support.gl import GLError, require_gl
from ..training import TrainingInterrupted, TrainResult, train

USUAL = "so100_pick_place"
TRIAL_SECONDS = 5.0  # a shorter trial is off by a fifth where other programs run
MOST_TRIAL_STEPS = 4000


@dataclass(frozen=True)
class Recipe:
    """What `act demo` does, without or with cameras."""

    demonstrations: int
    cameras: tuple[str, ...]
    act: dict[str, Any]
    """ACT's training settings, on top of `TrainConfig`'s defaults."""
    single_step: dict[str, Any]
    """The baseline's: same data, augmentation and noise, for as long as ACT takes."""
    execution: ExecutionConfig
    rollouts: int = 100


STATE = Recipe(
    demonstrations=50,
    cameras=(),
    act={
        "policy": "act",
        "chunk_size": 50,
        "model": {"cvae_actions_per_token": 10},
        "steps": 3000,
        "lr": 2e-3,
        "state_noise": 0.02,
        "threads": 2,
    },
    # The best of those tried: benchmarks/rollouts.py, `single_step`.
    single_step={
        "policy": "bc_mlp",
        "action_target": "delta",
        "lr": 2e-3,
        "state_noise": 0.02,
        "threads": 1,  # two make so small a network slower
    },
    execution=ExecutionConfig(),
)
VISION = Recipe(
    demonstrations=200,
    cameras=("top", "wrist"),
    act={
        "policy": "act",
        "size": "medium",
        "chunk_size": 50,
        "model": {"cvae_actions_per_token": 10, "image_pool": 2},
        "steps": 7500,
        "batch_size": 32,
        "shift_px": 4,
        "state_noise": 0.02,
        "threads": 2,
    },
    single_step={
        "policy": "bc_mlp",
        "action_target": "delta",
        "model": {},
        "batch_size": 32,
        "shift_px": 4,
        "state_noise": 0.02,
        "threads": 2,
    },
    execution=ExecutionConfig(),
)

# Two arms at 50 Hz: twice the ticks and three times the joints, so more steps. 6000
# steps, or chunks of 100, were no better.
TWO_ARMS_STATE = replace(STATE, act=STATE.act | {"steps": 4000})
# Three cameras and 9 s an episode: 100 demonstrations are 5 GB of images.
TWO_ARMS_VISION = replace(
    VISION, demonstrations=100, cameras=("top", "right_wrist", "left_wrist")
)


def recipe_for(task_name: str, vision: bool) -> Recipe:
    """What `act demo` does with a task, without or with cameras."""
    if task_name.startswith("openarm"):
        return TWO_ARMS_VISION if vision else TWO_ARMS_STATE
    return VISION if vision else STATE


def default_folder(task_name: str, vision: bool) -> Path:
    """Where a demo goes if nobody says where: each task and kind has its own."""
    words = ["demo"] if task_name == USUAL else ["demo", task_name]
    return Path("runs") / "_".join([*words, "vision"] if vision else words)


def run_demo(
    out: Path,
    task_name: str = USUAL,
    *,
    vision: bool = False,
    seed: int = 0,
    recipe: Recipe | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Run the whole course of a policy's life, and write `out/result.json`.

    Args:
        vision: cameras instead of the object's pose.
        seed: decides demonstrations, weights and scenes.
        recipe: by default that of `recipe_for`.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: bad settings, or `out` holds a demo with others.
    """
    from ..sim import make_task
    from ..sim.film import Take, film
    from ..sim.recording import record

    evaluation_scenes(seed, (recipe or STATE).rollouts)  # refuses a bad seed at once
    console = make_console(quiet=not progress)
    task = make_task(task_name)
    recipe = recipe or recipe_for(task_name, vision)
    clock = Clock(out, {"task": task_name, "vision": vision, "seed": seed})
    if (out / "result.json").exists():
        result = read_json(out / "result.json")
        console.print(_table(result))
        console.print(f"All of it was in {out} already; --out starts another demo.")
        return result
    if recipe.cameras:
        require_gl()
    console.print(
        f"[bold]act demo[/] → {out}: {recipe.demonstrations} demonstrations, ACT, "
        "single-step cloning, rollouts. Ctrl-C stops; the same command goes on."
    )

    with clock.stage("record"):
        record(
            task,
            out / "demonstrations",
            recipe.demonstrations,
            demonstrator="human",
            seed=seed,
            cameras=recipe.cameras,
            progress=progress,
        )
    common = TrainConfig(
        data=out / "demonstrations",
        out=out / "act",
        seed=seed,
        cameras=recipe.cameras,
        val_fraction=0.0,  # fifty demonstrations are few: rollouts judge the policy
    )
    console.print("Training ACT")
    with clock.stage("train_act"):
        act = train(replace(common, **recipe.act), progress=progress)
    console.print("Training single-step behaviour cloning for the same time")
    with clock.stage("train_single_step"):
        baseline = _train_for(act.seconds, common, recipe, clock, progress)

    results: dict[str, Evaluation] = {}
    for name, trained in {"act": act, "single_step": baseline}.items():
        console.print(f"Rolling out {name} on {recipe.rollouts} unseen scenes")
        with clock.stage(f"evaluate_{name}"):
            results[name] = evaluate(
                trained.policy,
                task_name,
                recipe.execution,
                n=recipe.rollouts,
                seed=seed,
                out=out / "rollouts" / name,
                progress=progress,
            )
    with clock.stage("film"):
        _draw_losses(act, baseline, out / "loss.png")
        card = read_json(act.folder / "card.json")
        card["success"] = results["act"].to_json()
        trained = load_policy(act.folder)
        save_policy(out / "checkpoint", trained, card, made_by="act demo")
        # The same scenes for both, and the first ones, whatever their outcome.
        takes = [
            Take(f"{title} {r.scene}", r.qpos, r.success, policy)
            for title, key, policy in (
                ("ACT", "act", trained),
                ("single step", "single_step", baseline.policy),
            )
            for r in results[key].rollouts[:4]
        ]
        try:
            film(task, takes, out / "film.mp4", progress=progress)
        except GLError as error:
            console.print(f"[bold]No film:[/] {error}")

    result = {
        "command": _command(task_name, vision, seed),
        "task": task_name,
        "seed": seed,
        "demonstrations": recipe.demonstrations,
        "demonstrator": "human",
        "execution": asdict(recipe.execution),
        "act": results["act"].to_json()
        | {"train_seconds": act.seconds, "train_steps": act.steps}
        | {"settings": recipe.act},
        "single_step": results["single_step"].to_json()
        | {"train_seconds": baseline.seconds, "train_steps": baseline.steps}
        | {"settings": recipe.single_step},
        "seconds": clock.seconds | {"total": sum(clock.seconds.values())},
        "versions": versions(),
    }
    write_json(out / "result.json", result)
    console.print(_table(result))
    console.print(f"result.json, film.mp4, loss.png and checkpoint/ are in {out}")
    return result


def _command(task_name: str, vision: bool, seed: int) -> str:
    task = "" if task_name == USUAL else f" --task {task_name}"
    return f"act demo{task}{' --vision' if vision else ''} --seed {seed}"


class Clock:
    """Seconds of each stage, over all calls; kept in `out/stages.json`.

    UserError if the folder belongs to a demo with other settings, or to none.
    """

    def __init__(self, out: Path, settings: dict[str, Any]):
        check_output_folder(out, "a demo")
        self.path = out / "stages.json"
        found = read_json(self.path) if self.path.exists() else {}
        if found and found.get("settings") != settings:
            raise UserError(
                f"{out} holds a demo with {found.get('settings')}, not {settings}; "
                "choose another folder with --out"
            )
        if not found and out.exists() and any(out.iterdir()):
            raise UserError(
                f"{out} is not empty, and holds no demo ({self.path.name} is missing); "
                "choose another folder with --out"
            )
        self.settings = settings
        self.seconds: dict[str, float] = found.get("seconds", {})
        self.notes: dict[str, Any] = found.get("notes", {})
        self.keep()  # at once: by this file a demo that was killed is known again

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage; a killed call's share is lost."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            self.keep()

    def note(self, name: str, value: Any) -> None:
        """Remember a decision, so that a second call makes the same."""
        self.notes[name] = value
        self.keep()

    def keep(self) -> None:
        write_json(
            self.path,
            {"settings": self.settings, "seconds": self.seconds, "notes": self.notes},
        )


def _train_for(
    seconds: float, common: TrainConfig, recipe: Recipe, clock: Clock, progress: bool
) -> TrainResult:
    config = replace(common, out=common.out.with_name("single_step"))
    config = replace(config, **recipe.single_step)
    if "single_step_steps" not in clock.notes:
        clock.note("single_step_steps", steps_that_fit(config, seconds))
    steps = clock.notes["single_step_steps"]
    return train(replace(config, steps=steps), progress=progress)


def steps_that_fit(config: TrainConfig, seconds: float) -> int:
    """How many steps of this run take so many seconds on this machine.

    For comparisons at equal training time: a run with a fixed number of steps can be
    repeated exactly, one that watches the clock cannot. Measures at least
    `TRIAL_SECONDS` of real steps in a temporary folder, after `log_every` to warm up;
    validations and checkpoints are not counted.
    """
    every = config.log_every
    steps = max(40, 4 * every)
    while True:
        clock = _lap_times(config, steps)
        span, counted = clock[-1] - clock[0], steps - every
        if span >= TRIAL_SECONDS or steps >= MOST_TRIAL_STEPS:
            return max(1, int(seconds * counted / span))
        laps = math.ceil(1.2 * TRIAL_SECONDS * counted / span / every)
        steps = every * (1 + laps)


def _lap_times(config: TrainConfig, steps: int) -> list[float]:
    """When a trial run reached each look at the losses, every `log_every` steps."""
    clock: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trial = replace(config, out=Path(folder), steps=steps, val_every=0, keep=0)
        trial = replace(trial, save_every=steps, tensorboard=False)
        try:
            train(
                trial,
                on_step=lambda record: clock.append(time.perf_counter()),
                progress=False,
            )
        except TrainingInterrupted:
            raise KeyboardInterrupt(
                "stopped while counting steps; the same command goes on"
            ) from None
    return clock


def _draw_losses(act: TrainResult, baseline: TrainResult, path: Path) -> None:
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    looks = (("ACT", act, "#0072B2", "-"), ("single step", baseline, "#D55E00", "--"))
    for label, result, colour, line in looks:
        rows = [r for r in result.losses if "l1" in r]
        loss = np.array([r["l1"] for r in rows])
        window = max(1, len(loss) // 50)
        smooth = np.convolve(loss, np.ones(window) / window, "valid")
        seconds = [r["seconds"] for r in rows][window - 1 :]
        axes.plot(seconds, smooth, line, color=colour, label=label)
    axes.set(xlabel="training time (s)", ylabel="L1, in standard deviations")
    axes.set_yscale("log")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def _table(result: dict[str, Any]) -> Table:
    table = Table("", "success", "n", "95 % interval", "training", "time to success")
    rows = (("ACT", "act"), ("single-step cloning", "single_step"))
    for title, name in rows:
        r = result[name]
        low, high = (100 * x for x in r["interval"])
        quick = r["seconds_to_success"]
        table.add_row(
            title,
            f"{100 * r['rate']:.0f} %",
            str(r["n"]),
            f"{low:.0f}-{high:.0f} %",
            f"{r['train_seconds']:.0f} s",
            f"{quick:.1f} s" if quick else "-",
        )
    return table


def versions() -> dict[str, str]:
    """What a number depends on."""
    names = ("torch", "mujoco", "numpy", "act-minimal")
    return {"python": platform.python_version()} | {n: version(n) for n in names}
