"""Films inside a notebook."""

import base64
import html
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Film:
    """An mp4 film as a notebook shows it."""

    mp4: bytes
    alt: str

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.mp4).decode()
        said = html.escape(self.alt, quote=True)
        return (
            f'<video controls loop muted aria-label="{said}" title="{said}" '
            f'style="max-width:100%"><source type="video/mp4" '
            f'src="data:video/mp4;base64,{data}">{said}</video>'
        )

    def __repr__(self) -> str:
        return f"[film: {self.alt}]"


def show_film(path: Path, alt: str) -> Film:
    """A film with its description, as the last line of a cell."""
    if len(alt.split()) < 4:
        raise ValueError(f"description {alt!r}: say in a sentence what the film shows")
    return Film(path.read_bytes(), alt)
