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
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from act_minimal.checkpoint import newest_checkpoint
from act_minimal.dataset import Demonstrations, Windows
from act_minimal.files import sole_writer
from act_minimal.policy import Policy, make_policy
from act_minimal.processes import catch_interrupts, join, private_state
from act_minimal.run_folder import (
    Record,
    RunLog,
    check_run_folder,
    resume,
    save_checkpoint,
)
from act_minimal.training_config import (
    TrainConfig,
    as_json,
    default_chunk,
    load_demonstrations,
    network_settings,
)
from act_minimal.training_parts import (
    learning_rate,
    log_records,
    make_batch,
    make_card,
    make_optimizer,
    mix,
    refuse_nan,
    rows,
    update_average,
    validate,
)

__all__ = [
    "TrainConfig",
    "TrainResult",
    "TrainingInterrupted",
    "steps_that_fit",
    "train",
]


TRIAL_SECONDS = 5.0  # a shorter trial misses by a fifth on a machine that breathes
MOST_TRIAL_STEPS = 4000


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
        delta = config.action_target == "delta"
        statistics = windows.statistics(delta=delta)

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

        # Where we are.
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
            # static_graph: some weights may never be used (the original's bug).
            model = DistributedDataParallel(policy, static_graph=True)

        def fetch(step: int) -> tuple[dict[str, Tensor], Tensor | None]:
            """This process's rows of a step's batch, augmented, on the device."""
            return make_batch(config, policy, windows, step, mine, world.device)

        def save(step: int) -> Path:
            seconds = before + time.perf_counter() - began
            state = {"step": step, "seconds": seconds, "settings": plain}
            card = make_card(config, demos, len(train_ids), step, seconds, log)
            return save_checkpoint(
                config.out, policy, averaged, optimizer, state, card, config.keep
            )

        # The loop. The next batch is made while this one is computed. From here on
        # Ctrl-C waits for the end of a step; before, there is nothing to save.
        interrupted = stack.enter_context(catch_interrupts())
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

            torch.manual_seed(mix(config.seed, step + 1, 1 + world.rank))  # for dropout
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
                update_average(averages, parameters, config.ema_decay, step)
            pending.append(torch.stack([loss.detach(), parts["l1"], parts["kl"], norm]))
            times.append(before + time.perf_counter() - began)

            done = step + 1
            last = done == config.steps
            due = last or done % config.save_every == 0
            check = bool(len(val_ids) and config.val_every)
            check = check and (last or done % config.val_every == 0)
            look = due or check or done % config.log_every == 0
            stop = interrupted.is_set()
            if world.size > 1:  # all processes must stop at the same step
                stop = look and world.any(stop)
            if look or stop:
                losses = world.mean(torch.stack(pending)).tolist()
                records = log_records(config, done, losses, times)
                refuse_nan(records, config)
                pending, times = [], []
                if log is not None:
                    log.write(records)
                    bar.set_postfix_str(f"loss {records[-1]['loss']:.4f}", False)
                    bar.update(done - bar.n)
                    if on_step is not None:
                        on_step(records[-1])
            if log is not None:
                if check:
                    record = validate(averaged, demos, val_ids, config.val_frames)
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


def steps_that_fit(
    config: TrainConfig,
    seconds: float,
    *,
    demonstrations: Demonstrations | None = None,
) -> int:
    """How many steps of this run take so many seconds on this machine.

    For comparisons at equal training time: the run that follows has a fixed number of
    steps and so can be repeated exactly, which a run that watches the clock cannot.
    Measures at least `TRIAL_SECONDS` of real steps in a temporary folder, after
    `log_every` to warm up; validations and checkpoints are not counted.
    """
    every = config.log_every
    steps = max(40, 4 * every)
    while True:
        clock = _lap_times(config, steps, demonstrations)
        span, counted = clock[-1] - clock[0], steps - every
        if span >= TRIAL_SECONDS or steps >= MOST_TRIAL_STEPS:
            return max(1, int(seconds * counted / span))
        laps = math.ceil(1.2 * TRIAL_SECONDS * counted / span / every)
        steps = every * (1 + laps)


def _lap_times(
    config: TrainConfig, steps: int, demonstrations: Demonstrations | None
) -> list[float]:
    """When a trial run reached each look at the losses, every `log_every` steps."""
    clock: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trial = replace(config, out=Path(folder), steps=steps, val_every=0, keep=0)
        trial = replace(trial, save_every=steps, tensorboard=False)
        try:
            train(
                trial,
                demonstrations=demonstrations,
                on_step=lambda record: clock.append(time.perf_counter()),
                progress=False,
            )
        except TrainingInterrupted:
            raise KeyboardInterrupt(
                "stopped while counting steps; the same command goes on"
            ) from None
    return clock
