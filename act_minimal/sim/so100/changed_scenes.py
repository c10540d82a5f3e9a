"""The pick-and-place task as it was not demonstrated: camera, cube, light, gripper."""

from dataclasses import dataclass

import mujoco
import numpy as np

from .pick_place import CUBE_SIZE, PickPlace

OPEN, CLOSED = 0.75, 0.02  # openings that a gripper with two positions knows


@dataclass(frozen=True)
class Change:
    """What differs from `so100_pick_place`; nothing, by default.

    Scenes keep their numbers: the same cube poses, seen or held otherwise.
    """

    camera: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Shift of the camera `top` in m: x to the right in its picture, y away from the
    camera towards the arm's base, z up."""
    cube_colour: tuple[float, float, float] | None = None
    """Red, green, blue from 0 to 1; None = the red of the demonstrations."""
    cube_size: float = CUBE_SIZE
    """Edge of the cube, m; its mass stays what it is."""
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors on all light, red, green and blue."""
    gripper_threshold: float | None = None
    """A gripper with two positions: an opening above this opens it, any other closes
    it. None = a gripper that goes where it is asked to."""

    @property
    def name(self) -> str:
        """What differs, in words; the same words mean the same change."""
        words = [
            f"camera {axis} {100 * x:+g} cm"
            for axis, x in zip("xyz", self.camera, strict=True)
            if x
        ]
        if self.cube_colour:
            words.append("cube " + " ".join(f"{x:g}" for x in self.cube_colour))
        if self.cube_size != CUBE_SIZE:
            words.append(f"cube {1000 * self.cube_size:g} mm")
        if self.light != (1.0, 1.0, 1.0):
            words.append("light " + " ".join(f"{x:g}" for x in self.light))
        if self.gripper_threshold is not None:
            words.append(f"gripper threshold {self.gripper_threshold:g}")
        return ", ".join(words)


class ChangedPickPlace(PickPlace):
    """`so100_pick_place` with a `Change`; without one, the same to the bit."""

    def __init__(self, change: Change | None = None):
        self.change = change or Change()
        if self.change.name:
            self.name = f"{PickPlace.name} ({self.change.name})"

    def spec(self) -> mujoco.MjSpec:
        change, spec = self.change, super().spec()
        camera, cube = spec.camera("top"), spec.geom("cube")
        camera.pos = camera.pos + np.array(change.camera)
        cube.size = np.full(3, change.cube_size / 2)
        if change.cube_colour:
            cube.rgba = [*change.cube_colour, 1.0]
        for light in (spec.visual.headlight, *spec.lights):
            light.ambient = light.ambient * np.array(change.light)
            light.diffuse = light.diffuse * np.array(change.light)
        return spec

    def sample(
        self, rng: np.random.Generator, place: np.ndarray | None = None
    ) -> np.ndarray:
        """The same start, with the cube lying on the table."""
        start = super().sample(rng, place)
        start[8] += (self.change.cube_size - CUBE_SIZE) / 2
        return start

    def ctrl(self, action: np.ndarray) -> np.ndarray:
        """A gripper with two positions takes the nearer one."""
        if self.change.gripper_threshold is not None:
            action = np.array(action, dtype=np.float64)
            wide = action[:, 5] > self.change.gripper_threshold
            action[:, 5] = np.where(wide, OPEN, CLOSED)
        return super().ctrl(action)
