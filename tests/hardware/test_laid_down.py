"""Whatever breaks while an arm is driven, the arm is laid down; and says why.

On a fake arm in a fake clock's time: nothing here depends on how busy a computer is.
Both arms' limits are gone through, and what lets go of an arm is the drivers' own.
"""

import contextlib
import errno
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from act_minimal.episodes import list_episodes, load_episode
from act_minimal.execution import ExecutionConfig, RecedingHorizon
from act_minimal.realtime import Waiting
from act_minimal.support.errors import UserError
from hardware.cameras import CameraError, Frame
from hardware.command import drive
from hardware.deployment import TimedPolicy, _one, deploy, dry_run
from hardware.live import LiveView
from hardware.objects import TrackerError
from hardware.openarm.limits import openarm_limits
from hardware.recording import record_session
from hardware.safety.keys import watch_keys
from hardware.safety.operator import Demonstrating, Judging
from hardware.safety.safe_robot import SafeRobot, so100_limits
from hardware.safety.stop import Stop
from hardware.so100.kinematics import JOINTS

from .fake_arm import Clock, FakeArm

pytestmark = pytest.mark.quick

LIMITS = {"so100": so100_limits(), "openarm": openarm_limits()}
LANDED = ["torque off at rest", "bus closed"]
SECONDS, TICKS = 0.8, 40  # of a trial, at the fake arm's 50 Hz


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


AT_REST = [
    so100_limits("so100"),
    so100_limits("so101"),
    *(openarm_limits(v, table) for v in ("v1", "v2") for table in (None, 0.1, 0.41)),
]


@pytest.mark.parametrize("limits", AT_REST)
def test_an_arm_that_lags_comes_to_rest_all_the_same(limits, clock):
    """Behind its target near other things, as if it pressed on them; which it may."""
    arm = Lagging(limits, clock, "lagging")
    robot = connected(arm)
    robot.close()
    assert arm.log[-2:] == LANDED


@pytest.fixture(params=["so100", "openarm"])
def arm(request, clock):
    # The ramps of a test need not be gentle.
    limits = replace(LIMITS[request.param], slow=3.0)
    return FakeArm(limits, clock, request.param)


class Lagging(FakeArm):
    """Makes a quarter of what is left of its way in a tick."""

    def send(self, state):
        before = self.state
        super().send(state)
        self.state = before + 0.25 * (state - before)


def connected(arm, **settings):
    robot = SafeRobot(arm, arm.limits, **settings)
    robot.connect()
    return robot


@contextlib.contextmanager
def session(robot, live=-1, say=print):
    """As every command does it."""
    with drive.driven(robot, live, say):
        yield


@contextlib.contextmanager
def ends_at_rest(arm, error, match=None, live=-1, say=print, **settings):
    """A session that ends with an error, and leaves the arm at rest."""
    robot, before = SafeRobot(arm, arm.limits, **settings), len(arm.log)
    with pytest.raises(error, match=match), session(robot, live, say):
        yield robot
    assert arm.log[before:] == LANDED


class Policy:
    """Wishes for the ready pose, until it does what a test wants."""

    name = "still"
    cameras: tuple[str, ...] = ()
    chunk_size = 5

    def __init__(self, limits, fault=None, after=2):
        self.limits, self.fault, self.left = limits, fault, after
        dimensions = {"state_dim": len(limits.low), "action_dim": len(limits.low)}
        self.config = type("Config", (), {"env_state_dim": 0, **dimensions})

    def predict_chunk(self, observation):
        if self.fault is not None:
            self.left -= 1
            if self.left < 0:
                return self.fault()
        return np.tile(self.limits.ready, (1, self.chunk_size, 1))


class Judge:
    """Says yes; its methods can be replaced."""

    def prepare(self, trial):
        pass

    def done(self):
        return False

    def verdict(self):
        return True


class Still:
    """Somebody who holds a leader still where the arm begins."""

    hint = ""

    def __init__(self, limits):
        self.limits = limits

    def wish(self, here):
        return self.limits.ready

    def keys_of(self, place):
        return ""

    def other(self):
        return ""


def raising(error):
    def fault(*args, **kwargs):
        raise error

    return fault


def trials(robot, judge=None, **settings):
    settings = {"trials": 1, "seconds": SECONDS, "say": lambda text: None} | settings
    return deploy(Policy(robot.limits), robot, judge or Judge(), **settings)


def recorded(robot, out, n=1, cameras=(), **settings):
    how = {
        "prepare": lambda number: None,
        "over": lambda tick: tick >= 9,
        "verdict": lambda: "keep",
        "say": lambda text: None,
        "cameras": cameras,
    }
    return record_session(robot, Still(robot.limits), out, n, **how | settings)


# ---------------------------------------------------------------- what may break


class Full(io.RawIOBase):
    """A file on a disk that is full, and stays so when it is closed."""

    def write(self, data):
        raise OSError(28, "No space left on device")

    def close(self):
        raise OSError(5, "Input/output error")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_log_is_said_at_the_end(arm, capsys):
    robot = SafeRobot(arm, arm.limits, Path("/dev/full"))
    with session(robot):
        robot.observe()
        robot.act(arm.limits.high[None] + 1)
    assert arm.log == LANDED
    assert robot.interventions.counts["joint limit"] == 1
    said = capsys.readouterr().err
    assert re.search(r"/dev/full lacks \d+ lines: No space left on device", said)


def test_a_log_that_fails_in_every_way_is_counted(arm):
    robot = connected(arm)
    robot.interventions._file = Full()
    robot.observe()
    robot.act(arm.limits.high[None] + 1)
    robot.close()
    assert arm.log == LANDED
    assert robot.interventions.lost >= 2  # a line, and closing
    assert "No space left on device" in robot.interventions.complaint


def test_a_log_that_cannot_be_opened_is_refused_before_anything_moves(arm, tmp_path):
    (tmp_path / "file").touch()
    robot = SafeRobot(arm, arm.limits, tmp_path / "file" / "log.jsonl")
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written to: "):
        robot.connect()
    assert arm.sent == []
    assert arm.log == []


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing that is written reaches the disk any more."""
    full = raising(OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("act_minimal.support.files._sync", full)


def test_a_tally_that_cannot_be_written_ends_the_session_at_rest(
    arm, tmp_path, full_disk
):
    said = []
    with ends_at_rest(arm, UserError, r"tally\.json could not be written") as robot:
        trials(robot, out=tmp_path / "tally", say=said.append)
    assert "trial 1: success after" in said[0]  # it is not lost for whoever reads


def test_an_episode_that_cannot_be_written_ends_the_session_at_rest(
    arm, tmp_path, full_disk
):
    with ends_at_rest(arm, UserError, "could not be written") as robot:
        recorded(robot, tmp_path / "demos")
    assert not list_episodes(tmp_path / "demos")


class Eye:
    """A camera that fails to read, or to close."""

    def __init__(self, read=None, close=None):
        self.wrong, self.wrong_at_close = read, close

    def read(self):
        if self.wrong:
            raise self.wrong
        return Frame(np.zeros((4, 6, 3), np.uint8), 0.0, 0)

    def close(self):
        if self.wrong_at_close:
            raise self.wrong_at_close


@pytest.mark.parametrize("error", [CameraError("frozen"), RuntimeError("driver")])
def test_a_camera_that_fails_ends_the_session_at_rest(arm, tmp_path, error):
    arm.sources, arm.cameras = {"top": Eye(read=error)}, ("top",)
    with ends_at_rest(arm, type(error)) as robot:
        recorded(robot, tmp_path, cameras=("top",))


def test_a_camera_that_cannot_be_closed_keeps_no_torque_on(arm, capsys):
    arm.sources = {"top": Eye(close=RuntimeError("no such device")), "wrist": Eye()}
    with session(SafeRobot(arm, arm.limits)):
        pass
    assert arm.log == LANDED
    assert "camera 'top' could not be closed: no such device" in capsys.readouterr().err


class Poses:
    """A tracker that fails to read, and to close."""

    def open(self):
        pass

    def read(self):
        raise TrackerError("the newest poses are 3 s old")

    def close(self):
        raise RuntimeError("no such device")


def test_a_tracker_that_fails_ends_the_session_at_rest(arm, capsys):
    with ends_at_rest(arm, TrackerError, "3 s old", tracker=Poses()) as robot:
        robot.observe()
    assert "tracker could not be closed: no such device" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(5, "terminal"), Stop("no key can be read")])
def test_keys_that_cannot_be_read_end_the_session_at_rest(arm, error):
    judge = Judge()
    judge.done = judge.prepare = raising(error)
    with ends_at_rest(arm, type(error)) as robot:
        trials(robot, judge)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "pipe"), OSError(28, "full")])
def test_output_that_cannot_be_written_ends_the_session_at_rest(arm, tmp_path, error):
    with ends_at_rest(arm, OSError, error.strerror) as robot:
        trials(robot, out=tmp_path, say=raising(error))
    assert json.loads((tmp_path / "tally.json").read_text())["successes"] == 1
    with ends_at_rest(arm, OSError, error.strerror) as robot:
        recorded(robot, tmp_path / "demos", say=raising(error))
    assert len(load_episode(list_episodes(tmp_path / "demos")[0])) == 10


def test_a_live_view_that_fails_ends_the_session_at_rest(arm, monkeypatch):
    close = LiveView.close

    def fails(view):
        close(view)
        raise RuntimeError("page")

    arm.sources = {"top": Eye()}
    monkeypatch.setattr(LiveView, "close", fails)
    with ends_at_rest(arm, RuntimeError, "page", 0, lambda text: None) as robot:
        robot.go(arm.limits.ready)


def test_an_address_that_cannot_be_printed_is_seen_before_anything_moves(arm):
    arm.sources = {"top": Eye()}
    robot = SafeRobot(arm, arm.limits)
    with (
        pytest.raises(BrokenPipeError),
        session(robot, 0, raising(BrokenPipeError())),
    ):
        robot.go(arm.limits.ready)
    assert (arm.sent, arm.torque) == ([], False)


# ---------------------------------------------------------------- a silent bus


@pytest.mark.parametrize("seconds", [0.07, 0.5])
@pytest.mark.parametrize("after", [0.0, 0.5, 0.9])
def test_landing_waits_for_a_silent_bus(arm, clock, seconds, after):
    robot = connected(arm)
    start = clock.now + after
    arm.silences = [(start, start + seconds)]
    robot.close()
    assert clock.now > start + seconds
    assert arm.log == LANDED


def test_letting_go_waits_for_a_silent_bus(arm, clock):
    robot = connected(arm)
    robot.go(arm.limits.rest)
    robot.land = lambda: arm.silences.append((clock.now, clock.now + 0.5))
    robot.close()
    assert arm.log == LANDED


def test_a_bus_that_stays_silent_is_given_up_and_both_causes_are_said(arm, clock):
    robot = SafeRobot(arm, arm.limits)
    start = clock.now

    def first():
        arm.silences = [(clock.now, np.inf)]
        raise ValueError("what came first")

    with pytest.raises(Stop) as said, session(robot):
        first()
    assert str(said.value) == (
        "ValueError: what came first; then the arm could not be put to rest (no servo "
        "answers); it sinks, or holds if nobody can reach it: support it, and switch "
        "its power off"
    )
    assert arm.log == ["softened", "bus closed"]
    assert 1.0 < clock.now - start < 4.0


def test_the_emergency_stop_ends_the_waiting_for_a_bus(arm, clock):
    robot = connected(arm)
    robot.observe()
    arm.silences = [(clock.now, np.inf)]
    robot.stop.raise_flag("space bar")
    for move in (robot.go, lambda pose: robot.act(pose[None])):
        with pytest.raises(Stop, match="emergency stop: space bar"):
            move(arm.limits.ready)
    assert arm.sent == []


@pytest.mark.parametrize(
    ("error", "expected", "says"),
    [
        (RuntimeError("bug"), Stop, "put to rest .RuntimeError: "),
        (OSError(5, "bus"), Stop, "put to rest .OSError: "),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_landing_that_fails_ends_with_the_torque_off(arm, error, expected, says):
    robot = connected(arm)
    robot.land = raising(error)
    with pytest.raises(expected, match=says):
        robot.close()
    assert (arm.log[0], arm.torque) == ("softened", False)


# ---------------------------------------------------------------- a policy's faults


def policy_faults():
    """(what a policy does, the error that it becomes, what that says)."""
    for kind in (ValueError, RuntimeError, MemoryError, KeyError):
        says = rf"^the policy raised {kind.__name__}: .*laid_down\.py, line \d+\)$"
        yield raising(kind("two\nlines")), UserError, says
    for kind in (KeyboardInterrupt, SystemExit):
        yield raising(kind()), kind, None
    for answer in (None, np.zeros((1, 4, 6)), np.zeros(6)):
        says = r"of shape \(.*\), expected \(1, 5, "
        yield (lambda answer=answer: answer), UserError, says


@pytest.mark.parametrize(("fault", "error", "says"), list(policy_faults()))
def test_a_policy_that_fails_is_one_sentence(arm, tmp_path, fault, error, says):
    policy = Policy(arm.limits, fault)
    with ends_at_rest(arm, error, says) as robot:
        deploy(policy, robot, Judge(), trials=1, seconds=SECONDS, out=tmp_path)
    assert not (tmp_path / "tally.json").exists()  # no trial was finished


def test_a_dry_run_says_it_in_one_sentence_too(arm):
    policy = Policy(arm.limits, raising(ValueError("bad")), after=0)
    with pytest.raises(UserError, match="the policy raised ValueError: bad"):
        dry_run(policy, connected(arm), ExecutionConfig())


# ---------------------------------------------------------------- while asking


class Typist:
    """Presses keys when their time has come: [(s, key or what is done), ...]."""

    here = True

    def __init__(self, clock, *presses):
        self.clock, self.start = clock, clock.now
        self.presses = list(presses)

    def pressed(self, wait=0.0):
        if self.presses and self.clock.now - self.start >= self.presses[0][0]:
            _, key = self.presses.pop(0)
            return key if isinstance(key, str) else key() or ""
        assert self.clock.now - self.start < 60, "asked for ever"
        return ""


def heat(arm, degrees=80.0):
    arm.health.temperature[1] = degrees


def load(arm):
    arm.health.load[1] = 0.95


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (heat, "joint 1 is 80 °C hot"),
        (load, "joint 1 has pulled with 95 %"),
        (lambda arm: " ", "emergency stop: space bar"),
        (lambda arm: arm.robot.stop.raise_flag("SIGINT"), "emergency stop: SIGINT"),
    ],
)
@pytest.mark.parametrize("where", ["prepare", "verdict", "record"])
def test_an_arm_is_looked_after_while_somebody_is_asked(arm, clock, what, words, where):
    robot = arm.robot = connected(arm)
    robot.go(arm.limits.ready)
    keys = Typist(clock, (1.0, lambda: what(arm)))
    begin = clock.now
    asked = {
        "prepare": lambda: Judging(keys, robot).prepare(0),
        "verdict": lambda: Judging(keys, robot).verdict(),
        "record": lambda: Demonstrating(keys, robot, None).prepare(0),
    }[where]
    if where == "record" and "space" in words:
        assert asked() is False  # it ends the session, as in an episode
        return
    with pytest.raises(Stop, match=words):
        asked()
    assert clock.now - begin < 1.0 + arm.limits.load_seconds + 0.2
    assert arm.state == pytest.approx(arm.limits.ready, abs=1e-3)


@pytest.mark.parametrize(("above", "last"), [(7.0, LANDED), (9.0, ["softened"])])
def test_an_arm_that_is_stopped_for_its_heat_is_laid_down(arm, clock, above, last):
    robot, hot = SafeRobot(arm, arm.limits), arm.limits.temperature + above
    keys = Typist(clock, (1.0, lambda: heat(arm, hot)))
    with pytest.raises(Stop, match=r"joint 1 is .* °C hot"), session(robot):
        Judging(keys, robot).prepare(0)
    assert arm.log[: len(last)] == last
    assert not arm.torque


def test_space_stops_a_slow_move_but_not_the_way_to_rest(arm, clock):
    robot = SafeRobot(arm, replace(arm.limits, slow=0.5))
    keys = Typist(clock, (0.3, "q"), (0.35, " "))
    robot.stop.watch = lambda: watch_keys(keys, robot.stop)
    begin = clock.now

    def held_down():
        keys.presses = [(0.0, " ")] * 1000
        raise Stop("first")

    with pytest.raises(Stop, match="space bar"), session(robot):
        robot.go(arm.limits.rest)
    assert clock.now - begin > 0.35
    assert arm.log == LANDED
    with pytest.raises(Stop, match="first"), session(robot):
        held_down()
    assert arm.log == 2 * LANDED


def test_an_arm_is_told_where_to_stay_once_it_was_told_where_to_go(arm, clock):
    robot = connected(arm)
    Judging(Typist(clock, (2.0, "\n")), robot).prepare(0)
    assert arm.sent == []
    robot.go(arm.limits.ready)
    sent = len(arm.sent)
    Judging(Typist(clock, (2.0, "y")), robot).verdict()
    assert len(arm.sent) - sent == pytest.approx(2.0 * arm.fps, abs=2)


def test_a_silent_bus_is_waited_for_while_somebody_is_asked(arm, clock):
    robot = connected(arm)
    robot.go(arm.limits.ready)
    arm.silences = [(clock.now + 1.0, clock.now + 1.5)]
    assert Judging(Typist(clock, (2.0, "y")), robot).verdict() is True


@pytest.mark.parametrize("how", ["Ctrl-C", "interrupt", "heat", "pipe"])
def test_a_finished_trial_is_kept_whatever_ends_the_question(
    arm, clock, tmp_path, how, monkeypatch
):
    robot, said = SafeRobot(arm, arm.limits), []
    enter, begin = (0.0, "\n"), 3.0
    events = {
        "Ctrl-C": lambda: robot.stop.raise_flag("SIGINT"),
        "interrupt": raising(KeyboardInterrupt()),
        "heat": lambda: heat(arm),
        "pipe": raising(BrokenPipeError()),
    }
    judge = Judging(Typist(clock, enter), robot)

    def asked():
        judge.keys = Typist(clock, (begin, events[how]))
        return Judging.verdict(judge)

    monkeypatch.setattr(judge, "verdict", asked)
    expected = {"interrupt": KeyboardInterrupt, "pipe": BrokenPipeError}.get(how, Stop)
    with pytest.raises(expected), session(robot):
        trials(robot, judge, out=tmp_path, trials=3, say=said.append)
    [trial] = json.loads((tmp_path / "tally.json").read_text())["trials"]
    assert trial["ticks"] == TICKS
    assert trial["success"] is None
    assert trial["stopped"] == ""
    assert "trial 1: not judged after 0.8 s; none judged yet; 1 not judged" in said[0]
    if how != "heat":  # a hot arm is let go where it is
        assert arm.log == LANDED
    # A second call goes on after it, and counts it in no rate.
    arm.health.temperature[1] = 30.0
    with session(robot):
        tally = trials(robot, out=tmp_path, trials=3)
    assert (tally.success.successes, tally.success.n, len(tally.trials)) == (2, 2, 3)
    assert tally.to_json()["rate"] == 1.0
    assert str(tally).endswith("; 1 not judged")


def test_a_stopped_trial_is_a_failure_and_nobody_is_asked(arm, tmp_path):
    judge = Judge()
    judge.verdict = raising(AssertionError("asked"))
    with ends_at_rest(arm, Stop, "space bar") as robot:
        judge.done = lambda: robot.stop.raise_flag("space bar")
        judge.prepare = lambda trial: robot.hold()
        trials(robot, judge, out=tmp_path, trials=2)
    [trial] = json.loads((tmp_path / "tally.json").read_text())["trials"]
    assert trial["success"] is False
    assert trial["stopped"] == "emergency stop: space bar"


@pytest.mark.parametrize("seconds", [0.8, 0.2, 0.58, 1.14])
def test_a_trial_has_as_many_ticks_as_were_asked_for(arm, seconds):
    robot, asked, judge = connected(arm), [], Judge()

    def trial():
        policy = Policy(arm.limits)
        executor = Waiting(RecedingHorizon(5))
        timed = TimedPolicy(policy)
        done = _one(timed, robot, judge, executor, None, 0, seconds)
        return done.ticks, done.stopped

    assert trial() == (round(50 * seconds), "")
    judge.done = lambda: asked.append(1) or len(asked) > 7
    assert trial() == (7, "")
    judge.done = lambda: (
        asked.append(1) or (len(asked) > 12 and robot.stop.raise_flag("space bar"))
    )
    assert trial() == (4, "emergency stop: space bar")


def test_space_at_the_question_ends_a_recording_and_keeps_all(arm, clock, tmp_path):
    robot = SafeRobot(arm, arm.limits)
    who = Demonstrating(Typist(clock, (0.1, "\n"), (2.0, " ")), robot, None)
    with session(robot):
        paths = recorded(robot, tmp_path, n=5, prepare=who.prepare)
    assert [p.name for p in paths] == ["episode_0.hdf5"]
    assert arm.log == LANDED


@pytest.mark.parametrize("says", ["80 °C hot, expected at most", "test"])
def test_what_stops_an_arm_ends_a_recording(arm, tmp_path, says):
    robot = SafeRobot(arm, arm.limits)

    def over(tick):
        return robot.stop.raise_flag(says) if says == "test" else heat(arm)

    with pytest.raises(Stop, match=says), session(robot):
        recorded(robot, tmp_path, over=over)


def test_without_a_terminal_nobody_can_be_asked(arm):
    keys = type("Nobody", (), {"here": False})()
    with pytest.raises(UserError, match="this is no terminal"):
        Judging(keys, connected(arm)).verdict()


# ---------------------------------------------------------------- what is written


def test_a_recording_says_which_arm_it_is_of(arm, tmp_path):
    arm.joints = JOINTS if arm.name == "so100" else ("a", "b")
    [path] = recorded(connected(arm), tmp_path, attributes=lambda: {"task": "x"})
    said = load_episode(path).attributes
    assert (said["robot"], said["units"], said["task"]) == (arm.name, "rad", "x")
    assert json.loads(str(said["joints"])) == list(arm.joints)


@pytest.mark.parametrize("change", [{"fps": 10.0}, {"name": "so101"}])
def test_another_arm_or_rate_is_not_mixed_into_a_folder(arm, clock, tmp_path, change):
    recorded(connected(arm), tmp_path)
    other = FakeArm(arm.limits, clock, **{"name": arm.name} | change)
    says = r"episode_0\.hdf5 was recorded with .* another f"
    with ends_at_rest(other, UserError, says) as robot:
        recorded(robot, tmp_path, n=2)
    assert len(list_episodes(tmp_path)) == 1
