"""Samples a second: windows from memory maps against one HDF5 file opened per sample.

uv run python -m benchmarks.loader

The baseline does what the original ACT's dataset does for each sample: open the
episode's file, read the images, qpos and qvel of one frame and the actions from there
to the end, pad them to the chunk, make tensors; then stack the samples to a batch. Both
read the same windows of the same episodes in the same order, in turns, from one process
with one thread, with warm file caches (the episodes have just been written): the kinder
case for the baseline, since what is measured is its work and not the disk's.
"""

import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
import tyro

from act_minimal.dataset import Demonstrations, Windows, indices_for_step
from act_minimal.episodes import Episode, episode_path, save_episode

from .results import write

CAMERAS = ("top", "wrist")
CHUNK = 100
BATCH = 32
FRAMES = 250  # of an episode at most
SEED = 0


def record(folder: Path, episodes: int, height: int, width: int) -> None:
    """Episodes of noise: their content does not matter, only their size."""
    rng = np.random.default_rng(SEED)
    for i in range(episodes):
        length = int(FRAMES * rng.uniform(0.8, 1.0))
        shape = (length, height, width, 3)
        images = {c: rng.integers(0, 256, shape, dtype=np.uint8) for c in CAMERAS}
        rows = ("qpos", "qvel", "effort", "action")
        numbers: dict = {
            k: rng.normal(size=(length, 6)).astype(np.float32) for k in rows
        }
        episode = Episode(**numbers, images=images, fps=30.0)
        save_episode(episode_path(folder, i), episode)


def sample_from_file(path: Path, start: int) -> dict[str, torch.Tensor]:
    """One window the original's way."""
    with h5py.File(path, "r") as root:

        def read(key: str, where: int | slice) -> np.ndarray:
            return root[key][where]  # pyright: ignore

        qpos = read("/observations/qpos", start)
        read("/observations/qvel", start)  # the original reads it, and uses it not
        images = [read(f"/observations/images/{c}", start) for c in CAMERAS]
        action = read("/action", slice(start, None))
    action = action[:CHUNK]
    padded = np.zeros((CHUNK, action.shape[1]), np.float32)
    padded[: len(action)] = action
    is_pad = np.arange(CHUNK) >= len(action)
    return {
        "qpos": torch.from_numpy(qpos),
        "images": torch.from_numpy(np.stack(images)),
        "action": torch.from_numpy(padded),
        "is_pad": torch.from_numpy(is_pad),
    }


def batch_from_files(demos: Demonstrations, frames: np.ndarray) -> dict:
    """A batch of windows, one file opened for each."""
    episodes = np.searchsorted(demos.starts, frames, side="right") - 1
    samples = [
        sample_from_file(demos.folder / demos.names[e], int(f - demos.starts[e]))
        for e, f in zip(episodes, frames, strict=True)
    ]
    return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}


def compared(rates: dict[str, list[float]], digits: int) -> dict:
    """Medians of two loaders' samples a second, and of their ratio turn by turn."""
    first, second = map(np.array, rates.values())
    ratios = first / second
    low, high = (round(float(r), digits) for r in (ratios.min(), ratios.max()))
    return {
        **{name: round(float(np.median(each)), 1) for name, each in rates.items()},
        "ratio": round(float(np.median(ratios)), digits),
        "ratio_range": [low, high],
    }


def measure(episodes: int, size: tuple[int, int], turns: int, batches: int) -> dict:
    """Both ways in turns over the same batches; medians over the turns."""
    with tempfile.TemporaryDirectory(prefix="loader-") as name:
        folder = Path(name)
        record(folder, episodes, *size)
        began = time.perf_counter()
        demos = Demonstrations.load(folder, cameras=CAMERAS)
        first = time.perf_counter() - began
        began = time.perf_counter()
        demos = Demonstrations.load(folder, cameras=CAMERAS)
        again = time.perf_counter() - began
        windows = Windows(demos, range(len(demos)), CHUNK, pad="zero")
        rates: dict[str, list[float]] = {"ours": [], "baseline": []}
        for turn in range(turns + 1):
            seconds = np.zeros(2)
            for step in range(turn * batches, (turn + 1) * batches):
                indices = indices_for_step(len(windows), BATCH, step, SEED)
                began = time.perf_counter()
                ours = windows.batch(indices)
                middle = time.perf_counter()
                theirs = batch_from_files(demos, windows.frames[indices])
                seconds += middle - began, time.perf_counter() - middle
                both = torch.stack([ours[f"images/{c}"] for c in CAMERAS], dim=1)
                assert torch.equal(both, theirs["images"])  # the very same samples
                for key in ("qpos", "action", "is_pad"):
                    assert torch.equal(ours[key], theirs[key])
            if turn:  # the first one warms up
                rates["ours"].append(batches * BATCH / seconds[0])
                rates["baseline"].append(batches * BATCH / seconds[1])
    return {
        "image_size": list(size),
        "episodes": episodes,
        "frames": len(windows),
        **compared(rates, 2),
        "seconds_to_load_first_time": round(first, 2),
        "seconds_to_load_again": round(again, 3),
    }


def main(repetitions: int = 7) -> None:
    """Measures small and large images, and writes the result."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    results = {
        "96x128": measure(50, (96, 128), repetitions, batches=8),
        "480x640": measure(6, (480, 640), repetitions, batches=2),
    }
    write(
        "loader",
        time.perf_counter() - began,
        {
            "what": "samples a second, random access, two cameras, chunk 100, batch 32",
            "seeds": [SEED],
            "n": repetitions,
            "results": results,
            "load_average": round(os.getloadavg()[0], 1),  # what else the machine did
            "hdf5": h5py.version.hdf5_version,
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
