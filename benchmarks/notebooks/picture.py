"""Make the README's picture from the film of a demo.

uv run act demo
uv run python -m benchmarks.notebooks.picture
"""

from pathlib import Path

import av
import tyro

from act_minimal.support.files import atomic_file

from ..results import ROOT


def main(
    film: Path = Path("runs/demo/film.mp4"), out: Path = ROOT / "docs" / "demo.gif"
) -> None:
    """Every third frame, half the size, 128 colours: about two megabytes."""
    with av.open(str(film)) as container:
        frames = [
            frame.to_image().reduce(2).quantize(128)
            for frame in container.decode(video=0)
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
