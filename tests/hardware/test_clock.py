"""Whose seconds count: a real arm's are the computer's, a virtual arm's its own."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from act_minimal.support.errors import UserError
from hardware import clock
from hardware.cameras import CameraConfig, Frame
from hardware.clock import (
    ArmClock,
    ArmTime,
    Clock,
    clock_of,
    clock_path,
)
from hardware.errors import BusError
from hardware.objects import Tracker
from hardware.openarm.bus import Bus as CanBus
from hardware.openarm.emulator.service import (
    VirtualOpenArmService,
    virtual_openarm,
)
from hardware.robots import make_camera, parse_cameras
from hardware.safety.safe_robot import SafeRobot, so100_limits
from hardware.so100.arm import IDS, SO100, SO100Config
from hardware.so100.bus import Bus
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.service import (
    VirtualArmConfig,
    VirtualArmService,
    assemble,
)
from hardware.stream import Message, Stream
from hardware.virtual.client import HOST, SceneClient, VirtualArmProcess

from ..clocks import HandClock
from ..commands import start_program
from ..programs import python
from .virtual_arms import config_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


@pytest.fixture
def computer(monkeypatch):
    """The computer's time, moved by hand."""
    here = SimpleNamespace(seconds=1000.0, monotonic=lambda: here.seconds)
    monkeypatch.setattr(clock, "time", here)
    return here


@pytest.fixture
def times(tmp_path, computer):
    """Makes a virtual arm's time, with clocks of these names, and their clients."""

    def make(*names):
        arm = ArmTime([clock_path(tmp_path / name) for name in names])
        return arm, *(clock_of(tmp_path / name) for name in names)

    return make


@pytest.fixture
def unwaiting(monkeypatch):
    """No thread of this program has waited for a CPU."""
    monkeypatch.setattr(clock.os, "listdir", lambda folder: [])


def test_while_nothing_is_held_up_all_clocks_are_one(computer, times):
    arm, client = times("arm")
    assert isinstance(client, ArmClock)
    for _ in range(100):
        computer.seconds += 0.019
        assert arm.pass_on() == client.now() == Clock().now() == computer.seconds
    assert arm.lost == 0
    computer.seconds += 0.01
    assert client.now() == arm.now() == computer.seconds


def test_time_stands_still_while_a_virtual_arm_is_held_up(computer, times):
    arm, client = times("arm")
    computer.seconds += 3.0
    assert client.now() == arm.now() == pytest.approx(1000 + clock.SLACK)
    assert arm.pass_on() == client.now() == pytest.approx(1000 + clock.SLACK)
    assert arm.lost == pytest.approx(3 - clock.SLACK)
    computer.seconds += 0.015
    assert client.now() == pytest.approx(1000.015 + clock.SLACK)


def test_time_goes_on_where_no_arm_is_left(computer, times, tmp_path):
    arm, client = times("arm")
    assert client.fault() == ""
    computer.seconds += clock.GONE + 2
    assert client.now() == pytest.approx(1002 + clock.SLACK)
    assert "this computer is too busy, or its program was killed" in client.fault()
    arm.pass_on()
    assert client.fault() == ""
    arm.close()
    before = client.now()
    computer.seconds += 1.5
    assert client.now() == pytest.approx(before + 1.5)
    assert list(tmp_path.iterdir()) == []
    assert type(clock_of(tmp_path / "arm")) is Clock


def test_a_follower_is_not_blamed_for_a_leader_that_is_held_up(
    computer, times, unwaiting
):
    arm, its = times("arm")
    leader, leaders = times("leader")
    then, held = its.now(), its.held()
    for _ in range(100):
        computer.seconds += 0.01
        arm.pass_on()
    leader.pass_on()
    assert its.now() - then == pytest.approx(1.0)
    assert its.age(then, held) == pytest.approx(clock.SLACK)
    assert leaders.held() == 0.0  # its own time stood still anyway
    frame = Frame(np.zeros((1, 1, 3), np.uint8), then, 0, its, held)
    assert frame.age == pytest.approx(clock.SLACK)
    assert Frame(frame.image, then, 0).age == pytest.approx(1.0)


def test_an_arm_with_several_clocks_is_forgiven_once(
    computer, times, unwaiting, tmp_path
):
    arm, right, left = times("right", "left")
    again = clock_of(tmp_path / "right")
    then, held = right.now(), right.held()
    computer.seconds += 5.0
    arm.pass_on()
    assert right.age(then, held) == pytest.approx(clock.SLACK)
    follower, its = times("follower")
    assert its.held() == 0.0
    computer.seconds += 1.0
    arm.pass_on()
    follower.pass_on()
    assert its.held() == pytest.approx(1 - clock.SLACK)
    assert left.held() == again.held() == 0.0  # at their first look


def test_what_was_forgiven_stays_so_when_an_arm_comes_or_goes(
    computer, times, unwaiting, tmp_path
):
    _arm, its = times("arm")
    other, others = times("other")
    assert its.held() == 0.0
    computer.seconds += 5.0
    other.pass_on()
    late = clock_of(tmp_path / "other")  # what it lost before is not this program's
    assert its.held() == pytest.approx(5 - clock.SLACK)
    gone = weakref.ref(others)
    del others
    gc.collect()
    assert gone() is None
    assert its.held() == pytest.approx(5 - clock.SLACK)
    computer.seconds += 1.0
    other.pass_on()
    assert its.held() == pytest.approx(6 - 2 * clock.SLACK)
    assert late.held() == 0.0


def stream_of(its, source=None):
    """A stream in a clock's time, whose thread has ended."""
    source = source or Stream("source", stale=1.0)
    source.start((iter(()).__next__, int), its, 0.0)
    source.failure = ""
    return source


def test_what_waited_for_a_program_that_was_held_up_is_not_old():
    its = HandClock()
    source = stream_of(its)

    def age(when):
        source.keep(np.zeros(1), when)
        return source.newest.age

    for when in (1000.0, 1000.01, 1000.02):
        its.time = when
        assert age(when) == 0.0
    its.time, its.forgiven = 1000.5, 0.47  # then two messages are read at once
    for when in (1000.03, 1000.04):
        assert age(when) == pytest.approx(1000.03 - when, abs=1e-9)
    its.time = 1000.7  # and none for a while, though nothing holds it up
    assert source.newest.age == pytest.approx(0.19)
    its.time = 1000.71
    assert age(1000.71) == 0.0


@pytest.mark.parametrize("kind", ["tracker", "camera"])
def test_who_reads_waits_for_a_thread_that_is_behind(kind):
    its = HandClock()
    if kind == "tracker":
        source, message = Tracker("virtual:arm"), Message
    else:
        source, message = make_camera("top", CameraConfig("virtual:arm")), Frame
    stream_of(its, source)
    news = [message(np.full((2, 2, 3), x), 999.0 + x / 2, x, its) for x in (0, 1, 2)]

    def picked():
        found = source.read()
        return found.number if message is Frame else found[0, 0, 0]

    source.newest = news[0]
    with pytest.raises(UserError, match=r"1\.00 s old"):
        picked()

    def bring(message):
        source.newest = message
        source._arrived.set()

    its.patience = 60.0
    for i in (1, 2):  # the first that it finds waiting is half a second old
        threading.Timer(0.1 * i, bring, [news[i]]).start()
    assert picked() == 2
    # Nobody waits for a thread that has ended: here that would take a minute.
    source.newest, source.failure = news[0], "unplugged"
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"1\.00 s old.*\(unplugged\)"):
        picked()
    assert time.monotonic() - begun < 30


def test_a_slow_arm_says_so_once_a_minute(computer, tmp_path, capsys):
    arm = ArmTime()
    for _ in range(600):
        computer.seconds += 0.018
        arm.pass_on()
    assert capsys.readouterr().err == ""
    for _ in range(600):  # 60 s, of which it has 20 ms in each 100
        computer.seconds += 0.1
        arm.pass_on()
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("this computer is too busy: the virtual arm ran at ")
    assert int(said.split(" at ")[1].split(" %")[0]) <= 75


def test_somebodys_own_file_is_left_alone(tmp_path):
    path = clock_path(tmp_path / "arm")
    path.write_text("my times, and what I ran them on")
    with pytest.raises(UserError, match=r"arm\.time is there, and is no virtual arm's"):
        ArmTime([path])
    assert path.read_text().startswith("my times")


WRITING = """
import sys, time
from pathlib import Path
from hardware import clock
clock.SLACK = 0.0  # it loses all the time there is: its own stands still
arm = clock.ArmTime([Path(sys.argv[1])])
print(arm.pass_on(), flush=True)
while True:
    arm.pass_on()
    end = time.monotonic() + 5e-5
    while time.monotonic() < end: pass
"""


def script_of(folder, text):
    """The words that run a program whose argument is an arm's time."""
    (folder / "script.py").write_text(text)
    return [sys.executable, folder / "script.py", folder / "arm.time"]


ENV = os.environ | {"PYTHONPATH": os.getcwd()}


def test_a_time_is_read_whole_while_it_is_written(tmp_path):
    words = script_of(tmp_path, WRITING)
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=ENV) as writer:
        try:
            assert writer.stdout
            stood = float(writer.stdout.readline())
            client, seen = ArmClock(tmp_path / "arm.time"), []
            end = time.monotonic() + 1
            while time.monotonic() < end:
                seen += [client.now() for _ in range(1000)]
        finally:
            writer.kill()
    assert min(seen) >= stood - 1e-6
    assert max(seen) <= stood + clock.SLACK + 1e-6


WAITING = """
import os, sys
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import subprocess, time
from pathlib import Path
from hardware.clock import ArmClock, ArmTime
time_of_arm = ArmTime([Path(sys.argv[1])])
held = ArmClock(Path(sys.argv[1])).held
other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
try:
    begun = held(), time.monotonic()
    while time.monotonic() - begun[1] < 60 and held() - begun[0] < 0.05: pass
    print(held() - begun[0])
finally:
    other.kill()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_waiting_for_a_cpu_is_seen(tmp_path):
    """Two programs on one CPU: each waits for the other."""
    words = script_of(tmp_path, WAITING)
    done = subprocess.run(words, capture_output=True, text=True, env=ENV, check=True)
    assert float(done.stdout) >= 0.05
    assert Clock().held() == 0.0  # a real arm is forgiven nothing


# ---------------------------------------------------------------- held up for real


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """A virtual SO-100 and a pair of virtual OpenArms, each in its process."""
    folder = tmp_path_factory.mktemp("arms")
    with (
        VirtualArmProcess(VirtualArmConfig(folder / "so100")) as so100,
        VirtualArmProcess(
            virtual_openarm(folder / "openarm", "openarm_handover")
        ) as openarm,
    ):
        yield so100, openarm


def held_up(process, seconds=1.0):
    """Stop a virtual arm's program, as a busy computer does; it goes on in a while."""
    process._process.send_signal(signal.SIGSTOP)
    go_on = threading.Timer(seconds, process._process.send_signal, [signal.SIGCONT])
    go_on.start()
    return go_on


@contextlib.contextmanager
def opened(*sources):
    with contextlib.ExitStack() as last:
        for source in sources:
            source.open()
            last.callback(source.close)
        yield


def buses(arms):
    so100, openarm = arms
    return Bus(so100.port), CanBus(openarm.config.right, side="right")


def test_a_virtual_arm_that_is_held_up_is_waited_for(arms):
    servos, motors = buses(arms)
    camera = make_camera("top", CameraConfig(f"virtual:{arms[0].port}"))
    tracker = Tracker(f"virtual:{arms[1].port}")
    with opened(servos, motors, camera, tracker):
        begun = time.monotonic()
        waits = [held_up(process) for process in arms]
        assert set(servos.read_all(IDS, "Present_Position")) == set(IDS)
        assert set(motors.refresh()) == set(IDS) | {7, 8}
        assert servos.traffic.retries == motors.traffic.retries == 0
        # Its pictures and poses are no older than the arm is.
        camera.read()
        tracker.read()
        assert time.monotonic() - begun > 0.9  # it was in fact held up
        for wait in waits:
            wait.join()


def test_an_arm_that_gives_no_sign_is_not_told_to_look_at_its_plugs(arms, monkeypatch):
    monkeypatch.setattr(clock, "GONE", 0.3)
    servos, motors = buses(arms)
    with opened(servos, motors):
        waits = [held_up(process, 60.0) for process in arms]
        try:
            for ask in (lambda: servos.read(1, "Present_Position"), motors.refresh):
                with pytest.raises(BusError, match="this computer is too busy") as said:
                    ask()
                assert not {"plug", "cable", "power"} & set(str(said.value).split())
        finally:
            for wait, process in zip(waits, arms, strict=True):
                wait.cancel()
                process._process.send_signal(signal.SIGCONT)


def test_a_control_loop_goes_on_through_hold_ups(arms, tmp_path):
    so100, _ = arms
    save_calibration(tmp_path / "arm.json", assemble(so100.config)[1])
    eyes = parse_cameras((f"top=virtual:{so100.port}",), (96, 128))
    arm = SO100(SO100Config(so100.port, tmp_path / "arm.json"), eyes)
    robot = SafeRobot(arm, so100_limits())
    robot.connect()
    try:
        waits, begun = [], time.monotonic()
        here = robot.observe(("top",))["qpos"]
        arm.ticker.start()
        for tick in range(40):
            if tick in (5, 20):  # each is far beyond every limit of a real arm
                waits.append(held_up(so100, 0.7))
            robot.observe(("top",))
            robot.act(here)
        assert time.monotonic() - begun > 40 / 30 + 2 * 0.6
        assert arm.ticker.report()["ticks"] == 40
    finally:
        for wait in waits:
            wait.join()
        arm.close()


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("robot", "name"),
    [
        ("so100", "SIGTERM"),
        ("so100", "SIGHUP"),
        ("so100", "SIGINT"),
        ("so100", "stop"),
        ("openarm", "SIGTERM"),
    ],
)
def test_a_virtual_arm_that_is_ended_leaves_nothing(tmp_path, robot, name):
    number = getattr(signal, name, signal.SIGTERM)
    before = signal.signal(number, signal.SIG_DFL)  # under nohup, it would be ignored
    try:
        line, env = f"virtual --robot {robot} --port arm", {"TMPDIR": str(tmp_path)}
        process = start_program(tmp_path, line, env=os.environ | env)
    finally:
        signal.signal(number, before)
    try:
        said = process.stdout.readline()
        arm = "OpenArm" if robot == "openarm" else "SO-100 arm is at"
        assert said.startswith("a virtual "), said
        assert arm in said
        there = {path.name for path in tmp_path.iterdir()}
        assert {"arm", "arm.scene", "arm.time"} <= there
        if name == "stop":
            with SceneClient(tmp_path / "arm") as scene:
                scene.ask(stop=True)
        else:
            process.send_signal(number)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_arm_leaves_its_port_to_the_next(tmp_path):
    with VirtualArmProcess(VirtualArmConfig(tmp_path / "arm")) as killed:
        killed._process.kill()
        killed._process.wait()
        terminal = os.readlink(tmp_path / "arm")
    # Somebody else has that terminal by now, and the link leads there.
    master, slave = os.openpty()
    (tmp_path / "arm").symlink_to(os.ttyname(slave))
    assert terminal.startswith("/dev/")
    with VirtualArmProcess(VirtualArmConfig(tmp_path / "arm")) as process:
        assert np.isfinite(process.scene.look()["joints"]).all()
    assert list(tmp_path.iterdir()) == []
    for number in (master, slave):
        os.close(number)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: VirtualArmService(VirtualArmConfig(folder / "arm")),
        lambda folder: VirtualOpenArmService(config_of(folder)),
    ],
    ids=["so100", "openarm"],
)
def test_an_arm_that_cannot_open_its_socket_leaves_nothing(tmp_path, make):
    (tmp_path / "arm.scene").mkdir()
    with pytest.raises((OSError, UserError)):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["arm.scene"]


@pytest.mark.quick
def test_a_virtual_arms_program_starts_without_pytorch():
    """It would take most of its start, and of its memory."""
    start = HOST.partition(";")[0]
    emulators = (
        "import hardware.so100.emulator.service, hardware.openarm.emulator.service"
    )
    answer = "heavy = {'torch', 'matplotlib', 'mujoco', 'cv2'}; "
    answer += "import sys; print(sorted(heavy & {*sys.modules}))"
    said = python("-c", f"{start}; {emulators}; {answer}")
    assert said.stdout.strip() == "['mujoco']", said
