"""What a policy answers to demonstrated frames, as they are and altered.

Letters: N frames looked at, k chunk, A action, S state, H W image.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..checkpoint import Record
from ..dataset import Demonstrations
from ..episodes import load_episode
from ..policy import Policy

EPISODES, FRAMES = 24, 10  # looked at: so many episodes, so many frames of each
FEW = 60  # of these frames, for questions that are asked often
TOGETHER = 30  # frames predicted at once
IDLE = 1e-2  # rad; the floor of the statistics: a joint below it says nothing

Observation = dict[str, np.ndarray]
Alter = Callable[[Observation], Observation]


@dataclass
class Frames:
    """Some demonstrated frames, and the k actions from each on."""

    observation: Observation
    """As a policy is given it: qpos (N, S), images/<camera> (N, H, W, 3), ..."""
    action: np.ndarray
    """(N, k, A)"""
    valid: np.ndarray
    """(N, k), False beyond an episode's end."""
    episode: np.ndarray
    """(N,) number of the episode."""
    tick: np.ndarray
    """(N,) within it."""

    def some(self, which: np.ndarray) -> "Frames":
        """Those at these places, or where `which` is true."""
        seen = {key: array[which] for key, array in self.observation.items()}
        rest = (self.action, self.valid, self.episode, self.tick)
        return Frames(seen, *(array[which] for array in rest))

    @property
    def first(self) -> np.ndarray:
        """Places of each episode's first frame."""
        return np.flatnonzero(self.tick == 0)

    def __len__(self) -> int:
        return len(self.tick)


def sample(
    demos: Demonstrations,
    chunk_size: int,
    cameras: tuple[str, ...],
    episodes: int = EPISODES,
    frames: int = FRAMES,
    held_out: np.ndarray | None = None,
) -> Frames:
    """Frames spread evenly over evenly spread episodes; only their images are kept.

    Of `held_out` episodes a quarter of all, as far as there are so many.
    """
    rest = np.array([], int) if held_out is None else held_out
    seen = np.setdiff1d(np.arange(len(demos)), rest)
    few = min(len(rest), episodes // 4)
    chosen = np.sort(np.concatenate([spread(seen, episodes - few), spread(rest, few)]))
    rows: list[tuple[int, int]] = []
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in cameras}
    for i in chosen:
        length = int(demos.lengths[i])
        # The first frame, and the middles of equal stretches.
        middles = (np.arange(frames - 1) + 0.5) / max(1, frames - 1) * length
        ticks = np.unique([0, *middles.astype(int)])
        rows += [(int(i), int(t)) for t in ticks]
        if cameras:
            episode = load_episode(demos.folder / demos.names[i], cameras=cameras)
            for camera in cameras:
                images[camera].append(episode.images[camera][ticks])
    episode, tick = np.array(rows).T
    first = demos.starts[episode] + tick  # (N,)
    end = (demos.starts + demos.lengths)[episode]
    steps = first[:, None] + np.arange(chunk_size)  # (N, k)
    observation: Observation = {"qpos": demos.qpos[first]}
    if demos.env_state is not None:
        observation["env_state"] = demos.env_state[first]
    for camera, parts in images.items():
        observation[f"images/{camera}"] = np.concatenate(parts)
    action = demos.action[np.minimum(steps, end[:, None] - 1)]  # (N, k, A)
    return Frames(observation, action, steps < end[:, None], episode, tick)


def spread(items: np.ndarray, n: int) -> np.ndarray:
    """At most n of the items, evenly spread."""
    if len(items) == 0 or n < 1:
        return items[:0]
    places = np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)
    return items[np.unique(places)]


@dataclass
class Evidence:
    """What the checks look at: a policy, its demonstrations, its training.

    Attributes:
        policy: answers as it would on the robot.
        frames: of the demonstrations.
        held_out: numbers of the episodes that training did not see; None: unknown.
        settings: of the training run, or {}.
        log: records of the training run, or [].
    """

    policy: Policy
    demos: Demonstrations
    frames: Frames
    held_out: np.ndarray | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    log: list[Record] = field(default_factory=list)

    def predict(self, frames: Frames, alter: Alter | None = None) -> np.ndarray:
        """Chunks (N, k, A), float64, for frames whose observations were altered."""
        seen = alter(frames.observation) if alter else frames.observation
        if self.policy.samples:
            self.policy.reseed(0)
        parts = []
        for start in range(0, len(frames), TOGETHER):
            rows = slice(start, start + TOGETHER)
            part = {key: array[rows] for key, array in seen.items()}
            parts.append(np.asarray(self.policy.predict_chunk(part), np.float64))
        return np.concatenate(parts)

    def joints(self, size: int) -> list[str]:
        """Names of `size` joints, or their numbers."""
        known = self.demos.arm.get("joints") or self.policy.card.get("joints") or ()
        said = [str(name) for name in known]
        return said if len(said) == size else [f"joint {j}" for j in range(size)]

    @property
    def names(self) -> list[str]:
        """Names of the actions, or their numbers."""
        return self.joints(self.demos.action.shape[1])

    @property
    def same_joints(self) -> bool:
        """Whether states and actions are of the same joints."""
        return self.demos.qpos.shape[1] == self.demos.action.shape[1]

    @property
    def episodes(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Qpos (T, S) and action (T, A) of each demonstration."""
        demos, cuts = self.demos, []
        for start, length in zip(demos.starts, demos.lengths, strict=True):
            cut = slice(start, start + length)
            cuts.append((demos.qpos[cut], demos.action[cut]))
        return cuts

    @cached_property
    def spread(self) -> np.ndarray:
        """(A,) mean distance of each action from its mean; at least `IDLE`."""
        action = self.demos.action
        return np.maximum(np.abs(action - action.mean(0)).mean(0), IDLE)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N, k, A) what the policy answers to the frames as they are."""
        return self.predict(self.frames)

    @cached_property
    def trained_on(self) -> np.ndarray:
        """(N,) whether training saw a frame's episode, as far as is known."""
        if self.held_out is None:
            return np.ones(len(self.frames), bool)
        return ~np.isin(self.frames.episode, self.held_out)

    @cached_property
    def few(self) -> Frames:
        """Frames that training saw, for questions that are asked often."""
        return self.frames.some(spread(np.flatnonzero(self.trained_on), FEW))

    def misses(self, predicted: np.ndarray, frames: Frames) -> np.ndarray:
        """(N, k, A) errors in units of `spread`; NaN beyond the episodes' ends."""
        error = np.abs(predicted - frames.action) / self.spread
        return np.where(frames.valid[..., None], error, np.nan)

    def error(self, frames: Frames, alter: Alter | None = None) -> float:
        """Mean error of altered observations; about 1 for a mean of all actions."""
        return float(np.nanmean(self.misses(self.predict(frames, alter), frames)))

    @cached_property
    def errors(self) -> np.ndarray:
        """(N, k, A) errors of `predicted`, in units of `spread`."""
        return self.misses(self.predicted, self.frames)

    @cached_property
    def train_error(self) -> float:
        """Mean error on episodes that training saw."""
        return float(np.nanmean(self.errors[self.trained_on]))

    @cached_property
    def held_out_error(self) -> float | None:
        """Mean error on episodes that it did not see; None where there are none."""
        rest = ~self.trained_on
        return float(np.nanmean(self.errors[rest])) if rest.any() else None

    @cached_property
    def few_error(self) -> float:
        """Mean error on `few`."""
        return self.error(self.few)

    @cached_property
    def loss(self) -> float:
        """L1 in normalised units on frames that training saw, as its log has it."""
        return self._normalised(self.predict(self.few))

    def _normalised(self, predicted: np.ndarray) -> float:
        """L1 of chunks for `few`, in deviations of the policy's statistics."""
        std = self.policy.scale(self.policy._target_key).std.cpu().numpy()
        apart = np.abs(predicted - self.few.action) / std
        return float(np.mean(apart[self.few.valid]))

    @cached_property
    def logged(self) -> float | None:
        """L1 in normalised units at the end of training, from its log."""
        last = [r["l1"] for r in self.log if "l1" in r][-50:]
        return float(np.mean(last)) if last else None

    @cached_property
    def posterior_loss(self) -> float | None:
        """The same as `loss`, with the latent that the CVAE's encoder gives."""
        policy, few = self.policy, self.few
        if not policy.latent_dim:
            return None
        batch = policy._read(few.observation)
        batch["action"] = torch.from_numpy(few.action).to(policy.device)
        batch["is_pad"] = torch.from_numpy(~few.valid).to(policy.device)
        none = torch.zeros(len(few), policy.latent_dim, device=policy.device)
        inputs = policy._inputs(batch)
        inputs |= {"action": policy._target(batch), "is_pad": batch["is_pad"]}
        with torch.no_grad():
            answers = policy.module(inputs, none).actions
            chunks = policy._physical(answers.float(), batch["qpos"])
        return self._normalised(chunks.cpu().numpy())


def shuffled(*keys: str) -> Alter:
    """Each frame gets another frame's values of these inputs, all of the same frame."""

    def alter(seen: Observation) -> Observation:
        n = len(seen["qpos"])
        # By a third of all frames: the next ones are of the same episode.
        order = np.roll(np.arange(n), n // 3 + 1)
        return seen | {key: seen[key][order] for key in keys}

    return alter


def swapped(first: str, second: str) -> Alter:
    """Two cameras exchanged."""

    def alter(seen: Observation) -> Observation:
        one, other = f"images/{first}", f"images/{second}"
        return seen | {one: seen[other], other: seen[one]}

    return alter


def mapped(
    function: Callable[[np.ndarray], np.ndarray],
) -> Callable[[Observation], Observation]:
    """Joints through a function (N, S) -> (N, S)."""
    return lambda seen: seen | {"qpos": function(seen["qpos"]).astype(np.float32)}
