"""From chunks of k actions to one action per tick.

A policy predicts k actions at once; an executor says when to ask for a new chunk and
what to do with the chunks that overlap. NumPy only, for n scenes (or arms) at once.
Letters in shape comments: n scenes, k chunk, A action, T ticks.

    executor.reset()
    for each tick:
        chunk = policy.predict_chunk(observation) if executor.needs_chunk() else None
        action = executor.step(chunk)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .support.errors import SettingError
from .support.plugins import load_class
from .support.validation import ClassPath, Count, Share, check_settings, check_value

Array = NDArray[np.floating]
Mode = Literal["open_loop", "receding", "ensemble", "switch", "overlap", "fade"]
Order = Literal["oldest_first", "newest_first"]
LATE = ("switch", "overlap", "fade")  # modes of `realtime.py`


class Executor(Protocol):
    """What the control loop asks of a way to execute chunks."""

    def reset(self) -> None:
        """Forget the episode so far."""
        ...

    def needs_chunk(self) -> bool:
        """Whether the next `step` must be given a fresh chunk."""
        ...

    def step(self, chunk: Array | None) -> Array:
        """Take a chunk (n, k, A) where one was asked for; return actions (n, A)."""
        ...


class RecedingHorizon:
    """Execute the first `execute` actions of each chunk, then ask for another.

    The original's `query_frequency`. Executing the whole chunk (None) is open loop:
    fewest predictions, slowest reaction.

    Raises:
        SettingError: execute is not in 1..chunk_size.
        ValueError: from `step`, a chunk is missing, unasked for, or of the wrong
            length.
    """

    def __init__(self, chunk_size: int, execute: int | None = None):
        self.chunk_size = chunk_size
        self.execute = chunk_size if execute is None else execute
        check_value("chunk_size", chunk_size, Count)
        check_value("execute", self.execute, Count)
        if self.execute > chunk_size:
            raise SettingError(
                f"execute is {execute}, expected at most the chunk size {chunk_size}"
            )
        self.reset()

    def reset(self) -> None:
        self.chunk: Array | None = None
        self.tick = 0  # within the chunk

    def needs_chunk(self) -> bool:
        return self.chunk is None or self.tick == self.execute

    def step(self, chunk: Array | None) -> Array:
        if _check_chunk(chunk, self.needs_chunk(), self.chunk_size):
            self.chunk, self.tick = np.array(chunk), 0
        assert self.chunk is not None
        action = self.chunk[:, self.tick]  # (n, A)
        self.tick += 1
        return action


class TemporalEnsemble:
    """Average, at every tick, all chunks' predictions for it (paper, section IV-A).

    The i-th prediction has weight exp(-m i), and i = 0 is the *oldest*: m > 0 weighs
    old predictions more, against what one might expect. `oldest_first=False` counts
    from the newest instead. Only running sums are kept, O(k A) a scene however long the
    episode. Unlike the original, which takes an action of exactly 0 for "no
    prediction", every value counts.

    Args:
        m: decay per prediction; 0 = the mean, any sign and size.
        every: ask for a chunk at every `every`-th tick; 1 in the paper.

    Raises:
        SettingError: m is not finite, every is not in 1..chunk_size.
        ValueError: from `step`, as `RecedingHorizon`.
    """

    def __init__(
        self,
        chunk_size: int,
        m: float = 0.01,
        oldest_first: bool = True,
        every: int = 1,
    ):
        check_value("chunk_size", chunk_size, Count)
        check_value("every", every, Count)
        check_value("m", m, float)
        self.chunk_size, self.m, self.every = chunk_size, float(m), every
        self.oldest_first = oldest_first
        if self.every > chunk_size:
            raise SettingError(
                f"every is {every}, expected at most the chunk size {chunk_size}"
            )
        self.reset()

    def reset(self) -> None:
        # Slot j of the window is j ticks ahead. Each chunk covers ticks from now on,
        # so the number of predictions for a tick never grows with j.
        self.mean: Array | None = None  # (n, k, A) weighted mean so far
        self.count = np.zeros(self.chunk_size, dtype=np.int64)
        self.tick = 0

    def needs_chunk(self) -> bool:
        return self.tick % self.every == 0

    def step(self, chunk: Array | None) -> Array:
        if _check_chunk(chunk, self.needs_chunk(), self.chunk_size):
            assert chunk is not None
            if self.mean is None:
                self.mean = np.zeros(chunk.shape)
            share = newest_share(self.count, self.m, self.oldest_first)
            self.mean += share[:, None] * (chunk - self.mean)
            self.count += 1
        assert self.mean is not None
        action = self.mean[:, 0].copy()  # (n, A)
        self.mean[:, :-1] = self.mean[:, 1:]
        self.count[:-1] = self.count[1:]
        self.mean[:, -1] = 0.0
        self.count[-1] = 0
        self.tick += 1
        return action


def newest_share(count: NDArray[np.integer], m: float, oldest_first: bool) -> Array:
    """Weight of one more prediction in a mean that holds `count` of them already.

    With w_i = exp(-m i) and c predictions before it, the newest has
    w_c / (w_0 + ... + w_c) when i counts from the oldest, and
    w_0 / (w_0 + ... + w_c) when i counts from the newest: 1 - r over 1 - r^(c+1), with
    r = exp(-m) or exp(m), where only the sign decides which of the two can overflow.
    """
    # Both orders are one formula: the newest's weight over that of the one before it
    # is exp(-rate), so the sum in units of the newest's weight is geometric.
    rate = m if oldest_first else -m
    terms = np.asarray(count) + 1.0
    if rate == 0:
        return 1.0 / terms
    if rate < 0:  # 1 / (1 + r + ... + r^c), r = exp(rate) < 1
        return np.expm1(rate) / np.expm1(rate * terms)
    # The same, top and bottom multiplied by exp(-rate c): nothing overflows.
    fraction = np.expm1(-rate) / np.expm1(-rate * terms)
    return np.exp(-rate * np.asarray(count)) * fraction


def ensemble_offline(chunks: Array, m: float, oldest_first: bool = True) -> Array:
    """What `TemporalEnsemble` returns over an episode, from the definition.

    From chunks (T, n, k, A), one predicted at each tick, to actions (T, n, A).
    """
    ticks, n, k, size = chunks.shape
    actions = np.empty((ticks, n, size))
    for t in range(ticks):
        made_at = np.arange(max(0, t - k + 1), t + 1)  # oldest first
        predictions = chunks[made_at, :, t - made_at]  # (i, n, A)
        i = np.arange(len(made_at)) if oldest_first else np.arange(len(made_at))[::-1]
        exponent = -m * i
        weight = np.exp(exponent - exponent.max())  # the largest is 1
        actions[t] = np.einsum("i,ina->na", weight / weight.sum(), predictions)
    return actions


@dataclass(frozen=True)
class ExecutionConfig:
    """How chunks are executed; `make_executor` turns it into an executor."""

    mode: Mode | ClassPath = "receding"
    """open_loop: the whole chunk; receding: its first `execute` actions; ensemble: the
    weighted mean of all predictions for a tick (one prediction a tick); or an executor
    of your own, as module:Class, which is given the chunk size. Modes for predictions
    that take several ticks, in which the arm goes on meanwhile: switch drives with the
    newest chunk as soon as it comes; overlap with the mean of both where they overlap;
    fade with the newest, its offset at the switch faded out; and ensemble."""
    execute: Count | None = None
    """all but open_loop and ensemble: ticks after which the next chunk is asked for;
    None = half a chunk, at least one."""
    m: float = 0.01
    """ensemble: weights are exp(-m i); the paper's 0.01 is nearly the plain mean."""
    order: Order = "oldest_first"
    """ensemble: where i counts from; the paper counts from the oldest."""
    every: Count = 1
    """ensemble: ask for a chunk at every so many ticks, or when the one before it is
    there; the paper: 1."""
    share: Share = 0.7
    """overlap: weight of the newer chunk."""
    fade: Count = 10
    """fade: ticks after which only the newer chunk is left."""

    def __post_init__(self) -> None:
        # What the chunk size decides comes later.
        check_settings(self)
        if self.mode not in ("receding", *LATE) and self.execute is not None:
            raise SettingError(
                f"execute is {self.execute} with mode={self.mode!r}, expected it "
                f"with one of the modes receding, {', '.join(LATE)}"
            )

    def to_json(self) -> dict[str, Any]:
        """Its settings; those that came later only where they are not the default."""
        later = ("share", "fade")
        default = ExecutionConfig()
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in later or value != getattr(default, name)
        }


def make_executor(config: ExecutionConfig, chunk_size: int) -> Executor:
    """The executor of these settings; SettingError if they do not suit the chunks."""
    if config.mode == "ensemble":
        oldest_first = config.order == "oldest_first"
        return TemporalEnsemble(chunk_size, config.m, oldest_first, config.every)
    if config.mode == "open_loop":
        return RecedingHorizon(chunk_size)
    if config.mode in LATE:
        raise SettingError(
            f"mode is {config.mode!r}, whose executor realtime.make_late_executor makes"
        )
    if config.mode != "receding":
        return load_class(config.mode, ("reset", "needs_chunk", "step"))(chunk_size)
    return RecedingHorizon(chunk_size, config.execute or max(1, chunk_size // 2))


def _check_chunk(chunk: Array | None, needed: bool, chunk_size: int) -> bool:
    """Whether there is a chunk to take in; raises where it is not as it should be."""
    if (chunk is not None) != needed:
        found = "no chunk" if chunk is None else "a chunk"
        raise ValueError(f"step was given {found}, expected as needs_chunk() says")
    if chunk is not None and (chunk.ndim != 3 or chunk.shape[1] != chunk_size):
        raise ValueError(
            f"chunk has shape {chunk.shape}, expected (n, {chunk_size}, A)"
        )
    return needed
