"""From episode files to training batches: windows of k actions, with their statistics.

`Demonstrations` holds a folder of episodes as long arrays, one episode after another:
the numbers in memory, the images in a memory-mapped file per camera, made once. So
`Windows.batch` is a handful of array look-ups; opening an HDF5 file for each sample, as
the original does, is many times slower.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .datasets.embodiment import arm_of
from .episodes import find_episodes, load_episode
from .images import Resizing, cached_images
from .support.errors import UserError
from .support.hdf5_files import Attribute, EpisodeError

STD_FLOOR = 1e-2  # the original's; see Statistics


@dataclass
class Statistics:
    """Mean and standard deviation of each number a policy reads or writes.

    By key ("qpos", "action", "env_state"): (numbers,) float32.
    """

    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]

    @classmethod
    def compute(
        cls, arrays: Mapping[str, np.ndarray], std_floor: float = STD_FLOOR
    ) -> "Statistics":
        """Statistics over the first axis of each (M, numbers) array.

        The floor on the standard deviation (0.01, the original code's) keeps a joint
        that hardly moves from being divided by almost nothing, which would turn its
        encoder noise into a large input, and any error of the policy into a jump.
        """
        mean, std = {}, {}
        for key, array in arrays.items():
            wide = np.asarray(array, np.float64)
            mean[key] = wide.mean(axis=0).astype(np.float32)
            std[key] = np.maximum(wide.std(axis=0), std_floor).astype(np.float32)
        return cls(mean, std)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Statistics":
        """From "qpos.mean", "qpos.std", ..., as a checkpoint stores them, in pairs."""
        mean = {k[:-5]: np.asarray(a) for k, a in arrays.items() if k[-5:] == ".mean"}
        std = {k[:-4]: np.asarray(a) for k, a in arrays.items() if k[-4:] == ".std"}
        if mean.keys() != std.keys():
            odd = ", ".join(sorted(mean.keys() ^ std.keys()))
            raise UserError(f"statistics of {odd} lack a mean or a standard deviation")
        return cls(mean, std)


@dataclass
class Demonstrations:
    """All frames of some episodes, one after another (M frames altogether).

    Attributes:
        names: File names, in numeric order.
        starts: (episodes,) index of each episode's first frame.
        lengths: (episodes,) frames of each episode.
        qpos: (M, S) float32, rad.
        action: (M, A) float32, rad.
        env_state: (M, E) float32, or None.
        images: camera -> (M, H, W, 3) uint8, memory-mapped.
        attributes: One dict of free extras per episode.
        resizing: How the images got their size; None: they are as recorded.
        arm: What the episodes say of their arm, as a card has it: robot, joints, units.
    """

    folder: Path
    names: list[str]
    starts: np.ndarray
    lengths: np.ndarray
    qpos: np.ndarray
    action: np.ndarray
    env_state: np.ndarray | None
    images: dict[str, np.ndarray]
    fps: float
    attributes: list[dict[str, Attribute]]
    resizing: Resizing | None = None
    arm: dict[str, Any] = field(default_factory=dict)

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.images)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        cameras: Sequence[str] = (),
        use_env_state: bool = True,
        limit: int | None = None,
        progress: bool = False,
        cache: str | Path | None = None,
        resizing: Resizing | None = None,
    ) -> "Demonstrations":
        """Reads a folder of episodes.

        Args:
            folder: Holds episode_0.hdf5, episode_1.hdf5, ...
            cameras: Which cameras to offer; none by default.
            use_env_state: Whether to offer the state of the scene, where files have it.
            limit: Only the first so many episodes.
            cache: Where the image cache goes; `folder`/.cache by default.
            resizing: Of all images; None leaves them as recorded.

        Raises:
            EpisodeError: A file is broken, or differs from the first one in its
                widths, rate or cameras; the message names it.
            UserError: Two files are of different arms; no episodes, fewer than `limit`,
                or no room for the cache.
        """
        folder = Path(folder)
        paths = find_episodes(folder)
        if limit is not None:
            if not 1 <= limit <= len(paths):
                raise UserError(
                    f"{limit} demonstrations wanted, {folder} has {len(paths)}"
                )
            paths = paths[:limit]
        episodes = [load_episode(path, images=False) for path in paths]
        first = episodes[0]
        if not use_env_state:
            for episode in episodes:
                episode.env_state = None
        for path, episode in zip(paths, episodes, strict=True):
            for name in ("qpos", "action", "env_state"):
                a, b = getattr(episode, name), getattr(first, name)
                wide, expected = (0 if x is None else x.shape[1] for x in (a, b))
                if wide != expected:
                    raise EpisodeError(
                        f"{path}: {name} is {wide} numbers wide, "
                        f"{expected} in {paths[0].name}"
                    )
            if episode.fps != first.fps:
                raise EpisodeError(
                    f"{path}: {episode.fps:g} frames a second, "
                    f"{first.fps:g} in {paths[0].name}"
                )
        said = {str(p): e.attributes for p, e in zip(paths, episodes, strict=True)}
        arm = arm_of(said, first.action.shape[1])
        lengths = np.array([len(e) for e in episodes])
        states = [e.env_state for e in episodes if e.env_state is not None]
        images = {}
        if cameras:
            if cache:  # may be shared by several datasets
                place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
                home = Path(cache) / f"{folder.resolve().name}-{place[:8]}"
            else:
                home = folder / ".cache"
            if resizing:
                resizing = resizing.seen(load_episode(paths[0], cameras=cameras).images)
            images = cached_images(
                paths, cameras, lengths, home, resizing=resizing, progress=progress
            )
        return cls(
            folder=folder,
            names=[p.name for p in paths],
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            qpos=np.concatenate([e.qpos for e in episodes]),
            action=np.concatenate([e.action for e in episodes]),
            env_state=np.concatenate(states) if states else None,
            images=images,
            fps=first.fps,
            attributes=[e.attributes for e in episodes],
            resizing=resizing if cameras else None,
            arm=arm,
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def split(self, val_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Divides the episodes into training and validation, whole episodes each.

        Frames of one episode are almost copies of each other: a split by frame would
        validate on what was trained on.

        Returns:
            Sorted ids of the training and of the validation episodes. A fraction above
            zero gives at least one of each.
        """
        if not 0 <= val_fraction < 1:
            raise UserError(
                f"validation fraction is {val_fraction}, expected 0 up to (not) 1"
            )
        n = len(self)
        held_out = round(n * val_fraction)
        if val_fraction > 0:
            if n < 2:
                raise UserError(
                    f"{self.folder} has one episode, too few to hold one out for "
                    "validation; expected at least 2, or a validation fraction of 0"
                )
            held_out = min(max(held_out, 1), n - 1)
        order = np.random.default_rng(seed).permutation(n)
        return np.sort(order[held_out:]), np.sort(order[:held_out])


class Windows:
    """Training samples: what is seen at one frame, and the k actions from there on.

    Near the end of an episode the chunk reaches past it. What is filled in there is
    marked in `is_pad`, and the loss leaves it out by default.

    Args:
        chunk_size: k, actions a sample.
        pad: "last" repeats the episode's last action, a command that the arm could
            follow (LeRobot's way); "zero" fills in raw zeros before normalisation, the
            original's way, which after normalisation is an arbitrary pose.

    Raises:
        UserError: No episodes, or a chunk longer than every one of the demonstrations.
    """

    def __init__(
        self,
        demos: Demonstrations,
        episode_ids: Sequence[int] | np.ndarray,
        chunk_size: int,
        pad: Literal["last", "zero"] = "last",
    ):
        ids = np.asarray(episode_ids, dtype=np.int64)
        if len(ids) == 0:
            raise UserError(f"no episodes of {demos.folder} to take windows from")
        lengths = demos.lengths[ids]
        longest = demos.lengths.max()  # short held-out episodes are padded
        if not 1 <= chunk_size <= longest:
            raise UserError(
                f"chunk size is {chunk_size}, expected 1 to {longest}, the "
                f"frames of the longest episode in {demos.folder}"
            )
        if pad not in ("last", "zero"):
            raise UserError(f"padding {pad!r} is unknown, expected 'last' or 'zero'")
        self.demos, self.episode_ids = demos, ids
        self.chunk_size, self.pad = chunk_size, pad
        starts = demos.starts[ids]
        # For each window: its first frame among all frames, and its episode's end.
        self.frames = np.concatenate(
            [np.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)]
        )
        self.ends = np.repeat(starts + lengths, lengths)

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, indices: np.ndarray | Sequence[int]) -> dict[str, Tensor]:
        """The windows of these numbers (B,), as one batch on the CPU.

        Returns:
            qpos (B, S), action (B, k, A), is_pad (B, k) bool, env_state (B, E) if there
            is one, and images/<camera> (B, H, W, 3) uint8 for each camera.
        """
        demos = self.demos
        frames = self.frames[np.asarray(indices)]  # (B,)
        ends = self.ends[np.asarray(indices)]  # (B,)
        steps = frames[:, None] + np.arange(self.chunk_size)  # (B, k)
        is_pad = steps >= ends[:, None]  # (B, k)
        action = demos.action[np.minimum(steps, ends[:, None] - 1)]  # (B, k, A)
        if self.pad == "zero":
            action[is_pad] = 0.0
        arrays = {"qpos": demos.qpos[frames], "action": action, "is_pad": is_pad}
        if demos.env_state is not None:
            arrays["env_state"] = demos.env_state[frames]
        for camera, images in demos.images.items():
            arrays[f"images/{camera}"] = images[frames]  # (B, H, W, 3)
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    def statistics(
        self, std_floor: float = STD_FLOOR, *, delta: bool = False
    ) -> Statistics:
        """Statistics over the frames of these episodes, each frame once.

        `delta` adds the key "action_delta": action minus the qpos at the window's
        start, over all steps of all windows that are not padding.
        """
        demos = self.demos
        arrays = {"qpos": demos.qpos[self.frames], "action": demos.action[self.frames]}
        if demos.env_state is not None:
            arrays["env_state"] = demos.env_state[self.frames]
        if delta:
            if demos.qpos.shape[1] != demos.action.shape[1]:
                raise UserError(
                    f"actions relative to qpos need equal widths; {demos.folder} has "
                    f"{demos.action.shape[1]} and {demos.qpos.shape[1]} numbers"
                )
            parts = []
            for i in range(self.chunk_size):
                at = self.frames[self.frames + i < self.ends]
                parts.append(demos.action[at + i] - demos.qpos[at])
            arrays["action_delta"] = np.concatenate(parts)
        return Statistics.compute(arrays, std_floor)


@functools.lru_cache(maxsize=4)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(n)
    order.flags.writeable = False  # it is shared between calls
    return order


def indices_for_step(n: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Which windows make the batch of a training step: (batch_size,) integers.

    Every window once an epoch, in an order that depends on the seed and the epoch
    alone, so that there is no state to save, and each of several processes takes its
    slice of the same batch. A batch may reach over the end of an epoch into the next.
    """
    position = step * batch_size + np.arange(batch_size)
    epochs, offsets = np.divmod(position, n)
    out = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = _epoch_order(n, seed, int(epoch))[offsets[here]]
    return out
