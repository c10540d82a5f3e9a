"""Simulated arms and tasks (MuJoCo), registered with Gymnasium.

`gymnasium.make("act_minimal/SO100PickPlace-v0")` after `import act_minimal.sim`.
"""

import inspect

from ..support.errors import SettingError
from ..support.extras import require
from ..support.gl import choose_gl_backend
from ..support.plugins import load_class

require("sim")
choose_gl_backend()  # MuJoCo reads MUJOCO_GL when it is imported

import gymnasium  # noqa: E402

from .openarm.handover import Handover  # noqa: E402
from .openarm.insertion import Insertion  # noqa: E402
from .so100.belt import Belt  # noqa: E402
from .so100.pick_place import PickPlace  # noqa: E402
from .world import Task, World  # noqa: E402

TASKS: dict[str, type] = {
    task.name: task for task in (PickPlace, Belt, Handover, Insertion)
}
NEEDED = (
    *Task.__annotations__,
    *(n for n, part in vars(Task).items() if inspect.isfunction(part) and n[0] != "_"),
)
GYM_IDS = {
    "act_minimal/SO100PickPlace-v0": PickPlace.name,
    "act_minimal/SO100Belt-v0": Belt.name,
    "act_minimal/OpenArmHandover-v0": Handover.name,
    "act_minimal/OpenArmInsertion-v0": Insertion.name,
}


def make_task(name: str) -> Task:
    """The task of this name (SettingError if unknown), or one's own `module:Class`."""
    if ":" in name:
        return load_class(name, NEEDED)()
    if name not in TASKS:
        raise SettingError(
            f"no task '{name}'; the tasks are: {', '.join(TASKS)}, or your own as "
            "module:Class"
        )
    return TASKS[name]()


for _id, _task in GYM_IDS.items():
    gymnasium.register(
        _id,
        entry_point="act_minimal.sim.env:TaskEnv",
        vector_entry_point="act_minimal.sim.env:TaskVectorEnv",
        max_episode_steps=TASKS[_task].max_ticks,
        kwargs={"task": _task},
    )

__all__ = [
    "GYM_IDS",
    "TASKS",
    "Handover",
    "Insertion",
    "PickPlace",
    "Task",
    "World",
    "make_task",
]
