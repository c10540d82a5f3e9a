"""How two arms are plugged in: their buses, and the table that they stand at.

    can0,can1            the right arm's bus and the left one's
    virtual_openarm      a file that says so; a virtual OpenArm leaves it under its name

The file may also be a person's own, of real arms:

    {"right": "can0", "left": "can1", "fd": true, "table": 0.4}
"""

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from act_minimal.support.errors import SettingError
from act_minimal.support.files import write_json

from .bus import VIRTUAL_RIGHT


@dataclass(frozen=True)
class Plug:
    """Where two arms are."""

    right: str = "can0"
    """The right arm's bus; see hardware/openarm/bus.py for what there is."""
    left: str = "can1"
    """The left arm's."""
    fd: bool = True
    """Speak CAN-FD."""
    table: float | None = None
    """m, its top over the pedestal's ground; None where there is none."""

    @property
    def is_virtual(self) -> bool:
        """Whether no real arm can be there."""
        return self.right.startswith(("udp_multicast:", "virtual:"))


def find_plug(port: str, flag: str = "port") -> Plug:
    """What a person means by a port: two buses, or a file's name.

    Raises:
        SettingError: it is neither; `flag` is what gave it.
    """
    right, comma, left = port.partition(",")
    if comma:
        if not right or not left or "," in left:
            raise SettingError(
                f"{flag} is '{port}', expected two buses, the right arm's first, such "
                "as can0,can1"
            )
        return Plug(right, left)
    if not Path(port).exists():
        raise SettingError(
            f"{flag} is '{port}', expected an OpenArm's two buses, such as can0,can1, "
            f"or a virtual one's name; start one with: act virtual --robot openarm "
            f"--port {port}"
        )
    return read_plug(Path(port))


def read_plug(path: Path) -> Plug:
    """The file of two arms; SettingError if it is no such file."""
    try:
        plug = Plug(**json.loads(path.read_text(encoding="utf-8")))
        kinds = {"right": str, "left": str, "fd": bool, "table": float | int | None}
        for name, value in asdict(plug).items():
            if not isinstance(value, kinds[name]):
                raise TypeError(f"{name} is {value!r}")
    except (OSError, ValueError, TypeError) as error:
        raise SettingError(
            f"{path} does not say where two OpenArms are plugged in ({error}); "
            'expected something like {"right": "can0", "left": "can1"}'
        ) from error
    return plug


def write_plug(path: Path, plug: Plug) -> None:
    """The file of two arms, for `read_plug`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(plug))


def free_channels() -> tuple[str, str]:
    """Two buses between processes that nobody uses: the system names free ports."""
    group = VIRTUAL_RIGHT.rpartition(":")[0]
    datagrams = socket.SOCK_DGRAM
    with socket.socket(type=datagrams) as one, socket.socket(type=datagrams) as other:
        one.bind(("", 0))
        other.bind(("", 0))
        right, left = (s.getsockname()[1] for s in (one, other))
    return f"{group}:{right}", f"{group}:{left}"
