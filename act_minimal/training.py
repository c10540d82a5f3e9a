"""Training: one loop, on one machine or many. `train` reads from top to bottom.

Whatever is random in a step depends on the seed and the number of the step alone, not
on how the run got there. So a run that was killed goes on as if nothing had happened,
and several processes, each with its slice of the batch, compute what one would.

    torchrun --nproc_per_node=2 -m act_minimal.cli train ...   # several processes

Letters: B batch (of all processes together), k chunk, A action, S state, E env_state,
Z latent.
"""

import copy
import math
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm.auto import tqdm

from act_minimal.checkpoint import newest_checkpoint, write_json
from act_minimal.dataset import (
    Augmentation,
    Demonstrations,
    Windows,
    augment,
    augment_draws,
    indices_for_step,
)
from act_minimal.errors import UserError
from act_minimal.model import ACTConfig, Size
from act_minimal.policy import ActionTarget, Policy, PolicyKind, make_policy
from act_minimal.processes import World, catch_interrupts, join, private_state
from act_minimal.run_folder import Record, RunLog, resume, save_checkpoint


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run. The defaults suit a state policy on a laptop."""

    data: Path
    """Folder of demonstrations (episode_0.hdf5, ...)."""
    out: Path
    """Folder for log and checkpoints; a run that is there already goes on."""

    policy: PolicyKind = "act"
    """act, or a single-step baseline: bc_transformer, bc_mlp."""
    size: Size = "small"
    """Size of the transformer: small and medium suit a laptop, paper a GPU."""
    chunk_size: int | None = None
    """k, actions predicted at once; by default the size's own, and 1 for bc_*."""
    model: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Any other field of the network's configuration, by name: use_cvae False ..."""
    action_target: ActionTarget = "absolute"
    """Whether actions are predicted as recorded or relative to the present qpos."""

    cameras: tuple[str, ...] = ()
    """Cameras that the policy sees."""
    use_env_state: bool | None = None
    """Whether it sees the simulator's state; by default only without cameras."""
    limit: int | None = None
    """Use only the first so many demonstrations."""
    val_fraction: float = 0.1
    """Share of the episodes held out; 0 trains on all of them."""
    state_noise: float = 0.0
    """Deviation of noise added to normalised qpos and env_state: 0.02 helps vision
    policies not to lean on the joints alone."""
    shift_px: int = 0
    """Shift images at random by up to so many pixels; 4 suits 96 x 128."""
    brightness: float = 0.0
    """Vary the images' brightness by up to this share; likewise the next two."""
    contrast: float = 0.0
    """See brightness."""
    saturation: float = 0.0
    """See brightness."""

    steps: int = 2000
    """Optimizer steps. The cosine ends here, so it cannot change later."""
    batch_size: int = 64
    """B, over all processes together. The paper has 8, with a rate of 1e-5."""
    lr: float = 1e-3
    """Highest learning rate; right for `small`, too high for `paper` (1e-5)."""
    backbone_lr: float | None = None
    """The same for the image backbone; by default lr; 0 freezes it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rate does after the warm-up; the paper's is constant."""
    warmup_steps: int = 100
    """Steps in which the rate rises from zero: Adam's moments are poor at first."""
    weight_decay: float = 1e-4
    """As the paper."""
    grad_clip: float = 10.0
    """Longest gradient, as LeRobot; 0 is off, as the original code."""
    ema_decay: float = 0.995
    """The saved policy averages the weights over about 1 / (1 - decay) steps, which
    smooths away the last batches; 0 is off, as the paper."""

    seed: int = 0
    """Decides everything that is random."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads; 1 is often fastest for small networks. By default torch's own."""
    bf16: bool = False
    """Mixed precision: faster on recent GPUs, slower on most CPUs."""
    compile: bool = False
    """torch.compile: a minute at the start, faster steps after; for long runs."""

    log_every: int = 10
    """Steps between two looks at the losses, which make a GPU wait."""
    val_every: int = 500
    """Steps between two validations; 0 is never."""
    val_frames: int = 512
    """Frames of the held-out episodes that a validation looks at."""
    save_every: int = 500
    """Steps between two checkpoints; there is always one at the end."""
    keep: int = 3
    """Checkpoints kept, the newest; 0 keeps all."""
    tensorboard: bool = True
    """Write TensorBoard's files beside log.jsonl."""


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
        config: the settings.
        demonstrations: saves loading `config.data` again; must be the same.
        on_step: called with the newest record every `log_every` steps, and with each
            validation's; `training_plot.live_curve` makes one for a notebook.
        progress: whether to show a bar.

    Raises:
        UserError: bad settings or data, another run in `out`, a loss that is not
            finite, a full disk. Checkpoints saved before are left as they are.
        TrainingInterrupted: Ctrl-C, after saving a checkpoint.
    """
    with ExitStack() as stack:
        world = stack.enter_context(join(config.device))
        stack.enter_context(private_state(config.threads, world.device))
        interrupted = stack.enter_context(catch_interrupts())
        rows = _rows(config, world)

        # The data. Process 0 first: it may have to make the image cache.
        with world.first():
            demos = demonstrations or load_demonstrations(config)
        chunk_size = config.chunk_size or default_chunk(config)
        train_ids, val_ids = demos.split(config.val_fraction, config.seed)
        windows = Windows(demos, train_ids, chunk_size)
        delta = config.action_target == "delta"
        statistics = windows.statistics(delta=delta)

        # The policy, its average over time, the optimizer.
        torch.manual_seed(_mix(config.seed, 0))
        settings = network_settings(config, demos)
        policy = make_policy(
            config.policy,
            statistics,
            size=config.size,
            action_target=config.action_target,
            **settings,
        )
        policy.to(world.device).train()
        averaged = copy.deepcopy(policy) if config.ema_decay else policy
        optimizer, rates = _optimizer(policy, config)
        parameters = list(policy.module.parameters())
        averages = list(averaged.module.parameters())

        # Where we are.
        plain = _plain(config)
        start, before = resume(config.out, policy, averaged, optimizer, plain)
        log = None
        if world.rank == 0:
            config.out.mkdir(parents=True, exist_ok=True)
            log = RunLog(config.out, start, config.tensorboard)
            stack.callback(log.close)
            write_json(config.out / "config.json", plain)

        model: nn.Module = policy
        if config.compile:
            policy.module.compile()
        if world.size > 1:
            # static_graph: some weights may never be used (the original's bug).
            model = DistributedDataParallel(
                policy, broadcast_buffers=False, static_graph=True
            )

        def fetch(step: int) -> tuple[dict[str, Tensor], Tensor | None]:
            """This process's rows of a step's batch, augmented, on the device."""
            return _batch(config, policy, windows, step, rows, world.device)

        def save(step: int) -> Path:
            seconds = before + time.perf_counter() - began
            state = {"step": step, "seconds": seconds, "settings": plain}
            card = _card(config, demos, len(train_ids), step, seconds, log)
            return save_checkpoint(
                config.out, policy, averaged, optimizer, state, card, config.keep
            )

        # The loop. The next batch is made while this one is computed.
        pool = stack.enter_context(ThreadPoolExecutor(1))
        hidden = not progress or world.rank > 0
        bar = tqdm(total=config.steps, initial=start, desc="train", disable=hidden)
        stack.enter_context(bar)
        began = time.perf_counter()
        pending: list[Tensor] = []  # losses still on the device
        times: list[float] = []
        following = pool.submit(fetch, start) if start < config.steps else None
        for step in range(start, config.steps):
            assert following is not None
            batch, eps = following.result()
            if step + 1 < config.steps:
                following = pool.submit(fetch, step + 1)
            rate = learning_rate(config, step)
            for group, highest in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = highest * rate

            torch.manual_seed(_mix(config.seed, step + 1, world.rank))  # for dropout
            count = None
            if world.size > 1:  # mean over all processes' valid steps, not over means
                count = world.mean((~batch["is_pad"]).sum().float())
            with torch.autocast(world.device.type, torch.bfloat16, config.bf16):
                loss, parts = model(batch, eps, count)
            loss.backward()
            longest = config.grad_clip or math.inf
            norm = nn.utils.clip_grad_norm_(parameters, longest)
            optimizer.step()
            optimizer.zero_grad()
            if averaged is not policy:
                _average(averages, parameters, config.ema_decay, step)
            pending.append(torch.stack([loss.detach(), parts["l1"], parts["kl"], norm]))
            times.append(before + time.perf_counter() - began)

            done = step + 1
            last = done == config.steps
            due = last or done % config.save_every == 0
            look = due or done % config.log_every == 0
            stop = interrupted.is_set()
            if world.size > 1:  # all processes must stop at the same step
                stop = look and world.any(stop)
            if look or stop:
                losses = world.mean(torch.stack(pending)).tolist()
                records = _records(config, done, losses, times)
                _refuse_nan(records, config)
                pending, times = [], []
                if log is not None:
                    log.write(records)
                    bar.set_postfix_str(f"loss {records[-1]['loss']:.4f}", False)
                    bar.update(done - bar.n)
                    if on_step is not None:
                        on_step(records[-1])
            if log is not None:
                every = config.val_every
                if len(val_ids) and every and (last or done % every == 0):
                    record = _validate(averaged, demos, val_ids, config.val_frames)
                    seconds = before + time.perf_counter() - began
                    record = {"step": done, **record, "seconds": seconds}
                    log.write([record])
                    if on_step is not None:
                        on_step(record)
                if due or stop:
                    save(done)
            if stop and not last:
                raise TrainingInterrupted(
                    f"stopped after step {done} of {config.steps}; the same command "
                    f"goes on from the checkpoint in {config.out}"
                )

        seconds = (
            before + time.perf_counter() - began if start < config.steps else before
        )
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


def load_demonstrations(config: TrainConfig) -> Demonstrations:
    """The demonstrations that a configuration asks for."""
    use_env_state = config.use_env_state
    if use_env_state is None:
        use_env_state = not config.cameras
    return Demonstrations.load(
        config.data,
        cameras=config.cameras,
        use_env_state=use_env_state,
        limit=config.limit,
        progress=True,
    )


def default_chunk(config: TrainConfig) -> int:
    """The chunk size where the configuration leaves it open."""
    if config.policy != "act":
        return 1
    return ACTConfig.of_size(config.size, state_dim=1, action_dim=1).chunk_size


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
    if len(set(sizes.values())) > 1:
        raise UserError(
            f"the cameras in {demos.folder} have different sizes ({sizes}): "
            f"one policy reads cameras of one size"
        )
    if sizes:
        settings["image_size"] = next(iter(sizes.values()))
    return settings | config.model


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of a step as a share of the highest one."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant":
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def steps_that_fit(
    config: TrainConfig,
    seconds: float,
    *,
    demonstrations: Demonstrations | None = None,
) -> int:
    """How many steps of this run take so many seconds on this machine.

    For comparisons at equal training time: the run that follows has a fixed number of
    steps and so can be repeated exactly, which a run that watches the clock cannot.
    Measures 30 real steps in a temporary folder, after 10 to warm up; validations and
    checkpoints are not counted.
    """
    clock: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trial = replace(
            config, out=Path(folder), steps=40, log_every=5, val_every=0, keep=0
        )
        trial = replace(trial, save_every=40, tensorboard=False)
        train(
            trial,
            demonstrations=demonstrations,
            on_step=lambda record: clock.append(time.perf_counter()),
            progress=False,
        )
    # Flushes at 5, 10, ..., 40; the last one comes before the checkpoint is written.
    laps = np.diff(clock[1:]) / 5
    return max(1, int(seconds / median(laps.tolist())))


def _rows(config: TrainConfig, world: World) -> slice:
    """The rows of the global batch that are this process's."""
    if config.batch_size % world.size:
        raise UserError(
            f"batch_size is {config.batch_size}, expected a multiple of the "
            f"{world.size} processes"
        )
    share = config.batch_size // world.size
    return slice(world.rank * share, (world.rank + 1) * share)


def _mix(*numbers: int) -> int:
    """One seed out of several numbers, without the collisions of a sum."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _batch(
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
    random.manual_seed(_mix(config.seed, step + 1))
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
    settings = _augmentation(config)
    if policy.cameras and settings.enabled:
        draws = augment_draws(size, len(policy.cameras), random)
        batch = augment(batch, {k: x[rows] for k, x in draws.items()}, settings)
    return batch, eps


def _augmentation(config: TrainConfig) -> Augmentation:
    return Augmentation(
        config.shift_px, config.brightness, config.contrast, config.saturation
    )


def _optimizer(
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
def _average(
    averages: list[nn.Parameter],
    parameters: list[nn.Parameter],
    decay: float,
    step: int,
) -> None:
    """Moves the averages towards the weights; faster at first, to forget the start."""
    decay = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(decay)(list(averages), list(parameters), None)


def _records(
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


def _refuse_nan(records: list[Record], config: TrainConfig) -> None:
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


def _validate(
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


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The settings as JSON has them."""
    plain = asdict(config)
    plain |= {"data": str(config.data), "out": str(config.out)}
    return plain | {"cameras": list(config.cameras)}


def _card(
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
        "data": str(config.data),
        "episodes": episodes,
        "task": demos.attributes[0].get("task", "unknown"),
        "demonstrator": demos.attributes[0].get("demonstrator", "unknown"),
        "fps": demos.fps,
        "seed": config.seed,
        "steps": step,
        "seconds": round(seconds, 1),
        "loss": last.get("loss"),
        "validation L1 (normalised, z = 0)": last.get("val_l1"),
        "success": "not measured",
        "command": " ".join(sys.argv),
    }
