"""What surrounds the training loop: devices, several processes, Ctrl-C.

`torchrun` starts the processes and tells each its number through the environment;
without it there is one.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import UserError


def choose_device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU where there is one, Apple's too."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device '{name}' cannot be used here ({str(error).splitlines()[0]}); "
            f"'auto' chooses one that can"
        ) from error
    return device


@dataclass(frozen=True)
class World:
    """The processes that train together, seen from one of them."""

    rank: int
    size: int
    device: torch.device

    @contextmanager
    def first(self) -> Iterator[None]:
        """Process 0 runs the block before the others do."""
        if self.rank > 0:
            self.barrier()
        yield
        if self.rank == 0:
            self.barrier()

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes of a tensor that each has."""
        if self.size > 1:
            dist.all_reduce(values)
            values = values / self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        return self.mean(torch.tensor(float(flag), device=self.device)).item() > 0


@contextmanager
def join(device_name: str) -> Iterator[World]:
    """Joins the processes that torchrun started, if it did; a GPU for each."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(device_name)
    if size == 1:
        yield World(0, 1, device)
        return
    rank = int(os.environ["RANK"])
    if device.type == "cuda":
        here, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if here >= gpus:
            raise UserError(
                f"process {here + 1} of this machine needs a GPU of its own, and there "
                f"are {gpus}; start as many as that, or choose device 'cpu'"
            )
        device = torch.device("cuda", here)
        torch.cuda.set_device(device)
    opened = not dist.is_initialized()
    if opened:
        cuda = device.type == "cuda"
        options: dict[str, Any] = {"device_id": device} if cuda else {}
        dist.init_process_group("nccl" if cuda else "gloo", **options)
    try:
        yield World(rank, size, device)
    finally:
        if opened:
            dist.destroy_process_group()


@contextmanager
def private_state(threads: int | None, device: torch.device) -> Iterator[None]:
    """Puts torch's random state, threads and precision back at the end.

    On a GPU matrix products are TF32's meanwhile, as convolutions are there anyway: a
    training step of paper size at batch 64 took 45 instead of 78 ms on an H100.
    """
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    if threads is not None:
        torch.set_num_threads(threads)
    devices = []
    if device.type == "cuda":
        devices.append(device)
        torch.set_float32_matmul_precision("high")
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)


@contextmanager
def catch_interrupts() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into a flag; the second one interrupts as usual.

    Without this, Ctrl-C could strike between the updates of two weights.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals reach the main thread only
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
