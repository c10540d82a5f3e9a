"""Among many right chunks, one that goes on as the arm was going on anyway.

Where chunks come late (realtime.py), a policy that samples may change its mind with
every chunk. Both classes here drive with a policy and look at the plan of the
`Switch` that executes its chunks. They are asked at once (`InTicks`): in a thread the
plan would go on meanwhile.

Letters in shape comments: B robots, k chunk, A action, T actions left of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .policy import Policy
from .realtime import Switch
from .settings import ACTConfig
from .support.errors import SettingError


class Sampler:
    """Drives with a policy, and looks at the plan of the executor.

    Like a policy that is told, it gets the committed actions, and its chunk begins with
    them.

    Raises:
        SettingError: the policy is told of committed actions itself.
    """

    def __init__(self, policy: Policy, executor: Switch):
        if policy.told_max:
            raise SettingError(
                "the policy is told of committed actions, expected one that is not: "
                "they are held against what it samples"
            )
        self.policy, self.executor = policy, executor
        self.told_max = policy.chunk_size // 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


class BestOf(Sampler):
    """The chunk of n that is nearest to the plan where it is free to choose.

    The backward half of bidirectional decoding (Y. Liu et al., 2408.17355): the least
    mean distance from the plan, with weights decay^i, i from the first action that is
    not committed.

    Args:
        policy: one that samples.
        executor: whose plan it looks at.
        n: chunks that are drawn.
        decay: of the weights, a tick.
        seed: of the noise.

    Raises:
        SettingError: all samples of the policy are alike, or it is told of committed
            actions itself.
    """

    def __init__(
        self,
        policy: Policy,
        executor: Switch,
        n: int = 16,
        decay: float = 0.5,
        seed: int = 0,
    ):
        super().__init__(policy, executor)
        if not policy.samples:
            head = getattr(policy.config, "head", None)
            raise SettingError(
                f"the policy's head is {head!r}, whose chunks are all alike, expected "
                "one that samples, such as 'flow'"
            )
        self.n, self.decay = n, decay
        self.random = torch.Generator().manual_seed(seed)

    def predict_chunk(
        self, observation: Mapping[str, np.ndarray], prefix: np.ndarray
    ) -> np.ndarray:
        """Actions (B, k, A), of which the first d are the prefix (B, d, A)."""
        chunks = self.policy.sample_chunks(observation, self.n, self.random)
        d, k = prefix.shape[1], self.policy.chunk_size
        planned = self.executor.plan[:, d:k]  # (B, T, A)
        free = chunks[:, :, d : d + planned.shape[1]]  # (n, B, T, A)
        weight = self.decay ** np.arange(planned.shape[1])
        apart = np.linalg.norm(free - planned, axis=-1)  # (n, B, T)
        best = (apart * weight).sum(-1).argmin(0)  # (B,)
        chunk = chunks[best, np.arange(len(best))]
        return np.concatenate([prefix, chunk[:, d:]], axis=1)


class Guided(Sampler):
    """A flow that is led to the plan: real-time chunking without training.

    At each Euler step the chunk at which the flow would arrive is held against the
    plan, and x is moved against the difference (K. Black et al., 2506.07339,
    section 3). The committed actions weigh 1, those after them less and less.

    Args:
        policy: with the head `flow`, and absolute actions.
        executor: whose plan it looks at.
        most: largest weight of the guidance, beta in the paper.

    Raises:
        SettingError: the policy is another one.
    """

    def __init__(self, policy: Policy, executor: Switch, most: float = 5.0):
        super().__init__(policy, executor)
        config = policy.config
        head = getattr(config, "head", "l1")
        if head != "flow" or policy.action_target != "absolute":
            raise SettingError(
                f"the policy has the head {head!r} and {policy.action_target} actions, "
                "expected 'flow' and absolute: it is led along its velocity"
            )
        assert isinstance(config, ACTConfig)
        self.steps, self.most = config.head_steps, most

    def predict_chunk(
        self, observation: Mapping[str, np.ndarray], prefix: np.ndarray
    ) -> np.ndarray:
        """Actions (B, k, A), of which the first d are the prefix (B, d, A)."""
        policy, (d, k) = self.policy, (prefix.shape[1], self.policy.chunk_size)
        plan = torch.from_numpy(self.executor.plan[:, :k]).float().to(policy.device)
        left = plan.shape[1]
        scale = policy.scale("action")
        target = F.pad(scale.normalise(plan), (0, 0, 0, k - left))  # (B, k, A)
        weight = plan_weights(k, left, d).to(policy.device)[:, None]
        policy.eval()
        with torch.no_grad():
            ask, *_ = policy.module.asked(policy._inputs(policy._read(observation)))
        x = policy._noise(len(target), policy.random)["noise"]
        for i in range(self.steps):
            t = i / self.steps
            x = x.detach().requires_grad_()
            velocity = ask(x, x.new_full((len(x),), t))
            arrives = x + (1 - t) * velocity
            missing = weight * (target - arrives)
            (along,) = torch.autograd.grad(arrives, x, missing.detach())
            x = x + (velocity + guidance(t, self.most) * along) / self.steps
        chunk = scale.restore(x.detach()).cpu().numpy()
        return np.concatenate([prefix, chunk[:, d:]], axis=1)


def plan_weights(k: int, left: int, delay: int) -> Tensor:
    """(k,) how much each action of a plan of `left` counts: 1 for committed ones."""
    i = torch.arange(k)
    share = (left - i) / (left - delay + 1)
    soft = share * (share.exp() - 1) / (math.e - 1)
    return torch.where(i < min(delay, left), 1.0, torch.where(i < left, soft, 0.0))


def guidance(t: float, most: float) -> float:
    """Weight of the guidance at time t of the flow, at most `most`."""
    if t == 0:
        return most
    return min(most, (1 - t) / t * (t**2 + (1 - t) ** 2) / (1 - t) ** 2)
