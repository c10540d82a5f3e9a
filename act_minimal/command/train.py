"""The `act train` and `act train-residual` commands."""

import os
from collections.abc import Callable
from pathlib import Path

import tyro

from ..support.results import Json, Result
from ..support.validation import Count, SceneSeed, Whole


def train_command() -> Callable[..., Result | int]:
    """`act train`, made when it is wanted: its settings import torch."""
    from ..settings import TrainConfig

    def train(
        config: tyro.conf.OmitArgPrefixes[TrainConfig], json: Json = False
    ) -> Result | int:
        r"""Train a policy on demonstrations; the same command goes on after a stop.

        The run's folder holds config.json, log.jsonl, tensorboard/ and checkpoints/.

        A state policy, then a vision policy, then several processes:

        $ act train --data demos --out runs/state --threads 1
        $ act train --data demos_vision --out runs/vision --cameras top wrist \
              --size medium --chunk-size 50 --batch-size 32 --shift-px 4
        $ act train --data large_images --out runs/small --cameras top --resize 96 128
        $ torchrun --nproc-per-node 2 -m act_minimal train --data ... --out ...
        """
        from ..evaluation import eval_command
        from ..training import train as run_training

        done = run_training(config, progress=not json)
        if not speaks():
            return 0
        return Result(
            {
                "checkpoint": str(done.folder),
                "steps": done.steps,
                "seconds": done.seconds,
                "last": done.losses[-1] if done.losses else None,
            },
            f"{done.steps} steps in {done.seconds:.0f} s: {done.folder}; roll it out "
            f"with: {eval_command(config.out)}",
        )

    return train


def train_residual(
    policy: Path,
    data: Path,
    out: Path,
    oldest: Whole | None = None,
    steps: Count = 3000,
    seed: SceneSeed = 0,
    json: Json = False,
) -> Result:
    """Train a small head that corrects each action of a chunk from what is seen now.

    For policies of state without cameras. It drives with a mode in which the arm goes
    on while its policy predicts.

    $ act train-residual --policy runs/state --data demos --out runs/corrected
    $ act eval --policy runs/corrected --mode switch --delay 8

    Args:
        policy: The checkpoint below the head; it stays as it is, and is copied.
        data: Folder of the demonstrations that it was trained on.
        out: Folder of the new checkpoint.
        oldest: Ticks that a chunk's observation is old at most; older actions are not
            corrected. By default one less than its chunks are long.
        steps: Batches of 256 actions.
        seed: Decides weights and batches.
    """
    from .. import residual
    from ..checkpoint import find_checkpoint, load_policy
    from ..dataset import Demonstrations
    from ..evaluation import eval_command
    from ..support.files import check_new_folder, check_output_folder

    for read in (data, policy):
        check_output_folder(out, apart_from=read)
    check_new_folder(out, residual.MADE_BY)
    residual.refuse_head(policy, "another head")
    below = load_policy(find_checkpoint(policy))
    demos = Demonstrations.load(data, use_env_state=below.uses_env_state)
    oldest = below.chunk_size - 1 if oldest is None else oldest
    how = {"oldest": oldest, "steps": steps, "seed": seed}
    model = residual.train_residual(below, demos, progress=not json, **how)
    residual.save_residual(out, model, below.card | {"residual": how})
    return Result(
        {"checkpoint": str(out)} | how,
        f"{out}; roll it out with: {eval_command(out, ' --mode switch --delay 8')}",
    )


def speaks() -> bool:
    """Of several processes that train together, the first speaks for all."""
    return os.environ.get("RANK", "0") == "0"
