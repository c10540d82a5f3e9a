"""Make the README's picture from the film of a demo.

uv run act demo
uv run python -m benchmarks.picture
"""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import tyro
from PIL import Image

from act_minimal.files import atomic_file

ROOT = Path(__file__).parents[1]


def main(
    film: Path = Path("runs/demo/film.mp4"), out: Path = ROOT / "docs" / "demo.gif"
) -> None:
    """Every third frame, half the size, 128 colours: about two megabytes."""
    frames = [
        Image.fromarray(np.asarray(frame)).reduce(2).quantize(128)
        for frame in iio.imiter(film, plugin="FFMPEG")
    ][::3]
    with atomic_file(out) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=100,
            loop=0,
            optimize=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
