"""Films inside a notebook."""

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from act_minimal.support.video import read_frame

POSTER = 0.4  # share of the film that is over in its poster
POSTER_WIDTH = 960  # pixels, at most


@dataclass(frozen=True)
class Film:
    """An mp4 film as a notebook shows it, and a still of it where no film can be."""

    mp4: bytes
    alt: str
    poster: Image.Image = field(repr=False, compare=False)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        film, still = _base64(self.mp4), _base64(self._encoded("JPEG", quality=80))
        said = html.escape(self.alt, quote=True)
        jpeg = f"data:image/jpeg;base64,{still}"
        data = {
            "text/html": f'<video controls loop muted playsinline poster="{jpeg}" '
            f'aria-label="{said}" title="{said}" style="max-width:100%">'
            f'<source type="video/mp4" src="data:video/mp4;base64,{film}">'
            f'<img alt="{said}" src="{jpeg}" style="max-width:100%"></video>',
            "image/png": _base64(self._encoded("PNG", optimize=True)),
            "text/plain": repr(self),
        }
        return data, {"image/png": {"alt": self.alt}}

    def _encoded(self, kind: str, **how: Any) -> bytes:
        buffer = io.BytesIO()
        still = self.poster
        if kind == "PNG":
            # By coverage a small cube keeps its colour, with k-means all others, too.
            still = still.quantize(128, Image.Quantize.MAXCOVERAGE, kmeans=5)
        still.save(buffer, format=kind, **how)
        return buffer.getvalue()

    def __repr__(self) -> str:
        return f"[film: {self.alt}]"


def show_film(path: Path, alt: str) -> Film:
    """A film with its description, as the last line of a cell."""
    if len(alt.split()) < 4:
        raise ValueError(f"description {alt!r}: say in a sentence what the film shows")
    poster = Image.fromarray(read_frame(path, POSTER))
    poster.thumbnail((POSTER_WIDTH, 10 * POSTER_WIDTH))
    return Film(path.read_bytes(), alt, poster)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
