"""What a virtual arm went through; what its bodies touched, and how hard.

That is judged by the shapes of the MuJoCo model alone, and not by the guard bodies that
shall keep them apart.
"""

from dataclasses import dataclass, field
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
    strongest: float = 0.0  # N, with which an arm pressed on the table
    pressed: float = 0.0  # s, the longest time that it was more than HARD
    _since: np.ndarray | float = 0.0  # (bodies,) s of it until now, at each arm's base
    _table: int = -1
    _judged: np.ndarray | None = None

    @property
    def well(self) -> bool:
        """Nothing was in anything, and nothing pressed for long."""
        return self.deepest <= DEEP and self.pressed <= LASTING

    def look(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        if self._judged is None:
            self._table = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "table")
            self._judged = _judged(model, self._table)
        force = self._contacts(model, data, self._judged)
        since = (self._since + model.opt.timestep) * (force > HARD)
        self.strongest = max(self.strongest, float(force.max()))
        self.pressed = max(self.pressed, float(since.max()))
        self._since = since

    def _contacts(
        self, model: mujoco.MjModel, data: mujoco.MjData, judged: np.ndarray
    ) -> np.ndarray:
        """Returns what each arm presses with on the table, N, at its base (bodies,)."""
        force, wrench = np.zeros(model.nbody), np.zeros(6)
        if not data.ncon:
            return force
        pairs = data.contact.geom  # (n, 2)
        for i in judged[pairs[:, 0], pairs[:, 1]].nonzero()[0].tolist():
            depth = -float(data.contact.dist[i])
            if depth > self.deepest:
                self.deepest = depth
                names = [_name(model, int(geom)) for geom in pairs[i]]
                self.where = " and ".join(names)
            if self._table in pairs[i]:
                mujoco.mj_contactForce(model, data, i, wrench)
                bodies = model.geom_bodyid[pairs[i]]
                force[model.body_rootid[bodies].max()] += wrench[0]
        return force

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}


@dataclass
class Witness:
    """What an arm went through: extremes since it was made; each arm adds its own."""

    falls: int = 0  # times that an arm which was raised lost much of its torque at once
    touch: Touch = field(default_factory=Touch)
    """What its bodies were in, or pressed on."""

    def to_json(self) -> dict[str, Any]:
        seen = vars(self) | {"touch": self.touch.to_json()}
        return {
            k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in seen.items()
        }


def _judged(model: mujoco.MjModel, table: int) -> np.ndarray:
    """(geoms, geoms) whether a contact of these two shapes is one to be judged.

    Objects move freely, and what stands around is part of the world. Neighbours, and
    the fingers of one hand, may touch.
    """
    body = model.geom_bodyid
    arm = (body > 0) & (model.body_dofnum[body] != 6)
    parent = model.body_parentid[body]
    child = parent[:, None] == body
    kin = child | child.T | (parent[:, None] == parent)
    is_table = np.arange(model.ngeom) == table
    on_table = (arm[:, None] & is_table) | (is_table[:, None] & arm)
    return np.asarray((arm[:, None] & arm & ~kin) | on_table)


def _name(model: mujoco.MjModel, geom: int) -> str:
    return model.geom(geom).name or model.body(model.geom_bodyid[geom]).name
