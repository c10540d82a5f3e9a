"""Where the course keeps what it makes, and on what machine it runs."""

import os
from pathlib import Path

from act_minimal.support.errors import UserError

ROOT = Path(__file__).parents[2]


def folder() -> Path:
    """Folder of predictions, demonstrations, runs: runs/course of the repository.

    ACT_MINIMAL_COURSE chooses another one: a class on one machine gives each learner
    their own. It need not be there yet.
    """
    chosen = os.environ.get("ACT_MINIMAL_COURSE")
    return Path(chosen) if chosen else ROOT / "runs" / "course"


def home() -> Path:
    """The same folder; it is made where it is not there yet."""
    path = folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be made ({error.strerror}); set ACT_MINIMAL_COURSE to a "
            "folder that can be written"
        ) from error
    return path


class Line(str):
    """A line of text that a cell shows without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def begin(lesson: str) -> Line:
    """Get a lesson ("04") ready; returns one line about the machine."""
    import torch

    from act_minimal.support.gl import choose_gl_backend

    # Small networks are fastest on one thread, and two notebooks may run at once.
    torch.set_num_threads(1)
    backend = choose_gl_backend()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return Line(
        f"Lesson {lesson} · torch {torch.__version__.partition('+')[0]} · "
        f"{os.cpu_count()} CPU cores · {gpu} · pictures drawn with {backend or 'glfw'}"
    )
