"""Make the README's first picture from the rollouts of a demo.

uv run act demo
uv run python -m benchmarks.notebooks.picture

The first sixteen scenes, the same for both policies, whatever their outcome.
The counters count all rollouts of the demo, and end at its rates.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open

from act_minimal.sim import make_task
from act_minimal.sim.film import FAILURE, SUCCESS, Stage
from act_minimal.support.errors import UserError
from act_minimal.support.files import atomic_file, read_json

from ..results import ROOT

TITLES = {"act": "ACT", "single_step": "single-step cloning"}
SCENES, COLUMNS = 16, 4
SIZE = (84, 112)  # of a scene's picture
LINE, GAP = 26, 16  # pixels: over the scenes, between the policies
STRIDE, DELAY = 15, 100  # ticks and ms a frame: five times the real speed
COLOURS = 96
LAST = 3000  # ms that the last frame stands
INK = (40, 40, 40)
CUBE, DARK_CUBE = (190, 35, 30), (130, 22, 20)


class Rolled:
    """A policy's rollouts in a demo's folder: states, and when each succeeded."""

    def __init__(self, demo: Path, policy: str):
        self.rows: list[dict[str, Any]] = []
        self.qpos: dict[int, np.ndarray] = {}
        for path in (demo / "rollouts" / policy).glob("rollouts_*.safetensors"):
            with safe_open(path, "np") as file:
                rows = json.loads(file.metadata()["rollouts"])
                self.qpos |= {
                    r["scene"]: file.get_tensor(str(r["scene"])) for r in rows
                }
                self.rows += rows
        if not self.rows:
            raise UserError(f"{demo} holds no rollouts of {policy}; run: act demo")
        self.rows.sort(key=lambda row: row["scene"])
        expected = read_json(demo / "result.json")[policy]
        found = sum(row["success"] for row in self.rows)
        if (found, len(self.rows)) != (expected["successes"], expected["n"]):
            raise UserError(
                f"{demo} has {found} of {len(self.rows)} successes of {policy}, its "
                f"result.json {expected['successes']} of {expected['n']}"
            )

    def counter(self, tick: int) -> str:
        """How many had succeeded, of all, by a tick."""
        n = len(self.rows)
        done = sum(row["success"] and row["ticks"] <= tick for row in self.rows)
        return f"{done} of {n} succeeded ({100 * done / n:.0f} %)"


def frames(demo: Path) -> list[Image.Image]:
    """The picture's frames."""
    task = make_task(read_json(demo / "result.json")["task"])
    rolled = {name: Rolled(demo, name) for name in TITLES}
    scenes = [row["scene"] for row in rolled["act"].rows[:SCENES]]
    if [row["scene"] for row in rolled["single_step"].rows[:SCENES]] != scenes:
        raise UserError(f"{demo} has other scenes for one policy than for the other")
    every = [row["ticks"] for one in rolled.values() for row in one.rows]
    stage = Stage(task, (2 * SIZE[0], 2 * SIZE[1]), smooth=False)
    font = ImageFont.load_default(16)
    height, width = SIZE
    half = COLUMNS * width
    whole = (2 * half + GAP, LINE + -(-len(scenes) // COLUMNS) * height)
    made, cells = [], dict[tuple[str, int], Image.Image]()
    try:
        for tick in range(0, max(every) + STRIDE, STRIDE):
            image = Image.new("RGB", whole, "white")
            pen = ImageDraw.Draw(image)
            for side, (name, one) in enumerate(rolled.items()):
                left = side * (half + GAP)
                text = f"{TITLES[name]}: {one.counter(tick)}"
                pen.text((left + 2, 3), text, INK, font)
                for i, row in enumerate(one.rows[: len(scenes)]):
                    over = tick >= row["ticks"]
                    if not over or not tick:
                        states = one.qpos[row["scene"]]
                        drawn = Image.fromarray(stage.draw(states[tick], "scene"))
                        cells[name, i] = drawn.resize(
                            (width, height), Image.Resampling.BOX
                        )
                    x = left + i % COLUMNS * width
                    y = LINE + i // COLUMNS * height
                    image.paste(cells[name, i], (x, y))
                    if over:
                        colour = SUCCESS if row["success"] else FAILURE
                        edge = (x, y, x + width - 1, y + height - 1)
                        pen.rectangle(edge, outline=colour, width=3)
            made.append(image)
    finally:
        stage.close()
    return made


def _palette(picture: Image.Image) -> Image.Image:
    """The picture, with more of the colours that are small in it: cube and frames."""
    source = picture.copy()
    for i, colour in enumerate((CUBE, DARK_CUBE, SUCCESS, FAILURE, INK)):
        source.paste(colour, (0, 40 * i, 60, 40 * i + 40))
    return source


def main(
    demo: Path = Path("runs/demo"), out: Path = ROOT / "docs" / "demo.gif"
) -> None:
    """One palette and no dithering: what stands still costs nothing."""
    pictures = frames(demo)
    palette = _palette(pictures[-1]).quantize(COLOURS)
    flat = [x.quantize(palette=palette, dither=Image.Dither.NONE) for x in pictures]
    delays = [DELAY] * (len(flat) - 1) + [LAST]
    with atomic_file(out) as temporary:
        flat[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=flat[1:],
            duration=delays,
            loop=0,
            optimize=False,
        )
    size = out.stat().st_size
    print(f"{out}: {len(flat)} frames, {size / 1e6:.1f} MB")
    if size > 3e6:
        raise UserError(f"{out} has {size} bytes, expected at most three million")


if __name__ == "__main__":
    tyro.cli(main)
