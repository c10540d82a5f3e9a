"""Chunks that come late, against a plain model of what shall be sent."""

from concurrent.futures import Future
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act_minimal.execution import (
    ExecutionConfig,
    RecedingHorizon,
    TemporalEnsemble,
    make_executor,
)
from act_minimal.realtime import (
    Fade,
    InThread,
    InTicks,
    LateEnsemble,
    Overlap,
    Switch,
    Waiting,
    Worker,
    check_clock,
    make_late_executor,
)
from act_minimal.support.errors import SettingError, UserError

pytestmark = pytest.mark.mostly_quick
HOLD = np.full((2, 1), -1.0)


class Counting:
    """A policy that answers, at its i-th call, 1000 i + 0 ... 1000 i + k - 1."""

    def __init__(self, k):
        self.k, self.calls = k, 0

    def predict_chunk(self, observation):
        self.calls += 1
        row = 1000.0 * self.calls + np.arange(self.k)
        return np.tile(row[None, :, None], (2, 1, 1))


def deliver(executor, inference, tick):
    """As `realtime.deliver`; also which delays the chunks had."""
    found = list(inference.come(tick))
    for chunk, late in found:
        executor.deliver(chunk, late)
    return [late for _, late in found]


def drive(executor, inference, ticks, hold=HOLD):
    """The loop of `control.run`: what is sent, when predictions begin and come."""
    executor.reset(hold)
    inference.reset()
    sent, began, came = [], [], []
    for tick in range(ticks):
        came += deliver(executor, inference, tick)
        if not inference.busy and executor.wants_chunk():
            inference.begin({}, executor.commit(inference.delay), tick)
            began.append(tick)
            came += deliver(executor, inference, tick)
        sent.append(executor.step()[0, 0])
    return np.array(sent), began, came


@st.composite
def clocks(draw):
    """k, d, s that fit each other, and the delay of each of 12 predictions."""
    k = draw(st.integers(1, 20))
    d = draw(st.integers(0, k // 2))
    s = draw(st.integers(max(1, d), k - d))
    longest = draw(st.sampled_from([d, 2 * d + 1, k + 3]))
    delays = draw(st.lists(st.integers(0, longest), min_size=12, max_size=12))
    return k, d, s, delays


def expected_of_switch(k, s, delays, ticks):
    """The plain model: at each tick, the newest chunk that has come by then."""
    sent, began, calls, last = [], [], 0, -1.0
    coming, newest = None, None  # (call, began, comes)
    for tick in range(ticks):
        for _ in range(2):  # what has come; then what begins, and takes no time
            if coming is not None and coming[2] <= tick:
                if tick - coming[1] < k:
                    newest = coming
                coming = None
            if coming is None and (not began or tick - began[-1] >= s):
                calls += 1
                coming = (calls, tick, tick + delays[(calls - 1) % len(delays)])
                began.append(tick)
        if newest is not None and tick - newest[1] < k:
            last = 1000.0 * newest[0] + tick - newest[1]
        sent.append(last)
    return np.array(sent), began


def drawn(delays):
    """`delays` again and again."""
    count = iter(range(10**6))
    return lambda: delays[next(count) % len(delays)]


@given(clocks())
def test_switch_sends_the_newest_action_that_has_come(clock):
    k, d, s, delays = clock
    executor = Switch(k, d, s)
    inference = InTicks(Counting(k), drawn(delays))
    sent, began, _ = drive(executor, inference, 60)
    wanted, wanted_began = expected_of_switch(k, s, delays, 60)
    assert began == wanted_began
    np.testing.assert_array_equal(sent, wanted)
    assert len(executor.hold_ticks) == (np.diff(wanted, prepend=-1) == 0).sum()


@given(clocks())
def test_within_its_clock_an_executor_never_runs_out(clock):
    k, d, s, _ = clock
    for kind in (Switch, Overlap, Fade, LateEnsemble):
        executor = kind(k, d, s)
        _, began, came = drive(executor, InTicks(Counting(k), d), 60)
        assert len(executor.hold_ticks) == d  # until the first chunk comes
        assert {after - before for before, after in pairwise(began)} <= {s}
        assert set(came) == {d}
        assert executor.dropped == 0


@given(st.integers(1, 12), st.data())
def test_without_a_delay_they_are_those_of_always(k, data):
    s = data.draw(st.integers(1, k))
    rng = np.random.default_rng(0)
    chunks = rng.normal(size=(40, 2, k, 3))

    class Policy:
        def predict_chunk(self, observation):
            return chunks[observation["tick"]]

    for late, plain in (
        (Switch(k, 0, s), RecedingHorizon(k, s)),
        (Waiting(RecedingHorizon(k, s)), RecedingHorizon(k, s)),
        (LateEnsemble(k, 0, s, m=0.3), TemporalEnsemble(k, 0.3, every=s)),
        (
            LateEnsemble(k, 0, s, m=0.3, oldest_first=False),
            TemporalEnsemble(k, 0.3, oldest_first=False, every=s),
        ),
    ):
        late.reset(np.zeros((2, 3)))
        inference = InTicks(Policy())
        for tick in range(40):
            if late.wants_chunk():
                inference.begin({"tick": tick}, late.commit(0), tick)  # pyright: ignore
            for chunk, delay in inference.come(tick):
                late.deliver(chunk, delay)
            wanted = plain.step(chunks[tick] if plain.needs_chunk() else None)
            np.testing.assert_array_equal(late.step(), wanted)


@given(clocks(), st.floats(-1, 1), st.booleans())
def test_a_late_ensemble_is_the_mean_of_what_has_come(clock, m, oldest_first):
    k, d, s, delays = clock
    executor = LateEnsemble(k, d, s, m=m, oldest_first=oldest_first)
    executor.reset(HOLD)
    inference = InTicks(Counting(k), drawn([min(x, k - 1) for x in delays]))
    came: list[tuple[int, np.ndarray]] = []
    last = -1.0
    for tick in range(40):
        for turn in range(2):
            for chunk, late in inference.come(tick):
                executor.deliver(chunk, late)
                came.append((tick - late, chunk[0, :, 0]))
            if turn == 0 and not inference.busy and executor.wants_chunk():
                inference.begin({}, executor.commit(d), tick)
        votes = [chunk[tick - began] for began, chunk in came if tick - began < k]
        if votes:
            order = (
                np.arange(len(votes)) if oldest_first else np.arange(len(votes))[::-1]
            )
            weights = np.exp(-m * order)
            last = float(weights @ votes / weights.sum())
        assert executor.step()[0, 0] == pytest.approx(last)


@given(clocks(), st.integers(1, 12))
def test_fading_never_jumps_and_ends_at_the_new_chunk(clock, fade):
    k, d, s, _ = clock
    executor, plain = Fade(k, d, s, fade=fade), Switch(k, d, s)
    executor.reset(HOLD)
    old = np.arange(k, dtype=float)[None, :, None]
    new = 100.0 + np.arange(k, dtype=float)[None, :, None]
    for one in (executor, plain):
        one.reset(HOLD[:1])
        one.deliver(old, 0)
        for _ in range(s):
            one.step()
    seam = executor.plan[0, 0, 0] if executor.plan.shape[1] else executor.sent[0, 0]
    for one in (executor, plain):
        one.deliver(new, 0)
    faded = np.array([executor.step()[0, 0] for _ in range(k)])
    straight = np.array([plain.step()[0, 0] for _ in range(k)])
    assert faded[0] == pytest.approx(seam)
    np.testing.assert_allclose(faded[fade:], straight[fade:])
    share = (faded - straight) / (seam - straight[0])
    np.testing.assert_allclose(share, np.maximum(0, 1 - np.arange(k) / fade), atol=1e-9)


def test_overlap_is_lerobots_weighted_mean():
    executor = Overlap(4, 1, 2)
    executor.reset(HOLD[:1])
    executor.deliver(np.array([0.0, 1, 2, 3])[None, :, None], 0)
    executor.step()
    executor.step()
    executor.deliver(np.array([12.0, 13, 14, 15])[None, :, None], 0)
    sent = [executor.step()[0, 0] for _ in range(4)]
    assert sent == pytest.approx([0.3 * 2 + 0.7 * 12, 0.3 * 3 + 0.7 * 13, 14, 15])


def test_an_arm_that_waits_stands_still_and_goes_on_where_it_was():
    executor = Waiting(RecedingHorizon(4, 2))
    sent, began, _ = drive(executor, InTicks(Counting(4), 3), 11)
    first, second, third = 1000.0, 2000.0, 3000.0
    assert sent.tolist() == [-1] * 3 + [first, first + 1] + [first + 1] * 3 + [
        second,
        second + 1,
        second + 1,
    ]
    assert began == [0, 5, 10]
    assert len(executor.hold_ticks) == 7
    assert third not in sent


def test_committed_actions_are_those_that_are_sent():
    executor = Switch(10, 3, 4)
    executor.reset(HOLD)
    inference, committed, sent = InTicks(Counting(10), 3), [], []
    for tick in range(30):
        deliver(executor, inference, tick)
        if not inference.busy and executor.wants_chunk():
            committed.append((tick, executor.commit(3)[0, :, 0]))
            inference.begin({}, HOLD[:, None], tick)
        sent.append(executor.step()[0, 0])
    for tick, actions in committed[:-1]:  # at first, that the arm is kept where it is
        assert actions.tolist() == sent[tick : tick + 3]


class ByHand:
    """A worker whose work is done when the test says so, and its clock."""

    def __init__(self):
        self.jobs, self.time = [], 0.0

    def submit(self, work):
        future: Future = Future()
        self.jobs.append((future, work))
        return future

    def finish(self):
        future, work = self.jobs.pop(0)
        future.set_result(work())

    def inference(self, k, expected, patience=5.0):
        now = lambda: self.time  # noqa: E731
        return InThread(Counting(k), expected, patience, self.submit, now)


@given(clocks(), st.integers(0, 40))
def test_the_thread_is_the_same_machine(clock, reset_at):
    """As with ticks: the newest that has come; never two under way; none of before."""
    k, d, s, delays = clock
    pool, executor = ByHand(), Switch(k, d, s)
    inference = pool.inference(k, d)
    wanted, wanted_began = expected_of_switch(k, s, delays, 40)
    executor.reset(HOLD)
    sent, began, done_at = [], [], None
    for tick in range(40):
        for turn in range(2):
            if pool.jobs and done_at is not None and tick >= done_at:
                pool.finish()
            deliver(executor, inference, tick)
            if turn == 0 and not inference.busy and executor.wants_chunk():
                inference.begin({}, executor.commit(inference.delay), tick)
                done_at = tick + delays[len(began) % len(delays)]
                began.append(tick)
            assert len(pool.jobs) <= 1
        sent.append(executor.step()[0, 0])
        if tick == reset_at and inference.busy:  # another episode begins
            executor.reset(HOLD)
            inference.reset()
            assert list(inference.come(tick)) == []
            assert inference.busy  # the old one is still computed
            pool.finish()
            assert not inference.busy
            assert list(inference.come(tick)) == []
            return
    assert began == wanted_began
    np.testing.assert_array_equal(sent, wanted)
    assert inference.delay == max([d, *[late for late in inference.last]][-10:])


def test_a_prediction_that_never_comes_is_a_fault_and_the_arm_is_kept_until_then():
    pool, executor = ByHand(), Switch(4, 1, 2)
    inference = pool.inference(4, 1)
    executor.reset(HOLD)
    inference.begin({}, executor.commit(1), 0)
    for tick in range(50):
        pool.time = tick / 10
        deliver(executor, inference, tick)
        np.testing.assert_array_equal(executor.step(), HOLD)
    pool.time = 5.1
    with pytest.raises(UserError, match=r"has taken 5.1 s .* at most 5 s"):
        deliver(executor, inference, 50)
    inference.reset()  # one of an episode that is over holds up the next one, too
    with pytest.raises(UserError, match=r"has taken 5.1 s"):
        _ = inference.busy
    pool.finish()
    assert not inference.busy


def test_what_is_left_of_an_episode_is_not_waited_for():
    """An arm that waits for its chunks begins when the old prediction is done."""
    pool, executor = ByHand(), Waiting(RecedingHorizon(4, 2))
    inference = pool.inference(4, 1)
    inference.begin({}, HOLD[:, None], 0)
    executor.reset(HOLD)
    inference.reset()
    for tick in range(3):
        assert inference.busy
        np.testing.assert_array_equal(executor.step(), HOLD)
        deliver(executor, inference, tick)
    pool.finish()
    assert not inference.busy
    assert executor.wants_chunk()
    assert executor.hold_ticks == [0, 1, 2]


def test_a_workers_thread_does_one_thing_after_the_other():
    done = []
    worker = Worker()
    futures = [worker.submit(lambda i=i: done.append(i) or i) for i in range(5)]
    assert [one.result(60) for one in futures] == list(range(5))
    assert done == list(range(5))
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 / 0).result(60)
    assert worker.submit(lambda: 7).result(60) == 7


def test_the_first_chunk_is_joined_with_where_the_arm_stands():
    chunk = 100.0 + np.arange(20.0)[None, :, None]
    sent = {}
    for executor in (Switch(20, 3, 5), Fade(20, 3, 5, fade=4)):
        executor.reset(HOLD[:1])
        executor.commit(3)
        sent[type(executor)] = [executor.step()[0, 0] for _ in range(3)]
        executor.deliver(chunk, 3)
        sent[type(executor)] += [executor.step()[0, 0] for _ in range(5)]
        assert executor.seam_ticks == [3]
        assert executor.hold_ticks == [0, 1, 2]
    assert sent[Switch] == [-1, -1, -1, 103, 104, 105, 106, 107]
    assert sent[Fade] == [-1, -1, -1, -1, 26, 53, 80, 107]
    assert executor.ages == [None] * 3 + [3, 4, 5, 6, 7]


@pytest.mark.parametrize("early", [0, 1, 3])
def test_what_a_told_policy_repeats_is_no_seam(early):
    """Told of 4 actions it repeats them, whenever it comes; then goes its own way."""
    first = np.arange(20.0)[None, :, None]
    for executor in (Switch(20, 4, 8), Fade(20, 4, 8, fade=5)):
        executor.reset(np.full((1, 1), 0.0))
        executor.deliver(first, 0)
        for _ in range(8):
            executor.step()
        told = executor.commit(4)  # 8, 9, 10, 11
        second = np.concatenate([told, 100.0 + np.arange(16.0)[None, :, None]], 1)
        for _ in range(4 - early):
            executor.step()
        executor.deliver(second, 4 - early)
        assert executor.seam_ticks[-1] == 12
        sent = np.array([executor.step()[0, 0] for _ in range(early + 8)])
        np.testing.assert_allclose(sent[:early], told[0, 4 - early :, 0], atol=1e-9)
        jump = executor.seams[-1].item()
        if isinstance(executor, Fade):
            assert jump == pytest.approx(0)
            share = np.maximum(0, 1 - np.arange(8) / 5)
            wanted = 100.0 + np.arange(8) + share * (12.0 - 100.0)
            np.testing.assert_allclose(sent[early:], wanted)
        else:
            assert jump == 100 - 12


def test_committed_are_the_holds_too_that_will_be_sent():
    executor = Switch(6, 2, 3)
    executor.reset(HOLD[:1])
    executor.deliver(np.arange(6.0)[None, :, None], 0)
    for _ in range(5):
        executor.step()
    committed = executor.commit(4)[0, :, 0]
    assert committed.tolist() == [5, 5, 5, 5]
    assert [executor.step()[0, 0] for _ in range(4)] == [5, 5, 5, 5]


def test_nobody_guesses_a_hold():
    executor = Switch(6, 2, 3)
    executor.reset(np.full((1, 2), np.nan))
    assert executor.commit(2).shape == (1, 0, 2)
    with pytest.raises(UserError, match="the first chunk has not come"):
        executor.step()
    executor.deliver(np.ones((1, 6, 2)), 2)
    assert executor.seam_ticks == []
    assert executor.step().tolist() == [[1, 1]]


def test_the_longest_of_the_last_ten_delays_is_expected_next():
    inference = InTicks(Counting(4), drawn([7, *[1] * 20]))
    seen = []
    for tick in range(0, 200, 10):
        inference.begin({}, HOLD[:, None], tick)
        assert [late for _, late in inference.come(tick + 9)] == [9]
        seen.append(inference.delay)
    assert set(seen) == {9}
    quick = InTicks(Counting(4), drawn([7, *[1] * 20]))
    for i in range(12):
        quick.begin({}, HOLD[:, None], 0)
        delay = 7 if i == 0 else 1
        assert [late for _, late in quick.come(delay)] == [delay]
        assert quick.delay == (7 if i < 10 else 1)


def test_what_is_no_number_is_dropped_and_five_in_a_row_are_a_fault():
    executor = Switch(4, 0, 4)
    executor.reset(HOLD[:1])
    executor.deliver(np.zeros((1, 4, 1)), 0)
    bad = np.full((1, 4, 1), np.nan)
    for _ in range(4):
        executor.deliver(bad, 0)
    assert executor.dropped == 4
    assert executor.step() == 0  # the old chunk goes on
    executor.deliver(np.ones((1, 4, 1)), 0)
    for _ in range(4):
        executor.deliver(bad, 0)
    with pytest.raises(UserError, match="5 chunks in a row hold NaN"):
        executor.deliver(bad, 0)


def test_a_chunk_that_is_all_past_is_dropped_and_the_arm_holds():
    executor = Switch(4, 2, 2)
    executor.reset(HOLD[:1])
    executor.deliver(np.arange(4.0)[None, :, None], 0)
    sent = [executor.step()[0, 0] for _ in range(6)]
    assert sent == [0, 1, 2, 3, 3, 3]
    assert len(executor.hold_ticks) == 2
    executor.deliver(np.full((1, 4, 1), 9.0), 4)
    assert (executor.step()[0, 0], executor.dropped) == (3, 1)
    with pytest.raises(ValueError, match=r"\(1, 3, 1\), expected \(n, 4, A\)"):
        executor.deliver(np.zeros((1, 3, 1)), 0)


@pytest.mark.parametrize(
    ("clock", "says"),
    [
        ((10, 6, 6), "delay is 6 ticks with chunks of 10.*at most half of them: 5"),
        ((10, 3, 2), "execute is 2 with a delay of 3.*chunks of 10.*from 3 to 7"),
        ((10, 3, 8), "execute is 8.*from 3 to 7"),
        ((10, 0, 11), "execute is 11.*from 1 to 10"),
        ((10, -1, 2), "delay is -1"),
        ((10, 1.5, 2), "delay is 1.5"),
    ],
)
def test_a_clock_that_cannot_run_is_refused(clock, says):
    with pytest.raises(SettingError, match=says):
        check_clock(*clock)
    if says.startswith("execute"):
        with pytest.raises(SettingError, match=says.replace("execute", "every")):
            LateEnsemble(*clock)


def test_settings_make_the_executor_that_they_name():
    modes = {"switch": Switch, "overlap": Overlap, "fade": Fade, "receding": Waiting}
    for mode, kind in modes.items():
        assert type(make_late_executor(ExecutionConfig(mode), 8, 2)) is kind
    assert type(make_late_executor(ExecutionConfig("ensemble"), 8)) is Waiting
    late = make_late_executor(ExecutionConfig("ensemble", m=0.5), 8, 2)
    assert isinstance(late, LateEnsemble)
    assert (late.m, late.horizon) == (0.5, 2)
    with pytest.raises(SettingError, match="make_late_executor"):
        make_executor(ExecutionConfig("fade"), 8)
    for config in (
        ExecutionConfig("fade", fade=3),
        ExecutionConfig("overlap", share=0.5),
    ):
        assert make_late_executor(config, 8).__dict__["horizon"] == 4
        assert set(config.to_json()) > set(ExecutionConfig().to_json())
