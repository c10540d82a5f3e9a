"""The task `openarm_handover`: the right hand gives a bar to the left (two OpenArms).

It is the ACT paper's Transfer Cube. The bar is as long as two of OpenArm's broad
fingertips need it to be.
"""

import numpy as np

from . import arms as openarm
from .table import ARM_NQ, TABLE, BimanualTask, holds, in_hand, lying

BAR = np.array([0.030, 0.130, 0.030])  # m; y is the long way
ZONE_CENTRE = np.array([0.25, -0.19])  # m, where bars are laid
ZONE_SIZE = 0.15  # m, edge of the square zone
YAWS = np.radians([-30.0, 15.0])  # of the bar; as far as the wrist turns everywhere

LIFTED = 0.06  # m: the bar's middle is this high over the table
AWAY = 0.06  # m from the right fingertips' middle to the bar, at least
CALM = 0.15  # m/s


class Handover(BimanualTask):
    """Scene, reset and strict success of the handover.

    The bar lies in a 15 × 15 cm zone on the right half of the table, turned by 30° to
    the right up to 15° to the left. It must end in the left hand alone, in the air.
    """

    name = "openarm_handover"

    def sample(
        self, rng: np.random.Generator, place: np.ndarray | None = None
    ) -> np.ndarray:
        """A start: both arms, then the bar's pose (7,), as qpos (25,).

        `place` (3,) is x and y over the zone, and yaw.
        """
        arms = self.home(rng)
        place = rng.random(3) if place is None else place
        xy = ZONE_CENTRE + (place[:2] - 0.5) * ZONE_SIZE
        yaw = YAWS[0] + place[2] * (YAWS[1] - YAWS[0])
        return np.concatenate([arms, lying(xy, BAR[2] / 2, yaw)])

    def placed(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """(n,) whether the left hand, and it alone, now holds the bar in the air."""
        lifted = qpos[:, ARM_NQ + 2] > TABLE + LIFTED
        if not lifted.any():  # nearly always: this runs at every tick
            return lifted
        bar = qpos[:, ARM_NQ : ARM_NQ + 7]
        held = holds("left", qpos, bar, np.zeros(3), BAR)
        right = np.abs(in_hand("right", qpos, bar[:, :3], bar[:, 3:]))
        distance = np.linalg.norm(np.maximum(right - BAR / 2, 0), axis=1)
        calm = np.linalg.norm(qvel[:, ARM_NQ : ARM_NQ + 3], axis=1) < CALM
        return lifted & held & (distance > AWAY) & calm

    def _objects_xml(self) -> str:
        x, y, z = BAR / 2
        return f"""
    <body name="bar" pos="{ZONE_CENTRE[0]} {ZONE_CENTRE[1]} {TABLE + z}">
      <freejoint name="bar"/>
      <geom name="bar" type="box" size="{x} {y} {z}" mass=".06" rgba=".86 .15 .12 1"
            {openarm.OBJECT_CONTACT} friction="1 .005 .0001" condim="4"/>
      <geom type="box" size="{x + 0.0004} .012 {z + 0.0004}" rgba=".95 .75 .1 1"
            contype="0" conaffinity="0" mass="0"/>
    </body>"""
