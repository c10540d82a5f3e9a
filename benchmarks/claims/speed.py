"""C17: how long a prediction takes; to be run on an idle machine.

For one robot, from observation to chunk, normalisation included: on this CPU with one
thread and with all cores; with --gpu on a GPU.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from act_minimal.dataset import Statistics
from act_minimal.policy import Policy, make_policy

from ..rollouts import Row
from .claim import Claim


@dataclass
class Duration:
    """How long to measure."""

    seconds: float = 10.0
    """For each network and device, after three predictions to warm up."""
    least: int = 10
    """Predictions at least."""
    gpu: bool = False
    """Measure on the GPU, in place of the CPU."""


NETWORKS: dict[str, dict[str, Any]] = {
    "small": {
        "size": "small",
        "chunk_size": 50,
        "env_state_dim": 7,
        "cvae_actions_per_token": 10,
    },
    "medium": {
        "size": "medium",
        "cameras": ("top", "wrist"),
        "image_size": (96, 128),
        "image_pool": 2,
        "cvae_actions_per_token": 10,
    },
    "paper": {"size": "paper", "cameras": ("a", "b", "c", "d"), "dims": 14},
}


def network(name: str) -> Policy:
    """A network of this size, untrained: its numbers do not change its speed."""
    settings = dict(NETWORKS[name])
    dims = settings.pop("dims", 6)
    widths = {"qpos": dims, "action": dims}
    if "env_state_dim" in settings:
        widths["env_state"] = settings["env_state_dim"]
    nothing = {key: np.zeros((1, wide)) for key, wide in widths.items()}
    statistics = Statistics.compute(nothing, std_floor=1.0)
    torch.manual_seed(0)
    settings |= {"state_dim": dims, "action_dim": dims}
    return make_policy("act", statistics, **settings).eval()


def observation(policy: Policy) -> dict[str, np.ndarray]:
    """What one robot sees, made up."""
    rng, config = np.random.default_rng(0), policy.config
    seen: dict[str, np.ndarray] = {
        "qpos": rng.normal(size=(1, config.state_dim)).astype(np.float32),
        "env_state": rng.normal(size=(1, config.env_state_dim)).astype(np.float32),
    }
    for camera, size in policy.image_sizes.items():
        seen[f"images/{camera}"] = rng.integers(0, 256, (1, *size, 3), np.uint8)
    return seen


def time_of(policy: Policy, settings: Duration) -> Row:
    """Milliseconds a prediction: median and 95th percentile."""
    seen = observation(policy)
    for _ in range(3):
        policy.predict_chunk(seen)
    times: list[float] = []
    end = time.perf_counter() + settings.seconds
    while len(times) < settings.least or time.perf_counter() < end:
        start = time.perf_counter()
        policy.predict_chunk(seen)  # its chunk is on the CPU when it returns
        times.append(1000 * (time.perf_counter() - start))
    return {
        "ms": float(np.median(times)),
        "ms_95": float(np.quantile(times, 0.95)),
        "n": len(times),
    }


def devices(gpu: bool) -> Iterator[tuple[str, str, int]]:
    """Label, device, CPU threads; the GPU's name stands in the row."""
    cores = os.cpu_count() or 1
    if gpu:
        yield "gpu", "cuda", 1
        return
    yield "cpu-1", "cpu", 1
    if cores > 1:
        yield "cpu-all", "cpu", cores


def measure(settings: Duration) -> Row:
    """Every network on every device; C17_gpu.json is the GPU's."""
    rows = []
    for name in NETWORKS:
        policy = network(name)
        inference = [p for k, p in policy.module.named_parameters() if "cvae" not in k]
        for label, device, threads in devices(settings.gpu):
            torch.set_num_threads(threads)
            policy.to(device)
            row = {"network": name, "device": label, "threads": threads}
            row |= {"parameters": sum(p.numel() for p in inference)}
            row |= {"cameras": len(policy.cameras)}
            row |= {"image": list(policy.config.image_size) if policy.cameras else None}
            row |= {"chunk_size": policy.chunk_size}
            row |= time_of(policy, settings)
            row["hertz"] = 1000 / row["ms"]
            if device == "cuda":
                row["gpu"] = torch.cuda.get_device_name()
            print(f"{name}, {label}: {row['ms']:.1f} ms (n = {row['n']})", flush=True)
            rows.append(row)
    found = {"seeds": [0], "summary": rows}
    return found | ({"file": "claims/C17_gpu"} if settings.gpu else {})


C17 = Claim(
    "C17",
    "ACT infers at 50 Hz and more.",
    "Zhao et al.: 10 ms on a 2080 Ti. An article: 20 ms on a 3060, 12 ms on a 4090, 8 "
    "ms on an A100, 5 ms on an H100.",
    measure,
    Duration(),
    ("claims/C17_gpu",),
    "On a CPU: the state policy on one thread {{network=small device=cpu-1 -> hertz "
    "0}} Hz, the vision policy (two 96 x 128 cameras) {{network=medium device=cpu-1 -> "
    "hertz 0}} Hz, the paper's size ({{network=paper device=cpu-all -> "
    "parameters 0}} numbers when it predicts) with four 480 x 640 cameras on two "
    "threads {{network=paper device=cpu-all -> hertz 1}} Hz. That on an H100: "
    "{{claims/C17_gpu summary network=paper -> hertz 0}} Hz.",
    verdict="under a condition",
    line="The course's compact policies do on one CPU core; a network of the paper's "
    "size needs a GPU.",
)
