"""A tally belongs to one policy, one arm, one task and one list of scenes."""

import json
import types
from pathlib import Path

import pytest

from act_minimal.command.main import main
from act_minimal.execution import ExecutionConfig
from act_minimal.support.errors import UserError
from hardware import deployment
from hardware.command import drive
from hardware.command.drive import default_folder
from hardware.deployment import Trial, about_trials, deploy, open_tally

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
STATE = CHECKPOINTS / "so100_pick_place_state"
pytestmark = pytest.mark.quick


@pytest.fixture
def ran(monkeypatch):
    """Trials without an arm; `run` judges that only the policy called good succeeds."""
    done = []

    def one(policy, robot, judge, executor, number, seconds):
        done.append((policy.name, number))
        return Trial(number, None, 1.0, 30)

    monkeypatch.setattr(deployment, "_one", one)
    monkeypatch.setattr(deployment, "check_fit", lambda *a: None)
    return done


def policy(name="good"):
    return types.SimpleNamespace(name=name, chunk_size=5)


def run(name, out, *, scenes=None, trials=5, said=None, **settings):
    robot = types.SimpleNamespace(
        go=lambda place: None, limits=types.SimpleNamespace(ready=None)
    )
    judge = types.SimpleNamespace(
        prepare=lambda number: None, verdict=lambda: name == "good", scenes=scenes
    )
    settings |= {"about": settings.get("about", {"robot": "so100", "task": "bin"})}
    say = (lambda text: None) if said is None else said.append
    return deploy(
        policy(name), robot, judge, trials=trials, out=out, say=say, **settings
    )


def test_a_second_call_goes_on_and_says_so(tmp_path, ran):
    run("good", tmp_path, trials=3)
    said = []
    tally = run("good", tmp_path, trials=5, said=said)
    assert (tally.successes, len(tally.trials)) == (5, 5)
    assert ran == [("good", n) for n in range(5)]
    assert said[0].startswith(f"3 of 5 already done in {tmp_path}: 3 of 3 succeeded")
    said = []
    run("good", tmp_path, trials=5, said=said)
    assert len(ran) == 5, "nothing was left to do"
    assert len(said) == 1
    assert said[0].startswith(f"5 of 5 already done in {tmp_path}: 5 of 5 succeeded")
    written = json.loads((tmp_path / "tally.json").read_text())
    assert written["about"]["robot"] == "so100"
    assert written["about"]["policy"].startswith("good ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "bad"}, r"trials with policy good \w+, but this is policy bad"),
        ({"about": {"robot": "so101", "task": "bin"}}, "robot so100, but this is"),
        (
            {"about": {"robot": "so100", "task": "peg"}},
            "task bin, but this is task peg",
        ),
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


def test_no_arm_is_touched_for_what_is_done_or_cannot_be_mixed(
    tmp_path, monkeypatch, capsys
):
    from act_minimal.checkpoint import load_policy

    def touched(*args):
        raise AssertionError("an arm was plugged in")

    monkeypatch.setattr("hardware.robots.plugged_in", touched)
    monkeypatch.chdir(tmp_path)
    about = {"robot": "so100", "task": "so100_pick_place"}
    about |= {"fps": None, "gains": "firm", "seconds": 20.0}
    whose = about_trials(load_policy(STATE), ExecutionConfig(), **about)
    out = tmp_path / "runs" / "deploy" / "so100_pick_place_state_so100"
    out.mkdir(parents=True)
    tally = open_tally(out, whose, None)
    tally.trials = [Trial(n, True, 1.0, 30) for n in range(2)]
    (out / "tally.json").write_text(json.dumps(tally.to_json()))
    words = ["deploy", "--policy", str(STATE), "--port", "nowhere"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--trials", "2"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "2 of 2 already done in runs/deploy/so100_pick_place_state_so100" in said
    with pytest.raises(SystemExit) as ended:
        main([*words, "--trials", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["n"] == 2
    with pytest.raises(SystemExit) as ended:
        main([*words, "--trials", "9", "--scenes", "0"])
    assert ended.value.code == 1
    assert "trials with scenes laid by a person, but now" in capsys.readouterr().err
    other = ["--policy", str(CHECKPOINTS / "so100_pick_place_vision")]
    with pytest.raises(SystemExit) as ended:
        main(["deploy", *other, "--port", "nowhere", "--out", str(out)])
    assert ended.value.code == 1
    assert "but this is policy act" in capsys.readouterr().err


def test_trials_do_not_go_into_a_folder_of_another_kind(tmp_path):
    (tmp_path / "episode_0.hdf5").touch()
    with pytest.raises(UserError, match=r"holds episodes .*expected a tally of trials"):
        open_tally(tmp_path, {}, None)


def test_scenes_are_laid_where_a_virtual_arm_judges():
    config = drive.DeployConfig(port="virtual", trials=3)
    assert drive._scenes(config) == [0, 1, 2]
    real = drive.DeployConfig(port="/dev/ttyACM0", trials=3)
    assert drive._scenes(real) is None
