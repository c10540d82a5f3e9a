"""What films show that policies do not see, and what a policy intends."""

from contextlib import closing
from typing import Any

import mujoco
import numpy as np
import pytest

from act_minimal.sim import TASKS, make_task
from act_minimal.sim.film import RIBBON, STILL, Stage, Take, film
from act_minimal.sim.so100.changed_scenes import Change, ChangedPickPlace
from act_minimal.sim.visuals import HIDDEN, SHOWN, rounded_box
from act_minimal.sim.world import World

TASK = make_task("so100_pick_place")
SIZE = (96, 128)


@pytest.fixture(scope="module")
def stage():
    with closing(Stage(TASK, (192, 256), smooth=False)) as one:
        yield one


def start(task: Any, seed=0):
    return task.sample(np.random.default_rng(seed))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_films_move_as_the_task_does_and_policies_see_none_of_it(name):
    task = make_task(name)
    models = task.model(), task.film_model()
    ends = []
    for model in models:
        data, rng = mujoco.MjData(model), np.random.default_rng(1)
        data.qpos[:] = start(task)
        for tick in range(200):
            if tick % 10 == 0:
                action = rng.uniform(*task.action_limits.T)
            data.ctrl[:] = task.ctrl(action[None])[0]
            mujoco.mj_step(model, data, task.substeps)
        ends.append((data.qpos.copy(), data.qvel.copy()))
    assert np.abs(ends[0][0] - start(task)).max() > 0.1
    for one, other in zip(*ends, strict=True):
        assert np.array_equal(one, other)

    seen, shown = (set(model.geom_group.tolist()) for model in models)
    assert seen == {0}
    assert {SHOWN, HIDDEN} <= shown
    assert models[0].nmesh == 0
    assert models[0].vis.quality.shadowsize == 0
    assert not models[0].light_castshadow.any()
    assert models[1].light_castshadow.all()
    added = models[1].geom_group == SHOWN
    assert not models[1].geom_contype[added].any()
    assert not models[1].geom_conaffinity[added].any()


def test_a_policys_camera_draws_neither_twins_nor_shadows():
    with closing(World(TASK)) as world:
        world.reset([0])
        world.render("top", SIZE)
        (renderer,) = world._renderers.values()
        flags = mujoco.mjtRndFlag
        assert not renderer.scene.flags[flags.mjRND_SHADOW]
        assert not renderer.scene.flags[flags.mjRND_REFLECTION]
        groups = {world.model.geom_group[g.objid] for g in shown_geoms(renderer)}
        assert groups == {0}


def shown_geoms(renderer):
    scene = renderer.scene
    geoms = [scene.geoms[i] for i in range(scene.ngeom)]
    return [g for g in geoms if g.objtype == mujoco.mjtObj.mjOBJ_GEOM]


def test_films_draw_the_rounded_twins_in_the_boxes_places(stage):
    stage.draw(start(TASK), "scene")
    model, data = stage.model, stage._data
    drawn = {g.objid for g in shown_geoms(stage._renderer)}
    hidden = np.flatnonzero(model.geom_group == HIDDEN)
    assert len(hidden) > 20
    assert not drawn & set(hidden.tolist())
    mujoco.mj_forward(model, data)
    for box in hidden:
        body = model.geom_bodyid[box]
        meshes = [
            g
            for g in range(model.ngeom)
            if model.geom_bodyid[g] == body
            and model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH
        ]
        assert set(meshes) <= drawn
        # One of them fills the box: its middle, and corners that are near.
        offsets = np.linalg.norm(data.geom_xpos[meshes] - data.geom_xpos[box], axis=1)
        twin = meshes[int(np.argmin(offsets))]
        assert offsets.min() < 1e-6
        rgba = model.geom_rgba
        assert np.array_equal(rgba[twin], rgba[box]) or body == 0


def test_a_rounded_box_fills_its_box_but_for_the_corners():
    size, radius = np.array([0.03, 0.02, 0.01]), 0.004
    points = rounded_box(size, radius)
    assert np.abs(points).max(0) == pytest.approx(size)
    inwards = size - np.abs(points)
    assert inwards.min() > -1e-12
    assert np.linalg.norm(inwards, axis=1).min() > 0.7 * radius * (np.sqrt(3) - 1)


def test_a_changed_scene_looks_changed_in_films(stage):
    colour = ChangedPickPlace(Change(cube_colour=(0.1, 0.6, 0.2)))
    with closing(Stage(colour, (192, 256), smooth=False)) as other:
        one = stage.draw(start(TASK), "scene").astype(int)
        two = other.draw(start(TASK), "scene").astype(int)
    assert np.abs(one - two).max() > 60


def test_films_show_changed_light_as_policies_see_it():
    seen, shown = {}, {}
    for light in (1.0, 0.5):
        task = ChangedPickPlace(Change(light=(light, light, light)))
        with closing(World(task)) as world, closing(Stage(task, SIZE)) as stage:
            world.reset([0])
            table = slice(SIZE[0] // 2, None)  # without the sky
            seen[light] = world.render("scene", SIZE)[table].mean()
            shown[light] = stage.draw(world.qpos[0], "scene")[table].mean()
    change = seen[0.5] / seen[1.0]
    assert change < 0.6
    assert shown[0.5] / shown[1.0] == pytest.approx(change, abs=0.05)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_fingertips_of_an_action_are_where_the_arm_goes(name):
    task: Any = make_task(name)
    qpos = start(task)
    actions = np.repeat(task.state(qpos[None]), 2, axis=0)
    actions[1, 1] += 0.2
    with closing(Stage(task, SIZE, smooth=False)) as stage:
        points = stage.fingertips(qpos, actions)  # (tips, k, 3)
    data = mujoco.MjData(model := task.model())
    assert points.shape == (len(task.tips), 2, 3)
    for j, action in enumerate(actions):
        data.qpos[:] = qpos
        data.ctrl[:] = task.ctrl(action[None])[0]
        for driven in range(model.nu):
            joint = model.actuator_trnid[driven, 0]
            data.qpos[model.jnt_qposadr[joint]] = data.ctrl[driven]
        mujoco.mj_kinematics(model, data)
        for i, tip in enumerate(task.tips):
            assert points[i, j] == pytest.approx(data.site(tip).xpos)
    assert np.linalg.norm(points[0, 1] - points[0, 0]) > 0.01


def test_a_chunk_is_a_ball_and_a_ribbon_that_fades(stage):
    qpos = start(TASK)
    qpos[:6] = [0.1, -1.3, 1.2, 1.3, -1.57, 0.5]
    chunk = np.repeat(TASK.state(qpos[None]), 2 * RIBBON + 2, axis=0)
    chunk[:, 0] += np.linspace(0.3, 1.0, len(chunk))
    plain = stage.draw(qpos, "scene").astype(int)
    whole = stage.draw(qpos, "scene", chunk).astype(int)
    shapes = decoration(stage)
    alphas = [g.rgba[3] for g in shapes]
    assert len(alphas) == 4  # the ball, two pieces of three actions, one of one
    _, *middles = [g.pos.copy() for g in shapes]
    (path,) = stage.fingertips(qpos, chunk)
    ends = [(0, RIBBON), (RIBBON, 2 * RIBBON), (2 * RIBBON, 2 * RIBBON + 1)]
    for middle, (first, last) in zip(middles, ends, strict=True):
        assert middle == pytest.approx((path[first] + path[last]) / 2, abs=1e-6)
    assert alphas == sorted(alphas, reverse=True)
    assert alphas[0] == 1
    assert alphas[-1] < 0.1
    single = stage.draw(qpos, "scene", chunk[:1]).astype(int)
    assert len(decoration(stage)) == 1
    green = [((plain - p)[..., 0] > 30).sum() for p in (single, whole)]
    assert 1 < green[0] < green[1]
    assert np.array_equal(stage.draw(qpos, "scene").astype(int), plain)


def decoration(stage):
    scene = stage._renderer.scene
    geoms = [scene.geoms[i] for i in range(scene.ngeom)]
    return [g for g in geoms if g.category == mujoco.mjtCatBit.mjCAT_DECOR]


def test_a_film_asks_the_policy_at_every_frame_that_it_shows(tmp_path, monkeypatch):
    class Watching:
        cameras, image_sizes = ("top",), {"top": (16, 16)}

        def __init__(self):
            self.asked = []

        def predict_chunk(self, observation):
            assert observation["images/top"].shape == (1, 16, 16, 3)
            self.asked.append(observation["qpos"][0])
            return np.repeat(observation["qpos"][:, None], 3, axis=1)

    states = np.repeat(start(TASK)[None], 9, axis=0)
    states[:, 0] += np.linspace(0, 0.8, 9)
    drawn = []
    draw = Stage.draw

    def spy(self, qpos, camera, chunk=None):
        drawn.append(chunk)
        return draw(self, qpos, camera, chunk)

    monkeypatch.setattr(Stage, "draw", spy)
    policy: Any = Watching()
    take = Take("x", states, True, policy)
    path = tmp_path / "x.mp4"
    film(TASK, [take], path, size=SIZE, cameras=("side",), progress=False)
    assert np.array(policy.asked)[:, 0] == pytest.approx(states[::4, 0])
    assert [c.shape for c in drawn] == [(3, 6)] * 3
    assert [c[0, 0] for c in drawn] == pytest.approx(states[::4, 0])


def test_a_state_that_looks_the_same_is_not_drawn_again(tmp_path, monkeypatch):
    drawn = []
    draw = Stage.draw

    def spy(self, qpos, camera, chunk=None):
        drawn.append(qpos[0])
        return draw(self, qpos, camera, chunk)

    monkeypatch.setattr(Stage, "draw", spy)
    states = np.repeat(start(TASK)[None], 24, axis=0)
    # Slow, but far in the end: each is compared with the one drawn last.
    states[:, 0] = np.arange(24) * STILL / 7
    take, path = Take("x", states, True), tmp_path / "x.mp4"
    film(TASK, [take], path, size=SIZE, cameras=("side",), progress=False)
    assert drawn == pytest.approx(np.array([0, 8, 16]) * STILL / 7)


def test_a_task_without_fingertips_is_filmed_without_its_chunks(tmp_path):
    class Own(ChangedPickPlace):
        tips = ()

    unasked: Any = object()
    task = Own(Change())
    states = np.repeat(start(task)[None], 4, 0).astype(np.float32)
    takes = [Take("x", states, True, unasked)]
    film(task, takes, tmp_path / "x.mp4", size=(48, 64), progress=False)
    assert (tmp_path / "x.mp4").stat().st_size > 0
