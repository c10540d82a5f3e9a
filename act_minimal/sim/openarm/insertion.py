"""The task `openarm_insertion`: peg into socket in mid-air, one in each hand.

It is the ACT paper's Bimanual Insertion. Each hand takes its piece from the table.
"""

import numpy as np

from . import arms as openarm
from .table import ARM_NQ, TABLE, BimanualTask, holds, lying, rotation_of

PEG = np.array([0.028, 0.130, 0.028])  # m; y is the long way, as the socket's
HANDLE = np.array([0.030, 0.075, 0.030])  # m, from the socket's middle to its end
CUP_DEPTH = 0.055  # m, from the socket's middle to its opening
HOLE = 0.038  # m, edge: 5 mm of play on each side of the peg
WALL = 0.004  # m
CUP = HOLE + 2 * WALL  # m, outer edge

PEG_CENTRE = np.array([0.25, -0.19])  # m, where pegs are laid
SOCKET_CENTRE = np.array([0.25, 0.19])  # m, where sockets are laid
ZONE_SIZE = 0.10  # m, edge of both square zones
YAWS = np.radians([-20.0, 10.0])  # of the peg; the socket's are mirrored

DEEP = 0.030  # m: the peg's tip is this far inside
STRAIGHT = np.cos(0.25)  # between the axes of peg and socket, at most 0.25 rad
LIFTED = 0.06  # m: both are this high over the table
CALM = 0.15  # m/s


class Insertion(BimanualTask):
    """Scene, reset and strict success of the insertion.

    Peg and socket lie in zones of 10 × 10 cm on the right and on the left half of the
    table, each turned by 20° outwards up to 10° inwards. The peg must end in the
    socket, both held and in the air.
    """

    name = "openarm_insertion"
    env_state_dim = 14
    place_dim = 6

    def sample(
        self, rng: np.random.Generator, place: np.ndarray | None = None
    ) -> np.ndarray:
        """A start: both arms, peg (7,) and socket (7,), as qpos (32,).

        `place` (6,) is x and y over the zone and yaw, of the peg and of the socket.
        """
        arms = self.home(rng)
        place = rng.random(6) if place is None else place
        yaws = YAWS[0] + place[[2, 5]] * (YAWS[1] - YAWS[0])
        peg = PEG_CENTRE + (place[:2] - 0.5) * ZONE_SIZE
        socket = SOCKET_CENTRE + (place[3:5] - 0.5) * ZONE_SIZE
        peg_pose = lying(peg, PEG[2] / 2, yaws[0])
        socket_pose = lying(socket, CUP / 2, -yaws[1])
        return np.concatenate([arms, peg_pose, socket_pose])

    def placed(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """(n,) whether the peg is now in the socket, both held in the air."""
        peg, socket = qpos[:, ARM_NQ : ARM_NQ + 7], qpos[:, ARM_NQ + 7 : ARM_NQ + 14]
        lifted = np.minimum(peg[:, 2], socket[:, 2]) > TABLE + LIFTED
        if not lifted.any():  # nearly always: this runs at every tick
            return lifted
        peg_axes, socket_axes = rotation_of(peg[:, 3:]), rotation_of(socket[:, 3:])
        tip = peg[:, :3] + peg_axes[:, :, 1] * PEG[1] / 2 - socket[:, :3]
        tip = np.einsum("nji,nj->ni", socket_axes, tip)  # in the socket's frame
        inside = (np.abs(tip[:, [0, 2]]) < HOLE / 2).all(1)
        inside &= (tip[:, 1] > DEEP - CUP_DEPTH) & (tip[:, 1] < 0.01)
        inside &= (peg_axes[:, :, 1] * socket_axes[:, :, 1]).sum(1) > STRAIGHT
        held = holds("right", qpos, peg, np.zeros(3), PEG)
        held &= holds("left", qpos, socket, np.array([0, HANDLE[1] / 2, 0]), HANDLE)
        v = qvel[:, ARM_NQ:]
        speed = np.maximum(*(np.linalg.norm(v[:, i : i + 3], axis=1) for i in (0, 6)))
        return lifted & inside & held & (speed < CALM)

    def _objects_xml(self) -> str:
        contact = f'{openarm.OBJECT_CONTACT} friction="1 .005 .0001" condim="4"'
        x, y, z = PEG / 2
        handle, hole, wall, depth = HANDLE / 2, HOLE / 2, WALL / 2, CUP_DEPTH / 2
        side = hole + wall
        walls = "".join(
            f'<geom type="box" pos="{px} {-depth} {pz}" size="{sx} {depth} {sz}" '
            f'mass=".010" rgba=".16 .35 .75 1" {contact}/>'
            for px, pz, sx, sz in (
                (-side, 0, wall, hole + 2 * wall),
                (side, 0, wall, hole + 2 * wall),
                (0, -side, hole, wall),
                (0, side, hole, wall),
            )
        )
        # The handle is light, so that the socket lies flat on its cup.
        return f"""
    <body name="peg" pos="{PEG_CENTRE[0]} {PEG_CENTRE[1]} {TABLE + z}">
      <freejoint name="peg"/>
      <geom name="peg" type="box" size="{x} {y} {z}" mass=".05" rgba=".86 .15 .12 1"
            {contact}/>
      <geom type="box" pos="0 {y - 0.008} 0" size="{x + 0.0004} .0084 {z + 0.0004}"
            rgba=".95 .75 .1 1" contype="0" conaffinity="0" mass="0"/>
    </body>
    <body name="socket" pos="{SOCKET_CENTRE[0]} {SOCKET_CENTRE[1]} {TABLE + CUP / 2}">
      <freejoint name="socket"/>
      <geom type="box" pos="0 {handle[1]} 0" size="{handle[0]} {handle[1]} {handle[2]}"
            mass=".015" rgba=".12 .62 .35 1" {contact}/>
      <geom type="box" pos="0 .002 0" size="{hole} .002 {hole}" mass=".004"
            rgba=".16 .35 .75 1" {contact}/>
      {walls}
    </body>"""
