"""`act demo`, with a recipe small enough to test that stages resume."""

import dataclasses
import json
from pathlib import Path

import pytest

from act_minimal.checkpoint import load_policy
from act_minimal.command import demo
from act_minimal.command import main as cli
from act_minimal.settings import TrainConfig
from act_minimal.support.errors import SettingError, UserError

SMALL = dataclasses.replace(
    demo.STATE,
    demonstrations=2,
    act={**demo.STATE.act, "steps": 8, "save_every": 4},
    single_step={**demo.STATE.single_step, "save_every": 4},
    rollouts=2,
)


@pytest.fixture
def few_steps(monkeypatch):
    """The baseline's steps are counted by the clock: here they are six."""
    monkeypatch.setattr(demo, "steps_that_fit", lambda config, seconds: 6)


@pytest.mark.parametrize(
    ("task", "vision", "folder"),
    [
        ("so100_pick_place", False, "runs/demo"),
        ("so100_pick_place", True, "runs/demo_vision"),
        ("openarm_handover", False, "runs/demo_openarm_handover"),
    ],
)
def test_each_demo_has_a_folder_of_its_own(monkeypatch, task, vision, folder):
    asked = {}
    monkeypatch.setattr(demo, "run_demo", lambda out, *_, **__: asked.update(out=out))
    assert cli.demo(task=task, vision=vision).code == 0
    assert asked["out"] == Path(folder)


def test_demo_leaves_everything_and_goes_on_where_it_stopped(
    tmp_path, monkeypatch, few_steps
):
    out = tmp_path / "demo"
    real_evaluate = demo.evaluate
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(kwargs["out"].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real_evaluate(*args, **kwargs)

    monkeypatch.setattr(demo, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(out, recipe=SMALL, progress=False)
    assert calls == ["act", "single_step"]
    assert not (out / "result.json").exists()
    kept = [*out.glob("*/checkpoints/*/model.safetensors")]
    kept += [*out.glob("demonstrations/*.hdf5"), *out.glob("rollouts/*/*")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) > 5

    monkeypatch.setattr(demo, "evaluate", real_evaluate)
    result = demo.run_demo(out, recipe=SMALL, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before

    assert result == json.loads((out / "result.json").read_text())
    for name in ("act", "single_step"):
        part = result[name]
        assert part["n"] == 2
        assert 0 <= part["interval"][0] <= part["rate"] <= part["interval"][1] <= 1
        assert part["train_seconds"] > 0
        newest = json.loads((out / name / "log.jsonl").read_text().splitlines()[-1])
        assert part["train_steps"] == newest["step"]
    stages = {"record", "train_act", "train_single_step", "film"}
    assert stages < set(result["seconds"])
    assert result["seconds"]["total"] >= result["seconds"]["record"]
    for name in ("film.mp4", "loss.png"):
        assert (out / name).stat().st_size > 1000
    policy = load_policy(out / "checkpoint")
    assert policy.chunk_size == SMALL.act["chunk_size"]
    card = json.loads((out / "checkpoint" / "card.json").read_text())
    assert card["success"]["n"] == 2

    monkeypatch.setattr(demo, "train", None)  # a third call does nothing anew
    assert demo.run_demo(out, recipe=SMALL, progress=False) == result
    with pytest.raises(UserError, match=r"holds a demo with .*'seed': 0.*--out"):
        demo.run_demo(out, recipe=SMALL, seed=1, progress=False)


@pytest.mark.quick
def test_baseline_sees_what_act_sees():
    """Policy, learning rate and chunk may differ, what is learnt from may not."""
    for recipe in (demo.STATE, demo.VISION):
        common = {"data": Path("d"), "out": Path("o"), "cameras": recipe.cameras}
        act = TrainConfig(**common, **recipe.act)
        single = TrainConfig(**common, **recipe.single_step)
        for key in (
            *("data", "cameras", "use_env_state", "limit", "val_fraction", "seed"),
            *("batch_size", "state_noise", "shift_px", "brightness", "ema_decay"),
        ):
            assert getattr(act, key) == getattr(single, key), key


@pytest.mark.quick
def test_readme_names_the_demos_chunk():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    k = demo.STATE.act["chunk_size"]
    assert f"# (1, {k}, 6): the next {k} joint targets" in text


@pytest.mark.quick
def test_bad_seed_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(SettingError, match="seed is 100000"):
        demo.run_demo(tmp_path / "demo", seed=100_000, progress=False)
    assert not (tmp_path / "demo").exists()


@pytest.mark.quick
def test_a_demo_is_known_again_from_its_first_moment(tmp_path):
    out, settings = tmp_path / "demo", {"task": "t", "vision": False, "seed": 0}
    demo.Clock(out, settings)
    (out / "demonstrations").mkdir()  # and then it was killed
    assert demo.Clock(out, settings).seconds == {}
    with pytest.raises(
        UserError, match=r"holds a demo with .*another folder with --out"
    ):
        demo.Clock(out, settings | {"seed": 1})
    for name, content in (("result.json", '{"mine": 1}'), ("thesis.tex", "x")):
        other = tmp_path / name.partition(".")[0]
        other.mkdir()
        (other / name).write_text(content)
        with pytest.raises(
            UserError, match=r"is not empty, and holds no demo \(stages"
        ):
            demo.Clock(other, settings)
        assert [p.name for p in other.iterdir()] == [name]
