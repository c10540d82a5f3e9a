"""What an arm's bodies touch, as MuJoCo sees it: how deep, and how hard on the table.

For the witnesses of both virtual arms. It looks at the shapes of the model alone, and
knows nothing of the guard bodies that shall keep them apart.
"""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

DEEP = 0.002  # m, and
HARD, LASTING = 15.0, 0.3  # N on the table for so many s: what must not be


@dataclass
class Touch:
    """Extremes since it was made."""

    deepest: float = 0.0
    """m that an arm's bodies were in each other, in the other arm, or in the table."""
    where: str = ""
    strongest: float = 0.0
    """N, with which they pressed on the table."""
    pressed: float = 0.0
    """s, the longest time that it was more than HARD."""
    _since: float = 0.0

    @property
    def well(self) -> bool:
        """Nothing was in anything, and nothing pressed for long."""
        return self.deepest <= DEEP and self.pressed <= LASTING

    def look(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """After each step of physics."""
        force = 0.0
        if data.ncon:
            force = self._contacts(model, data)
        self._since = self._since + model.opt.timestep if force > HARD else 0.0
        self.strongest = max(self.strongest, force)
        self.pressed = max(self.pressed, self._since)

    def _contacts(self, model: mujoco.MjModel, data: mujoco.MjData) -> float:
        """Returns the force on the table, N."""
        contact = data.contact
        bodies = model.geom_bodyid[contact.geom]  # (n, 2)
        table = contact.geom == _table(model)
        # Objects move freely, and what stands around is part of the world. Neighbours,
        # and the fingers of one hand, may touch.
        free = model.body_dofnum[bodies] == 6
        arm = (bodies > 0) & ~free
        parents = model.body_parentid[bodies]
        kin = (parents == bodies[:, ::-1]).any(1) | (parents[:, 0] == parents[:, 1])
        judged = ((arm.all(1) & ~kin) | (arm.any(1) & table.any(1))).nonzero()[0]
        total, wrench = 0.0, np.zeros(6)
        for i in judged:
            if -contact.dist[i] > self.deepest:
                self.deepest = -float(contact.dist[i])
                names = [_name(model, int(geom)) for geom in contact.geom[i]]
                self.where = " and ".join(names)
            if table[i].any():
                mujoco.mj_contactForce(model, data, int(i), wrench)
                total += float(wrench[0])
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}


def _table(model: mujoco.MjModel) -> int:
    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "table")


def _name(model: mujoco.MjModel, geom: int) -> str:
    return model.geom(geom).name or model.body(model.geom_bodyid[geom]).name
