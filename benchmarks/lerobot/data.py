"""Import and export of a LeRobot dataset against decoding its video once.

uv run python -m benchmarks.lerobot.data

Fifty demonstrations of the simulated SO-100, two cameras of 96 x 128, are exported as
LeRobotDataset v3.0 and imported again, with the codec that is used here (H.264) and
with LeRobot's own default (AV1); v2.1 with H.264. What an import or export does is all
that `act data convert` does: reading, decoding, encoding, statistics, HDF5 with JPEG,
the fsyncs. What it is held against is nothing but decoding the dataset's video files to
RGB arrays once, with PyAV: "usual" as its manual does it, one camera after the other;
"side by side" the same with a thread a camera, as the import may; "fastest" with the
cheaper conversion to RGB that the import uses, a thread a camera.

All take turns. The files have just been written, so that no disk is waited for.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
import tyro

from act_minimal.episodes import list_episodes, load_episode
from act_minimal.exchange.convert import convert
from act_minimal.exchange.lerobot_read import LeRobotReader
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from act_minimal.support.files import discard
from act_minimal.support.video import VideoReader

from ..results import write

CAMERAS = ("top", "wrist")
SEED = 0
CASES: tuple[
    tuple[Literal["lerobot-v2.1", "lerobot-v3.0"], Literal["h264", "av1"]], ...
]
CASES = (("lerobot-v3.0", "h264"), ("lerobot-v3.0", "av1"), ("lerobot-v2.1", "h264"))


def videos_of(dataset: Path) -> dict[str, list[Path]]:
    """Camera -> its video files."""
    files = sorted(dataset.rglob("*.mp4"))
    return {c: [f for f in files if f"images.{c}" in str(f)] for c in CAMERAS}


def decode(paths: list[Path]) -> None:
    """All frames as RGB arrays, as PyAV's manual does it."""
    for path in paths:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")


def decode_usual(dataset: Path) -> None:
    """As the manual does it, one camera after the other."""
    for paths in videos_of(dataset).values():
        decode(paths)


def decode_side_by_side(dataset: Path) -> None:
    """As the manual does it, a thread a camera."""
    with ThreadPoolExecutor(len(CAMERAS)) as pool:
        list(pool.map(decode, videos_of(dataset).values()))


def decode_fastest(dataset: Path) -> None:
    """All frames as the import decodes them, and nothing else."""

    def one(paths: list[Path]) -> None:
        reader = VideoReader()
        for path in paths:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                fps = float(stream.average_rate or 1)
                frames = stream.frames
            for start in range(0, frames, 250):
                stop = min(frames, start + 250)
                reader.read(path, np.arange(start, stop) / fps, fps)
        reader.close()

    with ThreadPoolExecutor(len(CAMERAS)) as pool:
        list(pool.map(one, videos_of(dataset).values()))


def timed(work: Callable[..., object], *args: object, **more: object) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work(*args, **more)
    return time.perf_counter() - began


def psnr(source: Path, back: Path) -> float:
    """Peak signal-to-noise ratio of the images that came back, dB."""
    squares, count = 0.0, 0
    for a, b in zip(list_episodes(source), list_episodes(back), strict=True):
        first, second = load_episode(a), load_episode(b)
        for camera in CAMERAS:
            difference = first.images[camera].astype(np.float32) - second.images[camera]
            squares += float((difference**2).sum())
            count += difference.size
    return 10 * float(np.log10(255**2 * count / squares))


def measure(source: Path, folder: Path, repetitions: int) -> dict:
    """All cases in turns; medians over the repetitions."""
    seconds: dict[str, dict[str, list[float]]] = {}
    results: dict[str, dict] = {}
    for repetition in range(repetitions + 1):
        for version, codec in CASES:
            name = f"{version} {codec}"
            theirs, back = folder / name, folder / f"{name} back"
            discard(theirs)
            discard(back)
            took = {
                "export": timed(convert, source, theirs, version, video=codec),
                "usual": timed(decode_usual, theirs),
                "import": timed(convert, theirs, back, "hdf5"),
                "side_by_side": timed(decode_side_by_side, theirs),
                "fastest": timed(decode_fastest, theirs),
            }
            if repetition == 0:  # warms up, and is looked at
                with LeRobotReader(theirs) as reader:
                    frames = sum(len(episode.qpos) for episode in reader.episodes())
                size = sum(f.stat().st_size for f in theirs.rglob("*") if f.is_file())
                results[name] = {
                    "frames": frames,
                    "megabytes": round(size / 2**20, 1),
                    "psnr_db": round(psnr(source, back), 1),
                }
            else:
                for key, value in took.items():
                    seconds.setdefault(name, {}).setdefault(key, []).append(value)
    for name, took in seconds.items():
        medians = {key: float(np.median(values)) for key, values in took.items()}
        results[name]["seconds"] = {k: round(v, 2) for k, v in medians.items()}
        for way in ("import", "export"):
            times = np.array(took[way])
            for base in ("usual", "side_by_side", "fastest"):
                ratios = np.array(took[base]) / times
                results[name][f"{way}_against_{base}"] = {
                    "ratio": round(float(np.median(ratios)), 2),
                    "range": [round(float(r), 2) for r in (ratios.min(), ratios.max())],
                }
    return results


def main(repetitions: int = 5, episodes: int = 50, dry_run: bool = False) -> None:
    """Records, measures, and writes the result.

    Args:
        repetitions: of each case.
        episodes: that are recorded.
        dry_run: print, write nothing.
    """
    torch.set_num_threads(1)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lerobot-data-") as name:
        source = Path(name) / "source"
        record(
            make_task("so100_pick_place"),
            source,
            episodes,
            demonstrator="human",
            seed=SEED,
            cameras=CAMERAS,
        )
        results = measure(source, Path(name), repetitions)
    content = {
        "what": "seconds to export and import episodes, and to decode their video once",
        "episodes": episodes,
        "cameras": list(CAMERAS),
        "image_size": [96, 128],
        "seeds": [SEED],
        "n": repetitions,
        "results": results,
        "load_average": round(os.getloadavg()[0], 1),  # what else the machine did
        "libraries": {"av": av.__version__, "ffmpeg": av.ffmpeg_version_info},
    }
    if dry_run:
        print(json.dumps(content, indent=2))
    else:
        write("lerobot_data", time.perf_counter() - began, content)


if __name__ == "__main__":
    tyro.cli(main)
