"""The fault campaign: some rows anew, the judge against made-up arms, the whole table.

The rows that are made here live in the clock's time, on python-can's virtual bus.
"""

import contextlib
import copy
import json
import os
import re
from dataclasses import fields

import numpy as np
import pytest

from act_minimal.episodes import Episode, save_episode
from benchmarks.arms import openarm_faults, so100_faults
from benchmarks.arms.campaign import KILLED, REPETITIONS, campaign, row_of
from benchmarks.arms.openarm_faults import FAULTS, SWAYING, OpenArmTrial, gone
from course.toolkit.results import load_result
from hardware.openarm.emulator.wire import Faults
from hardware.openarm.limits import openarm_limits
from hardware.openarm.motors import NAMES
from hardware.safety.safe_robot import SafeRobot

from .virtual_arms import driver

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs sockets with names")


STILL = np.zeros((3, 16))
EPISODE = Episode(qpos=STILL, qvel=STILL, effort=STILL, action=STILL)


class SceneClient:
    """The scene of a virtual arm in this process."""

    def __init__(self, virtual):
        self.service = virtual

    def ask(self, **wishes):
        return json.loads(json.dumps(self.service._do(wishes, None)))

    def look(self):
        return self.ask()

    def faults(self, **switches):
        self.ask(faults=switches)

    def put(self, state):
        self.ask(put=np.asarray(state).tolist())


@pytest.fixture
def trial(service, tmp_path):
    robot = SafeRobot(driver(service), openarm_limits())
    return OpenArmTrial(tmp_path, robot, SceneClient(service), {}, sways=SWAYING)


# ---------------------------------------------------------------- some rows

ROWS = {
    ("connect", "silent motor"): r"motor 4 \(right joint4\) .* does not answer",
    ("connect", "coils too hot"): r"motor 6 \(right joint6\) reports rotor too hot",
    ("connect", "power cut, both"): "no motor of the right arm .* answers",
    ("zero", "unplugged"): r"motor 2 \(right joint2\) .* does not answer",
    ("zero", "doubled 30 %"): "^$",
    ("record", "over-current"): "the servo of right_joint4 reports: over current",
    ("deploy", "frozen feedback"): "right joint4.* its feedback is stale",
    ("deploy", "dropped 5 %"): "^$",
    ("deploy", "power cut"): "no motor of the right arm .* answers",
}


@pytest.mark.parametrize(("phase", "fault"), ROWS)
def test_a_row(trial, phase, fault):
    trial.switches = FAULTS[fault]
    row = row_of(phase, trial)
    assert not row["crash"]
    assert row["safe"], row
    assert re.search(ROWS[phase, fault], row["said"]), row["said"]
    assert row.get("lost_episodes", 0) == 0


# ---------------------------------------------------------------- the judge


def test_the_judge_sees_what_goes_wrong(trial):
    row = row_of("deploy", trial)
    good = {"safe": True, "said": "", "landing": "", "torque_left_on": []}
    assert row == row | good
    seen = trial.scene.look()
    judge, limits = trial.judge, trial.robot.limits
    assert judge("deploy", seen, "")["safe"]
    for key, place, value in (
        ("speed", 3, 1.3 * limits.speed[3]),
        ("lowest", 9, limits.low[9] - 0.1),
        ("highest", 3, limits.high[3] + 0.1),
        ("torque", 1, 37.0),
        ("hand_low", 1, [0.0, 0.0, 0.0]),
        ("touch", "deepest", 0.003),
        ("touch", "pressed", 0.4),
    ):
        changed = copy.deepcopy(seen)
        changed["witness"][key][place] = value
        assert not judge("deploy", changed, "")["safe"], (key, place)
    assert not judge("deploy", seen | {"torque": [True] + [False] * 15}, "")["safe"]
    fallen = copy.deepcopy(seen)
    fallen["witness"]["falls"] = 1
    assert not judge("deploy", fallen, "")["safe"]
    # Where the fault takes the right arm's torque, its fall is the fault's; no other's.
    trial.switches = FAULTS["power cut"]
    fallen["witness"]["torque"][:8] = [0.0] * 8
    found = judge("deploy", fallen, "")
    assert (found["safe"], found["dropped_by_the_fault"]) == (True, 1)
    fallen["witness"]["falls"] = 2
    assert not judge("deploy", fallen, "")["safe"]
    fallen["witness"] |= {"falls": 1, "torque": [5.0] * 16}  # without a supply
    assert not judge("deploy", fallen, "")["safe"]


def test_the_judge_sees_a_wrong_zero(trial):
    row = row_of("zero", trial)
    assert row == row | {"safe": True, "said": "", "zero_right": True}
    trial.scene.service.arm.motors[0][4].zero += 0.1
    seen = trial.scene.look()
    assert not trial.judge("zero", seen, "")["safe"]
    assert trial.judge("zero", seen, "motor 5 does not answer")["safe"]
    seen["witness"]["torque"][2] = 0.5
    assert not trial.judge("zero", seen, "motor 5 does not answer")["safe"]


def test_which_motors_a_fault_concerns():
    limp = ("no_power", "overload")
    assert gone(FAULTS["power cut"], limp) == set(range(8))
    assert gone(FAULTS["power cut, both"], limp) == set(range(16))
    assert gone(FAULTS["overload"], limp) == {NAMES.index("right_joint2")}
    assert gone({"left": {"overload": 2}}, limp) == {NAMES.index("left_joint2")}
    assert gone(FAULTS["late 20 %"], limp) == set()


# ---------------------------------------------------------------- the table


def test_a_campaign_goes_on_where_it_was_stopped(trial, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.arms.campaign.KEPT", tmp_path / "kept")
    plugged, faults = [], {"one": {}, "two": {}}

    class Quick(OpenArmTrial):
        def nothing(self):
            plugged.append(self.switches)

        def killed(self):
            for number in range(2):
                save_episode(self.folder / "demos" / f"episode_{number}.hdf5", EPISODE)

        def judge(self, phase, seen, said):
            return {"safe": True}

    @contextlib.contextmanager
    def plug(folder, switches):
        yield Quick(folder, trial.robot, trial.scene, switches)

    assert campaign("x", ["nothing"], faults, plug, minutes=-1) is None
    assert plugged == []
    content = campaign("x", ["nothing"], faults | {"three": {}}, plug)
    assert content is not None
    cells = ["one", "two", "three", "kill -9"]
    assert [r["fault"] for r in content["table"]] == [c for c in cells for _ in "abc"]
    assert [r["repetition"] for r in content["table"]] == [0, 1, 2] * 4
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("name", ["so100_faults", "openarm_faults"])
def test_the_table_has_every_fault_in_every_phase_and_nothing_unsafe(name):
    bench = so100_faults if name == "so100_faults" else openarm_faults
    cells = [(phase, fault) for phase in bench.PHASES for fault in bench.FAULTS]
    found = load_result(name)
    rows = [(r["phase"], r["fault"], r["repetition"]) for r in found["table"]]
    assert rows == [(*c, i) for c in [*cells, KILLED] for i in range(REPETITIONS)]
    assert found["n"] == len(rows)
    assert not [r for r in found["table"] if r["crash"] or not r["safe"]]
    assert found["crashes"] == found["unsafe"] == found["lost_episodes"] == 0


def test_every_switch_of_the_virtual_arm_is_in_the_campaign():
    turned = {s for sides in FAULTS.values() for side in sides.values() for s in side}
    assert turned == {f.name for f in fields(Faults)} - {"late_by"}
