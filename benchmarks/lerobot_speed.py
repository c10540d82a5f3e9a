"""The same network as LeRobot's, side by side: training step, inference, memory.

    uv run python -m benchmarks.lerobot_speed

Both run in one process on one torch, turn by turn, so that a busy neighbour slows both.
What differs is how the same numbers are computed; `tests/test_lerobot_parity.py` holds
outputs and losses against each other. LeRobot 0.4.4 comes from an environment of its
own (see `tests/lerobot_room.py`).
"""

# pyright: reportMissingImports=false
# (LeRobot is only there in its own environment.)

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.results import ROOT, write

STATE = ACTION = 14
CHUNK = 100
CASES: dict[str, tuple[int, int, int]] = {  # cameras, height, width
    "two_240x320": (2, 240, 320),
    "one_480x640": (1, 480, 640),
}
GOALS = {
    "train": {"two_240x320": 1.4, "one_480x640": 1.25},
    "inference": {"two_240x320": 1.5, "one_480x640": 1.15},
}


def batch_of(case: str, size: int) -> dict[str, Any]:
    """Random numbers: uint8 images (B, N, H, W, 3), qpos, action, is_pad."""
    import torch

    cameras, height, width = CASES[case]
    rng = torch.Generator().manual_seed(0)
    is_pad = torch.zeros(size, CHUNK, dtype=torch.bool)
    is_pad[:, 90:] = True
    return {
        "images": torch.randint(
            0, 256, (size, cameras, height, width, 3), generator=rng, dtype=torch.uint8
        ),
        "qpos": torch.randn(size, STATE, generator=rng),
        "action": torch.randn(size, CHUNK, ACTION, generator=rng),
        "is_pad": is_pad,
    }


def ours(case: str, device: str) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Our training step and inference, as `training.py` and `policy.py` do them."""
    import torch

    from act_minimal.model import ACT, ACTConfig, act_loss

    cameras, height, width = CASES[case]
    config = ACTConfig.of_size(
        "paper",
        state_dim=STATE,
        action_dim=ACTION,
        cameras=tuple(f"camera{i}" for i in range(cameras)),
        image_size=(height, width),
    )
    torch.manual_seed(0)
    model = ACT(config, pretrained_weights=False).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-5, weight_decay=1e-4, fused=True
    )

    def put(batch: dict[str, Any]) -> dict[str, Any]:
        out = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        out["images"] = out["images"].permute(0, 1, 4, 2, 3)  # (B, N, 3, H, W)
        return out

    def train(batch: dict[str, Any]) -> None:
        model.train()
        batch = put(batch)
        eps = torch.randn(len(batch["qpos"]), config.latent_dim, device=device)
        output = model(batch, eps)
        loss, _ = act_loss(output, batch["action"], batch["is_pad"], config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    @torch.inference_mode()
    def infer(batch: dict[str, Any]) -> Any:
        model.eval()
        return model(put({k: batch[k] for k in ("images", "qpos")})).actions.cpu()

    def forward(batch: dict[str, Any]) -> None:
        model(put({k: batch[k] for k in ("images", "qpos")}))

    return {"train": train, "inference": infer, "forward": forward}


def theirs(case: str, device: str) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """LeRobot's training step and inference, as its own scripts do them."""
    import torch
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    cameras, height, width = CASES[case]
    names = [f"observation.images.camera{i}" for i in range(cameras)]
    visual = PolicyFeature(FeatureType.VISUAL, (3, height, width))
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            **dict.fromkeys(names, visual),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
        device=device,
        pretrained_backbone_weights=None,
    )
    torch.manual_seed(0)
    policy = ACTPolicy(config).to(device)
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    def put(batch: dict[str, Any]) -> dict[str, Any]:
        """As its dataset (float images in [0, 1]) and its normalising processor do."""
        images = batch["images"].permute(0, 1, 4, 2, 3).contiguous().float() / 255
        out = {"observation.state": batch["qpos"].to(device)}
        for i, name in enumerate(names):
            out[name] = (images[:, i].to(device) - mean) / (std + 1e-8)
        if "action" in batch:
            out["action"] = batch["action"].to(device)
            out["action_is_pad"] = batch["is_pad"].to(device)
        return out

    def train(batch: dict[str, Any]) -> None:
        policy.train()
        loss, _ = policy.forward(put(batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()

    @torch.no_grad()
    def infer(batch: dict[str, Any]) -> Any:
        policy.eval()
        seen = put({k: batch[k] for k in ("images", "qpos")})
        return policy.predict_action_chunk(seen).cpu()

    return {"train": train, "inference": infer}


SIDES = {"ours": ours, "lerobot": theirs}


def gflops_of(step: Callable[[dict[str, Any]], Any], batch: dict[str, Any]) -> float:
    """Floating-point operations of one step, in 10⁹."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step(batch)
    return counter.get_total_flops() / 1e9


def matrix_rate(device: str) -> float:
    """What this machine multiplies at, GFLOP/s in float32."""
    import torch

    n = 2048
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    best = np.inf
    for _ in range(8):
        start = time.perf_counter()
        c = a @ b
        _synchronize(device)
        best = min(best, time.perf_counter() - start)
    del c
    return 2 * n**3 / best / 1e9


def _synchronize(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def compare(what: str, case: str, size: int, turns: int, device: str) -> dict[str, Any]:
    """Seconds of both sides, turn by turn."""
    batch = batch_of(case, size)
    made = {name: make(case, device) for name, make in SIDES.items()}
    steps = {name: one[what] for name, one in made.items()}
    # The counter needs gradients; the network is the same on both sides.
    counted = "train" if what == "train" else "forward"
    work = gflops_of(made["ours"][counted], batch)
    for step in steps.values():
        step(batch)  # warm
    taken: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(turns):
        for name, step in steps.items():
            start = time.perf_counter()
            step(batch)
            _synchronize(device)
            taken[name].append(time.perf_counter() - start)
    rate = matrix_rate(device)
    row: dict[str, Any] = {"what": what, "case": case, "batch": size, "turns": turns}
    for name, seconds in taken.items():
        median = float(np.median(seconds))
        row[name] = {
            "seconds_median": median,
            "seconds_min": min(seconds),
            "seconds_max": max(seconds),
            "share_of_matrix_rate": work / median / rate,
        }
    ratios = np.array(taken["lerobot"]) / np.array(taken["ours"])
    row["ratio"] = float(np.median(ratios))
    row["ratio_range"] = [float(ratios.min()), float(ratios.max())]
    row["goal"] = GOALS[what][case]
    row["gflop"], row["matrix_gflop_per_s"] = work, rate
    return row


def peak_memory(side: str, case: str) -> float:
    """MiB that two training steps of one side take at most, in a process of its own."""
    step = SIDES[side](case, "cpu")["train"]
    batch = batch_of(case, 8)
    for _ in range(2):
        step(batch)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def inside(turns: int, device: str) -> dict[str, Any]:
    """All rows; runs where LeRobot can be imported."""
    rows = []
    for what, size in (("train", 8), ("inference", 1)):
        for case in CASES:
            count = turns if what == "train" else 6 * turns
            rows.append(compare(what, case, size, count, device))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    memory = {}
    for case in CASES if device == "cpu" else ():
        memory[case] = {
            side: float(_again("--memory", f"{side}:{case}")) for side in SIDES
        }
    return {"rows": rows, "peak_memory_mib": memory}


def _again(*words: str) -> str:
    command = [sys.executable, "-m", "benchmarks.lerobot_speed", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def main(
    turns: int = 8,
    device: str = "cpu",
    threads: int = 2,
    room: Path | None = None,
    memory: str = "",
) -> None:
    """Measure both sides and write data/results/lerobot_speed[_device].json.

    Args:
        turns: training steps of each side; six times as many inferences.
        device: cpu or cuda.
        threads: of torch on the CPU.
        room: Python of an environment with LeRobot; made if it is not given.
        memory: used by the script itself.
    """
    import importlib.util

    import torch

    torch.set_num_threads(threads)
    if memory:
        print(peak_memory(*memory.split(":")))
        return
    if importlib.util.find_spec("lerobot"):
        print(json.dumps(inside(turns, device)))
        return
    start = time.perf_counter()
    if room is None:
        from tests.lerobot_room import make_room

        room = make_room()
    words = ["--turns", str(turns), "--device", device, "--threads", str(threads)]
    done = subprocess.run(
        [str(room), "-m", "benchmarks.lerobot_speed", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    content = json.loads(done.stdout.splitlines()[-1])
    name = "lerobot_speed" if device == "cpu" else f"lerobot_speed_{device}"
    content |= {"device": device, "threads": threads}
    write(name, time.perf_counter() - start, content)


if __name__ == "__main__":
    tyro.cli(main)
