"""The README's first picture: the same scenes for both, and counters that are true."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from act_minimal.sim import make_task
from act_minimal.support.errors import UserError
from act_minimal.support.files import write_json
from benchmarks.notebooks import picture

OUTCOMES = {"act": "ssfs", "single_step": "fsff"}


@pytest.fixture
def demo(tmp_path):
    task, result = make_task("so100_pick_place"), {"task": "so100_pick_place"}
    for name, letters in OUTCOMES.items():
        rows = [
            {"scene": i, "success": x == "s", "ticks": 16 * (i + 1)}
            for i, x in enumerate(letters)
        ]
        qpos = task.sample(np.random.default_rng(0)).astype(np.float32)
        states = {str(r["scene"]): np.repeat(qpos[None], r["ticks"], 0) for r in rows}
        folder = tmp_path / "rollouts" / name
        folder.mkdir(parents=True)
        about = {"rollouts": json.dumps(rows)}
        save_file(states, folder / "rollouts_0_3.safetensors", about)
        result[name] = {"successes": letters.count("s"), "n": len(letters)}
    write_json(tmp_path / "result.json", result)
    return tmp_path


def test_counters_end_at_the_rates_of_all_rollouts(demo):
    act = picture.Rolled(demo, "act")
    said = [act.counter(tick) for tick in (0, 16, 32, 64)]
    assert said[0] == "0 of 4 succeeded (0 %)"
    assert [x.split()[0] for x in said] == ["0", "1", "2", "3"]
    assert said[-1] == "3 of 4 succeeded (75 %)"


@pytest.mark.slow
def test_the_picture_frames_each_outcome(demo, tmp_path):
    out = tmp_path / "picture.gif"
    picture.main(demo, out)
    with Image.open(out) as film:
        assert film.n_frames > 3
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB")).astype(int)
    height, width = picture.SIZE
    for side, letters in enumerate(OUTCOMES.values()):
        for i, letter in enumerate(letters):
            x = side * (picture.COLUMNS * width + picture.GAP) + i * width
            edge = last[picture.LINE + height // 2, x + 1]
            assert (edge[2] > edge[0] + 40) == (letter == "s"), (side, i)
            assert (edge[0] > edge[2] + 40) == (letter == "f"), (side, i)


def test_rollouts_that_are_not_those_of_the_result_are_refused(demo):
    result = json.loads((demo / "result.json").read_text())
    result["act"]["successes"] = 4
    write_json(demo / "result.json", result)
    with pytest.raises(UserError, match=r"3 of 4 successes of act, .* 4 of 4"):
        picture.frames(demo)
    for path in demo.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match="no rollouts of act; run: act demo"):
        picture.frames(demo)
