"""An exported file answers as the policy does, alone and for several robots."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from act_minimal.checkpoint import CheckpointError, load_policy, save_policy
from act_minimal.exchange import onnx as onnx_export
from act_minimal.exchange.lerobot_policy import export_policy
from act_minimal.exchange.onnx import OnnxError, OnnxPredictor
from act_minimal.heads import HEADS
from act_minimal.images import Resizing
from act_minimal.policy import ObservationError, Policy, make_policy
from act_minimal.settings import STEPPING
from act_minimal.support.errors import SettingError
from act_minimal.support.extras import MissingExtra

from ..made_up import random_statistics
from .test_lerobot_policy import DATA, observation_of, policy_of

SMALL = {"width": 16, "feedforward": 16, "heads": 2, "encoder_layers": 1}
SMALL |= {"chunk_size": 5}
STATE, VISION = DATA / "so100_pick_place_state", DATA / "so100_pick_place_vision"


def other_policy(kind: Any, **settings: Any) -> Policy:
    widths = {"qpos": 6, "action": 6, "action_delta": 6, "env_state": 7}
    torch.manual_seed(0)
    joints = {"state_dim": 6, "action_dim": 6, "env_state_dim": 7}
    return make_policy(kind, random_statistics(widths), **joints, **settings)


@pytest.fixture(scope="module")
def state_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed state policy, exported."""
    logger = logging.getLogger("onnxscript")
    level, path = logger.level, tmp_path_factory.mktemp("onnx") / "state.onnx"
    done = onnx_export.export_onnx(STATE, path)
    assert logger.level == level
    assert done.path == path
    assert done.difference < 1e-4
    return path


def check(file: Path, folder: Path, rows: tuple[int, ...] = (1, 4)) -> None:
    """The file answers as the policy for so many robots at once."""
    policy, predictor = load_policy(folder), OnnxPredictor(file, threads=1)
    for n in rows:
        seen = observation_of(policy.config, n)
        chunk = predictor.predict_chunk(seen)
        assert chunk.shape == (n, policy.chunk_size, 6)
        assert np.abs(chunk - policy.predict_chunk(seen)).max() < 1e-4
    assert predictor.about["cameras"] == list(policy.cameras)
    assert predictor.about["chunk_size"] == policy.chunk_size


def test_cameras_of_different_sizes(tmp_path):
    """Odd sizes, which are filled up, with pooling before that."""
    sizes = {"top": (50, 70), "wrist": (37, 41)}
    settings = {"cameras": tuple(sizes), "image_size": tuple(sizes.values())}
    policy = other_policy("act", image_pool=2, **settings, **SMALL)
    save_policy(tmp_path / "p", policy, {})
    done = onnx_export.export_onnx(tmp_path / "p", tmp_path / "p.onnx")
    assert done.inputs["images/top"] == (50, 70, 3)
    check(tmp_path / "p.onnx", tmp_path / "p")


def test_a_policy_that_resizes_does_so_outside_its_file(tmp_path):
    policy = other_policy("act", cameras=("top",), image_size=(16, 24), **SMALL)
    policy.resizing = Resizing((16, 24), "pad", {"top": (60, 100)})
    save_policy(tmp_path / "p", policy, {})
    done = onnx_export.export_onnx(tmp_path / "p", tmp_path / "p.onnx")
    assert done.inputs["images/top"] == (16, 24, 3)
    predictor = OnnxPredictor(tmp_path / "p.onnx", threads=1)
    assert predictor.resizing == policy.resizing
    seen = observation_of(policy.config)
    images = np.random.default_rng(0).integers(0, 256, (2, 60, 100, 3), np.uint8)
    seen["images/top"] = images
    expected = load_policy(tmp_path / "p").predict_chunk(seen)
    assert np.abs(predictor.predict_chunk(seen) - expected).max() < 1e-4
    seen["images/top"] = seen["images/top"][:, :, :60]
    with pytest.raises(OnnxError, match="refuses the observation"):
        predictor.predict_chunk(seen)


@pytest.mark.parametrize(
    "told", [{"prefix_max": 3}, {"future_max": 3}, {"future_max": 3, "future_lag": 1}]
)
@pytest.mark.parametrize("target", ["absolute", "delta"])
def test_a_policy_that_is_told_what_is_committed(tmp_path, told, target):
    policy = other_policy("act", action_target=target, **told, **SMALL)
    save_policy(tmp_path / "p", policy, {})
    done = onnx_export.export_onnx(tmp_path / "p", tmp_path / "p.onnx")
    assert ("prefix" in done.inputs) == ("prefix_max" in told)
    check(tmp_path / "p.onnx", tmp_path / "p")
    predictor = OnnxPredictor(tmp_path / "p.onnx", threads=1)
    assert predictor.told_max == policy.told_max == 3
    seen = observation_of(policy.config)
    random = np.random.default_rng(0)
    chunks = []
    for d in range(4):
        prefix = random.normal(size=(2, d, 6)).astype(np.float32)
        chunks.append(predictor.predict_chunk(seen, prefix))
        expected = policy.predict_chunk(seen, prefix)
        assert np.abs(chunks[-1] - expected).max() < 1e-4
    assert np.abs(chunks[3][:, 3:] - chunks[0][:, 3:]).max() > 1e-3
    with pytest.raises(ObservationError, match=r"shape \(2, 4, 6\).*up to 3"):
        predictor.predict_chunk(seen, np.zeros((2, 4, 6)))


@pytest.mark.parametrize("head", [name for name in HEADS if name != "l1"])
def test_every_head_with_its_noise_as_an_input(tmp_path, head):
    steps = {"head_steps": 2} if head in STEPPING else {}
    policy = other_policy("act", head=head, **steps, **SMALL)
    save_policy(tmp_path / "p", policy, {})
    done = onnx_export.export_onnx(tmp_path / "p", tmp_path / "p.onnx")
    assert ("noise" in done.inputs) == policy.samples
    policy = load_policy(tmp_path / "p")
    assert policy.config.head == head
    predictor = OnnxPredictor(tmp_path / "p.onnx", threads=1)
    seen = observation_of(policy.config, 3)
    noise = np.random.default_rng(1).standard_normal((2, 3, 5, 6)).astype(np.float32)
    first, second = (predictor.predict_chunk(seen | {"noise": x}) for x in noise)
    assert np.abs(first - policy.predict_chunk(seen | {"noise": noise[0]})).max() < 1e-4
    assert (np.abs(first - second).max() > 1e-3) == policy.samples
    drawn = [predictor.predict_chunk(seen) for _ in range(2)]  # its own noise
    assert (np.abs(drawn[0] - drawn[1]).max() > 1e-3) == policy.samples
    broken = seen | {"noise": noise[0], "qpos": np.full_like(seen["qpos"], np.nan)}
    assert np.isnan(predictor.predict_chunk(broken)).all()
    if policy.samples:
        with pytest.raises(ObservationError, match=r"noise has shape \(5, 6\)"):
            predictor.predict_chunk(seen | {"noise": noise[0, 0]})
    with pytest.raises(CheckpointError, match=f"head='{head}' .it knows 'l1'."):
        export_policy(tmp_path / "p", tmp_path / "there")


def test_the_state_policy(state_file):
    check(state_file, STATE, rows=(1, 2, 5))


def test_the_vision_policy(tmp_path):
    done = onnx_export.export_onnx(VISION, tmp_path / "policy.onnx")
    assert done.difference < 1e-4
    assert done.deviations < 1e-4
    assert done.inputs["images/top"] == (96, 128, 3)
    assert set(OnnxPredictor(done.path).names) == set(done.inputs)
    check(done.path, VISION)


KINDS: dict[str, Any] = {
    "as LeRobot's": lambda: policy_of(cameras=("a", "b"), env_state_dim=7),
    "deltas": lambda: other_policy("act", action_target="delta"),
    "perceptron": lambda: other_policy("bc_mlp"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_policies(tmp_path, kind):
    folder = save_policy(tmp_path / "policy", KINDS[kind](), {})
    done = onnx_export.export_onnx(folder, tmp_path / "policy.onnx")
    assert done.deviations < 1e-4
    check(done.path, folder)


def test_a_file_that_answers_otherwise_is_not_written(
    tmp_path, state_file, monkeypatch
):
    policy = load_policy(STATE)
    policy.scale("action").mean += 0.01
    folder = save_policy(tmp_path / "other", policy, {})
    content = state_file.read_bytes()
    monkeypatch.setattr(onnx_export, "_exported", lambda *_: content)
    with pytest.raises(OnnxError, match=r"standard deviations.*nothing was written"):
        onnx_export.export_onnx(folder, tmp_path / "policy.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.quick
def test_a_missing_library_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"onnxscript is not installed.*onnx"):
        onnx_export.export_onnx(STATE, "never.onnx")


@pytest.mark.quick
def test_places_and_files_that_are_wrong_are_named(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(SettingError, match="is a folder"):
        onnx_export.export_onnx(STATE, tmp_path / "folder.onnx")
    with pytest.raises(SettingError, match=r"out is .*, expected .* ends in \.onnx"):
        onnx_export.export_onnx(STATE, tmp_path / "policy.pt")
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        onnx_export.export_onnx(tmp_path / "nowhere", tmp_path / "a.onnx")
    broken: Path = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(OnnxError, match=r"broken\.onnx is no file"):
        OnnxPredictor(broken)
    with pytest.raises(OnnxError, match=r"gone\.onnx is no file"):
        OnnxPredictor(tmp_path / "gone.onnx")


def test_an_observation_that_does_not_fit_is_refused(state_file):
    predictor = OnnxPredictor(state_file)
    seen = observation_of(load_policy(STATE).config)
    with pytest.raises(OnnxError, match=r"no 'env_state'.*qpos, env_state"):
        predictor.predict_chunk({"qpos": seen["qpos"]})
    with pytest.raises(OnnxError, match="refuses"):
        predictor.predict_chunk(seen | {"qpos": seen["qpos"][:, :5]})


def test_a_file_of_somebody_else_is_refused(state_file):
    import onnx

    model = onnx.load(state_file)
    del model.metadata_props[:]
    with pytest.raises(OnnxError, match="metadata lacks 'act_minimal'"):
        OnnxPredictor(model.SerializeToString())
