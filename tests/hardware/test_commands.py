"""What stands around an arm: live view, gamepad, virtual hand, and the commands."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest

from act_minimal.command import devices, doctor
from act_minimal.command import main as cli
from act_minimal.episodes import list_episodes, load_episode
from act_minimal.sim.recording import scene_seed
from act_minimal.support.errors import SettingError, UserError
from hardware import teleop
from hardware.cameras import CameraConfig, CameraError, Frame, open_opencv
from hardware.command import checkup
from hardware.live import LiveView
from hardware.robots import make_camera, parse_cameras
from hardware.so100.arm import IDS
from hardware.so100.bus import Bus
from hardware.so100.calibration import save_calibration
from hardware.so100.emulator.service import VirtualArmConfig, assemble
from hardware.so100.kinematics import JOINTS
from hardware.virtual.client import VirtualArmProcess
from hardware.virtual.server import socket_path
from hardware.virtual.simulated_operator import SimulatedOperator, scenes_left

from ..clocks import eventually, let_pass, retried
from ..commands import run_program, start_program

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")


# ---------------------------------------------------------------- cameras


@pytest.fixture
def film(tmp_path):
    """A second of video: a square that moves to the right."""
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (160, 120)
    )
    assert writer.isOpened()
    for i in range(30):
        image = np.zeros((120, 160, 3), np.uint8)
        image[40:80, 4 * i : 4 * i + 40] = (0, 0, 255)  # red, as OpenCV has it
        writer.write(image)
    writer.release()
    return path


def test_a_video_file_is_a_camera(film):
    camera = make_camera("top", CameraConfig(str(film), size=(60, 80), stale=60.0))
    camera.open()
    try:  # longer than the film: it begins anew
        frame = eventually(lambda: (f := camera.read()).number >= 40 and f)
        camera.stale = 0.0
        with pytest.raises(CameraError, match="newest picture is"):
            camera.read()
    finally:
        camera.close()
    image = frame.image
    assert image.shape == (60, 80, 3)
    assert image[..., 0].max() > 150 > 100 > image[..., 2].max()  # red comes first
    with pytest.raises(CameraError, match="is not open"):
        camera.read()


def test_a_film_runs_at_its_own_rate(film, monkeypatch):
    clock = SimpleNamespace(seconds=1000.0, monotonic=lambda: clock.seconds)
    clock.sleep = lambda seconds: setattr(clock, "seconds", clock.seconds + seconds)
    monkeypatch.setattr("hardware.cameras.time", clock)
    take, stop = open_opencv(CameraConfig(str(film), fps=7.0))
    times = [take()[1] for _ in range(40)]
    stop()
    assert np.diff(times) == pytest.approx(1 / 30)


def test_a_file_that_is_no_film_is_refused(tmp_path):
    (tmp_path / "film.mp4").write_text("no film")
    camera = make_camera("top", CameraConfig(str(tmp_path / "film.mp4")))
    with pytest.raises(CameraError, match=r"film\.mp4 cannot be opened"):
        camera.open()


class Device:
    """As OpenCV shows a USB camera; what is asked of it is kept."""

    asked: ClassVar = {}
    refused: ClassVar = None  # a setting that it does not take

    def __init__(self, *how):
        self.asked["how"], self.count = how, 0

    def isOpened(self):
        return True

    def set(self, key, value):
        self.asked[key] = value
        return key != self.refused

    def read(self):
        self.count += 1
        time.sleep(0.02)
        return True, np.full((4, 6, 3), self.count % 200, np.uint8)

    def release(self):
        self.asked["released"] = True


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(Device, "asked", {})
    monkeypatch.setattr(cv2, "VideoCapture", Device)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_devices_exposure_and_white_balance_are_fixed(device, capfd, fixed):
    word = "top=0,exposure=150,white_balance=4600,rotate=90" if fixed else "top=0"
    [camera] = parse_cameras((word,), (6, 4)).values()
    camera.open()
    assert camera.read().image.shape == (6, 4, 3)
    camera.close()
    asked = Device.asked
    assert asked["released"]
    assert asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    if fixed:
        assert asked[cv2.CAP_PROP_AUTO_EXPOSURE] == 1  # manual, as V4L2 counts
        assert asked[cv2.CAP_PROP_EXPOSURE] == 150
        assert asked[cv2.CAP_PROP_AUTO_WB] == 0
        assert asked[cv2.CAP_PROP_WB_TEMPERATURE] == 4600
    else:
        assert cv2.CAP_PROP_EXPOSURE not in asked
    assert ("is automatic" in capfd.readouterr().err) is not fixed


@pytest.mark.parametrize(
    ("platform", "backend", "manual"),
    [("linux", "ANY", 1), ("darwin", "AVFOUNDATION", 0), ("win32", "DSHOW", 0)],
)
def test_a_cameras_number_means_the_same_to_whoever_opens_it(
    device, monkeypatch, capsys, platform, backend, manual
):
    """What the list tried is what is opened; a setting that is not taken is said."""
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Device, "refused", cv2.CAP_PROP_EXPOSURE)
    open_opencv(CameraConfig("2", exposure=150, white_balance=4600))
    assert Device.asked["how"] == (2, getattr(cv2, f"CAP_{backend}"))
    assert Device.asked[cv2.CAP_PROP_AUTO_EXPOSURE] == manual
    assert Device.asked[cv2.CAP_PROP_WB_TEMPERATURE] == 4600
    said = capsys.readouterr().err
    assert "camera 2: its driver does not take exposure=150" in said
    assert "white_balance" not in said


def test_each_camera_has_the_size_that_the_policy_wants_of_it(device):
    words = ("top=0", "wrist=0", "side=0")
    cameras = parse_cameras(words, {"top": (72, 100), "wrist": (720, 640)})
    shapes = {}
    for name, camera in cameras.items():
        camera.open()
        shapes[name] = camera.read().image.shape
        asked = [Device.asked[cv2.CAP_PROP_FRAME_HEIGHT]]
        asked.append(Device.asked[cv2.CAP_PROP_FRAME_WIDTH])
        # Never less than is handed out.
        assert asked == ([720, 640] if name == "wrist" else [480, 640])
        camera.close()
    # A camera that the policy does not know is there to be looked at.
    assert shapes == {"top": (72, 100, 3), "wrist": (720, 640, 3), "side": (96, 128, 3)}


@pytest.mark.parametrize("word", ["top=0,exposure", "top=0,exposure=x", "top=0,zoom=2"])
def test_an_unknown_setting_of_a_camera_is_refused(word):
    with pytest.raises(SettingError, match="expected one of exposure, white_balance"):
        parse_cameras((word,), (96, 128))


# ---------------------------------------------------------------- live view


class Still:
    """A camera that shows one colour."""

    def __init__(self, colour):
        self.colour = colour

    def read(self):
        if self.colour is None:
            raise CameraError("frozen")
        return Frame(np.full((96, 128, 3), self.colour, np.uint8), time.monotonic(), 1)


def fetched(address, enough=None):
    """What is sent from there, to its end or until there is enough."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        data = answer.read() if enough is None else b""
        while enough is not None and enough not in data:
            data += answer.read(500)
    return data


def picture(address):
    data = fetched(address, b"\xff\xd9")
    data = data[data.index(b"\xff\xd8") : data.index(b"\xff\xd9") + 2]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def test_the_live_view_shows_each_camera_and_what_is_said():
    cameras = {"top": Still((200, 30, 30)), "wrist": Still(None)}
    with LiveView(cameras, lambda: {"ticks": 7}) as view:
        page = fetched(view.address).decode()
        assert 'src="/top"' in page
        assert 'alt="what camera wrist sees"' in page
        assert json.loads(fetched(f"{view.address}said")) == {"ticks": 7}
        colour = picture(f"{view.address}top").mean((0, 1))
        assert colour == pytest.approx((200, 30, 30), abs=5)
        assert picture(f"{view.address}wrist").max() == 0  # black, and no crash
        port = int(view.address.rstrip("/").rpartition(":")[2])
        with pytest.raises(SettingError, match=f"cannot use port {port}"):
            LiveView(cameras, port=port)


# ---------------------------------------------------------------- gamepad


class Pad:
    """As pygame shows a gamepad."""

    def __init__(self):
        self.axes, self.buttons, self.hat = [0.0] * 6, set(), (0, 0)

    def get_axis(self, i):
        return self.axes[i]

    def get_button(self, i):
        return int(i in self.buttons)

    def get_numhats(self):
        return 1

    def get_hat(self, i):
        return self.hat

    def quit(self):
        self.gone = True


def test_sticks_move_joints_and_buttons_say_words():
    pad = Pad()
    source = teleop.Gamepad(30.0, pad)
    source.open()
    here = np.zeros(6)
    assert source.wish(here) == pytest.approx(here)
    pad.axes[0], pad.axes[1] = 1.0, 0.05  # fully to the right; the other is at rest
    for _ in range(30):
        wish = source.wish(here)
    assert wish == pytest.approx([teleop.PAD_SPEED, 0, 0, 0, 0, 0])
    pad.axes[0] = 0.0
    pad.buttons = {source.OPEN, 7}
    assert source.wish(here)[5] == pytest.approx(teleop.PAD_SPEED / 30)
    source.wish(here)
    assert [source.other(), source.other()] == [" ", ""]  # held, but pressed once
    source.close()
    assert pad.gone


def test_no_gamepad_is_said_in_one_sentence():
    with pytest.raises(UserError, match="no gamepad is plugged in"):
        teleop.Gamepad(30.0)


# ---------------------------------------------------------------- hand and commands


@contextlib.contextmanager
def follower_and_leader(folder):
    with contextlib.ExitStack() as arms:
        for name, leader in (("arm", False), ("leader", True)):
            config = VirtualArmConfig(folder / name, leader=leader, seed=5 * leader)
            save_calibration(folder / f"{name}.json", assemble(config)[1])
            arms.enter_context(VirtualArmProcess(config))
        yield


RECORD = (
    "record --robot so100 --out demos --port arm --calibration arm.json "
    "--leader leader --leader-calibration leader.json "
    "--cameras top=virtual:arm --scenes 0 --live -1"
)


@posix
def test_a_hand_at_the_leader_records_and_kill_9_loses_nothing(tmp_path):
    """Repeated with new arms where this computer held a recorder up for so long that
    a servo protected itself, as a real one would."""
    folders = (tmp_path / f"try_{i}" for i in itertools.count())

    def record_kill_and_record_on():
        folder = next(folders)
        folder.mkdir()
        with follower_and_leader(folder):
            first = start_program(folder, f"{RECORD} --n 3")
            next((x for x in first.stdout if "ticks kept" in x), None)
            time.sleep(3.0)  # in the middle of the second episode
            first.kill()
            first.communicate()
            kept = list_episodes(folder / "demos")
            assert len(kept) == 1
            before = load_episode(kept[0])
            second = run_program(folder, f"{RECORD} --n 2")
            assert second.returncode == 0, second.stderr
        paths = list_episodes(folder / "demos")
        assert [p.name for p in paths] == ["episode_0.hdf5", "episode_1.hdf5"]
        episode = load_episode(paths[1])
        # A next scene, not the first one again; nothing left of the episode in between.
        # (Two arms that are held up apart may fail at a scene: then it is another one.)
        assert 1 <= episode.attributes["scene"] - before.attributes["scene"] <= 5
        assert not list((folder / "demos").glob("*.tmp*"))
        assert episode.attributes["success"]
        assert not episode.sim
        assert len(episode) > 100
        assert np.ptp(episode.action[:, 0]) > 0.3  # from the cube to the bin

    retried(record_kill_and_record_on, tries=4)


@posix
def test_a_full_disk_loses_the_running_episode_only(tmp_path):
    """A file may grow to 100 kB: as on a disk that fills up while it is written."""
    import resource

    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with follower_and_leader(tmp_path):
        full = run_program(tmp_path, f"{RECORD} --n 1", preexec_fn=small_disk)
    assert full.returncode == 1
    [said] = [x for x in full.stderr.splitlines() if x.startswith("act:")]
    assert "episode_0.hdf5" in said
    assert list_episodes(tmp_path / "demos") == []


@posix
@pytest.mark.parametrize("robot", ["so100", "so101"])
def test_teleop_plugs_in_a_virtual_arm_itself(tmp_path, robot):
    line = f"teleop --port virtual --robot {robot} --seconds 1 --live -1"
    moved = run_program(tmp_path, line)
    assert moved.returncode == 0, moved.stderr
    assert "30 ticks, jitter" in moved.stdout


def test_scenes_go_on_after_the_last_episode(tmp_path, monkeypatch):
    scenes = scenes_left(tmp_path, 3)
    first = next(scenes)
    assert next(scenes) == first + 1
    episode = SimpleNamespace(attributes={"scene": first + 6})
    monkeypatch.setattr(
        "hardware.virtual.simulated_operator.load_episode", lambda p: episode
    )
    (tmp_path / "episode_0.hdf5").touch()
    assert next(scenes_left(tmp_path, 3)) == first + 7


# ---------------------------------------------------------------- doctor and guide


@posix
def test_the_doctor_asks_who_answers(tmp_path):
    look = checkup.look_at_servos
    with VirtualArmProcess(VirtualArmConfig(tmp_path / "arm")) as process:
        assert look(process.port) == ("ok", "six servos, 7.4 V, at most 25 °C")
        process.scene.faults(missing=3)
        status, said = look(process.port)
        assert (status, "servos [1, 2, 4, 5, 6] answer" in said) == ("warning", True)
        process.scene.faults(missing=0, no_power=True)
        silent = "no servo answers; are they powered?"
        assert look(process.port) == ("warning", silent)
    status, said = look(str(tmp_path / "gone"))
    assert (status, "could be opened" in said) == ("warning", True)


def test_the_doctor_opens_only_what_may_be_a_servo_board(monkeypatch):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    ports = [
        devices.Device(Path("/dev/ttyACM0"), "usb-Prusa_printer", vendor=0x2C99),
        devices.Device(Path("/dev/ttyACM1"), "USB Single Serial", vendor=0x1A86),
    ]
    monkeypatch.setattr(devices, "find_serial_ports", lambda: ports)
    asked, silent = [], ("warning", "no servo answers; are they powered?")
    monkeypatch.setattr(checkup, "look_at_servos", lambda p: asked.append(p) or silent)
    printer, arm = doctor.check_serial_ports()
    assert asked == ["/dev/ttyACM1"]
    assert printer.status == "ok"
    assert arm.fix == "act health --port /dev/ttyACM1"


@pytest.mark.parametrize("arm", ["so100", "openarm"])
def test_the_guides_commands_are_understood_and_all_named(arm):
    text = (
        (ROOT / "hardware" / arm / "GUIDE.md")
        .read_text(encoding="utf-8")
        .replace("\\\n", " ")
    )
    found = re.findall(r"^uv run act (.+)$", text, flags=re.MULTILINE)
    lines = [line.partition("#")[0].split() for line in found]
    for name, *words in lines:
        assert callable(cli._find(name, words, False)), (name, *words)
    if arm == "so100":
        named = {line[0] for line in lines} | {"setup"}
        assert {*cli.ARM_COMMANDS, "record", "train", "inspect"} <= named


@pytest.mark.quick
def test_the_so100s_guide_tells_the_parts_of_leader_and_follower_apart():
    text = (ROOT / "hardware" / "so100" / "GUIDE.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (\d) (\w+) \| 1:(\d+) \| 1:(\d+) \|", text)
    ids, joints, follower, leader = zip(*rows, strict=True)
    assert (tuple(map(int, ids)), joints) == (IDS, JOINTS)
    assert set(follower) == {"345"}
    assert leader == ("191", "345", "191", "147", "147", "147")  # the maker's parts
    _, wiring, _, numbers, *_ = re.split(r"^## \d.*$", text, flags=re.MULTILINE)[1:]
    assert re.search(r"12 V follower\W+beside a\W+7\.4 V leader", wiring)
    ports = re.findall(r"act setup --port (\S+)", numbers)
    assert len(set(ports)) == 2  # each arm's
    assert re.search(rf"leader.* same ids, {IDS[0]} to {IDS[-1]}\b", numbers, re.DOTALL)


@pytest.mark.quick
def test_the_so100s_guide_says_on_which_computers_it_was_not_tried():
    text = (ROOT / "hardware" / "so100" / "GUIDE.md").read_text(encoding="utf-8")
    rows = {
        name: cells
        for name, *cells in re.findall(
            r"^\| (Linux|Jetson|macOS|Windows) \| (.+) \| (.+) \| (.+) \|$", text, re.M
        )
    }
    assert set(rows) == {"Linux", "Jetson", "macOS", "Windows"}
    for name, (arm, camera, virtual) in rows.items():
        assert ("untested" in arm) == ("untested" in camera) == (name != "Linux")
        works = {"Linux": "yes", "Windows": "no"}.get(name, "*untested*")
        assert virtual.startswith(works)
    assert "/dev/serial/by-id/" in rows["Linux"][0]
    assert "--port /dev/serial/by-id/" in text
    assert f"/dev/{devices.JETSON_UART}" in rows["Jetson"][0]


@posix
def test_who_is_slow_to_look_misses_pictures_and_holds_nobody_up(tmp_path):
    with VirtualArmProcess(VirtualArmConfig(tmp_path / "arm")) as process:
        wish = {"watch": {"cameras": ["top"], "size": [96, 128], "fps": 30}}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sleeper:
            sleeper.connect(str(socket_path(tmp_path / "arm")))
            sleeper.sendall(json.dumps(wish).encode() + b"\n")
            let_pass(process.scene, 1.0)  # 30 pictures are more than the socket holds
            bus = Bus(process.port, tries=1)
            bus.open()

            def fifty_reads():
                start = bus.clock.now()
                for _ in range(50):
                    bus.read_all(IDS, "Present_Position")
                assert bus.clock.now() - start < 0.5

            retried(fifty_reads)
            bus.close()


class StandIn:
    """Of the virtual arm's scene and its leader: keeps what it was asked for."""

    def __init__(self):
        self.laid, self.held = [], []

    def lay(self, number):
        self.laid.append(number)
        return [number]

    def put(self, joints):
        self.held.append(joints)

    def close(self):
        pass


def test_a_scene_that_a_style_cannot_reach_is_passed_over(monkeypatch):
    """Scene 349 of seed 1; a recording that met it ended, and met it again."""
    there = StandIn()
    for name in ("Scenes", "SceneClient"):
        monkeypatch.setattr(
            f"hardware.virtual.simulated_operator.{name}", lambda _: there
        )
    scenes = [scene_seed(1, i) for i in (349, 350)]
    operator = SimulatedOperator(["follower"], ["leader"], scenes)
    operator.prepare(0)
    assert there.laid == scenes
    assert operator.number == scenes[1]
    assert len(there.held) == 1
