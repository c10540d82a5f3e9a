"""One check of every setting: what it lets pass, what it says, and who uses it."""

import ast
import dataclasses
import importlib
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from act_minimal import evaluation
from act_minimal.command import main as cli
from act_minimal.sim import TASKS
from act_minimal.sim.world import SCENES_A_RUN
from act_minimal.support import validation as settings
from act_minimal.support.errors import SettingError
from act_minimal.support.validation import (
    Bounds,
    Count,
    Positive,
    Share,
    TaskName,
    Whole,
    check_arguments,
    check_named,
    check_settings,
    check_value,
)

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
NAN, INF = float("nan"), float("inf")

GOOD = [
    (3, Count),
    (np.int64(3), Count),
    (0, Whole),
    (1, Positive),  # a whole number is a number
    (np.float32(0.5), Share),
    (1.0, Share),
    (None, Count | None),
    (0.99, Annotated[float, Bounds(0, below=1)]),
    ((3, 4), tuple[Count, Count]),
    ((), tuple[str, ...]),
    (("top", "wrist"), tuple[str, ...]),
    ("a", Literal["a", "b"]),
    (Path("a"), Path),
    ("a", Path),
    ({"a": 1.5, "b": "c", "d": True}, dict[str, bool | int | float | str]),
]
BAD = [
    (0, Count, "expected a whole number of at least 1"),
    (-1, Whole, "x is -1, expected a whole number of at least 0"),
    (2.0, Count, "x is 2.0, expected a whole number of at least 1"),
    (True, Count, "x is True, expected a whole number"),
    ("3", Count, "x is '3', expected a whole number"),
    (0, Positive, "x is 0, expected a finite number above 0"),
    (NAN, float, "x is nan, expected a finite number"),
    (INF, Positive, "x is inf, expected a finite number above 0"),
    (-INF, float, "x is -inf, expected a finite number"),
    (1.1, Share, r"x is 1.1, expected a finite number in \[0, 1\]"),
    (1, Annotated[float, Bounds(0, below=1)], r"expected a finite number in \[0, 1\)"),
    (70000, settings.Port, r"x is 70000, expected a whole number in \[1, 65535\]"),
    (None, Count, "x is None, expected a whole number"),
    (0, Count | None, "x is 0, expected a whole number of at least 1"),
    (1, bool, "x is 1, expected True or False"),
    ("c", Literal["a", "b"], r"x is 'c', expected one of \['a', 'b'\]"),
    (True, Literal[1, 2], r"x is True, expected one of \[1, 2\]"),
    ((3, 0), tuple[Count, Count], r"x is \(3, 0\), expected 2 values, each a whole"),
    ((3,), tuple[Count, Count], "expected 2 values"),
    ([3, 4], tuple[Count, Count], "expected 2 values"),
    ((1,), tuple[str, ...], "expected any number of these: text"),
    (
        {"a": NAN},
        dict[str, bool | int | float | str],
        "x is {'a': nan}, expected names",
    ),
    (3, Path, "x is 3, expected a path"),
    (3, Bounds, "x is 3, expected Bounds"),
]


@pytest.mark.parametrize(("value", "hint"), GOOD)
def test_what_can_be_meant_passes(value, hint):
    check_value("x", value, hint)


@pytest.mark.parametrize(("value", "hint", "says"), BAD)
def test_what_cannot_be_meant_is_named_with_what_is_expected(value, hint, says):
    with pytest.raises(SettingError, match=says):
        check_value("x", value, hint)


def test_arguments_and_fields_by_name_are_checked_too():
    def command(n: Count, size: tuple[Count, Count] = (1, 1)) -> None: ...

    check_arguments(command, {"n": 1, "size": (2, 2)})
    with pytest.raises(SettingError, match=r"size is \(2, 0\)"):
        check_arguments(command, {"n": 1, "size": (2, 0)})

    @dataclasses.dataclass
    class Known:
        n: Count = 1

    check_settings(Known())
    check_named(Known, {"n": 2})
    with pytest.raises(SettingError, match="n is 0"):
        check_named(Known, {"n": 0})
    with pytest.raises(SettingError, match="no setting 'm': known are n"):
        check_named(Known, {"m": 0})


def config_classes() -> dict[str, type]:
    """Every class with settings: its name ends in Config, or it is Augmentation."""
    found = {}
    for package in ("act_minimal", "hardware"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and (
                    node.name.endswith("Config") or node.name == "Augmentation"
                ):
                    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                    kind = getattr(importlib.import_module(name), node.name)
                    if dataclasses.is_dataclass(kind):
                        found[node.name] = kind
    return found


CONFIGS = config_classes()
NEEDED: dict[str, dict[str, Any]] = {
    "ACTConfig": {"state_dim": 6, "action_dim": 6},
    "NetworkConfig": {"state_dim": 6, "action_dim": 6},
    "CameraConfig": {"source": "0"},
    "DiagnoseArmConfig": {"port": "p"},
    "DiagnoseConfig": {"policy": Path("p"), "data": Path("d")},
    "EvalConfig": {"policy": Path("p")},
    "ExportConfig": {"policy": Path("p"), "out": Path("o")},
    "MLPConfig": {"state_dim": 6, "action_dim": 6},
    "TrainConfig": {"data": Path("d"), "out": Path("o")},
}
for _name in ("RobotConfig", "DeployConfig", "TeleopConfig", "RecordConfig"):
    NEEDED[_name] = {"port": "p"}


def wrong_values(hint: Any) -> list[Any]:
    """Values that no field of this type may hold."""
    said = typing.get_args(hint) or (hint,)
    kinds = {typing.get_origin(one) or one for one in (hint, *said)}
    if tuple in kinds:
        return [(object(),)]
    if Annotated in kinds:
        hint = next(one for one in (hint, *said) if typing.get_origin(one) is Annotated)
        return wrong_values(typing.get_args(hint)[0])
    if kinds & {int, float}:
        return [NAN, INF, -INF, "many"]
    if Literal in kinds:
        return ["nonsense"]
    return [object()]


FIELDS = [
    (name, field.name)
    for name, config in CONFIGS.items()
    for field in dataclasses.fields(config)
]


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=map(".".join, FIELDS))
def test_every_field_of_every_config_is_checked(name, field):
    config, needed = CONFIGS[name], NEEDED.get(name, {})
    config(**needed)
    hint = typing.get_type_hints(config, include_extras=True)[field]
    for wrong in wrong_values(hint):
        with pytest.raises(SettingError) as error:
            config(**needed | {field: wrong})
        assert f"{field} is {wrong!r}, expected " in str(error.value)


def test_the_names_known_before_the_simulator_is_loaded_are_its_own():
    assert set(typing.get_args(TaskName)) == set(TASKS)


def test_the_bounds_of_the_flags_are_those_of_the_scenes():
    hints = typing.get_type_hints(cli.EvalConfig, include_extras=True)
    assert hints["n"].__metadata__ == (Bounds(1, evaluation.SEEDS_A_RUN),)
    assert hints["seed"].__metadata__ == (Bounds(0, evaluation.SEEDS - 1),)
    hints = typing.get_type_hints(cli.demo, include_extras=True)
    assert hints["seed"].__metadata__ == (Bounds(0, evaluation.SEEDS - 1),)
    hints = typing.get_type_hints(cli.record, include_extras=True)
    assert hints["n"].__metadata__ == (Bounds(1, SCENES_A_RUN // 3),)
