"""What each speed trick of the model brings: steps with it against steps without it.

    uv run python -m benchmarks.tricks

The paper's network on the CPU, in one process, turn by turn. Without a trick the same
numbers are computed in the plain way; at inference that is checked.
"""

import time
from collections import OrderedDict
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from act_minimal import backbones
from act_minimal import model as networks

from .lerobot.speed import CASES, PAUSE, Step, batch_of, ours
from .results import write

BATCH = {"train": 8, "inference": 1}
resnet = backbones.resnet


def norm_after(self: backbones.NormedConv, x: Tensor) -> Tensor:
    """The convolution, and then the frozen batch norm, as torchvision does it."""
    gain, bias, mean, var = self.norm[0].buffers()
    scale = gain * (var + 1e-5).rsqrt()
    x = F.conv2d(x, self.weight, None, self.stride, self.padding)
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def relu_first(*args: Any) -> nn.Sequential:
    """A ResNet whose first ReLU comes before its max-pooling, as usual."""
    children = list(resnet(*args).named_children())
    children[2:4] = reversed(children[2:4])
    return nn.Sequential(OrderedDict(children))


# Each with what stands in its place for the plain way: object, name, and that.
TRICKS: dict[str, tuple[Any, str, Any]] = {
    "batch norm folded": (backbones.NormedConv, "forward", norm_after),
    "channels last": (torch, "channels_last", torch.contiguous_format),
    "max-pooling before ReLU": (backbones, "resnet", relu_first),
    "16-bit dropout": (networks.Dropout, "forward", nn.Dropout.forward),
}


def compare(what: str, case: str, turns: int) -> dict[str, Any]:
    """Of each trick, how much longer a step is without it."""
    batch, made = batch_of(case, BATCH[what]), ours(case, "cpu")
    steps: dict[str, tuple[Any, Step]] = {"all": (nullcontext(), made[what])}
    for name, plain in TRICKS.items():
        patch = mock.patch.object(*plain)
        with patch:
            steps[name] = patch, ours(case, "cpu")[what]
    taken: dict[str, list[float]] = {name: [] for name in steps}
    results = {}
    for turn in range(-1, turns):  # the first one warms up
        for name, (patch, step) in steps.items():
            time.sleep(PAUSE["cpu"])
            with patch:
                start = time.perf_counter()
                results[name] = step(batch)
                seconds = time.perf_counter() - start
            if turn >= 0:
                taken[name].append(seconds)
    if what == "inference":
        for name, actions in results.items():
            torch.testing.assert_close(actions, results["all"], msg=name)
    row: dict[str, Any] = {"what": what, "case": case, "batch": BATCH[what], "n": turns}
    row |= {"seconds": float(np.median(taken["all"])), "without": {}}
    for name in TRICKS:
        ratios = np.array(taken[name]) / np.array(taken["all"])
        row["without"][name] = {
            "ratio": float(np.median(ratios)),
            "range": [float(ratios.min()), float(ratios.max())],
        }
    return row


def main(turns: int = 12) -> None:
    """Measure and write the result.

    Args:
        turns: of each way; four times as many at inference.
    """
    begin = time.perf_counter()
    rows = []
    for what in BATCH:
        for case in CASES:
            rows.append(compare(what, case, turns * (4 if what == "inference" else 1)))
            print(rows[-1], flush=True)
    write("tricks", time.perf_counter() - begin, {"rows": rows})


if __name__ == "__main__":
    tyro.cli(main)
