"""The commands that carry policies elsewhere, as a person types them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

from act_minimal.checkpoint import CheckpointError, load_policy
from act_minimal.command import exchange as exchange_cli
from act_minimal.support.errors import SettingError

from ..exchange.test_lerobot_policy import DATA, THEIRS, saved

STATE_POLICY = DATA / "so100_pick_place_state"


def act(command: str, *words: Any) -> int:
    """As `act` runs it."""
    args = [str(word) for word in words]
    config = (tyro.conf.FlagCreatePairsOff,)
    done = tyro.cli(exchange_cli.COMMANDS[command], args=args, config=config)
    return done.show("--json" in args)


@pytest.mark.quick
def test_out_and_in_again(tmp_path, capsys):
    there, back = tmp_path / "there", tmp_path / "back"
    out = ("--policy", STATE_POLICY, "--out", there, "--drop-cvae", "--units", "so100")
    assert act("export-lerobot", *out) == 0
    said = capsys.readouterr().out
    assert str(there) in said
    assert said.count("note: ") == 2
    assert act("import-lerobot", there, "--out", back, "--units", "so100") == 0
    assert "reads qpos, env_state" in capsys.readouterr().out
    assert load_policy(back).chunk_size == 50
    assert act("export-lerobot", *out, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 2
    assert act("import-lerobot", there, "--out", back, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["reads"] == ["qpos", "env_state"]


@pytest.mark.quick
def test_execution_is_a_few_flags(tmp_path):
    there = tmp_path / "there"
    ours = saved(tmp_path / "ours", env_state_dim=7)
    for flags, steps, m in (
        ((), 8, None),
        (("--mode", "receding", "--execute", "3"), 3, None),
        (("--mode", "ensemble", "--m", "0.05"), 1, 0.05),
    ):
        act("export-lerobot", "--policy", ours, "--out", there, *flags)
        content = json.loads((there / "config.json").read_text())
        assert content["n_action_steps"] == steps
        assert content["temporal_ensemble_coeff"] == m


@pytest.mark.quick
def test_flags_that_cannot_be_meant_are_named(tmp_path):
    out = ("--out", tmp_path / "ours")
    weights = tmp_path / "w.safetensors"
    weights.touch()
    for words, message in (
        ((THEIRS, *out, "--rename", "top"), "OLD=NEW"),
        ((THEIRS, *out, "--rename", "top=front"), "'top'"),
        ((THEIRS, *out, "--cameras", "top"), "cameras is for a file"),
        ((THEIRS, *out, "--statistics", "x.json"), "statistics is for a file"),
        ((weights, *out), "statistics is missing"),
        ((weights, *out, "--statistics", "x.json", "--rename", "a=b"), "use cameras"),
    ):
        with pytest.raises(SettingError, match=message):
            act("import-lerobot", *words)


@pytest.mark.quick
def test_a_checkpoint_that_is_not_there_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no .*nowhere; expected LeRo"):
        act("import-lerobot", tmp_path / "nowhere", "--out", tmp_path / "ours")


@pytest.mark.quick
@pytest.mark.parametrize("command", exchange_cli.COMMANDS)
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]):
    function: Callable[..., Any] = exchange_cli.COMMANDS[command]
    assert f"$ act {command}" in (function.__doc__ or "")
    with pytest.raises(SystemExit) as end:
        act(command, "--help")
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "--out" in said
    assert "--json" in said


def test_the_originals_weights_and_statistics_come_in(tmp_path, capsys):
    import torch
    from safetensors.torch import save_file

    from ..exchange.test_lerobot_policy import policy_of
    from ..exchange.test_original_act import original_of, statistics_of

    policy = policy_of(cameras=("top",))
    state = {key: x.contiguous() for key, x in original_of(policy).items()}
    save_file(state, tmp_path / "policy.safetensors")
    numbers = {key: torch.tensor(x) for key, x in statistics_of(policy).items()}
    save_file(numbers, tmp_path / "stats.safetensors")
    words: tuple[Any, ...] = (tmp_path / "policy.safetensors", "--cameras", "top")
    words += ("--statistics", tmp_path / "stats.safetensors", "--size", 64, 96)
    assert act("import-lerobot", *words, "--heads", 4, "--out", tmp_path / "ours") == 0
    assert "reads qpos, top" in capsys.readouterr().out


def test_onnx_is_written_and_said(tmp_path, capsys):
    file: Path = tmp_path / "state.onnx"
    assert act("export-onnx", "--policy", STATE_POLICY, "--out", file, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == file.stat().st_size
    assert said["inputs"] == {"qpos": [6], "env_state": [7]}
    assert said["difference"] < 1e-4
