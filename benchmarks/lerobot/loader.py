"""Samples a second: our memory maps against LeRobot 0.4.4's dataset, same episodes.

    uv run python -m benchmarks.lerobot.loader

Simulated demonstrations with two cameras are exported as LeRobotDataset v3.0 (H.264),
which LeRobot's own class reads in an environment of its own. Both give the same windows
(images, joints, 100 actions) in the same random order, in turns, from one process with
one thread each, files in the system's cache. LeRobot decodes a piece of video for every
image; we decoded all of it once, into a file as large as the pictures. The larger size
is the smaller one enlarged. LeRobot decodes with PyAV here, through the reader of
`tests/exchange/lerobot_data_client.py`: its other backend does not go with this torch.
"""

# pyright: reportMissingImports=false
# (LeRobot is only there in its own environment.)

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro

from act_minimal.dataset import Demonstrations, Windows, indices_for_step
from act_minimal.episodes import episode_path, list_episodes, load_episode, save_episode
from act_minimal.support.files import read_json

from ..loader import CAMERAS, CHUNK, SEED, compared
from ..results import ROOT, write

BATCH = 8
SIZES = {"96x128": (1, 10), "480x640": (5, 3)}  # enlarged so many times; episodes


def serve(folder: str) -> None:
    """LeRobot's side: indices come in, seconds and a sum to compare go out."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from tests.exchange.lerobot_data_client import REPO

    torch.set_num_threads(1)
    fps = read_json(Path(folder) / "meta" / "info.json")["fps"]
    ahead = {"action": [i / fps for i in range(CHUNK)]}
    data = LeRobotDataset(
        REPO, root=folder, video_backend="pyav", delta_timestamps=ahead
    )
    collate = torch.utils.data.default_collate
    for line in sys.stdin:
        began = time.perf_counter()
        batch = collate([data[i] for i in json.loads(line)])
        seconds = time.perf_counter() - began
        brightness = [
            float(batch[f"observation.images.{c}"].mean() * 255) for c in CAMERAS
        ]
        pads = int(batch["action_is_pad"].sum())
        print(json.dumps([seconds, brightness, pads]), flush=True)


def measure(folder: Path, python: Path, turns: int) -> dict[str, Any]:
    """Both sides in turns; folder holds "ours" and "theirs"."""
    began = time.perf_counter()
    demos = Demonstrations.load(folder / "ours", cameras=CAMERAS)
    first = time.perf_counter() - began
    windows = Windows(demos, range(len(demos)), CHUNK)
    rates: dict[str, list[float]] = {"ours": [], "lerobot": []}
    with subprocess.Popen(
        [str(python), "-m", "benchmarks.lerobot.loader", "--serve", folder / "theirs"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for turn in range(turns + 1):
            indices = indices_for_step(len(windows), BATCH, turn, SEED)
            client.stdin.write(json.dumps(indices.tolist()) + "\n")
            client.stdin.flush()
            theirs, brightness, pads = json.loads(client.stdout.readline())
            began = time.perf_counter()
            batch = windows.batch(indices)
            seconds = time.perf_counter() - began
            # The same samples: all but the codec's loss agrees.
            for camera, said in zip(CAMERAS, brightness, strict=True):
                assert abs(batch[f"images/{camera}"].float().mean() - said) < 2
            assert int(batch["is_pad"].sum()) == pads
            if turn:  # the first one warms up
                rates["ours"].append(BATCH / seconds)
                rates["lerobot"].append(BATCH / theirs)
        client.stdin.close()
    return {
        "frames": len(windows),
        **compared(rates, 1),
        "seconds_to_load_first_time": round(first, 2),
    }


def make(folder: Path, source: Path, larger: int, episodes: int) -> None:
    """The episodes as HDF5 in "ours" and as a LeRobotDataset in "theirs"."""
    from act_minimal.exchange.convert import convert

    (folder / "ours").mkdir(parents=True)
    for i, path in enumerate(list_episodes(source)[:episodes]):
        episode = load_episode(path)
        images = {
            c: x.repeat(larger, 1).repeat(larger, 2) for c, x in episode.images.items()
        }
        save_episode(episode_path(folder / "ours", i), replace(episode, images=images))
    convert(folder / "ours", folder / "theirs", "lerobot-v3.0", video="h264")


def main(turns: int = 15, python: Path | None = None) -> None:
    """Measure and write data/results/lerobot_loader.json.

    Args:
        turns: batches of each side.
        python: of an environment with LeRobot; made if it is not given.
    """
    from act_minimal.sim import make_task
    from act_minimal.sim.recording import record
    from tests.lerobot_environment import make_environment

    torch.set_num_threads(1)
    began, results = time.perf_counter(), {}
    python = python or make_environment()
    with tempfile.TemporaryDirectory(prefix="lerobot-loader-") as name:
        source, most = Path(name) / "source", max(n for _, n in SIZES.values())
        task = make_task("so100_pick_place")
        how: Any = {"demonstrator": "human", "seed": SEED, "cameras": CAMERAS}
        record(task, source, most, **how)
        for size, (larger, episodes) in SIZES.items():
            make(Path(name) / size, source, larger, episodes)
            results[size] = measure(Path(name) / size, python, turns)
    content = {
        "what": f"samples a second, random, two cameras, chunk {CHUNK}, batch {BATCH}",
        "seeds": [SEED],
        "n": turns,
        "results": results,
    }
    write("lerobot_loader", time.perf_counter() - began, content)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        tyro.cli(main)
