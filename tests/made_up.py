"""Episodes and statistics of random numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from act_minimal.dataset import Statistics
from act_minimal.episodes import Episode


def random_episode(
    frames: int,
    seed: int = 0,
    joints: int = 6,
    cameras: Mapping[str, tuple[int, int]] | None = None,
    **changes: Any,
) -> Episode:
    """`cameras` have heights and widths; `changes` are of the episode's attributes."""
    rng = np.random.default_rng(seed)

    def numbers(width: int) -> np.ndarray:
        return rng.uniform(-1.5, 1.5, (frames, width)).astype(np.float32)

    shapes = {name: (frames, *size, 3) for name, size in (cameras or {}).items()}
    images = {name: rng.integers(0, 256, s, np.uint8) for name, s in shapes.items()}
    episode = Episode(*(numbers(joints) for _ in range(4)), images, numbers(7), 30.0)
    for name, value in changes.items():
        setattr(episode, name, value)
    return episode


def random_statistics(widths: Mapping[str, int], seed: int = 0) -> Statistics:
    """Means about 0 and deviations from 0.1 to 2."""
    rng = np.random.default_rng(seed)
    mean = {k: rng.normal(size=n).astype(np.float32) for k, n in widths.items()}
    std = {k: rng.uniform(0.1, 2, n).astype(np.float32) for k, n in widths.items()}
    return Statistics(mean, std)
