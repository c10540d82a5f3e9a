"""How a scene looks in films: rounded shapes, servo horns, shadows, a sky.

Only `film_model`s are dressed. What policies see and what physics computes come from a
task's `model`, which has none of this.
"""

import itertools

import mujoco
import numpy as np

HIDDEN, SHOWN = 3, 2  # groups of geoms: what contacts are made with, what is drawn
HORN = ".55 .56 .58 1"
BOX = mujoco.mjtGeom.mjGEOM_BOX
MESH = mujoco.mjtGeom.mjGEOM_MESH
CYLINDER = mujoco.mjtGeom.mjGEOM_CYLINDER


def dress(spec: mujoco.MjSpec, *, horns: tuple[float, float] | None = None) -> None:
    """Make a scene fit to be looked at; it moves as before, to the bit.

    Every box that is drawn gets a rounded twin of its size (to 2 mm), and is hidden.
    `horns` is radius and half length, in m, of a disc on every hinge's axis.
    """
    for body in spec.bodies:
        boxes = [g for g in body.geoms if g.type == BOX and g.group < HIDDEN]
        for i, geom in enumerate(boxes):
            # Faces that lie in one plane would flicker.
            _round(spec, body, geom, 2e-4 * i)
        for joint in list(body.joints):
            if horns and joint.type == mujoco.mjtJoint.mjJNT_HINGE:
                radius, half = horns
                axis = np.array(joint.axis) / np.linalg.norm(joint.axis)
                ends = [*(joint.pos - half * axis), *(joint.pos + half * axis)]
                colour = [float(x) for x in HORN.split()]
                geom = _seen(body, CYLINDER, rgba=colour, fromto=ends)
                geom.size = [radius, 0, 0]
    # More of each takes two to three times as long to draw and looks the same.
    quality = spec.visual.quality
    quality.shadowsize, quality.numslices, quality.numstacks = 512, 20, 4
    # Relative to the scene's own light: a task that changes it looks changed.
    spec.visual.headlight.ambient = 0.84 * spec.visual.headlight.ambient
    for light in spec.lights:
        light.castshadow = True
    if not any(t.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX for t in spec.textures):
        spec.add_texture(
            name="sky",
            type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
            rgb1=[0.93, 0.95, 0.97],
            rgb2=[0.70, 0.76, 0.82],
            width=64,
            height=384,
        )


def _round(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, geom: mujoco.MjsGeom, more: float
) -> None:
    size = np.array(geom.size) + more
    mesh = spec.add_mesh(name=f"rounded {len(spec.meshes)}")
    mesh.uservert = rounded_box(size, 0.35 * min(size.min(), 0.02)).ravel()
    twin = _seen(body, MESH, rgba=geom.rgba, pos=geom.pos)
    twin.meshname = mesh.name
    # Angles of a geom may be given in many ways; those of a box are copied as they are.
    twin.quat, twin.alt.type = geom.quat, geom.alt.type
    twin.alt.euler = geom.alt.euler
    geom.group = HIDDEN


def _seen(body: mujoco.MjsBody, kind: mujoco.mjtGeom, **how) -> mujoco.MjsGeom:
    return body.add_geom(
        type=kind, group=SHOWN, contype=0, conaffinity=0, mass=0.0, **how
    )


def rounded_box(size: np.ndarray, radius: float, steps: int = 4) -> np.ndarray:
    """Points (n, 3) whose convex hull is a box of half `size` (3,) m, rounded.

    Eighths of a sphere stand in the corners.
    """
    angles = np.linspace(0, np.pi / 2, steps)
    eighth = [
        (np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b))
        for a, b in itertools.product(angles, angles)
    ]
    corner = np.unique(np.round(eighth, 9), axis=0) * radius + size - radius
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))
    return (signs[:, None] * corner).reshape(-1, 3)
