"""Chunks that come late: what drives an arm while its policy computes the next chunk.

One clock for all. At tick t an observation is read and a prediction begins. It has come
before the action of tick t + d is chosen; meanwhile d actions are sent that were chosen
before, the *committed* ones. The chunk is for ticks t to t + k - 1, so its first d
actions are past when it comes. Between two requests lie s ticks, or more if the chunk
comes later than expected. Between two chunks is a seam, where targets may jump.

    d  inference delay      s  execution horizon      k  chunk size,   all in ticks
    d <= s <= k - d: else one prediction would begin during another, or actions run out

(K. Black et al., Real-Time Execution of Action Chunking Flow Policies, 2506.07339.)
Letters in shape comments: n scenes or arms, k chunk, A action, T actions left.

    executor.reset(hold)
    for each tick:
        deliver(executor, inference, tick)
        if executor.wants_chunk() and not inference.busy:
            inference.begin(observation, executor.commit(inference.delay), tick)
            deliver(executor, inference, tick)  # if it took no time
        action = executor.step()
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .execution import (
    LATE,
    Array,
    ExecutionConfig,
    Executor,
    make_executor,
    newest_share,
)
from .support.errors import SettingError, UserError
from .support.validation import Count, Share, Whole, check_value

Observation = dict[str, np.ndarray]
ALIKE = 1e-5  # actions that differ by less are the same: policies compute in float32
BAD = 5  # chunks in a row that are no numbers: more is no accident
REMEMBERED = 10  # delays of which the longest is expected next (RTC's algorithm 1)


@runtime_checkable
class LateExecutor(Protocol):
    """What the control loop asks of a way to execute chunks that come late."""

    age: int | None
    """Ticks since the observation behind the last action; None: nothing to correct."""
    hold_ticks: list[int]
    """Ticks at which the last action was sent again, as there was no other."""

    def reset(self, hold: Array) -> None:
        """Forget the episode so far; until a chunk comes the arm is kept at (n, A)."""
        ...

    def wants_chunk(self) -> bool:
        """Whether a prediction should begin with this tick's observation."""
        ...

    def commit(self, delay: int) -> Array:
        """A prediction begins: the actions (n, up to delay, A) that are sent before."""
        ...

    def deliver(self, chunk: Array, late: int) -> None:
        """Take the chunk (n, k, A) of a prediction that began `late` ticks ago."""
        ...

    def step(self) -> Array:
        """The action (n, A) of this tick."""
        ...


def check_clock(
    chunk_size: int, delay: int, horizon: int, name: str = "execute"
) -> None:
    """SettingError, with the values that suit, unless delay <= horizon <= k - delay."""
    check_value("chunk_size", chunk_size, Count)
    check_value("delay", delay, Whole)
    check_value(name, horizon, Count)
    if 2 * delay > chunk_size:
        raise SettingError(
            f"delay is {delay} ticks with chunks of {chunk_size} actions, expected at "
            f"most half of them: {chunk_size // 2}"
        )
    least, most = max(1, delay), chunk_size - delay
    if not least <= horizon <= most:
        raise SettingError(
            f"{name} is {horizon} with a delay of {delay} ticks and chunks of "
            f"{chunk_size} actions, expected from {least} to {most}"
        )


class Switch:
    """Drive with the newest chunk from the tick at which it comes.

    Known as naive asynchronous inference. Subclasses say how old and new are joined.
    Until the first chunk comes the arm is kept where it is, and the first chunk is
    joined with that.

    Args:
        chunk_size: k.
        delay: d that is expected, in ticks; chunks may come earlier or later.
        horizon: s; None: half a chunk, within what the delay allows.

    Attributes:
        dropped: chunks that came too late, or are no numbers.
        seams: jump of the targets at each seam, (n, A) each: between how the old chunk
            would have gone on and what is sent.
        seam_ticks: when each was. A policy that is told of committed actions repeats
            them: the seam is where its chunk goes a way of its own.
        ages: `age` of every tick.

    Raises:
        SettingError: not d <= s <= k - d.
        UserError: from `deliver`, five chunks in a row are no numbers; from `step`,
            there is no action yet, and nobody knows what keeps the arm where it is.
    """

    setting = "execute"  # that gives the horizon

    def __init__(self, chunk_size: int, delay: int = 0, horizon: int | None = None):
        if horizon is None:
            half = max(1, chunk_size // 2)
            horizon = max(1, min(max(half, delay), chunk_size - delay))
        check_clock(chunk_size, delay, horizon, self.setting)
        self.chunk_size, self.delay, self.horizon = chunk_size, delay, horizon
        self.reset(np.zeros((1, 0)))

    def reset(self, hold: Array) -> None:
        self.sent = np.array(hold, float)  # (n, A) the last action; NaN: none is known
        self.plan = np.empty((len(hold), 0, hold.shape[1]))  # (n, T, A) coming actions
        self.asked: int | None = None  # ticks since the newest request
        self.waiting = False  # for its chunk
        self.newest: int | None = None  # ticks since the newest chunk's observation
        self.age: int | None = None
        self.dropped = self.bad = 0
        self.seams: list[Array] = []
        self.seam_ticks: list[int] = []
        self.ages: list[int | None] = []
        self.hold_ticks: list[int] = []
        self.tick = 0

    def wants_chunk(self) -> bool:
        return not self.waiting and (self.asked is None or self.asked >= self.horizon)

    def commit(self, delay: int) -> Array:
        self.asked, self.waiting = 0, True
        planned = self.plan[:, :delay]
        last = planned[:, -1:] if planned.shape[1] else self.sent[:, None]
        held = np.repeat(last, delay - planned.shape[1], axis=1)
        known = not np.isnan(held).any()
        return np.concatenate([planned, held] if known else [planned], axis=1)

    def deliver(self, chunk: Array, late: int) -> None:
        self.waiting = False
        if chunk.ndim != 3 or chunk.shape[1] != self.chunk_size:
            raise ValueError(
                f"chunk has shape {chunk.shape}, expected (n, {self.chunk_size}, A)"
            )
        finite = bool(np.isfinite(chunk).all())
        self.bad = 0 if finite else self.bad + 1
        if self.bad == BAD:
            raise UserError(f"{BAD} chunks in a row hold NaN or infinite actions")
        new = chunk[:, late:].astype(float)  # (n, k - late, A)
        if not finite or not new.shape[1]:
            self.dropped += 1
            return
        self.newest = late
        old = self.plan if self.plan.shape[1] else self.sent[:, None]  # (n, T, A)
        if np.isnan(old).any() or not old.shape[2]:
            self.plan = new  # there is nothing to join it with
            return
        more = max(0, new.shape[1] - old.shape[1])  # where the last action would stay
        longer = np.pad(old, ((0, 0), (0, more), (0, 0)), mode="edge")
        place = parting(longer, new)
        goes_on = longer[:, place]  # (n, A)
        self.plan = self.join(old, new, place, goes_on)
        self.seams.append(np.abs(self.plan[:, place] - goes_on))
        self.seam_ticks.append(self.tick + place)

    def join(self, old: Array, new: Array, place: int, goes_on: Array) -> Array:
        """The actions to come, (n, T', A), of what was planned (n, T, A) and the new.

        Both begin with this tick; `old` has at least one, the last action sent if
        nothing is left. Up to `place` they are alike, and there the old chunk would
        have gone on with (n, A).
        """
        return new

    def step(self) -> Array:
        if self.plan.shape[1]:
            self.sent, self.plan = self.plan[:, 0], self.plan[:, 1:]
            self.age = self.newest
        elif np.isnan(self.sent).any():
            raise UserError(
                "the first chunk has not come, and this robot's joints are not its "
                "actions: nobody knows the targets that keep it where it is"
            )
        else:
            self.hold_ticks.append(self.tick)
            self.age = None
        self.ages.append(self.age)
        self.tick += 1
        if self.asked is not None:
            self.asked += 1
        if self.newest is not None:
            self.newest += 1
        return self.sent.copy()


def parting(old: Array, new: Array) -> int:
    """The first tick at which a new chunk (n, T', A) is not what was planned."""
    planned = old[:, : new.shape[1]]
    alike = np.isclose(planned, new, rtol=0, atol=ALIKE).all((0, 2))
    return min(int(np.append(alike, False).argmin()), new.shape[1] - 1)


class Overlap(Switch):
    """Where both chunks have an action, their weighted mean.

    LeRobot's asynchronous client knows it as `weighted_average`, with 0.7 for the new.
    """

    def __init__(
        self,
        chunk_size: int,
        delay: int = 0,
        horizon: int | None = None,
        share: float = 0.7,
    ):
        check_value("share", share, Share)
        self.share = share
        super().__init__(chunk_size, delay, horizon)

    def join(self, old: Array, new: Array, place: int, goes_on: Array) -> Array:
        both = min(old.shape[1], new.shape[1])
        mean = old[:, :both] + self.share * (new[:, :both] - old[:, :both])
        return np.concatenate([mean, new[:, both:]], axis=1)


class Fade(Switch):
    """Begin where the old chunk would have gone on, and fade its offset out.

    With e = old - new at the seam, the j-th action from there is
    new + e max(0, 1 - j / fade): no jump, whatever the chunks are.

    Args:
        fade: ticks after which only the new chunk is left, if no other has come.
    """

    def __init__(
        self,
        chunk_size: int,
        delay: int = 0,
        horizon: int | None = None,
        fade: int = 10,
    ):
        check_value("fade", fade, Count)
        self.fade = fade
        super().__init__(chunk_size, delay, horizon)

    def join(self, old: Array, new: Array, place: int, goes_on: Array) -> Array:
        j = np.arange(new.shape[1]) - place  # (T',)
        share = np.where(j < 0, 0.0, np.maximum(0.0, 1 - j / self.fade))
        return new + share[:, None] * (goes_on - new[:, place])[:, None]


class LateEnsemble(Switch):
    """Temporal ensembling of what has come: a chunk votes only from then on.

    Weights are those of `execution.TemporalEnsemble`; `horizon` is its `every`.
    """

    setting = "every"

    def __init__(
        self,
        chunk_size: int,
        delay: int = 0,
        horizon: int | None = None,
        m: float = 0.01,
        oldest_first: bool = True,
    ):
        check_value("m", m, float)
        self.m, self.oldest_first = float(m), oldest_first
        super().__init__(chunk_size, delay, horizon)

    def reset(self, hold: Array) -> None:
        super().reset(hold)
        self.votes = np.zeros(0, np.int64)  # of each coming action

    def deliver(self, chunk: Array, late: int) -> None:
        dropped = self.dropped
        super().deliver(chunk, late)
        if self.dropped == dropped:
            more = self.plan.shape[1] - len(self.votes)
            self.votes = np.pad(self.votes, (0, more)) + 1

    def join(self, old: Array, new: Array, place: int, goes_on: Array) -> Array:
        if not len(self.votes):
            return new
        more = new.shape[1] - len(self.votes)  # it began later, and ends later
        share = newest_share(np.pad(self.votes, (0, more)), self.m, self.oldest_first)
        before = np.pad(old, ((0, 0), (0, more), (0, 0)))
        return before + share[:, None] * (new - before)

    def step(self) -> Array:
        self.votes = self.votes[1:]
        return super().step()


class Waiting:
    """The executors of `execution.py`: the arm stands still until its chunk comes.

    Known as synchronous inference. Without a delay it is the executor itself.
    """

    def __init__(self, executor: Executor):
        self.executor = executor
        self.age: int | None = None
        self.reset(np.zeros((1, 0)))

    def reset(self, hold: Array) -> None:
        self.executor.reset()
        self.sent, self.tick = hold, 0
        self.hold_ticks: list[int] = []
        self.chunk: Array | None = None
        self.waiting = False

    def wants_chunk(self) -> bool:
        return not self.waiting and self.chunk is None and self.executor.needs_chunk()

    def commit(self, delay: int) -> Array:
        self.waiting = True
        return self.sent[:, None][:, :0]

    def deliver(self, chunk: Array, late: int) -> None:
        self.chunk, self.waiting = chunk, False

    def step(self) -> Array:
        if self.chunk is None and self.executor.needs_chunk():
            self.hold_ticks.append(self.tick)
        else:
            self.sent, self.chunk = self.executor.step(self.chunk), None
        self.tick += 1
        return self.sent


def make_late_executor(
    config: ExecutionConfig, chunk_size: int, delay: int = 0
) -> LateExecutor:
    """The executor of these settings, for predictions that take `delay` ticks.

    Raises:
        SettingError: they do not suit the chunks or the delay.
    """
    clock = chunk_size, delay, config.execute
    if config.mode == "switch":
        return Switch(*clock)
    if config.mode == "overlap":
        return Overlap(*clock, share=config.share)
    if config.mode == "fade":
        return Fade(*clock, fade=config.fade)
    if config.mode == "ensemble" and delay:
        every = max(config.every, delay)
        oldest_first = config.order == "oldest_first"
        return LateEnsemble(
            chunk_size, delay, every, m=config.m, oldest_first=oldest_first
        )
    return Waiting(make_executor(config, chunk_size))


def check_mode(
    policy: Any, config: ExecutionConfig, delay: int = 0, spread: float = 1.0
) -> None:
    """SettingError if a policy cannot be driven in this mode, or with this delay.

    Args:
        delay: ticks, the median if they vary.
        spread: of the delays, their 99th percentile over their median.
    """
    goes_on = (*LATE, "ensemble")
    if hasattr(policy, "correct") and config.mode not in LATE:
        raise SettingError(
            f"mode is {config.mode!r} with a policy that corrects every action (see "
            f"residual.py), expected one of {', '.join(LATE)}"
        )
    told, longest = getattr(policy, "told_max", 0), round(delay * spread)
    if told and config.mode in goes_on and longest > told:
        vary = f", and up to {longest} in 99 % of predictions," if spread > 1 else ""
        raise SettingError(
            f"delay is {delay} ticks{vary} with a policy that was trained for at most "
            f"{told}"
        )


def longest_delay(policy: Any) -> int:
    """Ticks that a policy's prediction may take while the arm goes on."""
    half = policy.chunk_size // 2
    return min(half, getattr(policy, "told_max", 0) or half)


# ---------------------------------------------------------------- who predicts


class Inference(Protocol):
    """Who computes chunks while the arm goes on."""

    @property
    def busy(self) -> bool:
        """Whether a prediction has begun that has not come: there is never another."""
        ...

    @property
    def delay(self) -> int:
        """Ticks that the next prediction is expected to take."""
        ...

    def begin(self, observation: Observation, prefix: Array, tick: int) -> None:
        """Begin a prediction at this tick."""
        ...

    def come(self, tick: int) -> Iterator[tuple[Array, int]]:
        """The chunk that has come by now, if one has, and its delay in ticks."""
        ...

    def reset(self) -> None:
        """A new episode: what is under way belongs to the old one."""
        ...


def deliver(executor: LateExecutor, inference: Inference, tick: int) -> None:
    """Give an executor the chunk that has come by this tick, if one has."""
    for chunk, late in inference.come(tick):  # (n, k, A)
        executor.deliver(chunk, late)


def predict(policy: Any, observation: Observation, prefix: Array) -> Array:
    """A chunk (n, k, A), of a policy that may want to know what is committed."""
    longest = getattr(policy, "told_max", 0)
    if not longest:
        return policy.predict_chunk(observation)
    return policy.predict_chunk(observation, prefix[:, :longest])


def draws(ticks: int, spread: float, seed: int) -> Callable[[], int]:
    """Delays in ticks, log-normal with median `ticks`; `spread` is p99 over p50."""
    rng, sigma = np.random.default_rng([seed, 5]), np.log(spread) / 2.326
    return lambda: round(ticks * np.exp(sigma * rng.standard_normal()))


class _Delays:
    """The longest of the last delays, which is what to expect of the next one.

    Attributes:
        delays: of this episode's predictions, in ticks.
    """

    def __init__(self, expected: int):
        self.last = deque([expected], REMEMBERED)
        self.delays: list[int] = []

    @property
    def delay(self) -> int:
        return max(self.last)

    def took(self, ticks: int) -> None:
        """A prediction has come."""
        self.last.append(ticks)
        self.delays.append(ticks)


class InTicks(_Delays):
    """Predictions that take a number of ticks: exact, repeatable, for simulation.

    Args:
        policy: asked at once; what it says is held back.
        delay: ticks, or who draws them, for each prediction.
        expected: delay of the first prediction, where they are drawn.
    """

    def __init__(
        self, policy: Any, delay: int | Callable[[], int] = 0, expected: int = 0
    ):
        self.policy = policy
        self.draw = delay if callable(delay) else lambda: delay
        super().__init__(expected if callable(delay) else delay)
        self.reset()

    @property
    def busy(self) -> bool:
        return self.pending is not None

    def begin(self, observation: Observation, prefix: Array, tick: int) -> None:
        assert not self.busy
        chunk = predict(self.policy, observation, prefix)
        self.pending = chunk, tick, tick + self.draw()

    def come(self, tick: int) -> Iterator[tuple[Array, int]]:
        if self.pending is not None and tick >= self.pending[2]:
            chunk, began, _ = self.pending
            self.pending = None
            self.took(tick - began)
            yield chunk, tick - began

    def reset(self) -> None:
        self.pending: tuple[Array, int, int] | None = None
        self.delays = []


class Worker:
    """A thread that does one thing after the other, and ends with the program.

    Python waits at its end for those of `concurrent.futures`, even for one that hangs.
    """

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        Thread(target=self._work, daemon=True).start()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Its result, or what it raises."""
        future: Future[Any] = Future()
        self.jobs.put((future, work))
        return future

    def _work(self) -> None:
        while True:
            future, work = self.jobs.get()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)


class InThread(_Delays):
    """Predictions in a thread beside the loop: for arms, which do not wait.

    Args:
        policy: asked in the thread.
        expected: delay of the first prediction, in ticks.
        patience: s that a prediction may take at most.
        submit: begins work beside the loop.
        now: s, of some clock.

    Raises:
        UserError: from `busy` and `come`, a prediction takes longer than that; from
            `come`, it has failed.
    """

    def __init__(
        self,
        policy: Any,
        expected: int = 0,
        patience: float = 5.0,
        submit: Callable[[Callable[[], Any]], Future[Any]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        self.policy, self.patience, self.now = policy, patience, now
        self.submit = submit or Worker().submit
        super().__init__(expected)
        self.future: Future[Array] | None = None
        self.began: int | None = None  # None: of an episode that is over
        self.since = 0.0

    @property
    def busy(self) -> bool:
        if self.began is None and self.future is not None and self.future.done():
            self.future = None  # nobody wants it any more
        self._lose_patience()
        return self.future is not None

    def begin(self, observation: Observation, prefix: Array, tick: int) -> None:
        assert not self.busy
        self.future = self.submit(lambda: predict(self.policy, observation, prefix))
        self.began, self.since = tick, self.now()

    def come(self, tick: int) -> Iterator[tuple[Array, int]]:
        if self.began is not None and self.future is not None and self.future.done():
            chunk, late = self.future.result(), tick - self.began
            self.future = self.began = None
            self.took(late)
            yield chunk, late
        self._lose_patience()

    def reset(self) -> None:
        self.began = None
        self.delays = []

    def _lose_patience(self) -> None:
        spent = self.now() - self.since
        if self.future is not None and not self.future.done() and spent > self.patience:
            raise UserError(
                f"a prediction has taken {spent:.1f} s and is not there, expected at "
                f"most {self.patience:g} s"
            )
