"""The doctor on the shipped policy: well as it is, and with one fault each."""

import json
from pathlib import Path

import numpy as np
import pytest

from act_minimal.checkpoint import load_policy, save_policy
from act_minimal.dataset import Demonstrations, Windows
from act_minimal.diagnosis.diagnose import (
    gather,
    judge,
    look,
    recorded_trials,
    try_out,
)
from act_minimal.diagnosis.evidence import sample, shuffled
from act_minimal.diagnosis.findings import CAUSES, Finding
from act_minimal.diagnosis.start_checks import arrangements
from act_minimal.episodes import episode_path, list_episodes, load_episode, save_episode
from act_minimal.exchange.lerobot_policy import export_policy, import_policy
from act_minimal.execution import ExecutionConfig
from act_minimal.sim import make_task
from act_minimal.sim.recording import record
from act_minimal.support.errors import UserError
from course.toolkit.faults import FAULTS, Fault, find_fault

from ..commands import act

ROOT = Path(__file__).parents[2]
STATE = ROOT / "data/checkpoints/so100_pick_place_state"
EPISODES = 16


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Some of the demonstrations that the shipped policy was trained on."""
    folder = tmp_path_factory.mktemp("diagnosis") / "demos"
    task = make_task("so100_pick_place")
    record(task, folder, EPISODES, demonstrator="human", seed=0, progress=False)
    return folder


def named(found, level="wrong"):
    return [x.cause for x in found.findings if x.level == level]


# --- what is looked at ----------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 50])
def test_the_frames_are_those_of_training(demos, chunk_size):
    data = Demonstrations.load(demos)
    frames = sample(data, chunk_size, (), episodes=4, frames=5)
    windows = Windows(data, range(len(data)), chunk_size)
    places = data.starts[frames.episode] + frames.tick
    batch = windows.batch(places)
    np.testing.assert_array_equal(frames.action, batch["action"])
    np.testing.assert_array_equal(~frames.valid, batch["is_pad"])
    for key in ("qpos", "env_state"):
        np.testing.assert_array_equal(frames.observation[key], batch[key])
    assert len(frames) == 20
    assert len(np.unique(frames.episode)) == 4


def test_images_of_the_frames_are_theirs():
    data = Demonstrations.load(ROOT / "data/samples/vision")
    frames = sample(data, 5, ("wrist",), frames=3)
    episode = load_episode(data.folder / data.names[0], cameras=["wrist"])
    expected = episode.images["wrist"][frames.tick]
    np.testing.assert_array_equal(frames.observation["images/wrist"], expected)


def test_an_input_that_is_exchanged_is_another_episodes(demos):
    frames = sample(Demonstrations.load(demos), 5, (), episodes=8)
    seen = frames.observation | {"images/top": frames.episode[:, None]}
    other = shuffled("images/top")(seen)
    assert (other["images/top"][:, 0] != frames.episode).all()
    np.testing.assert_array_equal(other["qpos"], seen["qpos"])
    both = shuffled("qpos", "images/top")(seen)
    came = both["images/top"][:, 0]
    for row in range(len(came)):  # of one and the same frame
        frame = np.flatnonzero((seen["qpos"] == both["qpos"][row]).all(1))
        assert came[row] in frames.episode[frame]


# --- a policy with its data -----------------------------------------------------------


def test_a_policy_that_works_is_given_no_finding(demos):
    evidence = gather(load_policy(STATE), demos, STATE)
    found = look(evidence)
    assert not named(found)
    assert evidence.train_error < 0.2
    # The same number by another way: the validation's, of the same frames.
    windows = Windows(evidence.demos, range(len(evidence.demos)), 50)
    places = evidence.demos.starts[evidence.few.episode] + evidence.few.tick
    loss, _ = evidence.policy.validation_loss(windows.batch(places))
    assert evidence.loss == pytest.approx(float(loss), rel=1e-3)


def turned(change):
    """A fault of the data: joints (T, A) of states and actions changed."""

    def data(episodes):
        for episode in episodes:
            episode.qpos = change(episode.qpos).astype(np.float32)
            episode.action = change(episode.action).astype(np.float32)
        return episodes

    return data


def exchange(x):
    return x[:, [0, 1, 3, 2, 4, 5]]


def negative(x):
    return x * np.array([-1, 1, 1, 1, 1, 1])


def degrees(x):
    return x * np.array([180 / np.pi] * 5 + [1])


@pytest.mark.parametrize(
    ("cause", "change"),
    [("joint_order", exchange), ("joint_sign", negative), ("units", degrees)],
)
def test_data_in_another_form_than_the_policys_are_recognised(
    demos, tmp_path, cause, change
):
    copies = [load_episode(path) for path in list_episodes(demos)]
    for i, episode in enumerate(turned(change)(copies)):
        save_episode(episode_path(tmp_path, i), episode)
    found = look(gather(load_policy(STATE), tmp_path, STATE))
    assert named(found)[0] == cause


def test_a_policy_that_gives_one_answer_is_recognised(demos):
    fault = find_fault("constant output")
    policy = fault.policy(load_policy(STATE))
    assert named(look(gather(policy, demos, STATE)))[0] in fault.causes


def test_a_latent_that_is_drawn_is_seen(demos):
    policy = find_fault("KL weight small, z drawn").policy(load_policy(STATE))
    # Its network does not listen to z (KL near 0), so it answers almost the same.
    found = look(gather(policy, demos, STATE))
    seen = [x for x in found.findings if x.cause == "z_drawn"]
    assert [x.level for x in seen] == ["suspect"]


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("truncated episodes, a third", "wrong"),
        ("few scenes", "suspect"),
        ("gripper timing", "wrong"),
    ],
)
def test_faulty_demonstrations_are_recognised(demos, tmp_path, name, level):
    fault = find_fault(name)
    episodes = fault.data([load_episode(path) for path in list_episodes(demos)])
    for i, episode in enumerate(episodes):
        save_episode(episode_path(tmp_path, i), episode)
    found = look(gather(load_policy(STATE), tmp_path, STATE))
    assert fault.causes[0] in named(found, level)


def test_data_of_another_arm_are_one_sentence(demos, tmp_path):
    episode = load_episode(list_episodes(demos)[0])
    for name in ("qpos", "qvel", "effort", "action"):
        setattr(episode, name, getattr(episode, name)[:, :5])
    episode.attributes.pop("joints")
    save_episode(episode_path(tmp_path, 0), episode)
    with pytest.raises(UserError, match=r"trained with 6 joints, but .* has 5: these"):
        gather(load_policy(STATE), tmp_path)


def test_a_policy_whose_answers_are_no_numbers_is_let_near_no_arm(demos, tmp_path):
    policy = load_policy(STATE)
    for weight in policy.module.action_head.parameters():
        weight.data[:] = np.nan
    save_policy(tmp_path / "nan", policy, {"task": "so100_pick_place"})
    code, out, err = act(
        f"diagnose --policy {tmp_path}/nan --data {demos} --task so100_pick_place "
        f"--html {tmp_path}/why.html --json"
    )
    said = json.loads(out)
    assert (code, err.count("Traceback")) == (1, 0), err
    assert said["findings"][0]["cause"] == "not_finite"
    assert said["rates"] == {}
    assert "units" in [x["cause"] for x in said["not_looked_for"]]
    assert "units" not in [x["cause"] for x in said["excluded"]]


def test_trials_of_another_arm_or_rate_are_one_sentence(demos, tmp_path):
    evidence = gather(load_policy(STATE), demos, STATE)
    for name, change, sentence in (
        ("rate", {"fps": 10.0}, "10 frames a second, but the demonstrations 30"),
        ("objects", {"env_state": np.zeros((60, 3), np.float32)}, "env_state of shape"),
    ):
        trial = load_episode(list_episodes(demos)[0])
        for field in ("qpos", "qvel", "effort", "action", "env_state"):
            setattr(trial, field, getattr(trial, field)[:60])
        for field, value in change.items():
            setattr(trial, field, value)
        save_episode(episode_path(tmp_path / name, 0), trial)
        with pytest.raises(UserError, match=sentence):
            recorded_trials(evidence, tmp_path / name, ExecutionConfig())


# --- on an arm ------------------------------------------------------------------------


def tried(fault: Fault, demos, n=8):
    policy = load_policy(STATE)
    evidence = gather(policy, demos, STATE)
    found = look(evidence)
    trials = try_out(
        evidence, lambda s: fault.robot(s, threads=1), fault.execution, n=n
    )
    return judge(found, trials)


def test_a_policy_that_works_is_found_well_on_its_arm(demos):
    found = tried(Fault("none", "arm", ()), demos)
    assert not named(found)
    assert found.rates["replays"]["rate"] == 1
    assert found.rates["known scenes"]["n"] == found.rates["new scenes"]["n"] == 8
    assert found.verdict.startswith("nothing was found; it succeeds in ")


ON_ARMS = [f for f in FAULTS if f.base == "state" and not f.trains and not f.policy]


@pytest.mark.parametrize("fault", ON_ARMS, ids=lambda fault: fault.name)
def test_a_faulty_arm_is_recognised(demos, fault):
    found = tried(fault, demos)
    places = [x.cause for x in found.findings if x.level != "note"]
    assert places[0] in fault.causes, found.verdict


def weak(action):
    """A gripper that never closes by more than half."""
    action = action.copy()
    action[:, 5] = np.maximum(action[:, 5], 0.6)
    return action


def test_of_a_fault_that_it_does_not_know_it_says_what_it_excluded(demos):
    fault = Fault("weak gripper", "arm", (), arm={"sent": weak})
    found = tried(fault, demos)
    assert found.fails
    # Replays fail, too, so the arm is suspected, but no joint's sign or offset.
    assert not named(found)
    assert named(found, "suspect")[:1] == ["calibration"]
    assert {"units", "joint_order", "rate"} <= {x.cause for x in found.excluded}


def test_starts_are_compared_in_every_order_sign_and_unit():
    first = np.array([[0.1, -2.3, 2.1, 1.2, -1.6, 0.4]] * 3)
    names = ["pan", "lift", "elbow", "flex", "roll", "gripper"]
    ways = {
        c: w
        for c, w, q in arrangements(degrees(first), first, names)
        if np.allclose(q, first)
    }
    assert "units" in ways
    ways = {
        c: w
        for c, w, q in arrangements(exchange(first), first, names)
        if np.allclose(q, first)
    }
    assert "elbow, flex" in ways["joint_order"]


def test_a_policy_from_lerobot_is_diagnosed_like_one_of_ours(demos, tmp_path):
    export_policy(STATE, tmp_path / "theirs", drop_cvae=True)
    import_policy(tmp_path / "theirs", tmp_path / "ours")
    found = look(gather(load_policy(tmp_path / "ours"), demos, tmp_path / "ours"))
    assert not named(found)
    assert {"joint_order", "units"} <= {x.cause for x in found.excluded}


# --- the command ----------------------------------------------------------------------


def test_the_command_writes_a_page_and_says_what_is_wrong(demos, tmp_path):
    line = f"diagnose --policy {STATE} --data {demos} --html {tmp_path}/why.html"
    code, out, err = act(line)
    assert code == 0, err
    assert "nothing was found; no trial was judged" in out
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert page.count("<img ") == page.count("<figcaption>") >= 2
    assert "http" not in page.replace("http-equiv", "")
    code, out, err = act(f"{line} --task so100_pick_place --n 4 --json")
    said = json.loads(out)
    assert code == 0, err
    assert said["rates"]["replays"]["n"] == 4
    assert said["html"] == f"{tmp_path}/why.html"


def test_recorded_trials_are_looked_at(demos, tmp_path):
    fault = find_fault("units")
    for i, path in enumerate(list_episodes(demos)[:4]):
        trial = load_episode(path)
        trial.qpos = fault.arm["measured"](trial.qpos)
        trial.attributes |= {"success": False}
        save_episode(episode_path(tmp_path / "trials", i), trial)
    line = f"diagnose --policy {STATE} --data {demos} --html {tmp_path}/why.html"
    code, out, _ = act(f"{line} --trials {tmp_path}/trials --json")
    said = json.loads(out)
    assert code == 1
    assert said["findings"][0]["cause"] == "units"
    assert said["rates"]["trials"]["successes"] == 0


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        ("--policy nothing --data {d}", "there is no checkpoint folder nothing", 1),
        ("--policy {s} --data nothing", "nothing", 1),
        ("--policy {s} --data {d} --task so100_belt", "env_state, but so100_belt", 1),
        ("--policy {s} --data {d} --trials nothing", "nothing", 1),
        ("--policy {s} --data {d} --task so100_pick_place --trials {d}", "one of", 2),
        ("--policy {s} --data {d} --html why.pdf", "ends in .html", 2),
    ],
)
def test_what_cannot_be_diagnosed_is_one_sentence(
    demos, tmp_path, monkeypatch, words, sentence, code
):
    monkeypatch.chdir(tmp_path)
    got, _, err = act("diagnose " + words.format(s=STATE, d=demos))
    assert (got, "Traceback" in err) == (code, False), err
    assert sentence in " ".join(err.split())


def test_every_finding_has_a_name_and_every_fault_a_finding():
    assert len(FAULTS) >= 20
    for fault in FAULTS:
        assert fault.causes
        assert set(fault.causes) <= CAUSES.keys()
    with pytest.raises(AssertionError):
        Finding("made up", "note", 1, "", "", "likely", "")
