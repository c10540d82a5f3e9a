"""The same network as LeRobot's, side by side: training step, inference, memory.

    uv run python -m benchmarks.lerobot.speed
    uv run python -m benchmarks.lerobot.speed --device cuda

Both run in one process on one torch, turn by turn, so that a busy neighbour slows both.
What differs is how the same numbers are computed; `test_lerobot_parity.py` holds
outputs and losses against each other. LeRobot 0.4.4 comes from an environment of its
own (`tests/lerobot_environment.py`), unchanged and with its own settings. Ours runs in
ways of its own too: exported to ONNX Runtime on the CPU; in bf16, compiled and as a
CUDA graph on a GPU.

On a GPU a training step begins with what each side's loader hands over, in pinned
memory: LeRobot's workers have made float images by then, ours are still uint8. On a CPU
whoever makes the batch takes the same cores, and so it counts.
"""

# pyright: reportMissingImports=false
# (LeRobot is only there in its own environment.)

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from act_minimal.model import ACT, act_loss
from act_minimal.settings import ACTConfig

from ..results import ROOT, write
from .golden import IMAGENET

STATE = ACTION = 14
CHUNK = 100
CASES: dict[str, tuple[int, int, int]] = {  # cameras, height, width
    "two_240x320": (2, 240, 320),
    "one_480x640": (1, 480, 640),
}
# Seconds between turns, in which the other's waiting threads go to sleep.
PAUSE = {"cpu": 0.05, "cuda": 0.005}
CURVE = 200  # steps of the loss curves in float32 and bf16

Step = Callable[[dict[str, Any]], Any]
Way = tuple[Step, dict[str, Any]]  # and the batch that it takes


def batch_of(case: str, size: int) -> dict[str, Any]:
    """Random numbers: uint8 images (B, N, H, W, 3), qpos, action, is_pad."""
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


def settings_of(case: str) -> dict[str, Any]:
    """Our settings for the network that LeRobot's defaults make."""
    cameras, height, width = CASES[case]
    return {
        "state_dim": STATE,
        "action_dim": ACTION,
        "cameras": tuple(f"camera{i}" for i in range(cameras)),
        "image_size": (height, width),
    }


def ours(
    case: str, device: str, bf16: bool = False, compiled: str = ""
) -> dict[str, Step]:
    """Our training step and inference, as `training.py` and `policy.py` do them.

    With a mode of `torch.compile`, compiled.
    """
    config = ACTConfig.of_size("paper", **settings_of(case))
    torch.manual_seed(0)
    model = ACT(config, pretrained_weights=False).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-5, weight_decay=1e-4, fused=True
    )
    if compiled:
        torch._dynamo.reset()  # else the second shape is compiled for any shape
        model.compile(mode=compiled)
    mixed = torch.autocast(device, torch.bfloat16, bf16)

    def put(batch: dict[str, Any]) -> dict[str, Any]:
        out = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        out["images"] = out["images"].permute(0, 1, 4, 2, 3)  # (B, N, 3, H, W)
        return out

    def train(batch: dict[str, Any]) -> Any:
        model.train()
        batch = put(batch)
        eps = torch.randn(len(batch["qpos"]), config.latent_dim, device=device)
        with mixed:
            output = model(batch, eps)
            loss, _ = act_loss(output, batch["action"], batch["is_pad"], config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return loss.detach()

    def seen(batch: dict[str, Any]) -> dict[str, Any]:
        return put({k: batch[k] for k in ("images", "qpos")})

    @torch.inference_mode()
    def infer(batch: dict[str, Any]) -> Any:
        model.eval()
        with mixed:
            return model(seen(batch)).actions.float().cpu()

    def forward(batch: dict[str, Any]) -> None:
        model(seen(batch))

    kept: dict[str, Any] = {}

    @torch.inference_mode()
    def graph(batch: dict[str, Any]) -> Any:
        """Inference recorded once as a CUDA graph, and played from then on."""
        fresh = seen(batch)
        if not kept:
            model.eval()
            kept["inputs"] = {k: x.clone() for k, x in fresh.items()}
            aside = torch.cuda.Stream()
            with torch.cuda.stream(aside), mixed:
                for _ in range(3):
                    model(kept["inputs"])
            torch.cuda.current_stream().wait_stream(aside)
            kept["graph"] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(kept["graph"]), mixed:
                kept["actions"] = model(kept["inputs"]).actions.float()
        for key, x in kept["inputs"].items():
            x.copy_(fresh[key])
        kept["graph"].replay()
        return kept["actions"].cpu()

    return {"train": train, "inference": infer, "forward": forward, "graph": graph}


def export(case: str, path: Path) -> float:
    """Our policy as an ONNX file; how far its actions are from torch's, in deviations.

    Raises:
        OnnxError: they are further apart than 1e-4.
    """
    from act_minimal.checkpoint import save_policy
    from act_minimal.dataset import Statistics
    from act_minimal.exchange.onnx import export_onnx
    from act_minimal.policy import make_policy

    nothing = {"qpos": np.zeros((1, STATE)), "action": np.zeros((1, ACTION))}
    statistics = Statistics.compute(nothing, std_floor=1.0)
    torch.manual_seed(0)
    policy = make_policy("act", statistics, size="paper", **settings_of(case))
    with tempfile.TemporaryDirectory(prefix="lerobot-speed-") as folder:
        save_policy(Path(folder) / "policy", policy, {})
        return export_onnx(Path(folder) / "policy", path).deviations


def exported(case: str, folder: Path, threads: int) -> Step:
    """Inference of the exported file in ONNX Runtime."""
    from act_minimal.exchange.onnx import OnnxPredictor

    predictor = OnnxPredictor(folder / f"{case}.onnx", threads)

    def infer(batch: dict[str, Any]) -> Any:
        images = batch["images"].unbind(1)
        seen = {f"images/camera{i}": x.numpy() for i, x in enumerate(images)}
        return predictor.predict_chunk(seen | {"qpos": batch["qpos"].numpy()})

    return infer


def theirs(case: str, device: str) -> dict[str, Step]:
    """LeRobot's training step and inference, as its own scripts do them."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig as TheirConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    cameras, height, width = CASES[case]
    names = [f"observation.images.camera{i}" for i in range(cameras)]
    visual = PolicyFeature(FeatureType.VISUAL, (3, height, width))
    config = TheirConfig(
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
    mean, std = torch.tensor(IMAGENET, device=device)[:, :, None, None]

    def load(batch: dict[str, Any]) -> dict[str, Any]:
        """As its dataset does: float images in [0, 1], one tensor a camera."""
        images = batch["images"].permute(0, 1, 4, 2, 3).contiguous().float() / 255
        return batch | dict(zip(names, images.unbind(1), strict=True))

    def put(batch: dict[str, Any]) -> dict[str, Any]:
        """As its processors do: onto the device, and normalised."""
        if names[0] not in batch:
            batch = load(batch)
        out = {"observation.state": batch["qpos"].to(device, non_blocking=True)}
        for name in names:
            seen = batch[name].to(device, non_blocking=True)
            out[name] = (seen - mean) / (std + 1e-8)
        if "action" in batch:
            out["action"] = batch["action"].to(device, non_blocking=True)
            out["action_is_pad"] = batch["is_pad"].to(device, non_blocking=True)
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

    return {"train": train, "inference": infer, "load": load}


SIDES = {"ours": ours, "lerobot": theirs}


def pinned(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch as the loaders of both sides hand it over where there is a GPU."""
    return {key: x.contiguous().pin_memory() for key, x in batch.items()}


def gflops_of(step: Step, batch: dict[str, Any]) -> float:
    """Floating-point operations of one step, in 10⁹."""
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return counter.get_total_flops() / 1e9


def matrix_rate(device: str) -> float:
    """What this machine multiplies at, GFLOP/s in float32."""
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
    if device == "cuda":
        torch.cuda.synchronize()


def compare(
    what: str, case: str, size: int, turns: int, device: str, onnx: Path | None = None
) -> dict[str, Any]:
    """Seconds of all ways, turn by turn; ratios are of neighbouring turns."""
    batch = batch_of(case, size)
    theirs_made, made = theirs(case, device), ours(case, device)
    raw = loaded = batch
    if device == "cuda" and what == "train":
        batch, loaded = pinned(raw), pinned(theirs_made["load"](raw))
    steps: dict[str, Way] = {
        "lerobot": (theirs_made[what], loaded),
        "ours": (made[what], batch),
    }
    if onnx is not None:
        steps["onnx"] = exported(case, onnx, torch.get_num_threads()), batch
    if device == "cuda":
        if what == "train":
            steps["lerobot from uint8"] = theirs_made[what], raw
        mixed = ours(case, device, bf16=True)
        steps["bf16"] = mixed[what], batch
        compiled = ours(case, device, bf16=True, compiled="default")
        steps["bf16 compiled"] = compiled[what], batch
        if what == "inference":
            steps["graph"] = made["graph"], batch
            steps["bf16 graph"] = mixed["graph"], batch
    # The counter needs gradients; the network is the same on all sides.
    counted = "train" if what == "train" else "forward"
    work = gflops_of(ours(case, device)[counted], batch)
    for step, given in steps.values():
        for _ in range(2):  # warm
            step(given)
        _synchronize(device)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, (step, given) in steps.items():
            time.sleep(PAUSE[device])
            start = time.perf_counter()
            step(given)
            _synchronize(device)
            taken[name].append(time.perf_counter() - start)
    rate = matrix_rate(device)
    row: dict[str, Any] = {"what": what, "case": case, "batch": size, "n": turns}
    row |= {"gflop": work, "matrix_gflop_per_s": rate, "ways": {}}
    for name, seconds in taken.items():
        median = float(np.median(seconds))
        ratios = np.array(taken["lerobot"]) / np.array(seconds)
        row["ways"][name] = {
            "seconds_median": median,
            "seconds_min": min(seconds),
            "seconds_max": max(seconds),
            "share_of_matrix_rate": work / median / rate,
            "ratio": float(np.median(ratios)),
            "ratio_range": [float(ratios.min()), float(ratios.max())],
        }
    return row


def loss_curves(case: str, size: int, device: str, steps: int = CURVE) -> dict:
    """How far the loss in bf16 is from that in float32, over the same batches."""
    curves = {}
    for name, bf16 in (("float32", False), ("bf16", True)):
        train, batch = ours(case, device, bf16=bf16)["train"], batch_of(case, size)
        torch.manual_seed(1)  # the same noise and dropout
        losses = torch.stack([train(batch) for _ in range(steps)]).cpu()
        width = min(20, steps)
        curves[name] = losses.unfold(0, width, 1).mean(-1)  # smoothed
    apart = (curves["bf16"] / curves["float32"] - 1).abs().max()
    return {"n": steps, "case": case, "batch": size, "apart": float(apart)}


def peak_memory(side: str, case: str, what: str) -> float:
    """MiB that two steps of one side take at most, in a process of its own."""
    step = SIDES[side](case, "cpu")[what]
    batch = batch_of(case, 8 if what == "train" else 1)
    for _ in range(2):
        step(batch)
    # Not getrusage: a process begins there with its parent's peak.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status["VmHWM"].split()[0]) / 1024


def inside(turns: int, device: str, onnx: Path | None) -> dict[str, Any]:
    """All rows; runs where LeRobot can be imported."""
    rows = []
    sizes = (8, 64) if device == "cuda" else (8,)
    cells: list[tuple] = [("train", size, turns, None) for size in sizes]
    cells.append(("inference", 1, 6 * turns, onnx))
    for what, size, count, exports in cells:
        for case in CASES:
            rows.append(compare(what, case, size, count, device, exports))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    content: dict[str, Any] = {"rows": rows}
    if device == "cuda":
        return content | {"loss_bf16": loss_curves("two_240x320", 8, device)}
    memory = content["peak_memory_mib"] = {}
    for what in ("train", "inference"):
        for case in CASES:
            memory[f"{what} {case}"] = {
                side: run_again(sys.executable, "--memory", f"{side}:{case}:{what}")
                for side in SIDES
            }
    return content


def run_again(python: str | Path, *words: str) -> Any:
    """This module's last line, read as JSON, run by a Python in a new process."""
    done = subprocess.run(
        [str(python), "-m", "benchmarks.lerobot.speed", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(
    turns: int = 8,
    device: str = "cpu",
    threads: int = 2,
    python: Path | None = None,
    memory: str = "",
    onnx: Path | None = None,
) -> None:
    """Measure both sides and write data/results/lerobot_speed[_device].json.

    Args:
        turns: training steps of each side; six times as many inferences.
        device: cpu or cuda.
        threads: of torch and ONNX Runtime on the CPU.
        python: of an environment with LeRobot; made if it is not given.
        memory: used by the script itself; so is onnx.
        onnx: folder of exported files.
    """
    torch.set_num_threads(threads)
    if device == "cuda":
        if not torch.cuda.is_available():
            print("skipped: torch sees no GPU here")
            return
        # LeRobot's training script sets both; they hold for the whole process.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if memory:
        print(peak_memory(*memory.split(":")))
        return
    if importlib.util.find_spec("lerobot"):
        print(json.dumps(inside(turns, device, onnx)))
        return
    start = time.perf_counter()
    if python is None:
        from tests.lerobot_environment import make_environment

        python = make_environment()
    words = ["--turns", str(turns), "--device", device, "--threads", str(threads)]
    content: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="lerobot-speed-") as folder:
        if device == "cpu":
            content["onnx_deviations"] = {
                case: export(case, Path(folder) / f"{case}.onnx") for case in CASES
            }
            words += ["--onnx", folder]
        content |= run_again(python, *words)
    name = "lerobot_speed" if device == "cpu" else f"lerobot_speed_{device}"
    content |= {"device": device, "threads": threads, "repetitions": turns}
    if device == "cuda":
        content["gpu"] = torch.cuda.get_device_name()
    content["load_average"] = round(os.getloadavg()[0], 1)  # what else the machine did
    write(name, time.perf_counter() - start, content)


if __name__ == "__main__":
    tyro.cli(main)
