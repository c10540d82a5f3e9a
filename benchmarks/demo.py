"""Run `act demo` in a fresh folder and keep its result.

uv run python -m benchmarks.demo
uv run python -m benchmarks.demo --vision
uv run python -m benchmarks.demo --task openarm_handover
"""

import tempfile
from pathlib import Path

import tyro

from act_minimal.command.demo import USUAL, default_folder, run_demo

from .results import write


def main(
    task: str = USUAL, vision: bool = False, seed: int = 0, keep: Path | None = None
) -> None:
    """Write data/results/demo.json, demo_vision.json or demo_<task>.json.

    Args:
        task: a simulated task.
        vision: cameras instead of the cube's pose.
        seed: of the demo.
        keep: folder that stays (for the film); must not exist yet.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = keep or Path(folder) / "demo"
        if out.exists():
            raise SystemExit(f"{out} exists; a fresh folder is needed")
        result = run_demo(out, task, vision=vision, seed=seed)
    stages = result.pop("seconds")
    del result["command"], result["versions"]
    write(
        default_folder(task, vision).name, stages["total"], {"stages": stages, **result}
    )


if __name__ == "__main__":
    tyro.cli(main)
