"""How a result file is made: numbers, and all that one needs to make them again."""

import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from act_minimal.command.demo import versions
from act_minimal.support.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        rows = (
            line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines()
        )
        name = next((r[1].strip() for r in rows if r[0].strip() == "model name"), name)
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.system()}


def write(name: str, seconds: float, content: dict[str, Any]) -> Path:
    """Write data/results/<name>.json with the command that is running now."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem
    command = shlex.join(["uv", "run", "python", "-m", module, *sys.argv[1:]])
    path = RESULTS / f"{name}.json"
    head = {
        "command": command,
        "seconds": round(seconds, 1),
        "versions": versions(),
        "machine": machine(),
    }
    write_json(path, head | content)
    print(f"{path}: {json.dumps(content)[:300]} ...")
    return path
