"""The commands of `act` on two virtual OpenArms, and what they stand on."""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from act_minimal.episodes import list_episodes, load_episode
from act_minimal.sim import make_task
from act_minimal.sim.openarm.arms import MIRROR
from act_minimal.sim.openarm.table import HOME_ARM, HOME_GRIPPER, TABLE
from act_minimal.sim.recording import scene_seed
from act_minimal.sim.world import start
from act_minimal.support.errors import SettingError, UserError
from benchmarks.arms import guides
from hardware.deployment import check_fit
from hardware.objects import Tracker, TrackerError
from hardware.openarm.emulator.service import virtual_openarm
from hardware.openarm.kinematics import ARMS
from hardware.openarm.limits import CLEAR, openarm_limits
from hardware.openarm.motors import GRIPPERS, NAMES
from hardware.openarm.plug import Plug, find_plug, free_channels, write_plug
from hardware.robots import VIRTUAL, RobotConfig, make_robot, plugged_in
from hardware.safety.governor import Governor
from hardware.safety.stop import EmergencyStop
from hardware.virtual.client import SceneClient, VirtualArmProcess
from hardware.virtual.server import socket_path

from ..clocks import eventually, let_pass, retried
from ..commands import act, run_program

ROOT = Path(__file__).parents[2]
STATE = ROOT / "data" / "checkpoints" / "openarm_handover_state"
posix = pytest.mark.skipif(os.name != "posix", reason="needs sockets with names")
AT_TABLE = openarm_limits(table=TABLE)
JOINTS = [i for i in range(16) if i not in GRIPPERS]


# ---------------------------------------------------------------- limits at a table


def clearance(state, limits=AT_TABLE):
    return limits.guard.clearance(state, limits.box_low, limits.box_high)


def test_policies_begin_where_the_simulated_tasks_do():
    left = MIRROR * HOME_ARM
    home = np.concatenate([HOME_ARM, [HOME_GRIPPER], left, [HOME_GRIPPER]])
    assert AT_TABLE.ready == pytest.approx(home)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("table", [0.10, 0.30, 0.40])
def test_arms_find_from_a_table_to_their_work_and_back(version, table):
    limits = openarm_limits(version, table)
    governor = Governor(limits, 0.02)
    for pose in (limits.rest, limits.ready):
        assert (pose >= limits.low).all()
        assert (pose <= limits.high).all()
    lying = ARMS[version].watched_of(limits.rest)
    assert lying[:, 2].min() == pytest.approx(table + 0.045, abs=1e-3)
    assert np.abs(lying[[2, 3, 6, 7], 1]).min() > 0.25  # beside where objects lie
    for way in ((limits.rest, limits.ready), (limits.ready, limits.rest)):
        stops = [way[0], *governor.way(*way)]
        assert stops[-1] == pytest.approx(way[1])
        for one, other in itertools.pairwise(stops):
            shares = np.linspace(0, 1, 101)[:, None]
            assert clearance(one + shares * (other - one), limits).min() > -0.002


@pytest.mark.parametrize(("version", "highest"), [("v2", 0.41), ("v1", 0.41)])
def test_a_table_on_which_no_arm_can_lie_is_refused(version, highest):
    """Fingertips are well over it, but wrists are too near: nothing could move."""
    limits = openarm_limits(version, highest)
    assert clearance(limits.rest, limits).min() > CLEAR
    for table in (highest + 0.01, highest + 0.03, -0.1, 0.6, float("nan")):
        expected = rf"^table is {table} m \(--table, .* from 0.0\d to {highest:.2f} m"
        with pytest.raises(SettingError, match=expected):
            openarm_limits(version, table)


def test_arms_that_are_too_near_may_part_and_not_come_nearer():
    governor = Governor(AT_TABLE, 0.02)
    close = AT_TABLE.ready.copy()
    close[[1, 9]] = 0.1, -0.1  # upper arms hang, forearms turn inwards until they meet
    while clearance(close).min() > -0.003:
        close[2] -= 0.01
        close[10] += 0.01
        assert close[2] > AT_TABLE.low[2]
    nearer, away = close.copy(), close.copy()
    nearer[[2, 10]] += -0.1, 0.1
    away[[2, 10]] += 0.1, -0.1
    governor.reset(close)
    target, kinds = governor.allow(nearer, close)
    assert target == pytest.approx(close)
    assert "collision" in kinds
    target, _ = governor.allow(away, close)
    assert target[2] > close[2]
    assert clearance(target).min() > clearance(close).min()


# ---------------------------------------------------------------- how it is plugged in


def test_a_port_is_two_buses_or_a_file(tmp_path):
    assert find_plug("can0,can1") == Plug("can0", "can1")
    multicast = "udp_multicast:239.74.163.2:1,udp_multicast:239.74.163.2:2"
    assert find_plug(multicast).left == "udp_multicast:239.74.163.2:2"
    write_plug(tmp_path / "arms", Plug("a", "b", fd=False, table=0.4))
    assert find_plug(str(tmp_path / "arms")) == Plug("a", "b", False, 0.4)


NO_PLUGS = ("no json", "[]", '{"right": 7}', '{"rihgt": "can0"}', '{"table": "low"}')


@pytest.mark.parametrize(
    ("port", "says"),
    [
        ("can0", "port is 'can0', expected an OpenArm's two buses, such as can0,can1"),
        ("can0,", "expected two buses, the right arm's first"),
        ("can0,can1,can2", "expected two buses"),
        *((text, "does not say where two OpenArms are plug") for text in NO_PLUGS),
    ],
)
def test_other_ports_are_refused(tmp_path, monkeypatch, port, says):
    monkeypatch.chdir(tmp_path)
    if port in NO_PLUGS:
        Path("arms").write_text(port)
        port = "arms"
    with pytest.raises(SettingError, match=says):
        find_plug(port)


def test_two_pairs_at_once_have_buses_of_their_own():
    assert len({*free_channels(), *free_channels()}) >= 3  # a port may come back


@pytest.mark.parametrize(
    ("version", "task", "says"),
    [
        ("v1", "openarm_handover", "a virtual OpenArm is a v2, not a v1"),
        ("v2", "so100_pick_place", "none of two OpenArms"),
    ],
)
def test_only_what_there_is_can_be_virtual(version, task, says):
    config = RobotConfig(VIRTUAL, "openarm", version=version)
    with pytest.raises(UserError, match=says), plugged_in(config, task):
        pass


# ---------------------------------------------------------------- keys


# ---------------------------------------------------------------- virtual arms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where `arms` and their `leaders` are plugged in."""
    folder = tmp_path_factory.mktemp("openarm")
    arms = virtual_openarm(folder / "arms", "openarm_handover", number=3)
    leaders = virtual_openarm(folder / "leaders", leader=True)
    with VirtualArmProcess(arms), VirtualArmProcess(leaders):
        yield folder


@pytest.fixture
def scene(folder):
    with SceneClient(folder / "arms") as scene:
        yield scene


def connected(folder):
    config = RobotConfig(
        str(folder / "arms"), "openarm", objects=f"virtual:{folder / 'arms'}"
    )
    return make_robot(config, (96, 128), EmergencyStop())


@posix
def test_arms_rise_from_the_table_and_lie_down_on_it(folder, scene):
    robot = connected(folder)
    robot.connect()
    scene.ask(forget=True)
    robot.go(robot.limits.ready)
    observation = robot.observe()
    assert observation["qpos"][0] == pytest.approx(robot.limits.ready, abs=0.05)
    objects = scene.look()["objects"]
    assert observation["env_state"][0] == pytest.approx(objects, abs=1e-3)
    robot.close()
    seen = let_pass(scene, 1.0)
    assert not any(seen["torque"])
    assert seen["witness"]["falls"] == 0
    # They lie: 12 cm at most below where the wrists were at rest, and hands on it.
    assert seen["joints"] == pytest.approx(robot.limits.rest, abs=0.15)
    assert min(hand[2] for hand in seen["witness"]["hand_low"]) > TABLE
    assert not robot.interventions.counts["other arm"]


@posix
def test_raised_arms_that_lose_their_torque_at_a_table_have_fallen(folder, scene):
    robot = connected(folder)
    robot.connect()
    robot.go(robot.limits.ready)
    scene.ask(forget=True, power=False)
    seen = let_pass(scene, 0.2)
    scene.ask(power=True)
    with pytest.raises(UserError, match="could not be put to rest"):
        robot.close()
    assert seen["witness"]["falls"] == 2
    scene.put(AT_TABLE.rest)
    scene.ask(let_go=True, forget=True)


@posix
def test_a_virtual_arm_stands_in_for_a_motion_tracker(folder, scene):
    tracker = Tracker(f"virtual:{folder / 'arms'}", stale=0.5)
    tracker.open()
    with contextlib.closing(tracker):
        before = tracker.read()
        assert before == pytest.approx(scene.look()["objects"], abs=1e-6)
        scene.lay(4)
        eventually(lambda: np.abs(tracker.read() - before)[:2].max() > 1e-3)
    with pytest.raises(TrackerError, match="not open"):
        tracker.read()
    assert len(tracker.look()) == 7  # opened for one look
    for port, says in (("nobody", "no virtual arm at"), ("leaders", "no object")):
        with pytest.raises(UserError, match=says):
            Tracker(f"virtual:{folder / port}").open()
    for source in ("top=0", "virtual:", "optitrack:7"):
        with pytest.raises(SettingError, match=f"objects is '{source}', expected virt"):
            Tracker(source)


@posix
def test_poses_that_stop_coming_stop_the_arm(tmp_path):
    config = virtual_openarm(tmp_path / "arms", "openarm_handover")
    says = r"newest poses are \d+\.\d+ s old, expected at most 0\.15 s \(the vi"
    with VirtualArmProcess(config) as process:
        tracker = Tracker(f"virtual:{process.port}")
        tracker.open()
        process.scene.ask(stop=True)
        with pytest.raises(TrackerError, match=says):
            eventually(lambda: tracker.read() is None)
        tracker.close()


@posix
def test_a_policy_fits_if_somebody_knows_its_objects(folder):
    config = SimpleNamespace(env_state_dim=7, state_dim=16, action_dim=16)
    policy = SimpleNamespace(config=config, cameras=())
    robot = connected(folder)
    check_fit(policy, robot)
    config.env_state_dim = 14
    with pytest.raises(UserError, match=r"of 14 numbers, but virtual:.* tells 7"):
        check_fit(policy, robot)
    robot.tracker = None
    with pytest.raises(UserError, match="say who knows it, such as --objects virtual"):
        check_fit(policy, robot)


@posix
def test_health_of_sixteen_motors(folder, scene):
    well = run_program(folder, "health --robot openarm --port arms --json")
    assert well.returncode == 0, well.stderr
    rows = json.loads(well.stdout)["servos"]
    assert [row["joint"] for row in rows] == list(NAMES)
    assert {row["fault"] for row in rows} == {"none"}
    scene.faults(left={"silent": 4})
    ill = run_program(folder, "health --robot openarm --port arms")
    scene.faults(left={"silent": 0})
    assert ill.returncode == 1
    assert len(ill.stdout.splitlines()) == 16
    assert "left joint4   motor 4: silent" in ill.stdout


@posix
def test_a_hand_at_the_leaders_records_through_both_pairs(folder):
    line = (
        "record --robot openarm --out demos --n 1 --scenes 3 --port arms "
        "--leader leaders --objects virtual:arms --live -1"
    )
    done = run_program(folder, line)
    assert done.returncode == 0, done.stderr
    [path] = list_episodes(folder / "demos")
    episode = load_episode(path)
    said = episode.attributes
    assert (said["task"], said["robot"]) == ("openarm_handover", "openarm")
    assert said["success"]
    assert 0 <= said["scene"] - scene_seed(3, 0) <= 5  # the first that succeeded
    assert (episode.fps, episode.sim) == (50.0, False)
    assert episode.qpos.shape == episode.action.shape == (len(episode), 16)
    assert episode.env_state is not None
    task = make_task("openarm_handover")
    laid = task.env_state(start(task, said["scene"])[None])[0]
    assert episode.env_state[0] == pytest.approx(laid, abs=2e-3)
    # From the right hand's side of the table to the left hand, in the air.
    assert episode.env_state[-1, 1] - laid[1] > 0.1
    assert episode.env_state[-1, 2] > TABLE + 0.06
    # The follower is where it was told, but for its springs.
    off = np.abs(episode.qpos[5:] - episode.action[:-5])[:, JOINTS]
    assert np.median(off) < 0.05


@posix
def test_deploy_looks_first_and_then_counts(folder, scene):
    line = (
        f"deploy --robot openarm --policy {STATE} --port arms "
        "--objects virtual:arms --scenes 0 --seconds 18 --json"
    )
    dry = run_program(folder, f"{line} --dry-run --out dry")
    assert dry.returncode == 0, dry.stderr
    report = json.loads(dry.stdout)
    assert 0 < report["prediction_ms"]["median"] <= report["prediction_ms"]["worst"]
    assert report["jump"] < 0.5
    assert not (folder / "dry" / "tally.json").exists()
    outs = (f"tried_{i}" for i in itertools.count())

    def three_trials():
        scene.ask(forget=True)
        done = run_program(folder, f"{line} --out {next(outs)} --trials 3")
        assert done.returncode == 0, done.stderr
        tally, seen = json.loads(done.stdout), scene.look()
        assert tally["n"] == 3
        assert tally["successes"] >= 1
        assert all(trial["stopped"] == "" for trial in tally["trials"])
        assert seen["witness"]["falls"] == 0
        assert not any(seen["torque"])
        speed = np.array(seen["witness"]["speed"])[JOINTS]
        assert (speed <= 1.5 * AT_TABLE.speed[JOINTS] + 0.5).all()

    # Again where this computer held the loop up: two targets that the arms get at
    # once move a joint faster than one a tick may.
    retried(three_trials, 4)


OPENARM = "--robot openarm --port"


@posix
@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (f"health {OPENARM} nobody", 2, "act virtual --robot openarm --p"),
        (f"health {OPENARM} nocan1,nocan2", 1, "nocan1 cannot be opened"),
        (f"virtual {OPENARM} arms", 1, "another virtual arm runs on it"),
        (f"virtual {OPENARM} new --fresh", 2, "fresh is of a SO-100"),
        (f"virtual {OPENARM} new --task so100_pick_place", 2, "none of two"),
        (f"teleop {OPENARM} arms --gamepad --live -1", 2, "gamepad moves one SO-100"),
        (
            f"teleop {OPENARM} arms --leader nobody",
            2,
            "leader is 'nobody', expected an OpenArm's two buses",
        ),
        (f"teleop {OPENARM} arms --table 0.7", 2, "table is 0.7 m"),
        (f"record {OPENARM} arms --scenes 0", 2, "--scenes needs --leader"),
        (
            f"deploy {OPENARM} arms --policy {STATE} --scenes 0",
            1,
            "say who knows it, such as --objects virtual:PORT",
        ),
        (
            f"deploy --policy {STATE} --port virtual --scenes 0",
            1,
            "trained with state_dim 16, but the arm has 6 joints",
        ),
        (
            "teleop --port virtual --robot so101 --task openarm_handover",
            2,
            "task is 'openarm_handover', expected one with a so101",
        ),
        ("record --robot so100 --port virtual", 2, "needs a terminal"),
        ("health --port none", 1, "Find yours with: act ports"),
    ],
)
def test_what_a_person_gets_wrong_is_one_sentence(
    folder, monkeypatch, line, code, says
):
    monkeypatch.chdir(folder)
    ended, out, err = act(line)
    assert ended == code, out + err
    [sentence] = [x for x in err.splitlines() if x.startswith("act:")]
    assert says in sentence
    assert not (folder / "new").exists()


ORPHANED = """
import signal, sys, time
from pathlib import Path
from hardware.openarm.emulator.service import virtual_openarm
from hardware.virtual.client import VirtualArmProcess
from hardware.so100.emulator.service import VirtualArmConfig

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and & do
kind, port = sys.argv[1], Path(sys.argv[2])
config = VirtualArmConfig(port) if kind == "so100" else virtual_openarm(port)
with VirtualArmProcess(config):
    print("up", flush=True)
    time.sleep(600)
"""


@posix
@pytest.mark.parametrize("kind", ["so100", "openarm"])
def test_a_virtual_arm_ends_when_its_program_is_killed(tmp_path, kind):
    words = [sys.executable, "-c", ORPHANED, kind, str(tmp_path / "arm")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "up\n"
        assert socket_path(tmp_path / "arm").exists()
        program.kill()
    eventually(lambda: not list(tmp_path.iterdir()))  # an arm that ends cleans up


@posix
def test_a_killed_pair_leaves_its_name_to_the_next(tmp_path):
    with VirtualArmProcess(virtual_openarm(tmp_path / "arms")) as killed:
        killed._process.kill()
        killed._process.wait()
        assert (tmp_path / "arms").exists()
        assert (tmp_path / "arms.scene").exists()
    with socket.socket(socket.AF_UNIX) as left:  # as after kill -9: nobody listens
        left.bind(str(tmp_path / "arms.scene"))
    with VirtualArmProcess(virtual_openarm(tmp_path / "arms")) as process:
        assert process.scene.look()["success"] is False
    assert list(tmp_path.iterdir()) == []
    mine = tmp_path / "mine"
    for text, says in (
        ("dear diary", "mine does not say where two OpenArms"),
        ('{"right": "can0", "left": "can1"}', "mine names the buses of real arms"),
    ):
        mine.write_text(text)
        process = VirtualArmProcess(virtual_openarm(mine))
        with pytest.raises(UserError, match=says), process:
            pass
        assert mine.read_text() == text


# ---------------------------------------------------------------- the guide


def test_the_benchmark_runs_the_guides_own_commands():
    commands = guides.guide_commands()
    named = [words[0] for words in commands]
    assert named[:5] == ["virtual", "health", "virtual", "record", "train"]
    assert "--leader" in commands[2]
    told = guides.first_of(commands)
    assert guides.said(told["deploy"], "--policy") == guides.said(
        told["train"], "--out"
    )
    assert guides.said(told["record"], "--n") == "50"
    fewer = guides.changed(told["record"], n=2, steps=None)
    assert guides.said(fewer, "--n") == "2"
    assert guides.said(told["record"], "--n") == "50"
