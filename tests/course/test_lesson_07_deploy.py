"""Lesson 07, spot the mistakes: each planted fault, alone or not, is found."""

import re
import sys
from itertools import chain, combinations

import numpy as np
import pytest

from course.exercises import lesson_07_deploy as deploy
from course.toolkit.checks import check
from course.toolkit.paths import ROOT

pytestmark = pytest.mark.mostly_quick

SOURCE = (ROOT / "notebooks/src/07_sim_rollout.py").read_text(encoding="utf-8")
BLOCK = re.compile(r" *# solution\n(.*?) *# stub\n(.*?) *# end\n", re.DOTALL)
# The planted faults, in the order of the lesson's code.
NAMES = ["order", "scale", "pixels", "clip", "slot", "newest", "stale", "twice", "rate"]
SAYS = deploy.SEEN | deploy.SENT | {"rate": "ticks come at"}


def cells() -> str:
    """The three cells of the exercise, from the lesson's source."""
    parts = re.findall(
        r"^# %% deploy-\S+ tags=\S+\n(.*?)(?=^# %%)", SOURCE, re.MULTILINE | re.DOTALL
    )
    assert len(parts) == 3
    marks = r"# (?:solution|stub|end)$"  # of what only the teacher's cell shows
    shown = rf"^({marks}|print\(|Ensemble\(|drive\(|check\(|policy, robot = ).*$"
    return re.sub(shown, "", "\n".join(parts), flags=re.MULTILINE)


def code(faults) -> str:
    """The lesson's code with these faults, the others mended."""
    names = iter(NAMES)

    def choose(block):
        solution, stub = block.groups()
        return re.sub("# ?", "", stub) if next(names) in faults else solution

    made = BLOCK.sub(choose, cells())
    assert next(names, None) is None
    return made


def answers(text):
    """What a learner's cells define."""
    scope = {"np": np}
    exec(text, scope)
    return scope["episode"], scope["Ensemble"]


def said(text):
    verdict = check("07.deploy", *answers(text))
    return verdict.state, verdict.message


def found_in(text):
    return deploy.symptoms(*answers(text))


def test_the_mended_code_is_right(capsys):
    state, message = said(code(()))
    assert state == "right", message
    deploy.drive(*answers(code(())))
    assert capsys.readouterr().out == "nothing is wrong with this run\n"


def test_the_lesson_shows_what_the_cells_as_handed_out_do(capsys):
    deploy.drive()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"- {one}" for one in found_in(code(NAMES))]
    assert len(lines) == len(NAMES)


@pytest.mark.parametrize("fault", NAMES)
def test_each_fault_alone_is_found_and_no_other(fault):
    state, message = said(code([fault]))
    assert state == "wrong"
    assert message.endswith(found_in(code([fault]))[0])
    [symptom] = found_in(code([fault]))
    assert [name for name in NAMES if SAYS[name] in symptom] == [fault]


def test_any_faults_together_are_told_apart():
    sets = list(chain.from_iterable(combinations(NAMES, n) for n in range(2, 10)))
    for faults in [*sets[::20], NAMES]:
        found = found_in(code(faults))
        assert len(found) == len(faults)
        said = [name for name in NAMES for one in found if SAYS[name] in one]
        assert said == list(faults)


def test_what_is_wrong_is_printed_line_by_line(capsys):
    deploy.drive(*answers(code(NAMES)))
    assert capsys.readouterr().out.count("\n- ") == len(NAMES) - 1
    deploy.drive(lambda *args: 1 / 0, answers(RIGHT)[1])
    assert "your function raised ZeroDivisionError" in capsys.readouterr().out


def test_the_learner_gets_all_nine_in_cells_of_plain_length():
    text = code(NAMES)
    lines = [line for line in text.splitlines() if line.strip()]
    assert 35 <= len(lines) <= 60
    assert "solution" not in text
    assert "stub" not in text


RIGHT = code(())
LOOKED = '[seen["joints"][name] for name in names]'
IN_ITS_ORDER = 'list(seen["images"].values())'


def changed(old, new):
    assert old in RIGHT
    return RIGHT.replace(old, new)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (changed('policy.mean["qpos"]', "0"), "joints that the policy is given"),
        (changed('/ policy.std["qpos"]', "* 1"), "joints that the policy is given"),
        (changed("return qpos,", "return qpos[:5],"), "is not given the 6 joints"),
        (changed("return qpos,", "return 'qpos',"), "is not given the 6 joints"),
        (changed("/ 255", "/ 127.5 - 1"), "pictures that the policy is given"),
        (changed("return qpos, images", "return qpos, 255 - images"), "pictures that"),
        (changed("(-self.m", "(self.m"), "the newest prediction"),
        (changed(" / weights.sum()", ""), "none of the planted faults"),
        (changed("(-self.m *", "(-0 *"), "none of the planted faults"),
        (changed(' + policy.mean["action"]', ""), "none of the planted faults"),
        (changed("policy.joints, action,", "policy.joints[::-1], action,"), "planted"),
        (changed("len(chunk) > 1", "len(chunk) > 2"), "none of the planted faults"),
        (changed("ensemble.reset()", "ensemble.reset"), "the second episode"),
        (changed("1 / policy.fps", "1 / 50"), "in a run, ticks come at 50 Hz"),
        (changed("        robot.sleep(", "        max(0, "), "Hz; the demonstr"),
        (changed("0.0, due", "-1.0, due").replace("max(", "min("), "sleep was asked"),
        (changed("robot.send(dict(zip(", "robot.send(list(zip("), "send takes a dict"),
        (changed("        robot.send(", "        str("), "there are 0 targets"),
        (changed("in range(ticks)", "in range(ticks - 1)"), "expected one a tick"),
        (changed("action = ensemble.step(actions)", "action = None"), "TypeError"),
        (changed("return weights @ now", "weights @ now"), "TypeError"),
        (changed("    return qpos, images", "    qpos, images"), "TypeError"),
        (changed("weights @ now", "np.nan * weights @ now"), "is sent to nan"),
    ],
)
def test_other_mistakes_are_not_right_either(text, says):
    state, message = said(text)
    assert state == "wrong"
    assert says in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1 / policy.fps", "1 / 30"),
        ("-self.m * ", "-0.3 * "),
        ("in range(ticks)", "in range(12)"),
        ("in names]", "in 'pan lift elbow wrist roll gripper'.split()]"),
        ("in policy.cameras]", "in ('top', 'wrist')]"),
        ("if len(chunk) > 1]", "][-3:]"),  # all but the newest of 4
        (LOOKED, 'list(seen["joints"].values())'),  # in the order of this robot
        ('[seen["images"][camera] for camera in policy.cameras]', IN_ITS_ORDER),
        ("astype(np.float32) / 255", "astype(np.float32) / images.max()"),
        ("robot.sleep(max(0.0, due - robot.now()))", "robot.sleep(1 / 30 - 0.015)"),
        ("max(0.0, due - robot.now())", "1 / policy.fps - 0.015"),
    ],
)
def test_a_number_of_this_bench_is_not_right(old, new, capsys):
    state, message = said(changed(old, new))
    assert state == "wrong"
    assert message.startswith("right for 30 Hz, m = 0.3 and 6 joints, wrong for 50 Hz")
    assert "take the rate" in message
    deploy.drive(*answers(changed(old, new)))
    assert "take the rate" in capsys.readouterr().out


def test_another_way_to_keep_the_rate_is_right():
    begun = "        chunk = policy.predict"
    wait = "robot.sleep(max(0.0, due - robot.now()))"
    text = changed(begun, "        due = robot.now() - 1 / policy.fps\n" + begun)
    text = text.replace("due += 1 / policy.fps", "due += 2 / policy.fps")
    assert wait in text
    assert said(text)[0] == "right"


@pytest.mark.parametrize(
    "untouched",
    [
        ["stale", "twice", "rate"],
        ["slot", "newest"],
        ["slot", "newest", "stale", "twice", "rate"],  # `look` and `in_rad` are mended
        [name for name in NAMES if name != "clip"],  # `in_rad` alone
    ],
)
def test_what_is_mended_so_far_is_judged(untouched):
    state, message = said(code(untouched))
    assert state == "wrong"
    assert message.endswith(f"; and {len(untouched) - 1} more")


def test_what_was_not_written_is_not_attempted():
    assert said(code(NAMES))[0] == "not attempted"
    episode, ensemble = answers(RIGHT)
    assert check("07.deploy", None, ensemble).state == "not attempted"
    assert check("07.deploy", episode).state == "not attempted"

    def later(*args):
        raise NotImplementedError

    assert check("07.deploy", later, ensemble).state == "not attempted"


def test_what_ends_python_or_waits_is_judged():
    async def later(*given): ...

    def ends(*given):
        sys.exit(1)

    assert "`async def`" in check("07.deploy", later, ends).message  # and no warning
    said = check("07.deploy", ends, answers(code(()))[1]).message
    assert said == "your function raised SystemExit: 1"
