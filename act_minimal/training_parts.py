"""The parts of a training step, each a function that `training.train` calls.

Letters: B batch, k chunk, A action, S state, E env_state, Z latent.
"""

import math
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from act_minimal.checkpoint import newest_checkpoint
from act_minimal.dataset import (
    Demonstrations,
    Windows,
    augment,
    augment_draws,
    indices_for_step,
)
from act_minimal.errors import UserError
from act_minimal.policy import Policy
from act_minimal.processes import World
from act_minimal.run_folder import Record, RunLog
from act_minimal.training_config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of a step as a share of the highest one."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant":
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def rows(config: TrainConfig, world: World) -> slice:
    """The rows of the global batch that are this process's."""
    if config.batch_size % world.size:
        raise UserError(
            f"batch_size is {config.batch_size}, expected a multiple of the "
            f"{world.size} processes"
        )
    share = config.batch_size // world.size
    return slice(world.rank * share, (world.rank + 1) * share)


def mix(*numbers: int) -> int:
    """One seed out of several numbers, without the collisions of a sum.

    Zeros at the end count for nothing: mix(1, 2) is mix(1, 2, 0).
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def make_batch(
    config: TrainConfig,
    policy: Policy,
    windows: Windows,
    step: int,
    rows: slice,
    device: torch.device,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The batch of a step and the CVAE's noise; see `train`.

    All random numbers are drawn for the global batch, whatever this process's rows,
    and in the same order, whatever is switched on.
    """
    size, random = config.batch_size, torch.Generator()
    random.manual_seed(mix(config.seed, step + 1))
    indices = indices_for_step(len(windows), size, step, config.seed)[rows]
    batch = windows.batch(indices)
    if device.type == "cuda":
        batch = {key: x.pin_memory() for key, x in batch.items()}
    batch = {key: x.to(device, non_blocking=True) for key, x in batch.items()}
    eps = None
    if policy.latent_dim:
        eps = torch.randn(size, policy.latent_dim, generator=random)[rows].to(device)
    if config.state_noise:
        for key in ("qpos", "env_state") if policy.uses_env_state else ("qpos",):
            noise = torch.randn(size, batch[key].shape[1], generator=random)[rows]
            deviation = config.state_noise * policy.scale(key).std
            batch[key] = batch[key] + noise.to(device) * deviation
    settings = config.augmentation
    if policy.cameras and settings.enabled:
        draws = augment_draws(size, len(policy.cameras), random)
        batch = augment(batch, {k: x[rows] for k, x in draws.items()}, settings)
    return batch, eps


def make_optimizer(
    policy: Policy, config: TrainConfig
) -> tuple[torch.optim.Optimizer, list[float]]:
    """AdamW, and the highest rate of each of its parameter groups."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in policy.module.named_parameters():
        rate = config.lr
        if "backbone" in name and config.backbone_lr is not None:
            rate = config.backbone_lr
        if rate == 0:
            parameter.requires_grad_(False)
        groups.setdefault(rate, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": parameters} for parameters in groups.values()],
        weight_decay=config.weight_decay,
        fused=policy.device.type in ("cpu", "cuda"),
    )
    return optimizer, list(groups)


@torch.no_grad()
def update_average(
    averages: list[nn.Parameter],
    parameters: list[nn.Parameter],
    decay: float,
    step: int,
) -> None:
    """Moves the averages towards the weights; faster at first, to forget the start."""
    decay = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(decay)(list(averages), list(parameters), None)


def log_records(
    config: TrainConfig, done: int, losses: list[list[float]], times: list[float]
) -> list[Record]:
    """Log records of the last few steps, the newest of which is `done`."""
    records = []
    for i, (row, seconds) in enumerate(zip(losses, times, strict=True)):
        step = done - len(losses) + 1 + i
        rate = config.lr * learning_rate(config, step - 1)
        loss, l1, kl, norm = row
        record: Record = {"step": step, "loss": loss, "l1": l1, "kl": kl, "lr": rate}
        records.append({**record, "grad_norm": norm, "seconds": seconds})
    return records


def refuse_nan(records: list[Record], config: TrainConfig) -> None:
    """Stops a run that has come apart, before it reaches a checkpoint.

    Raises:
        UserError: names the step, and the checkpoint that is left.
    """
    for record in records:
        for key in ("loss", "grad_norm"):
            if not math.isfinite(record[key]):
                saved = newest_checkpoint(config.out)
                kept = f"{saved} is kept" if saved else "no checkpoint was saved yet"
                raise UserError(
                    f"{key} is {record[key]} at step {record['step']}, expected a "
                    f"finite number; {kept}; a lower learning rate than "
                    f"{config.lr:g} often helps"
                )


def validate(
    policy: Policy, demos: Demonstrations, episodes: np.ndarray, frames: int
) -> Record:
    """L1 at z = 0 over frames spread evenly over the held-out episodes."""
    windows = Windows(demos, episodes, policy.chunk_size)
    chosen = np.linspace(0, len(windows) - 1, min(frames, len(windows))).astype(int)
    total, joints, count = 0.0, 0.0, 0
    for start in range(0, len(chosen), 64):
        batch = windows.batch(chosen[start : start + 64])
        batch = {key: x.to(policy.device) for key, x in batch.items()}
        valid = int((~batch["is_pad"]).sum())
        l1, per_joint = policy.validation_loss(batch)
        total, joints = total + l1.item() * valid, joints + per_joint.cpu() * valid
        count += valid
    assert isinstance(joints, Tensor)
    return {"val_l1": total / count, "val_joints": (joints / count).tolist()}


def make_card(
    config: TrainConfig,
    demos: Demonstrations,
    episodes: int,
    step: int,
    seconds: float,
    log: RunLog | None,
) -> dict[str, Any]:
    """What people want to know of a checkpoint; its success is for whoever tests it."""
    records = log.records if log else []
    last = {k: v for record in records for k, v in record.items() if k != "step"}
    return {
        "data": config.data.name,
        "episodes": episodes,
        "task": demos.attributes[0].get("task", "unknown"),
        "demonstrator": demos.attributes[0].get("demonstrator", "unknown"),
        "fps": demos.fps,
        **demos.arm,
        "seed": config.seed,
        "steps": step,
        "seconds": round(seconds, 1),
        "loss": last.get("loss"),
        "validation L1 (normalised, z = 0)": last.get("val_l1"),
        "success": "not measured",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
