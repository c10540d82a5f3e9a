"""Switches for what can go wrong with a virtual arm."""

from dataclasses import dataclass, fields
from typing import Any

from act_minimal.support.errors import SettingError


@dataclass
class Switches:
    """Base of a dataclass whose fields are fault switches, each off by default."""

    def set(self, changes: dict[str, Any]) -> None:
        """Turn switches; SettingError says what there is, or is expected."""
        known = [f.name for f in fields(self)]
        for name, value in changes.items():
            if name not in known:
                raise SettingError(
                    f"no fault '{name}'; the faults are: {', '.join(known)}"
                )
            usual = type(getattr(self, name))  # a bool is no number here
            if type(value) is not usual and not (usual is float and type(value) is int):
                raise SettingError(
                    f"fault {name} is {value!r}, expected a value like {usual()!r}"
                )
        for name, value in changes.items():
            setattr(self, name, value)
