"""Training: the same run however it is interrupted, and however many processes."""

import errno
import json
import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import nn

from act_minimal import training
from act_minimal.checkpoint import BEFORE, load_policy, read_log, save_policy
from act_minimal.command import demo
from act_minimal.command.demo import steps_that_fit
from act_minimal.dataset import Windows
from act_minimal.episodes import Episode, episode_path, load_episode, save_episode
from act_minimal.policy import make_policy
from act_minimal.settings import TrainConfig, as_json
from act_minimal.support import files
from act_minimal.support.errors import SettingError, UserError
from act_minimal.support.processes import World, join
from act_minimal.training import (
    TrainingInterrupted,
    learning_rate,
    load_demonstrations,
    make_batch,
    make_optimizer,
    network_settings,
    train,
    update_average,
)

from .programs import python

pytestmark = pytest.mark.mostly_quick

TINY = {"width": 16, "feedforward": 32, "heads": 2, "encoder_layers": 1}
# On the CPU all of this holds to the bit.
SMALL = {"chunk_size": 5, "batch_size": 16, "warmup_steps": 4, "state_noise": 0.02}
SMALL |= {"device": "cpu", "threads": 1, "tensorboard": False}


def write_demonstrations(folder: Path, cameras: tuple[str, ...] = ()) -> Path:
    """Arms that go a fifth of the way to a goal, which env_state shows, each step."""
    random = np.random.default_rng(0)
    for i in range(6):
        goal, qpos = random.normal(size=(2, 3))
        states, actions = [], []
        for _ in range(12 + i):
            action = qpos + 0.2 * (goal - qpos)
            states.append(qpos)
            actions.append(action)
            qpos = action
        n = len(states)
        rows, shape = np.array(states, np.float32), (n, 16, 16, 3)
        episode = Episode(rows, 0 * rows, 0 * rows, np.array(actions, np.float32))
        episode.env_state = np.tile(goal, (n, 1)).astype(np.float32)
        episode.images = {c: random.integers(0, 256, shape, np.uint8) for c in cameras}
        episode.fps, episode.attributes = 30.0, {"task": "reach"}
        save_episode(episode_path(folder, i), episode)
    return folder


@pytest.fixture(scope="session")
def state_data(tmp_path_factory):
    return write_demonstrations(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def vision_data(tmp_path_factory):
    return write_demonstrations(tmp_path_factory.mktemp("vision"), ("top", "wrist"))


@pytest.fixture
def config(state_data, tmp_path):
    more = {"model": dict(TINY), "steps": 12, "save_every": 5, "val_every": 6}
    return TrainConfig(data=state_data, out=tmp_path / "run", **SMALL, **more)


READ_SETTINGS = """
import json, sys
from pathlib import Path
from act_minimal.training import TrainConfig, train
settings = json.loads(sys.argv[1])
settings |= {k: Path(settings[k]) for k in ('data', 'out')}
settings['cameras'] = tuple(settings['cameras'])
"""


def curve(records):
    """Everything that is logged but the time."""
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


def run(config, **options):
    return train(config, progress=False, **options)


def same_weights(a, b):
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_it_learns_and_leaves_a_policy(config):
    settings = {"policy": "bc_mlp", "chunk_size": None, "model": {"hidden": 32}}
    config = replace(config, **settings, steps=60, save_every=100, lr=1e-2)
    result = run(config)
    assert result.losses == read_log(config.out)
    losses = [r["loss"] for r in result.losses if "loss" in r]
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.3 * losses[0]
    assert result.folder == config.out / "checkpoints" / "60"
    qpos, goal = np.full((1, 3), -0.5), np.full((1, 3), 0.5)
    seen = {"qpos": qpos, "env_state": goal}
    chunk = result.policy.predict_chunk(seen)
    np.testing.assert_array_equal(load_policy(config.out).predict_chunk(seen), chunk)
    assert chunk.shape == (1, 1, 3)
    card = json.loads((result.folder / "card.json").read_text())
    assert (card["steps"], card["seed"], card["task"]) == (60, 0, "reach")
    assert result.steps == 60
    assert result.seconds >= result.losses[-1]["seconds"] > 0


def test_same_seed_same_run_and_global_state_is_left_alone(config, tmp_path):
    torch.manual_seed(5)
    threads, before = torch.get_num_threads(), torch.random.get_rng_state()
    config = replace(config, steps=4, val_fraction=0)
    first = run(config)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    torch.manual_seed(6)
    again = run(replace(config, out=tmp_path / "again"))
    other = run(replace(config, out=tmp_path / "other", seed=1))
    assert curve(first.losses) == curve(again.losses)
    assert first.losses[0]["loss"] != other.losses[0]["loss"]


def test_validation_is_what_the_saved_policy_gets(config):
    result = run(replace(config, val_fraction=0.4, val_frames=10**6))
    record = result.losses[-1]
    demos = load_demonstrations(config)
    _, held_out = demos.split(0.4, config.seed)
    assert len(held_out) == 2
    policy, errors = load_policy(result.folder), []
    for episode in held_out:
        start, n = demos.starts[episode], demos.lengths[episode]
        for t in range(n):
            row = slice(start + t, start + t + 1)
            seen = {"qpos": demos.qpos[row], "env_state": demos.env_state[row]}
            truth = demos.action[start + t : start + min(t + 5, n)]
            errors.append(np.abs(policy.predict_chunk(seen)[0, : len(truth)] - truth))
    error = np.concatenate(errors)
    np.testing.assert_allclose(record["val_joints"], error.mean(0), rtol=1e-4)
    std = load_file(result.folder / "stats.safetensors")["action.std"]
    assert record["val_l1"] == pytest.approx((error / std).mean(), rel=1e-4)


@pytest.mark.slow
def test_vision_with_augmentation_delta_and_a_frozen_backbone(vision_data, config):
    config = replace(config, data=vision_data, cameras=("wrist", "top"), steps=3)
    config = replace(config, shift_px=2, brightness=0.2, action_target="delta")
    config = replace(config, backbone_lr=0.0, ema_decay=0.0, val_fraction=0)
    result = run(config)
    policy = result.policy
    assert policy.cameras == ("wrist", "top")
    assert not policy.uses_env_state
    assert policy.action_target == "delta"
    demos = load_demonstrations(config)
    before, _ = untrained(config, demos)
    after = dict(policy.module.named_parameters())
    for name, parameter in before.module.named_parameters():
        frozen = torch.equal(parameter, after[name])
        assert frozen == ("backbone" in name), name


def untrained(config, demos):
    """The policy as `train` starts with it."""
    windows = Windows(demos, demos.split(config.val_fraction, config.seed)[0], 5)
    statistics = windows.statistics(delta=config.action_target == "delta")
    settings = network_settings(config, demos) | {"action_target": config.action_target}
    with torch.random.fork_rng():
        torch.manual_seed(training.mix(config.seed, 0))
        policy = make_policy(config.policy, statistics, **settings)
    return policy, windows


@pytest.mark.slow
def test_bf16_and_compile_change_little(config, tmp_path, monkeypatch):
    config = replace(config, steps=4, val_fraction=0)
    plain = run(config).losses[-1]["loss"]
    half = run(replace(config, out=tmp_path / "half", bf16=True)).losses[-1]["loss"]
    assert half != plain
    assert half == pytest.approx(plain, rel=0.02)
    # The real compiler takes minutes on a small machine; the wiring is the same.
    compiled, original = [], nn.Module.compile

    def traced(self):
        compiled.append(self)
        original(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    result = run(replace(config, out=tmp_path / "fast", compile=True))
    assert len(compiled) == 1
    assert result.losses[-1]["loss"] == pytest.approx(plain, rel=1e-4)
    assert load_policy(result.folder).chunk_size == 5


@pytest.mark.slow
def test_curves_reach_tensorboard_and_the_notebook(config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from course.toolkit.training_plot import LiveCurve, plot_losses

    seen = []
    result = run(replace(config, tensorboard=True, log_every=4), on_step=seen.append)
    assert [r["step"] for r in seen if "loss" in r] == [4, 5, 6, 8, 10, 12]
    assert [r["step"] for r in seen if "val_l1" in r] == [6, 12]
    board = EventAccumulator(str(config.out / "tensorboard")).Reload()
    points = {event.step: event.value for event in board.Scalars("loss")}
    assert points[12] == pytest.approx(result.losses[-2]["loss"])
    assert len(board.Scalars("val_l1")) == 2
    lines = plot_losses(result.losses).get_lines()
    assert [len(line.get_xdata()) for line in lines] == [12, 2]
    draw = LiveCurve(every=0)
    for record in seen:
        draw(record)


def test_only_the_newest_checkpoints_are_kept(config):
    run(replace(config, save_every=2, keep=2, val_fraction=0))
    names = {path.name for path in (config.out / "checkpoints").iterdir()}
    assert names == {"10", "12"}


def test_what_training_did_not_save_is_not_removed(config):
    short = replace(config, save_every=2, keep=1, val_fraction=0, tensorboard=False)
    noted = config.out / "checkpoints" / "2"

    def note(record):
        if noted.is_dir():
            (noted / "notes.txt").write_text("the best one")

    train(short, on_step=note, progress=False)
    save_policy(config.out / "checkpoints" / "1", load_policy(noted), {})
    run(replace(short, out=config.out))
    names = {path.name for path in (config.out / "checkpoints").iterdir()}
    assert names == {"1", "2", "12"}
    assert (noted / "notes.txt").read_text() == "the best one"


@pytest.fixture(scope="module", params=[(), ("top", "wrist")], ids=["state", "vision"])
def uninterrupted(request, tmp_path_factory):
    """A run with everything in it that is random."""
    cameras = request.param
    data = request.getfixturevalue("vision_data" if cameras else "state_data")
    out = tmp_path_factory.mktemp("whole") / "run"
    more = {"cameras": cameras, "shift_px": 1 if cameras else 0}
    more |= {"model": {**TINY, "dropout": 0.1}, "steps": 30}
    more |= {"save_every": 8, "val_every": 10, "log_every": 3}
    config = TrainConfig(data=data, out=out, **SMALL, **more)
    return config, run(config)


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(uninterrupted, tmp_path):
    config, whole = uninterrupted
    config = replace(config, out=tmp_path / "run")
    handler = signal.getsignal(signal.SIGINT)

    def press(record):
        if record["step"] == 12:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted, match=r"step 13 of 30.*same command"):
        run(config, on_step=press)
    assert signal.getsignal(signal.SIGINT) is handler
    result = run(config)
    assert curve(result.losses) == curve(whole.losses)
    assert same_weights(result.policy, whole.policy)
    seconds = [r["seconds"] for r in result.losses]
    assert seconds == sorted(seconds)
    # A run that is complete is not trained again.
    again = run(config)
    assert again.losses == result.losses
    assert seconds[-1] <= again.seconds <= result.seconds  # as at its last checkpoint
    assert same_weights(again.policy, whole.policy)


@pytest.mark.parametrize("moment", ["load_demonstrations", "RunLog"])
def test_ctrl_c_before_the_first_step_trains_nothing(config, monkeypatch, moment):
    real, reached = getattr(training, moment), []

    def interrupted(*args, **settings):
        os.kill(os.getpid(), signal.SIGINT)
        done = real(*args, **settings)
        reached.append("Ctrl-C was put off")
        return done

    monkeypatch.setattr(training, moment, interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(config)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert reached == []
    assert not config.out.exists()


def test_a_run_from_before_a_setting_existed_goes_on(config):
    half = replace(config, steps=4, tensorboard=False)
    run(half)
    path = config.out / "checkpoints" / "4" / "progress.json"
    whole = json.loads(path.read_text())
    free = {"out", "data", "steps", "seed"}
    changed = {k: v for k, v in whole["settings"].items() if BEFORE[k] != v}
    # Every setting that this run has at its default may be one that came later.
    kept = {k: v for k, v in whole["settings"].items() if k in free | set(changed)}
    path.write_text(json.dumps(whole | {"settings": kept}))
    assert run(half).steps == 4
    for name, value in (("grad_clip", 5.0), ("pad", "zero"), ("weight_decay", 0.1)):
        default = repr(BEFORE[name])
        with pytest.raises(UserError, match=rf"a run with {name}={default}, but now"):
            run(replace(half, **{name: value}))


def test_what_a_run_was_before_a_setting_existed_is_its_default():
    assert BEFORE.keys() == training.as_json(TrainConfig(Path("a"), Path("b"))).keys()
    assert (BEFORE["grad_clip"], BEFORE["pad"], BEFORE["model"]) == (10.0, "last", {})


@pytest.mark.parametrize("place", [".", "runs", "runs/deep"])
def test_nothing_is_trained_into_the_data_folder(config, tmp_path, place):
    before = sorted(config.data.rglob("*"))
    link = tmp_path / "link"
    link.symlink_to(config.data)
    for data in (config.data, link):
        with pytest.raises(UserError, match=r"out is .*, inside what is read"):
            run(replace(config, out=data / place))
        with pytest.raises(UserError, match=r"out is .*, inside what is read"):
            run(replace(config, data=data, out=config.data / place))
    assert sorted(config.data.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", '{"mine": 1}', r"holds config\.json, which no training run"),
        ("config.json", "[1]", r"holds config\.json, which no training run"),
        ("log.jsonl", "my diary", r"holds log\.jsonl, which no training run"),
        ("tensorboard/x", "x", "holds tensorboard, which no training run"),
        ("checkpoints/best.pt", "x", "holds checkpoints, which no training run"),
        ("episode_0.hdf5", "x", r"holds episodes \(episode_0\.hdf5\), expected"),
        ("model.safetensors", "x", r"holds a checkpoint \(model\.safetensors\)"),
    ],
)
def test_a_folder_of_somebody_else_is_not_trained_into(config, name, content, words):
    path = config.out / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        run(config)
    assert path.read_text() == content
    assert [p for p in config.out.rglob("*") if p.is_file()] == [path]


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_saved(uninterrupted, tmp_path):
    config, whole = uninterrupted
    config = replace(config, out=tmp_path / "run")
    script = tmp_path / "killed.py"
    script.write_text(
        READ_SETTINGS + "import os, signal\n"
        "def die(record):\n"
        "    if record['step'] >= 21:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(TrainConfig(**settings), on_step=die, progress=False)\n"
    )
    done = launch(script, json.dumps(training.as_json(config)))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert max(r["step"] for r in read_log(config.out)) == 21
    assert load_policy(config.out).chunk_size == 5
    # What kill -9 may leave: half a checkpoint, half a line.
    half = f".24.{files._machine()}-999999999-0.tmp"
    (config.out / "checkpoints" / half).mkdir()
    with (config.out / "log.jsonl").open("a") as file:
        file.write('{"step": 22, "lo')
    result = run(config)
    assert curve(result.losses) == curve(whole.losses)
    assert same_weights(result.policy, whole.policy)
    assert not list((config.out / "checkpoints").glob(".*"))


def launch(*arguments, **environment):
    return python("-W", "error", *arguments, OMP_NUM_THREADS="1", **environment)


def test_a_full_disk_keeps_the_checkpoint_before(config, monkeypatch):
    config = replace(config, val_fraction=0)
    whole = run(replace(config, out=config.out.with_name("whole")))

    def fill(record):
        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if record["step"] > 5:
            patch.setattr(os, "fsync", full)

    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"checkpoints/10 .*no space left"),
    ):
        run(config, on_step=fill)
    assert [p.name for p in (config.out / "checkpoints").iterdir()] == ["5"]
    assert curve(run(config).losses) == curve(whole.losses)


def test_another_run_in_the_same_folder_is_refused(config, tmp_path):
    run(replace(config, steps=5, val_fraction=0))
    config = replace(config, steps=5, val_fraction=0)
    for change, message in (
        ({"lr": 2e-3}, r"lr=0\.001.*lr=0\.002"),
        ({"steps": 6}, r"steps=5.*steps=6"),
        ({"model": {**TINY, "width": 32}}, "model="),
    ):
        with pytest.raises(UserError, match=message):
            run(replace(config, **change))
    copy = write_demonstrations(tmp_path / "copy")
    run(replace(config, data=copy, save_every=2, log_every=1))  # may change
    other = write_demonstrations(tmp_path / "other")
    episode_path(other, 0).unlink()
    with pytest.raises(UserError, match="other data"):
        run(replace(config, data=other))
    path = config.out / "checkpoints" / "5" / "training.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"training\.safetensors is damaged"):
        run(config)


def test_a_loss_that_is_not_finite_stops_the_run(config):
    config = replace(config, save_every=1, log_every=1, val_fraction=0)
    with pytest.raises(UserError, match=r"(loss|grad_norm) is (nan|inf) at step \d"):
        run(replace(config, lr=1e30))
    for tensor in load_file(config.out / "checkpoints/1/model.safetensors").values():
        assert np.isfinite(tensor).all()


def test_training_works_outside_the_main_thread(config):
    results = []
    config = replace(config, steps=2, val_fraction=0)
    thread = threading.Thread(target=lambda: results.append(run(config)))
    thread.start()
    thread.join()
    assert results[0].steps == 2


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{}, {"bf16": True}], ids=["float32", "bf16"])
def test_a_gpu_trains_goes_on_and_agrees(vision_data, config, tmp_path, options):
    config = replace(config, data=vision_data, cameras=("wrist", "top"), **options)
    config = replace(config, shift_px=2, brightness=0.1, val_fraction=0.2)
    there = run(replace(config, device="cuda", out=tmp_path / "there", steps=10))
    assert there.policy.device.type == "cuda"
    here = run(replace(config, steps=10))
    losses = [[r["loss"] for r in x.losses if "loss" in r] for x in (here, there)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1 if options else 0.02)
    again = run(replace(config, device="cuda", out=tmp_path / "there", steps=10))
    assert again.losses == there.losses  # nothing was left to do
    demos = load_demonstrations(config)
    seen = {f"images/{c}": x[:1] for c, x in demos.images.items()}
    seen["qpos"] = demos.qpos[:1]
    back = load_policy(there.folder)  # on the CPU
    chunk = there.policy.predict_chunk(seen)
    np.testing.assert_allclose(back.predict_chunk(seen), chunk, atol=5e-3)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_more_processes_than_gpus_are_refused(monkeypatch):
    gpus = torch.cuda.device_count()
    monkeypatch.setenv("WORLD_SIZE", str(gpus + 1))
    monkeypatch.setenv("RANK", str(gpus))
    monkeypatch.setenv("LOCAL_RANK", str(gpus))
    with pytest.raises(UserError, match="needs a GPU of its own"), join("cuda"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("head", ["l1", "flow"])
def test_two_processes_compute_what_one_does(vision_data, config, tmp_path, head):
    config = replace(config, data=vision_data, cameras=("top",), steps=10)
    config = replace(config, model=config.model | {"head": head})
    config = replace(config, shift_px=2, contrast=0.2, use_env_state=True)
    whole = run(config)
    script = tmp_path / "many.py"
    script.write_text(
        READ_SETTINGS + "result = train(TrainConfig(**settings), progress=False)\n"
        "assert result.steps == 10 and result.folder.name == '10'\n"
    )
    both = replace(config, out=tmp_path / "both")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--master-addr=127.0.0.1", f"--master-port={port}"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", *where]
    settings = json.dumps(training.as_json(both))
    done = launch(*torchrun, script, settings, PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stderr
    for one, two in zip(whole.losses, read_log(both.out), strict=True):
        assert ("l1" in one) == (head == "l1" and "val_l1" not in one)
        for key in ("loss", "l1", "error", "kl", "grad_norm", "val_l1"):
            if key in one:
                assert two[key] == pytest.approx(one[key], rel=1e-5, abs=1e-5)
    one = load_file(whole.folder / "training.safetensors")
    two = load_file(both.out / "checkpoints" / "10" / "training.safetensors")
    assert one.keys() == two.keys()
    compared = []
    for index, (name, _) in enumerate(whole.policy.module.named_parameters()):
        if f"optimizer.{index}.exp_avg_sq" not in one:
            continue
        # Where the true gradient is zero (the bias of attention's keys) Adam turns
        # rounding errors into steps: there is nothing to compare.
        real = np.sqrt(one[f"optimizer.{index}.exp_avg_sq"]) > 1e-6
        key = f"weights.{name}"
        ours, theirs = (np.where(real, x[key], 0) for x in (one, two))
        np.testing.assert_allclose(theirs, ours, atol=1e-5, err_msg=name)
        compared.append(real.mean())
    assert len(compared) > 50
    assert np.mean(compared) > 0.9


@pytest.mark.parametrize("head", ["l1", "flow"])
def test_slices_of_a_batch_are_slices_of_what_one_process_sees(
    vision_data, config, head
):
    config = replace(config, model=config.model | {"head": head})
    config = replace(config, data=vision_data, cameras=("top", "wrist"), shift_px=3)
    config = replace(config, brightness=0.3, use_env_state=True)
    demos = load_demonstrations(config)
    policy, windows = untrained(config, demos)
    device = torch.device("cpu")

    def make(rows, step=7):
        return make_batch(config, policy, windows, step, rows, device)

    whole, eps = make(slice(0, 16))
    halves = [make(slice(0, 8)), make(slice(8, 16))]
    if eps is not None:  # other heads have no CVAE
        assert torch.equal(torch.cat([half[1] for half in halves]), eps)
    for key, tensor in whole.items():
        assert torch.equal(torch.cat([half[0][key] for half in halves]), tensor), key
    other, _ = make(slice(0, 16), step=8)
    assert not torch.equal(other["qpos"], whole["qpos"])
    with pytest.raises(UserError, match=r"batch_size is 16.*multiple of the 3"):
        training.rows(config, World(0, 3, device))


def test_noise_has_the_deviation_asked_for(config):
    config = replace(config, batch_size=4096, state_noise=0.1)
    demos = load_demonstrations(config)
    policy, windows = untrained(config, demos)
    rows, device = slice(0, 4096), torch.device("cpu")
    noisy, _ = make_batch(config, policy, windows, 0, rows, device)
    quiet = replace(config, state_noise=0)
    clean, _ = make_batch(quiet, policy, windows, 0, rows, device)
    for key in ("qpos", "env_state"):
        noise = (noisy[key] - clean[key]) / policy.scale(key).std
        np.testing.assert_allclose(noise.std(0), 0.1, rtol=0.1)
        np.testing.assert_allclose(noise.mean(0), 0, atol=0.01)
    assert torch.equal(noisy["action"], clean["action"])


@given(st.integers(1, 10**6), st.integers(0, 10**4), st.data())
def test_rate_warms_up_and_falls_to_nothing(steps, warmup, data):
    config = TrainConfig(Path(), Path(), steps=steps, warmup_steps=warmup)
    constant = replace(config, schedule="constant")
    step = data.draw(st.integers(0, steps - 1))
    rate = learning_rate(config, step)
    assert 0 < rate <= learning_rate(constant, step) <= 1
    if step >= warmup:
        assert learning_rate(constant, step) == 1
        half = (1 + np.cos(np.pi * step / steps)) / 2
        assert rate == pytest.approx(half)
    else:
        assert learning_rate(constant, step) == pytest.approx((step + 1) / warmup)


def test_average_follows_its_recursion():
    random = np.random.default_rng(0)
    values, expected = random.normal(size=(300, 4)).astype(np.float32), np.zeros(4)
    average, weight = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    for step, value in enumerate(values):
        weight.data = torch.from_numpy(value)
        update_average([average], [weight], 0.95, step)
        decay = min(0.95, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(average.detach(), expected, atol=1e-5)


def test_backbone_has_a_rate_of_its_own(vision_data, config):
    config = replace(config, data=vision_data, cameras=("top",), backbone_lr=1e-5)
    policy, _ = untrained(config, load_demonstrations(config))
    optimizer, rates = make_optimizer(policy, config)
    assert sorted(rates) == [1e-5, 1e-3]
    names = {id(p): name for name, p in policy.module.named_parameters()}
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        for parameter in group["params"]:
            assert ("backbone" in names[id(parameter)]) == (rate == 1e-5)
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    assert count == len(names)


def test_steps_that_fit_counts_real_steps(config, monkeypatch):
    clock, trials = [0.0], []
    real = training.train

    def fake(trial, *, on_step, **options):
        assert trial.batch_size == config.batch_size
        assert trial.out != config.out
        trials.append(trial.steps)
        real(replace(trial, steps=2), **options)
        for step in range(trial.log_every, trial.steps + 1, trial.log_every):
            # The first ones warm up.
            clock[0] += 9.0 if step == trial.log_every else 0.1 * trial.log_every
            on_step({"step": step})

    monkeypatch.setattr(demo, "train", fake)
    monkeypatch.setattr(demo.time, "perf_counter", lambda: clock[0])
    config = replace(config, log_every=10)
    assert steps_that_fit(config, 12) == 120
    assert trials == [40, 70]  # 3 s are too short a trial, 6 s are not
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0, expected a whole number of at least 1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": 0}, "lr is 0, expected a finite number above 0"),
        ({"backbone_lr": -1}, "backbone_lr is -1"),
        ({"ema_decay": 1}, "ema_decay is 1"),
        ({"threads": 0}, "threads is 0"),
        ({"policy": "bc_transformer"}, "chunk_size is 5.*predicts one action"),
        ({"model": {"chunk_size": 3}}, "'chunk_size' cannot be set in `model`"),
        ({"model": {"widht": 3}}, "no setting 'widht': known are"),
        ({"chunk_size": 99}, "chunk size is 99, expected 1 to"),
        ({"device": "quantum"}, "device 'quantum' cannot be used here"),
        ({"data": Path("/nowhere")}, "/nowhere is not a folder"),
        ({"shift_px": -1}, "shift_px is -1"),
    ],
)
def test_bad_settings_are_named(config, change, message):
    with pytest.raises(UserError, match=message):
        run(replace(config, **change))


def test_settings_are_flags():
    flags = "--data d --out o --cameras top wrist --model use_cvae False kl_weight 2.5"
    config = tyro.cli(TrainConfig, args=flags.split())
    assert config.cameras == ("top", "wrist")
    assert config.model == {"use_cvae": False, "kl_weight": 2.5}
    assert json.loads(json.dumps(training.as_json(config)))["data"] == "d"


def write_pictures(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    random = np.random.default_rng(0)
    for i in range(3):
        q = random.normal(size=(8, 3)).astype(np.float32)
        shapes = {camera: (8, *size, 3) for camera, size in sizes.items()}
        images = {c: random.integers(0, 256, s, np.uint8) for c, s in shapes.items()}
        episode = Episode(q, q * 0, q * 0, q + 0.1, images, fps=30.0)
        save_episode(episode_path(folder, i), episode)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["act", "bc_mlp"])
def test_cameras_of_different_sizes_train_and_come_back(tmp_path, kind):
    sizes = {"top": (32, 40), "wrist": (21, 37)}
    data = write_pictures(tmp_path / "data", sizes)
    more = {"policy": kind, "cameras": tuple(sizes), "steps": 2, "shift_px": 2}
    more |= {"model": dict(TINY) if kind == "act" else {"hidden": 16}, "batch_size": 4}
    config = TrainConfig(data, tmp_path / "run", brightness=0.1, **SMALL | more)
    result = run(config)
    back = load_policy(result.folder)
    assert back.image_sizes == sizes
    seen = {f"images/{c}": np.zeros((1, *s, 3), np.uint8) for c, s in sizes.items()}
    seen["qpos"] = np.zeros((1, 3), np.float32)
    chunk = result.policy.predict_chunk(seen)
    np.testing.assert_array_equal(back.predict_chunk(seen), chunk)


@pytest.mark.slow
@pytest.mark.parametrize("more", ["--resize 16 24", ""])
def test_resize_is_a_flag_and_holds_at_run_time(tmp_path, more):
    """Without it, the same images train as they are."""
    sizes = {"top": (33, 60), "wrist": (50, 44)}
    data = write_pictures(tmp_path / "data", sizes)
    flags = (
        f"--data {data} --out {tmp_path}/run --steps 2 --cameras top wrist "
        f"--threads 1 --batch-size 4 --chunk-size 5 --no-tensorboard "
        f"--model width 16 heads 2 {more}"
    )
    config = tyro.cli(TrainConfig, args=flags.split())
    policy = load_policy(run(config).folder)
    assert policy.image_sizes == sizes
    network = dict.fromkeys(sizes, (16, 24)) if more else sizes
    assert policy.config.camera_sizes == network
    demos = load_demonstrations(config)
    first = load_episode(episode_path(data, 0))
    seen = {f"images/{c}": x[:1] for c, x in first.images.items()}
    trained = {f"images/{c}": x[:1].copy() for c, x in demos.images.items()}
    qpos = {"qpos": first.qpos[:1]}
    chunks = [policy.predict_chunk(images | qpos) for images in (seen, trained)]
    np.testing.assert_array_equal(*chunks)


def test_sizes_that_cannot_be_meant(vision_data, config):
    with pytest.raises(SettingError, match=r"resize is \(8, 96\).*at least 16"):
        replace(config, resize=(8, 96))
    wanted = replace(config, data=vision_data, cameras=("top",), resize=(32, 32))
    demos = load_demonstrations(replace(wanted, resize=None))
    with pytest.raises(UserError, match=r"resize is \(32, 32\), but the dem"):
        network_settings(wanted, demos)


def test_settings_come_back_from_json_as_they_went(config):
    """Or a run that has them would not go on."""
    asked = as_json(replace(config, cameras=("top",), resize=(32, 24)))
    assert json.loads(json.dumps(asked)) == asked
    assert asked["resize"] == [32, 24]
