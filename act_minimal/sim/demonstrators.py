"""Which expert demonstrates which task."""

from typing import Protocol

import numpy as np

from ..errors import SettingError
from .bimanual_experts import HandoverExpert, InsertionExpert
from .experts import Expert
from .handover import Handover
from .insertion import Insertion
from .pick_place import PickPlace
from .world import Task


class Demonstrator(Protocol):
    """Plans whole episodes of a task."""

    def plan(self, start: np.ndarray, seed: int) -> np.ndarray:
        """Actions (T, A), one a tick, for a scene's start qpos (nq,).

        Args:
            start: the scene's first qpos.
            seed: of the style; a scripted expert ignores it.
        """
        ...


def make_expert(task: Task, demonstrator: str = "scripted") -> Demonstrator:
    """The expert of a task, or of the task that it is a variant of.

    Raises:
        SettingError: nobody demonstrates this task.
        UserError: unknown demonstrator; lists the known ones.
    """
    experts: dict[type, type] = {
        PickPlace: Expert,
        Handover: HandoverExpert,
        Insertion: InsertionExpert,
    }
    for kind, expert in experts.items():
        if isinstance(task, kind):
            return expert(task, demonstrator)
    raise SettingError(f"no expert demonstrates {task.name}")
