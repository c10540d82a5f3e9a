"""Training: one loop, on one machine or many. `train` reads from top to bottom.

Whatever is random in a step depends on the seed and the number of the step alone. So a
run that was killed goes on as if nothing had happened, and several processes, each with
its slice of the batch, compute what one would.

    torchrun --nproc_per_node=2 -m act_minimal train ...

Letters: B batch (of all processes together), k chunk, A action, S state, E env_state,
Z latent.
"""

import copy
import math
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm.auto import tqdm

from .checkpoint import (
    Record,
    RunLog,
    check_run_folder,
    newest_checkpoint,
    resume,
    save_checkpoint,
)
from .dataset import Demonstrations, Windows, indices_for_step
from .images import Resizing, augment, augment_draws
from .model import uncounted
from .policy import Policy, make_policy
from .settings import ACTConfig, TrainConfig, as_json, make_config
from .support.errors import UserError
from .support.files import sole_writer
from .support.processes import World, catch_interrupts, join, private_state


@dataclass
class TrainResult:
    """What a run leaves."""

    policy: Policy
    """The trained policy (EMA weights), in eval mode."""
    folder: Path
    """Its checkpoint, for `load_policy`."""
    steps: int
    """Steps done, those before a resume included."""
    seconds: float
    """Seconds of training, likewise; loading data and starting up are not in it."""
    losses: list[Record]
    """The records of log.jsonl: step, loss, l1, kl, lr, grad_norm, seconds for each
    step, and step, val_l1, val_joints, seconds for each validation."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C: a checkpoint has been saved, and the message says how to go on."""


def train(
    config: TrainConfig,
    *,
    demonstrations: Demonstrations | None = None,
    on_step: Callable[[Record], None] | None = None,
    progress: bool = True,
) -> TrainResult:
    """Trains a policy, or goes on with the run that `config.out` holds.

    On a CPU, a run that was interrupted and goes on computes exactly what it would
    have computed without (with the same number of threads).

    Args:
        demonstrations: saves loading `config.data` again; must be the same.
        on_step: called with the newest record every `log_every` steps, and with each
            validation's; the course's `LiveCurve` is one for a notebook.

    Raises:
        UserError: bad settings or data, another run in `out`, a loss that is not
            finite, a full disk. Checkpoints saved before are left as they are.
        TrainingInterrupted: Ctrl-C, after saving a checkpoint.
        KeyboardInterrupt: Ctrl-C before the first step; nothing was trained.
    """
    with ExitStack() as stack:
        world = stack.enter_context(join(config.device))
        stack.enter_context(private_state(config.threads, world.device))
        mine = rows(config, world)
        check_run_folder(config.out, config.data)

        # The data. Process 0 first: it may have to make the image cache.
        with world.first():
            demos = demonstrations or load_demonstrations(config, progress=progress)
        chunk_size = config.chunk_size or default_chunk(config)
        train_ids, val_ids = demos.split(config.val_fraction, config.seed)
        windows = Windows(demos, train_ids, chunk_size, config.pad)
        statistics = windows.statistics(delta=config.action_target == "delta")
        if ahead := config.model.get("future_max"):
            windows = Windows(demos, train_ids, chunk_size + int(ahead), config.pad)

        # The policy, its average over time, the optimizer.
        torch.manual_seed(mix(config.seed, 0))
        settings = network_settings(config, demos)
        policy = make_policy(
            config.policy,
            statistics,
            size=config.size,
            action_target=config.action_target,
            **settings,
        )
        policy.resizing = demos.resizing
        policy.to(world.device).train()
        averaged = copy.deepcopy(policy) if config.ema_decay else policy
        optimizer, rates = make_optimizer(policy, config)
        parameters = list(policy.module.parameters())
        averages = list(averaged.module.parameters())

        # Where an earlier run stopped.
        plain = as_json(config)
        if world.rank == 0:
            stack.enter_context(sole_writer(config.out))
        start, before = resume(config.out, policy, averaged, optimizer, plain)
        log = None
        if world.rank == 0:
            log = RunLog(config.out, start, config.tensorboard, plain)
            stack.callback(log.close)

        model: nn.Module = policy
        if config.compile:
            policy.module.compile()
        if world.size > 1:
            # static_graph: some weights may never be used (see `decoder_output`).
            model = DistributedDataParallel(policy, static_graph=True)

        # The loop. The next batch is made while this one is computed. From here on
        # Ctrl-C waits for the end of a step; before, there is nothing to save.
        interrupted = stack.enter_context(catch_interrupts())
        pool = stack.enter_context(ThreadPoolExecutor(1))
        hidden = not progress or world.rank > 0
        bar = tqdm(total=config.steps, initial=start, desc="train", disable=hidden)
        stack.enter_context(bar)
        began = time.perf_counter() - before
        pending: list[Tensor] = []  # losses still on the device
        times: list[float] = []

        def fetch(step: int) -> tuple[dict[str, Tensor], Tensor | None]:
            """This process's rows of a step's batch, augmented, on the device."""
            return make_batch(config, policy, windows, step, mine, world.device)

        next_batch = pool.submit(fetch, start)
        for step in range(start, config.steps):
            batch, eps = next_batch.result()
            if step + 1 < config.steps:
                next_batch = pool.submit(fetch, step + 1)
            rate = learning_rate(config, step)
            for group, highest in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = highest * rate

            seed_dropout(world.device, mix(config.seed, step + 1, 1 + world.rank))
            count = None
            if world.size > 1:  # mean over all processes' valid steps, not over means
                count = world.mean((~uncounted(batch)).sum().float())
            with torch.autocast(world.device.type, torch.bfloat16, config.bf16):
                loss, parts = model(batch, eps, count)
            loss.backward()
            longest = config.grad_clip or math.inf
            norm = nn.utils.clip_grad_norm_(parameters, longest)
            optimizer.step()
            optimizer.zero_grad()
            if averaged is not policy:
                update_average(averages, parameters, config.ema_decay, step)
            kl = parts.get("kl", torch.zeros_like(norm))
            kind = "l1" if "l1" in parts else "error"  # of heads with one of their own
            pending.append(torch.stack([loss.detach(), parts[kind], kl, norm]))
            times.append(time.perf_counter() - began)

            done = step + 1
            saving = is_due(done, config.save_every, config)
            validating = len(val_ids) > 0 and is_due(done, config.val_every, config)
            logging = saving or validating or is_due(done, config.log_every, config)
            stopping = interrupted.is_set()
            if world.size > 1:  # all processes must stop at the same step
                stopping = logging and world.any(stopping)
            if logging or stopping:
                losses = world.mean(torch.stack(pending)).tolist()
                records = log_records(config, done, losses, times, kind)
                refuse_nan(records, config)
                pending, times = [], []
                if log is not None:
                    log.write(records)
                    bar.set_postfix_str(f"loss {records[-1]['loss']:.4f}", False)
                    bar.update(done - bar.n)
                    if on_step is not None:
                        on_step(records[-1])
            if log is not None and validating:
                record = validate(averaged, demos, val_ids, config.val_frames)
                seconds = time.perf_counter() - began
                record = {"step": done, **record, "seconds": seconds}
                log.write([record])
                if on_step is not None:
                    on_step(record)
            if log is not None and (saving or stopping):
                seconds = time.perf_counter() - began
                state = {"step": done, "seconds": seconds, "settings": plain}
                card = make_card(config, demos, len(train_ids), done, seconds, log)
                save_checkpoint(
                    config.out, policy, averaged, optimizer, state, card, config.keep
                )
            if stopping and done < config.steps:
                raise TrainingInterrupted(
                    f"stopped after step {done} of {config.steps}; the same command "
                    f"goes on from the checkpoint in {config.out}"
                )

        seconds = time.perf_counter() - began if start < config.steps else before
        world.barrier()
        folder = newest_checkpoint(config.out)
        assert folder is not None
        return TrainResult(
            policy=averaged.eval(),
            folder=folder,
            steps=config.steps,
            seconds=seconds,
            losses=log.records if log else [],
        )


# ---------------------------------------------------------------- what a run needs


def load_demonstrations(
    config: TrainConfig, *, progress: bool = False
) -> Demonstrations:
    """The demonstrations that a configuration asks for."""
    no_cameras = not config.cameras
    return Demonstrations.load(
        config.data,
        cameras=config.cameras,
        use_env_state=no_cameras
        if config.use_env_state is None
        else config.use_env_state,
        cache=config.cache,
        resizing=Resizing(config.resize, config.resize_mode) if config.resize else None,
        limit=config.limit,
        progress=progress,
    )


def default_chunk(config: TrainConfig) -> int:
    """The chunk size where the configuration leaves it open."""
    if config.policy == "bc_transformer":
        return 1
    return make_config(config.policy, config.size, state_dim=1, action_dim=1).chunk_size


def network_settings(config: TrainConfig, demos: Demonstrations) -> dict[str, Any]:
    """What `make_policy` needs to know: the data's shapes and the user's wishes."""
    env_state = demos.env_state
    settings: dict[str, Any] = {
        "state_dim": demos.qpos.shape[1],
        "action_dim": demos.action.shape[1],
        "env_state_dim": 0 if env_state is None else env_state.shape[1],
        "cameras": demos.cameras,
        "chunk_size": config.chunk_size or default_chunk(config),
    }
    sizes = {camera: images.shape[1:3] for camera, images in demos.images.items()}
    if config.resize and set(sizes.values()) - {tuple(config.resize)}:
        raise UserError(
            f"resize is {config.resize}, but the demonstrations have {sizes}"
        )
    if sizes:
        settings["image_size"] = tuple(sizes.values())
    return settings | config.model


# ---------------------------------------------------------------- a step's parts


def is_due(done: int, every: int, config: TrainConfig) -> bool:
    """Whether this step is the last one, or one of `every` so many; 0 is never."""
    return every > 0 and (done % every == 0 or done == config.steps)


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
    """One seed out of several numbers, without the collisions of a sum."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seed_dropout(device: torch.device, seed: int) -> None:
    """`torch.manual_seed` for one device.

    That formats the stack of calls for each kind of device which is not there: half a
    millisecond in a notebook, where a perceptron's step takes four.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.get_device_module(device).manual_seed(seed)


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
    noises = {}
    if config.state_noise:
        for key in ("qpos", "env_state") if policy.uses_env_state else ("qpos",):
            noise = torch.randn(size, batch[key].shape[1], generator=random)[rows]
            deviation = config.state_noise * policy.scale(key).std
            noises[key] = noise.to(device) * deviation
    if policy.told_max:
        batch = tell_ahead(batch, policy, random, size, rows)
    batch |= {key: batch[key] + noise for key, noise in noises.items()}
    if policy.shows_noise:
        shape = size, policy.chunk_size, policy.config.action_dim
        batch["noise"] = torch.randn(shape, generator=random)[rows].to(device)
        batch["time"] = torch.rand(size, generator=random)[rows].to(device)
    settings = config.augmentation
    if policy.cameras and settings.enabled:
        draws = augment_draws(size, len(policy.cameras), random)
        batch = augment(batch, {k: x[rows] for k, x in draws.items()}, settings)
    return batch, eps


def tell_ahead(
    batch: dict[str, Tensor],
    policy: Policy,
    random: torch.Generator,
    size: int,
    rows: slice,
) -> dict[str, Tensor]:
    """Each sample with a delay d, 0 for half of them and from 1 to D for the others.

    With `prefix_max` the first d actions are told (training-time real-time chunking,
    2512.05964): "prefix_size" (B,) and "prefix_noise" (B, D, A), normalised. With
    `future_max` qpos is that of d ticks later, and so is the chunk (VLASH, 2512.01031),
    and "ahead" (B,) says by how much, which VLASH does not tell; see
    `policy.future_place`.
    """
    config, device = policy.config, batch["qpos"].device
    assert isinstance(config, ACTConfig)
    most = policy.told_max
    d = torch.randint(1 - most, most + 1, (size,), generator=random)[rows]
    d = d.clamp(min=0).to(device)
    if not config.future_max:
        shape = size, config.prefix_max, config.action_dim
        noise = config.prefix_noise * torch.randn(shape, generator=random)[rows]
        return batch | {"prefix_size": d, "prefix_noise": noise.to(device)}
    action = batch["action"]  # (B, k + D, A)
    sample = torch.arange(len(d), device=device)  # (B,)
    shifted = d > config.future_lag
    there = action[sample, (d - 1 - config.future_lag).clamp(min=0)]  # (B, A)
    begin = torch.where(shifted, d, 0)
    places = begin[:, None] + torch.arange(policy.chunk_size, device=device)  # (B, k)
    return batch | {
        "qpos": torch.where(shifted[:, None], there, batch["qpos"]),
        "ahead": begin,
        "action": action[sample[:, None], places],
        "is_pad": batch["is_pad"][sample[:, None], places],
    }


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
    config: TrainConfig,
    done: int,
    losses: list[list[float]],
    times: list[float],
    kind: str = "l1",
) -> list[Record]:
    """Log records of the last few steps, the newest of which is `done`."""
    records = []
    for i, (row, seconds) in enumerate(zip(losses, times, strict=True)):
        step = done - len(losses) + 1 + i
        rate = config.lr * learning_rate(config, step - 1)
        loss, error, kl, norm = row
        record: Record = {"step": step, "loss": loss, kind: error, "kl": kl, "lr": rate}
        records.append({**record, "grad_norm": norm, "seconds": seconds})
    return records


def refuse_nan(records: list[Record], config: TrainConfig) -> None:
    """Stops a run that has come apart, before it reaches a checkpoint."""
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
