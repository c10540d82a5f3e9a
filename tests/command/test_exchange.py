"""The commands that carry policies elsewhere, as a person types them."""

import json
from pathlib import Path

import pytest

from act_minimal.checkpoint import load_policy

from .. import commands
from ..exchange.test_lerobot_policy import DATA, THEIRS, saved

STATE_POLICY = DATA / "so100_pick_place_state"


def act(command, *words):
    """As `act` runs it."""
    code, out, err = commands.act(command, *words)
    assert code == 0, err
    return out


@pytest.mark.quick
def test_out_and_in_again(tmp_path):
    there, back = tmp_path / "there", tmp_path / "back"
    out = f"export-lerobot --policy {STATE_POLICY} --out {there} --drop-cvae "
    out += "--units so100"
    said = act(out)
    assert str(there) in said
    assert said.count("note: ") == 2
    said = act(f"import-lerobot {there} --out {back} --units so100")
    assert "reads qpos, env_state" in said
    assert load_policy(back).chunk_size == 50
    assert len(json.loads(act(out, "--json"))["notes"]) == 2
    said = json.loads(act(f"import-lerobot {there} --out {back} --json"))
    assert said["reads"] == ["qpos", "env_state"]


@pytest.mark.quick
def test_execution_is_a_few_flags(tmp_path):
    there = tmp_path / "there"
    ours = saved(tmp_path / "ours", env_state_dim=7)
    for flags, steps, m in (
        ("", 8, None),
        ("--mode receding --execute 3", 3, None),
        ("--mode ensemble --m 0.05", 1, 0.05),
    ):
        act(f"export-lerobot --policy {ours} --out {there} {flags}")
        content = json.loads((there / "config.json").read_text())
        assert content["n_action_steps"] == steps
        assert content["temporal_ensemble_coeff"] == m


@pytest.mark.quick
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"{THEIRS} --rename top", "OLD=NEW"),
        (f"{THEIRS} --rename top=front", "'top'"),
        (f"{THEIRS} --cameras top", "cameras is for a file"),
        (f"{THEIRS} --statistics x.json", "statistics is for a file"),
        ("w.safetensors", "statistics is missing"),
        ("w.safetensors --statistics x.json --rename a=b", "use cameras"),
        ("nowhere", "there is no nowhere; expected LeRo"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("w.safetensors").touch()
    code, _, err = commands.act("import-lerobot", words, "--out ours")
    assert code == (1 if words == "nowhere" else 2)
    assert message in " ".join(err.split())


def test_the_originals_weights_and_statistics_come_in(tmp_path):
    import torch
    from safetensors.torch import save_file

    from ..exchange.test_lerobot_policy import policy_of
    from ..exchange.test_original_act import original_of, statistics_of

    policy = policy_of(cameras=("top",))
    state = {key: x.contiguous() for key, x in original_of(policy).items()}
    save_file(state, tmp_path / "policy.safetensors")
    numbers = {key: torch.tensor(x) for key, x in statistics_of(policy).items()}
    save_file(numbers, tmp_path / "stats.safetensors")
    line = f"import-lerobot {tmp_path}/policy.safetensors --cameras top --statistics "
    line += f"{tmp_path}/stats.safetensors --size 64 96 --heads 4 --out {tmp_path}/ours"
    assert "reads qpos, top" in act(line)


def test_onnx_is_written_and_said(tmp_path):
    file = tmp_path / "state.onnx"
    said = json.loads(act(f"export-onnx --policy {STATE_POLICY} --out {file} --json"))
    assert said["bytes"] == file.stat().st_size
    assert said["inputs"] == {"qpos": [6], "env_state": [7]}
    assert said["difference"] < 1e-4
