"""The exercises of each lesson: importing this registers all of them."""

from importlib import import_module
from pathlib import Path

LESSONS = sorted(path.stem for path in Path(__file__).parent.glob("lesson_*.py"))

for _name in LESSONS:
    import_module(f"{__name__}.{_name}")
