"""The comparison with LeRobot: its scripts run, and the page shows their numbers."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import psutil
import pytest
import torch

from act_minimal.model import ACT
from act_minimal.settings import ACTConfig
from benchmarks import performance, tricks
from benchmarks.lerobot import speed as lerobot_speed

from ..lerobot_environment import make_environment, needs_environment, run


@pytest.mark.quick
def test_performance_page_is_fresh():
    text = performance.PAGE.read_text()
    assert text == performance.page(text)
    for name in ("speed", "memory", "gpu", "loader", "lerobot_loader", "data"):
        block = text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
        assert "| --- |" in block, f"{name} has no table"


@pytest.mark.quick
def test_a_ratio_has_its_range():
    row = {"ratio": 1.3, "ratio_range": [1.2, 1.35]}
    assert performance.ratio(row) == "1.30 × (1.20-1.35)"


@pytest.mark.quick
def test_no_table_judges_its_numbers():
    for name in ("performance", "results"):
        text = (performance.ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        heads = [line for line in text.splitlines() if line.startswith("| ")]
        for word in ("**missed**", ", reached", "20 × reached", "| goal |"):
            assert not any(word in line for line in heads), f"{name}: {word}"


@pytest.mark.quick
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_gpu_command_says_so(capsys, monkeypatch):
    monkeypatch.setattr(lerobot_speed, "write", None)  # would fail
    lerobot_speed.main(device="cuda")
    assert "no GPU" in capsys.readouterr().out


def test_our_ways_of_a_small_case_do_what_they_say(monkeypatch, tmp_path):
    monkeypatch.setitem(lerobot_speed.CASES, "tiny", (2, 32, 64))
    # The same network, narrower: the paper's takes seconds a step on a CPU.
    settings = lerobot_speed.settings_of("tiny") | {"width": 128, "feedforward": 256}
    monkeypatch.setattr(lerobot_speed, "settings_of", lambda _: settings)
    batch = lerobot_speed.batch_of("tiny", 2)
    one = {key: x[:1] for key, x in batch.items()}
    made = lerobot_speed.ours("tiny", "cpu")
    before = made["inference"](one)
    assert lerobot_speed.gflops_of(made["train"], batch) > 0.1
    first = made["train"](batch)
    for _ in range(2):
        last = made["train"](batch)
    assert last < first
    assert not torch.equal(made["inference"](one), before)
    # An exported policy has the same seed, and so the same weights, untrained.
    assert lerobot_speed.export("tiny", tmp_path / "tiny.onnx") < 1e-4
    onnx = lerobot_speed.exported("tiny", tmp_path, threads=1)
    assert abs(onnx(one) - before.numpy()).max() < 1e-4
    apart = lerobot_speed.loss_curves("tiny", 2, "cpu", steps=2)
    assert 0 < apart["apart"] < 0.05


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
def test_peak_memory_is_that_of_the_process_itself():
    ballast = bytearray(2**30)  # of the parent, which the child must not count
    ballast[:: 2**12] = b"x" * (2**30 // 2**12)
    program = (
        "from benchmarks.lerobot import speed as s\n"
        "s.CASES['tiny'] = (1, 64, 64)\n"
        "print(s.peak_memory('ours', 'tiny', 'inference'))\n"
        "s.SIDES['ours'] = lambda *_: {'inference': lambda _: bytearray(2**30)}\n"
        "print(s.peak_memory('ours', 'tiny', 'inference'))\n"
    )
    root = str(performance.ROOT)
    said = run(sys.executable, "-c", program, PYTHONPATH=root, OMP_NUM_THREADS="1")
    small, large = map(float, said.split())
    # Torch and the weights, whatever they need here; then a GiB more. Who counts the
    # parent counts its torch, too, and the ballast.
    assert 300 < small < psutil.Process().memory_info().rss / 2**20 - 300
    assert large - small == pytest.approx(1024, abs=200)
    assert len(ballast) == 2**30


@needs_environment
@pytest.mark.timeout(900)
def test_both_sides_run_beside_each_other():
    program = (
        "import json\n"
        "from benchmarks.lerobot import speed as s\n"
        "s.CASES['tiny'] = (1, 64, 64)\n"
        "print(json.dumps(s.compare('train', 'tiny', 2, 3, 'cpu')))\n"
    )
    root = str(performance.ROOT)
    said = run(make_environment(), "-c", program, PYTHONPATH=root, OMP_NUM_THREADS="1")
    row = json.loads(said.splitlines()[-1])
    assert row["n"] == 3
    ours, theirs = row["ways"]["ours"], row["ways"]["lerobot"]
    assert theirs["ratio"] == 1.0
    assert 0 < ours["ratio_range"][0] <= ours["ratio"] <= ours["ratio_range"][1]
    assert ours["seconds_min"] <= ours["seconds_median"] <= ours["seconds_max"]
    # Work over time over rate: nothing is faster than the machine's own products.
    assert 0 < ours["share_of_matrix_rate"] < 1.2


@pytest.mark.parametrize("trick", tricks.TRICKS)
def test_without_a_trick_the_same_is_computed(trick):
    config = ACTConfig(
        state_dim=2,
        action_dim=2,
        cameras=("top",),
        image_size=(64, 64),
        chunk_size=3,
        backbone="resnet18",
        dropout=0.1,
    )
    images = torch.rand(1, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = {"qpos": torch.zeros(1, 2), "images": images}
    place, name, plain = tricks.TRICKS[trick]
    chunks = []
    for patched in (False, True):
        patch = mock.patch.object(place, name, plain) if patched else nullcontext()
        with patch, torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            model = ACT(config, pretrained_weights=False).eval()
            chunks.append(model(batch).actions)
    torch.testing.assert_close(chunks[0], chunks[1])
