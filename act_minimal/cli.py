"""The `act` command. `act --help` lists what it can do, `act train --help` teaches.

Heavy imports happen inside the commands: `act --help` answers at once.
"""

import json as jsonlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from act_minimal.errors import UserError
from act_minimal.execution import ExecutionConfig
from act_minimal.training_config import TrainConfig

Json = Annotated[bool, tyro.conf.arg(help="Print JSON, for machines.")]
Task = Annotated[str, tyro.conf.arg(help="Which simulated task.")]
app = tyro.extras.SubcommandApp()


@app.command
def doctor(json: Json = False) -> int:
    """Say what this machine has, what is missing, and the line that installs it."""
    from act_minimal import doctor as room

    checks = room.diagnose()
    _print(room.as_json(checks)) if json else room.render(checks)
    return 0 if room.is_ready(checks) else 1


@app.command
def record(
    out: Path,
    n: int = 50,
    task: Task = "so100_pick_place",
    demonstrator: Literal["scripted", "human"] = "human",
    cameras: tuple[str, ...] = (),
    size: tuple[int, int] = (96, 128),
    compression: Literal["raw", "jpeg"] = "jpeg",
    seed: int = 0,
    json: Json = False,
) -> int:
    """Record demonstrations by a simulated expert; only successes are kept.

    A recording that was stopped goes on when the same command is given again.

    Args:
        out: Folder for episode_0.hdf5, episode_1.hdf5, ...
        n: How many episodes the folder shall hold.
        demonstrator: scripted is clean and always alike; human varies in speed,
            pauses, approach, aim and gripper timing.
        cameras: Also record these: top wrist. Ten times slower than without.
        size: Height and width of the images.
        compression: How images are stored; raw takes ten times the space.
        seed: Decides scenes and styles.
    """
    from act_minimal.sim import make_task
    from act_minimal.sim.recording import record as record_episodes

    paths = record_episodes(
        make_task(task),
        out,
        n,
        demonstrator=demonstrator,
        seed=seed,
        cameras=cameras,
        size=size,
        compression=compression,
        progress=not json,
    )
    if json:
        _print({"folder": str(out), "episodes": [p.name for p in paths]})
    else:
        print(f"{len(paths)} episodes in {out}; look at them with: act inspect {out}")
    return 0


@app.command
def inspect(
    data: tyro.conf.Positional[Path], picture: Path | None = None, json: Json = False
) -> int:
    """Look at a dataset: counts, rates, ranges, pictures, and what is wrong with it.

    Args:
        data: Folder of episodes.
        picture: Also draw frames and actions of a few episodes into this PNG file.
    """
    from act_minimal import inspection

    report = inspection.inspect_dataset(data)
    if json:
        _print(inspection.report_json(report))
    else:
        print(inspection.render_report(report))
    if picture:
        inspection.contact_sheet(data, picture)
    return 1 if report.broken else 0


@app.command
def replay(
    data: tyro.conf.Positional[Path],
    episodes: int = 10,
    film: Path | None = None,
    json: Json = False,
) -> int:
    """Send the recorded actions to the same scenes again, without looking.

    If this fails, no policy can be blamed: the recording and the simulator disagree.

    Args:
        data: Folder of simulated episodes.
        episodes: How many to replay, from the first.
        film: Also film it, into this mp4 file.
    """
    from act_minimal.sim.replay import replay as replay_episodes

    results = replay_episodes(data, episodes, film=film, progress=not json)
    if json:
        _print(results)
    else:
        for row in results["episodes"]:
            print(f"{row['episode']}: {'success' if row['success'] else 'failure'}")
        print(f"{results['successes']} of {results['n']} succeed again")
    return 0


@app.command
def train(config: tyro.conf.OmitArgPrefixes[TrainConfig], json: Json = False) -> int:
    """Train a policy on demonstrations; the same command goes on after a stop.

    A state policy:   act train --data demos --out runs/state --threads 1
    A vision policy:  act train --data demos --out runs/vision --size medium
                          --cameras top wrist --chunk-size 50 --batch-size 32
    Several processes: torchrun --nproc-per-node 2 -m act_minimal.cli train ...
    """
    from act_minimal.training import train as run_training

    result = run_training(config, progress=not json)
    summary = {
        "checkpoint": str(result.folder),
        "steps": result.steps,
        "seconds": result.seconds,
    }
    if json:
        _print(summary | {"last": result.losses[-1] if result.losses else None})
    else:
        print(f"{result.steps} steps in {result.seconds:.0f} s: {result.folder}")
    return 0


@dataclass(frozen=True)
class EvalConfig:
    """What to roll out, and how."""

    policy: Path
    """A checkpoint folder, or a training run (its newest checkpoint is taken)."""
    task: str = "so100_pick_place"
    """Which simulated task."""
    n: int = 100
    """Number of scenes; no demonstration starts from any of them."""
    seed: int = 0
    """Decides the scenes."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    """How chunks become actions."""
    out: Path | None = None
    """Keep the rollouts here; a stopped evaluation goes on from them."""
    film: Path | None = None
    """Film some rollouts into this mp4 file: failures first, then successes."""


@app.command(name="eval")
def evaluate(config: tyro.conf.OmitArgPrefixes[EvalConfig], json: Json = False) -> int:
    """Roll a policy out on unseen scenes: success rate with its 95 % interval."""
    from act_minimal.checkpoint import find_checkpoint
    from act_minimal.evaluation import evaluate as run_rollouts
    from act_minimal.policy import load_policy

    policy = load_policy(find_checkpoint(config.policy))
    result = run_rollouts(
        policy,
        config.task,
        config.execution,
        n=config.n,
        seed=config.seed,
        out=config.out,
        progress=not json,
    )
    if config.film:
        from act_minimal.sim import make_task
        from act_minimal.sim.film import film, pick

        film(make_task(config.task), pick(result.rollouts, "policy", 8), config.film)
    _print(result.to_json()) if json else print(f"success {result}")
    return 0


@app.command
def demo(
    out: Path | None = None,
    task: Task = "so100_pick_place",
    vision: bool = False,
    seed: int = 0,
    json: Json = False,
) -> int:
    """From nothing to a rolled-out ACT: record, train, evaluate, film. One command.

    Beside ACT, single-step behaviour cloning is trained on the same demonstrations for
    the same time. About five minutes on two cores; a second call goes on where the
    first was stopped.

    Args:
        out: Folder for everything; by default runs/demo, or runs/demo_vision.
        vision: Let the policies see camera images instead of the cube's pose; takes
            about 25 minutes.
        seed: Decides demonstrations, weights and scenes.
    """
    from act_minimal.demo import run_demo

    out = out or Path("runs/demo_vision" if vision else "runs/demo")
    result = run_demo(out, task, vision=vision, seed=seed, progress=not json)
    if json:
        _print(result)
    return 0


def main(args: Sequence[str] | None = None) -> None:
    """Run the `act` command; exits with 0, 1 (something is wrong) or 2 (usage)."""
    try:
        code = app.cli(prog="act", description=__doc__.split("\n\n")[0], args=args)
    except UserError as error:
        print(f"act: {error}", file=sys.stderr)
        code = 1
    except ValueError as error:
        if not getattr(error, "is_setting", False):
            raise
        print(f"act: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt as stop:
        print(f"act: {stop or 'stopped'}", file=sys.stderr)
        code = 130
    sys.exit(code)


def _print(content: Any) -> None:
    print(jsonlib.dumps(content, indent=2))


if __name__ == "__main__":
    main()
