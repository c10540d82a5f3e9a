"""The statistics that LeRobot keeps with a dataset, of each episode and of all.

Of numbers: min, max, mean, std and quantiles of each, over all frames. Of images: the
same of each colour, from 0 to 1, over a sample of frames and pixels; a count of how
often each of the 256 levels occurs says all of that exactly, and adds up.
"""

from typing import Any

import cv2
import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
FRAMES, PIXELS = 100, 150  # a sample has about so many frames, and pixels a side


def of_numbers(rows: np.ndarray, *, quantiles: bool = True) -> dict[str, Any]:
    """Statistics of (T, width) numbers, as lists."""
    wide = np.asarray(rows, np.float64)
    out = {
        "min": wide.min(axis=0).tolist(),
        "max": wide.max(axis=0).tolist(),
        "mean": wide.mean(axis=0).tolist(),
        "std": wide.std(axis=0).tolist(),
        "count": [len(wide)],
    }
    if quantiles:
        values = np.quantile(wide, list(QUANTILES.values()), axis=0)
        out |= {name: v.tolist() for name, v in zip(QUANTILES, values, strict=True)}
    return out


class Levels:
    """How often each level of each colour occurs in a sample of images."""

    def __init__(self):
        self.frames = 0
        self.counts = np.zeros((3, 256))

    def add(self, images: np.ndarray) -> None:
        """Look at (T, H, W, 3) uint8; a sample of it."""
        t, h, w, _ = images.shape
        step = max(1, t // FRAMES)
        sample = images[::step, :: max(1, h // PIXELS), :: max(1, w // PIXELS)]
        self.frames += len(sample)
        tall = np.ascontiguousarray(sample).reshape(-1, sample.shape[2], 3)
        for c in range(3):
            self.counts[c] += cv2.calcHist([tall], [c], None, [256], [0, 256]).ravel()

    def merge(self, other: "Levels") -> None:
        """Add another sample's counts."""
        self.frames += other.frames
        self.counts += other.counts

    def statistics(self, *, quantiles: bool = True) -> dict[str, Any]:
        """Statistics as nested lists of shape (3, 1, 1); levels from 0 to 1."""
        level = np.arange(256) / 255
        total = self.counts.sum(axis=1)  # (3,)
        share = self.counts / total[:, None]
        mean = share @ level
        found = self.counts > 0
        out = {
            "min": level[found.argmax(axis=1)],
            "max": level[255 - found[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt((share * (level - mean[:, None]) ** 2).sum(axis=1)),
        }
        if quantiles:
            below = np.cumsum(share, axis=1)
            for name, q in QUANTILES.items():
                out[name] = level[(below >= q - 1e-12).argmax(axis=1)]
        lists = {k: v.reshape(3, 1, 1).tolist() for k, v in out.items()}
        return lists | {"count": [self.frames]}
