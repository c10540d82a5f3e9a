"""A small head that corrects every action of a chunk from the newest observation.

A chunk is made from one observation and drives for many ticks. The head sees what the
arm sees now, the action that the chunk has for now, and how old the chunk is, and says
what to add. The policy below it stays as it is. (Sendai et al., A2C2, 2509.23224.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from .checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_policy,
    load_weights,
    read_tensors,
    write_policy,
    write_tensors,
)
from .dataset import Demonstrations
from .policy import Policy
from .support.errors import SettingError, UserError
from .support.files import atomic_folder

FILE = "residual.safetensors"  # beside the files of the policy's checkpoint
MADE_BY = "act train-residual"
AT_ONCE = 512  # observations whose chunks are predicted together


class Residual(nn.Module):
    """A policy and the head above it; drives like the policy does.

    Args:
        policy: of state, without cameras: a head that looked at pictures would need
            them, and a backbone's time, at every tick.
        oldest: ticks that the observation behind an action is old at most; older ones
            are not corrected.
        hidden: width of the head's two layers.

    Raises:
        UserError: the policy has cameras, or is told of committed actions (the head
            would change them), or samples, or predicts differences.
    """

    def __init__(self, policy: Policy, oldest: int = 0, hidden: int = 128):
        super().__init__()
        if policy.action_target != "absolute":
            raise UserError(
                f"the policy's action_target is {policy.action_target!r}, expected "
                "'absolute': the head adds to joint targets"
            )
        if policy.cameras:
            raise UserError(
                f"the policy looks through {', '.join(policy.cameras)}, expected one "
                "that sees the state only: the head is asked at every tick"
            )
        if policy.samples:
            raise UserError(
                "the policy answers with a sample, expected one with one answer: where "
                "ways part, the head would pull from one to the other"
            )
        if policy.told_max:
            raise UserError(
                "the policy is told of committed actions, expected one that is not: "
                "the head changes what is sent"
            )
        self.policy, config = policy, policy.config
        inputs = config.state_dim + config.env_state_dim + config.action_dim + 2
        self.head = nn.Sequential(
            *(nn.Linear(inputs, hidden), nn.GELU()),
            *(nn.Linear(hidden, hidden), nn.GELU()),
            nn.Linear(hidden, config.action_dim),
        )
        self.head.register_buffer("oldest", torch.tensor(oldest))
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # untrained, it corrects nothing
        nn.init.zeros_(last.bias)

    def __getattr__(self, name: str) -> Any:
        """What it has not of its own is the policy's: `predict_chunk`, `cameras`..."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("policy"), name)

    def correction(
        self, batch: Mapping[str, Tensor], action: Tensor, age: Tensor
    ) -> Tensor:
        """What to add to actions (B, A) of chunks that are age (B,) ticks old."""
        scale = self.policy.scale("action")
        parts = [self.policy.scale("qpos").normalise(batch["qpos"])]
        if self.policy.uses_env_state:
            parts.append(self.policy.scale("env_state").normalise(batch["env_state"]))
        turn = 2 * torch.pi * age[:, None] / self.chunk_size
        parts += [scale.normalise(action), turn.sin(), turn.cos()]
        return self.head(torch.cat(parts, 1)) * scale.std

    @torch.inference_mode()
    def correct(
        self, observation: Mapping[str, np.ndarray], action: np.ndarray, age: int
    ) -> np.ndarray:
        """The actions (n, A) to send for those of a chunk that is `age` ticks old."""
        if age > int(self.head.get_buffer("oldest")):
            return action
        device = self.policy.device
        keys = ("qpos", "env_state") if self.policy.uses_env_state else ("qpos",)
        given, *seen = (
            torch.as_tensor(x, dtype=torch.float32, device=device)
            for x in (action, *(observation[key] for key in keys))
        )
        ages = torch.full((len(given),), float(age), device=device)
        batch: dict[str, Tensor] = dict(zip(keys, seen, strict=True))
        return action + self.correction(batch, given, ages).cpu().numpy()


def train_residual(
    policy: Policy,
    demos: Demonstrations,
    *,
    oldest: int,
    steps: int = 3000,
    batch_size: int = 256,
    rate: float = 1e-3,
    noise: float = 0.3,
    seed: int = 0,
    progress: bool = False,
) -> Residual:
    """Train a head on demonstrations, with chunks of 0 to `oldest` ticks before.

    Args:
        noise: on what is observed, in deviations. Without it the head is a single-step
            policy, and comes to rest as those do.

    Raises:
        UserError: the policy has cameras, or `oldest` is not within its chunks.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Residual(policy, oldest)  # refuses what it cannot correct
    if not 0 <= oldest < policy.chunk_size:
        raise SettingError(
            f"oldest is {oldest} ticks, expected from 0 to {policy.chunk_size - 1}: "
            "a chunk has no action for later"
        )
    seen = {"qpos": torch.from_numpy(demos.qpos).float()}
    if policy.uses_env_state:
        assert demos.env_state is not None
        seen["env_state"] = torch.from_numpy(demos.env_state).float()
    parts = [
        policy.predict_chunk({k: x[i : i + AT_ONCE] for k, x in seen.items()})
        for i in range(0, len(demos.qpos), AT_ONCE)
    ]
    chunks = torch.from_numpy(np.concatenate(parts))  # (N, k, A), one a frame
    action = torch.from_numpy(demos.action).float()  # (N, A)
    begins = np.repeat(demos.starts, demos.lengths)  # (N,) first frame of the episode
    before = torch.from_numpy(np.arange(len(action)) - begins)  # (N,) frames before

    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    std = policy.scale("action").std
    for _ in trange(steps, desc="head", disable=not progress):
        frame = torch.randint(len(action), (batch_size,), generator=random)
        age = torch.randint(oldest + 1, (batch_size,), generator=random)
        age = torch.minimum(age, before[frame])
        base = chunks[frame - age, age]  # (B, A) the older chunk's action for now
        now = {
            key: x[frame]
            + noise
            * policy.scale(key).std
            * torch.randn(x[frame].shape, generator=random)
            for key, x in seen.items()
        }
        corrected = base + model.correction(now, base, age.float())
        loss = F.l1_loss(corrected / std, action[frame] / std)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return model.eval()


def save_residual(folder: Path, model: Residual, card: Mapping[str, Any]) -> None:
    """Write the policy's checkpoint with the head's weights beside it."""
    with atomic_folder(folder, CheckpointError, made_by=MADE_BY) as temporary:
        write_policy(temporary, model.policy, card)
        write_tensors(temporary / FILE, model.head.state_dict())


def refuse_head(folder: Path | str, what: str) -> None:
    """CheckpointError if a checkpoint has a head, which `what` would leave out."""
    if (find_checkpoint(folder) / FILE).exists():
        raise CheckpointError(
            f"{folder} holds a head ({FILE}) that corrects every action, which {what} "
            "leaves out; expected the checkpoint of the policy below it"
        )


def load_driver(
    folder: Path | str, device: str | torch.device = "cpu", network: str | None = None
) -> Any:
    """A checkpoint's policy, with the head above it if it has one.

    Raises:
        CheckpointError: see `load_policy`; or the head's file is another network's.
    """
    folder = find_checkpoint(folder)
    policy = load_policy(folder, device, network)
    if not (folder / FILE).exists():
        if "residual" in policy.card:
            raise CheckpointError(
                f"{folder} has no {FILE}, but its card says that a head corrects every "
                "action; without it this is another policy"
            )
        return policy
    first = read_tensors(folder / FILE).get("0.bias", torch.zeros(0))
    model = Residual(policy, hidden=max(1, len(first)))
    load_weights(model.head, folder / FILE)
    return model.to(device).eval()
