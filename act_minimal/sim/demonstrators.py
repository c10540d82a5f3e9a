"""Which expert demonstrates which task."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..support.errors import SettingError
from .openarm.experts import HandoverExpert, InsertionExpert
from .openarm.handover import Handover
from .openarm.insertion import Insertion
from .so100.belt import Belt
from .so100.expert import BeltExpert, Expert
from .so100.pick_place import PickPlace
from .world import Task


class Demonstrator(Protocol):
    """Plans whole episodes of a task."""

    def plan(self, start: np.ndarray, seed: int) -> np.ndarray:
        """Actions (T, A), one a tick, for a scene's start qpos (nq,).

        `seed` is of the style; a scripted expert ignores it.
        """
        ...


@dataclass(frozen=True)
class OwnExpert:
    """A task of one's own that plans its demonstrations itself."""

    task: Any
    demonstrator: str

    def plan(self, start: np.ndarray, seed: int) -> np.ndarray:
        """See `Demonstrator.plan`; the task is also told which demonstrator it is."""
        return self.task.plan(start, seed, self.demonstrator)


def make_expert(task: Task, demonstrator: str = "scripted") -> Demonstrator:
    """The expert of a task, or of the task that it is a variant of."""
    if hasattr(task, "plan"):  # one's own, which demonstrates itself
        return OwnExpert(task, demonstrator)
    experts: dict[type, type] = {
        Belt: BeltExpert,  # before the task that it is a variant of
        PickPlace: Expert,
        Handover: HandoverExpert,
        Insertion: InsertionExpert,
    }
    for kind, expert in experts.items():
        if isinstance(task, kind):
            return expert(task, demonstrator)
    raise SettingError(f"no expert demonstrates {task.name}")
