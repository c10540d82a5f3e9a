"""A tally belongs to one policy, one arm, one task and one list of scenes."""

import json
import re
import types
from pathlib import Path

import pytest

from act_minimal.checkpoint import load_policy
from act_minimal.execution import ExecutionConfig
from act_minimal.support.errors import UserError
from hardware import deployment
from hardware.command import drive
from hardware.command.drive import default_folder
from hardware.deployment import Trial, about_trials, deploy, open_tally

from ..commands import act

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "data" / "checkpoints"
STATE = CHECKPOINTS / "so100_pick_place_state"
pytestmark = pytest.mark.quick


@pytest.fixture
def ran(monkeypatch):
    """Trials without an arm; `run` judges that only the policy called good succeeds."""
    done = []

    def one(timed, robot, judge, executor, inference, number, seconds):
        done.append((timed.policy.name, number))
        return Trial(number, None, 1.0, 30)

    monkeypatch.setattr(deployment, "_one", one)
    monkeypatch.setattr(deployment, "check_fit", lambda *a: None)
    return done


def run(name, out, *, scenes=None, trials=5, said=None, **settings):
    nobody = types.SimpleNamespace
    robot = nobody(go=lambda place: None, limits=nobody(ready=None))
    judge = nobody(
        prepare=lambda number: None, verdict=lambda: name == "good", scenes=scenes
    )
    policy = nobody(name=name, chunk_size=5)
    settings = {"about": {"robot": "so100", "task": "bin"}} | settings
    say = (lambda text: None) if said is None else said.append
    return deploy(policy, robot, judge, trials=trials, out=out, say=say, **settings)


def test_a_second_call_goes_on_and_says_so(tmp_path, ran):
    run("good", tmp_path, trials=3)
    for done in (3, 5):  # then nothing is left to do
        said = []
        tally = run("good", tmp_path, trials=5, said=said)
        assert (tally.success.successes, len(tally.trials)) == (5, 5)
        assert ran == [("good", n) for n in range(5)]
        begun = f"{done} of 5 already done in {tmp_path}: so far 100 % ({done}/{done}"
        assert said[0].startswith(begun)
    assert len(said) == 1
    written = json.loads((tmp_path / "tally.json").read_text())
    assert written["about"]["robot"] == "so100"
    assert written["about"]["policy"].startswith("good ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "bad"}, r"trials with policy good \w+, but this is policy bad"),
        ({"about": {"robot": "so101", "task": "bin"}}, "robot so100, but this is"),
        ({"about": {"robot": "so100", "task": "peg"}}, "task bin, but this is task p"),
        ({"scenes": list(range(9))}, "scenes 5 to 7, but now scenes 0 to 2 are"),
        ({"scenes": None}, "scenes 5 to 7, but now scenes laid by a person are"),
        ({"execution": ExecutionConfig(mode="ensemble")}, "execution .*ensemble"),
    ],
)
def test_trials_of_something_else_are_not_mixed_in(tmp_path, ran, change, words):
    run("good", tmp_path, trials=3, scenes=list(range(5, 8)))
    before = (tmp_path / "tally.json").read_bytes()
    settings = {"name": "good", "scenes": list(range(5, 10))} | change
    with pytest.raises(UserError, match=words) as caught:
        run(settings.pop("name"), tmp_path, **settings)
    assert "choose another --out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(ran) == 3, "no trial was run"
    assert (tmp_path / "tally.json").read_bytes() == before
    tally = run("good", tmp_path, scenes=list(range(5, 10)))  # a longer list goes on
    assert [trial.scene for trial in tally.trials] == list(range(5, 10))


def test_a_tally_that_does_not_say_whose_it_is_is_not_added_to(tmp_path, ran):
    run("good", tmp_path, trials=2)
    path = tmp_path / "tally.json"
    content = json.loads(path.read_text())
    del content["about"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not say of which policy its trials are"):
        run("good", tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"trials": [{"x": 1}]}', "null"])
def test_a_file_that_is_no_tally_is_left_alone(tmp_path, ran, content):
    (tmp_path / "tally.json").write_text(content)
    with pytest.raises(UserError, match=r"tally\.json is no tally of trials \("):
        run("good", tmp_path)
    assert (tmp_path / "tally.json").read_text() == content


@pytest.mark.parametrize(
    ("policy", "folder"),
    [
        ("data/checkpoints/so100_vision", "so100_vision_so100"),
        ("runs/first", "first_so100"),
        ("runs/demo/checkpoint", "demo_checkpoint_so100"),
        ("runs/first/checkpoints/500", "first_500_so100"),
        ("runs/first/", "first_so100"),
    ],
)
def test_the_default_folder_is_named_after_policy_and_robot(policy, folder):
    assert default_folder(Path(policy), "so100") == Path("runs/deploy") / folder


def test_the_readmes_two_deployments_go_to_two_folders(monkeypatch):
    """Whoever types both lines is not told that the trials are another policy's."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^uv run act (deploy .+)$", text, re.MULTILINE)
    places = []

    def opened(out, *_):
        places.append(out)
        raise UserError("enough is known")

    monkeypatch.setattr(deployment, "open_tally", opened)
    monkeypatch.chdir(ROOT)
    for line in lines:
        assert act(line)[0] == 1
    assert len(set(places)) == len(lines) >= 2
    assert {place.parent for place in places} == {Path("runs/deploy")}


def test_no_arm_is_touched_for_what_is_done_or_cannot_be_mixed(tmp_path, monkeypatch):
    def touched(*args):
        raise AssertionError("an arm was plugged in")

    monkeypatch.setattr("hardware.robots.plugged_in", touched)
    monkeypatch.chdir(tmp_path)
    about = {"robot": "so100", "task": "so100_pick_place"}
    about |= {"fps": None, "gains": "firm", "seconds": 20.0}
    whose = about_trials(load_policy(STATE), ExecutionConfig(), **about)
    out = Path("runs/deploy/so100_pick_place_state_so100")
    out.mkdir(parents=True)
    tally = open_tally(out, whose, None)
    tally.trials = [Trial(n, True, 1.0, 30) for n in range(2)]
    (out / "tally.json").write_text(json.dumps(tally.to_json()))
    line = f"deploy --port nowhere --policy {STATE}"
    code, said, _ = act(line, "--trials 2")
    assert (code, f"2 of 2 already done in {out}" in said) == (0, True)
    assert json.loads(act(line, "--trials 2 --json")[1])["n"] == 2
    code, _, err = act(line, "--trials 9 --scenes 0")
    assert (code, "scenes laid by a person, but now" in err) == (1, True)
    vision = CHECKPOINTS / "so100_pick_place_vision"
    code, _, err = act(f"deploy --port nowhere --policy {vision} --out {out}")
    assert (code, "but this is policy act" in err) == (1, True)


def test_trials_do_not_go_into_a_folder_of_another_kind(tmp_path):
    (tmp_path / "episode_0.hdf5").touch()
    with pytest.raises(UserError, match=r"holds episodes .*expected a tally of trials"):
        open_tally(tmp_path, {}, None)


def test_scenes_are_laid_where_a_virtual_arm_judges():
    for port, scenes in (("virtual", [0, 1, 2]), ("/dev/ttyACM0", None)):
        assert drive._scenes(drive.DeployConfig(port=port, trials=3)) == scenes
