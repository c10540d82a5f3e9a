"""The simulated SO-100: kinematics, physics, determinism, cameras, Gymnasium."""

import gymnasium
import mujoco
import numpy as np
import pytest

import act_minimal.sim  # noqa: F401  (registers the environments)
from act_minimal.sim import World, make_task
from act_minimal.sim.so100 import arm as so100
from act_minimal.sim.so100.pick_place import BIN_CENTRE, ZONE_CENTRE, PickPlace
from act_minimal.support.errors import UserError

from .test_tasks import walk

pytestmark = pytest.mark.mostly_quick

ENV_ID = "act_minimal/SO100PickPlace-v0"
S = 0.70710678

# q; fixed jaw's position and quaternion (wxyz); fingertip. From MuJoCo Menagerie's
# trs_so_arm100, computed once with its own XML.
FORWARD_KINEMATICS = [
    (
        [0, 0, 0, 0, 0, 0],
        [0, -0.383371, 0.096199],
        [0.707109, 0.000004, 0.707105, 0.000004],
        [0, -0.484771, 0.096198],
    ),
    (
        [0, -1.57, 1.57, 1.57, -1.57, 0],
        [0, -0.238837, 0.176647],
        [0.707384, 0.706829, 0.000279, 0.000279],
        [0, -0.238917, 0.075247],
    ),
    (
        [0, -3.32, 3.11, 1.18, 0, -0.174],
        [0, -0.124875, 0.110209],
        [0.625560, 0.329663, 0.625556, 0.329661],
        [0, -0.182195, 0.026565],
    ),
    (
        [0.5, -1.2, 0.9, 0.4, -0.8, 0.5],
        [0.136456, -0.294983, 0.252606],
        [0.892072, -0.048011, 0.375242, 0.247177],
        [0.184827, -0.383525, 0.242482],
    ),
    (
        [-1.1, -2, 1.8, -0.6, 1.2, 1],
        [-0.162435, -0.127876, 0.308021],
        [-0.055305, 0.411978, 0.809293, -0.415042],
        [-0.225396, -0.159921, 0.380760],
    ),
    (
        [1.5, -0.6, 0.5, 1, 2.2, 1.5],
        [0.309606, -0.067156, 0.131016],
        [-0.485808, -0.682137, 0.534765, 0.112718],
        [0.372478, -0.071614, 0.051587],
    ),
]
MOVING_JAW = [
    (3, [0.136053, -0.324469, 0.264173]),
    (4, [-0.164366, -0.149984, 0.330624]),
    (5, [0.316601, -0.051279, 0.104514]),
]


@pytest.fixture(scope="module")
def arm():
    model = make_task("so100_pick_place").model()
    return model, mujoco.MjData(model)


@pytest.mark.parametrize(("q", "position", "quaternion", "tip"), FORWARD_KINEMATICS)
def test_forward_kinematics(arm, q, position, quaternion, tip):
    model, data = arm
    data.qpos[:6] = q
    mujoco.mj_kinematics(model, data)
    jaw = data.body("fixed_jaw")
    np.testing.assert_allclose(jaw.xpos, position, atol=1e-5)
    np.testing.assert_allclose(data.site("tcp").xpos, tip, atol=1e-5)
    between = np.zeros(3)
    mujoco.mju_subQuat(between, jaw.xquat, np.array(quaternion, float))
    assert np.linalg.norm(between) < 1e-3


@pytest.mark.parametrize(("vector", "position"), MOVING_JAW)
def test_forward_kinematics_of_the_moving_jaw(arm, vector, position):
    model, data = arm
    data.qpos[:6] = FORWARD_KINEMATICS[vector][0]
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(data.body("moving_jaw").xpos, position, atol=1e-5)


def test_inertias_ranges_and_servos_are_the_arms(arm):
    model, _ = arm
    masses = [0.119226, 0.162409, 0.147968, 0.0661321, 0.0929859, 0.0202444]
    names = ["shoulder", "upper_arm", "lower_arm", "wrist", "fixed_jaw", "moving_jaw"]
    assert [model.body(n).mass[0] for n in names] == pytest.approx(masses)
    inertia = [0.000138803, 0.000107748, 4.84242e-05]
    np.testing.assert_allclose(model.body("lower_arm").inertia, inertia, rtol=1e-5)
    com = [-0.00339604, 0.00137796, 0.0768007]
    np.testing.assert_allclose(model.body("lower_arm").ipos, com, atol=1e-8)
    ranges = [[-1.92, 1.92], [-3.32, 0.174], [-0.174, 3.14], [-1.66, 1.66]]
    ranges += [[-2.79, 2.79], [-0.174, 1.75]]
    np.testing.assert_allclose(model.jnt_range[:6], ranges)
    np.testing.assert_allclose(model.actuator_ctrlrange, ranges)
    # The damping that dampratio 1 compiles to on the true inertias.
    kv = [5.13, 4.96, 4.63, 4.49, 4.47]
    np.testing.assert_allclose(-model.actuator_biasprm[:5, 2], kv, atol=0.005)
    assert model.actuator_forcerange[:5].tolist() == [[-3.5, 3.5]] * 5


def test_gripper_units_round_trip():
    openings = np.linspace(0, 1, 5)
    jaw = so100.gripper_to_jaw(openings)
    assert jaw[0] == -0.174
    assert jaw[-1] == pytest.approx(1.75)
    np.testing.assert_allclose(so100.jaw_to_gripper(jaw), openings)


def test_starts_fill_the_zone_and_turn_every_way():
    task = PickPlace()
    starts = np.array([task.sample(np.random.default_rng(i)) for i in range(500)])
    offset = starts[:, 6:8] - ZONE_CENTRE
    assert np.abs(offset).max() <= 0.075
    assert (offset.max(0) - offset.min(0) > 0.145).all()
    yaw = 2 * np.arctan2(starts[:, 12], starts[:, 9])
    assert yaw.min() < -0.75
    assert yaw.max() > 0.75


def test_demonstrations_are_spread_more_evenly_than_chance():
    from act_minimal.sim.recording import scene_seed
    from act_minimal.sim.world import start

    def largest_hole(scenes):
        """Furthest that a place and yaw is from the nearest cube, in zones."""
        starts = np.array([start(PickPlace(), s) for s in scenes])
        yaw = 2 * np.arctan2(starts[:, 12], starts[:, 9]) / (np.pi / 2) + 0.5
        unit = np.column_stack([(starts[:, 6:8] - ZONE_CENTRE) / 0.15 + 0.5, yaw])
        assert unit.min() >= 0
        assert unit.max() <= 1
        grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 12)] * 3), -1).reshape(-1, 3)
        return np.linalg.norm(grid[:, None] - unit, axis=-1).min(1).max()

    seeds = range(8)
    even = [largest_hole([scene_seed(s, i) for i in range(50)]) for s in seeds]
    chance = [largest_hole(range(1000 * s, 1000 * s + 50)) for s in seeds]
    assert np.mean(even) < 0.88 * np.mean(chance)
    first, other = (start(PickPlace(), scene_seed(seed, 0)) for seed in (0, 1))
    assert not np.array_equal(first, other)


def test_world_equals_plain_mujoco_to_the_bit():
    task = make_task("so100_pick_place")
    model = task.model()
    data = mujoco.MjData(model)
    data.qpos[:] = task.sample(np.random.default_rng(11))
    data.ctrl[:] = data.qpos[:6]
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(11)
    action = task.state(data.qpos[None]).astype(np.float32)
    states = walk(task.name, 1, [11], ticks=30)[0]
    for t in range(30):
        action[0] += rng.normal(0, 0.05, 6)
        data.ctrl[:] = task.ctrl(action)[0]
        mujoco.mj_step(model, data, nstep=10)
        assert np.array_equal(states[t], data.qpos)


def test_success_is_strict():
    task = PickPlace()
    qpos, qvel = task.sample(np.random.default_rng(0))[None], np.zeros((1, 12))

    def placed(jaw=0.5, cube=(*BIN_CENTRE, 0.0125), speed=0.0):
        qpos[0, 5], qpos[0, 6:9], qvel[0, 6] = jaw, cube, speed
        return bool(task.placed(qpos, qvel)[0])

    assert placed()
    assert not placed(jaw=0.2), "still held"
    assert not placed(speed=0.1), "still moving"
    assert not placed(cube=[*BIN_CENTRE, 0.05]), "above the bin"
    assert not placed(cube=[0.0, -0.2, 0.0125]), "on the table"


def test_success_must_last():
    world = World(make_task("so100_pick_place"))
    world.reset([0])
    world.qpos[0, 6:9] = [*BIN_CENTRE, 0.0135]
    action = world.observe()["qpos"]
    seen = []
    for _ in range(12):
        world.step(action)
        seen.append(bool(world.success[0]))
    assert seen[:9] == [False] * 9
    assert seen[-1]


@pytest.mark.slow
def test_cameras_see_the_scene_at_any_size():
    world = World(make_task("so100_pick_place"))
    world.reset([1])
    seen = world.observe(("top", "wrist"))
    for camera in ("top", "wrist"):
        image = seen[f"images/{camera}"]
        assert image.shape == (1, 96, 128, 3)
        assert image.dtype == np.uint8
        red = (image[0, ..., 0] > 120) & (image[0, ..., 1:].max(-1) < 70)
        assert red.sum() > 15, f"no cube in {camera}"
    assert world.render("top", (48, 64)).shape == (48, 64, 3)
    assert world.render("scene", (480, 640)).std() > 20
    with pytest.raises(UserError, match=r"no camera 'side'.*top"):
        world.render("side", (48, 64))
    world.close()


@pytest.mark.slow
def test_image_shows_the_present_not_the_past():
    world = World(make_task("so100_pick_place"))
    world.reset([1])
    before = world.render("top", (96, 128)).copy()
    world.qpos[0, 6] += 0.05
    after = world.render("top", (96, 128))
    assert (before != after).any()
    world.close()


@pytest.mark.slow
def test_gymnasium_vector_env_equals_single():
    single = gymnasium.make(ENV_ID)
    many = gymnasium.make_vec(ENV_ID, num_envs=3)
    first, _ = many.reset(seed=20)
    many.action_space.seed(0)
    actions = [many.action_space.sample() for _ in range(20)]
    rows = [many.step(a)[0]["env_state"][2] for a in actions]
    one, _ = single.reset(seed=22)
    assert np.array_equal(first["qpos"][2], one["qpos"])
    for a, row in zip(actions, rows, strict=True):
        assert np.array_equal(single.step(a[2])[0]["env_state"], row)
    single.close()
    many.close()


@pytest.mark.slow
def test_vector_env_starts_anew_after_the_end():
    many = gymnasium.make_vec(ENV_ID, num_envs=2, max_episode_steps=3)
    first, _ = many.reset(seed=0)
    action = first["qpos"]
    for _ in range(3):
        observation, _, _, truncated, _ = many.step(action)
    assert truncated.all()
    observation, _, _, truncated, _ = many.step(action)
    assert not truncated.any()
    assert not np.array_equal(observation["env_state"], first["env_state"])
    many.close()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_no_number_is_refused_and_nothing_moves(wrong):
    env = gymnasium.make(ENV_ID)
    before, _ = env.reset(seed=0)
    action = before["qpos"].copy()
    action[2] = wrong
    with pytest.raises(UserError, match=r"action is .*(nan|inf).*, expected finite"):
        env.step(action)
    # The arm is held, so the next tick is as if nothing had been asked.
    after = env.step(before["qpos"])[0]
    env.reset(seed=0)
    again = env.step(before["qpos"])[0]
    assert all(np.array_equal(after[key], again[key]) for key in after)
    env.close()


def test_a_masked_reset_leaves_the_other_scenes():
    many = gymnasium.make_vec(ENV_ID, num_envs=3)
    first, _ = many.reset(seed=[1, 2, 3])
    for _ in range(3):
        moved = many.step(first["qpos"] * 0)[0]
    mask = np.array([True, False, True])
    some, info = many.reset(seed=[7, 8, 9], options={"reset_mask": mask})
    whole, _ = many.reset(seed=[7, 8, 9])
    for key in ("qpos", "qvel", "env_state"):
        assert np.array_equal(some[key][1], moved[key][1])
        assert np.array_equal(some[key][mask], whole[key][mask])
    assert not np.array_equal(some["qpos"][1], whole["qpos"][1])
    assert info["success"].shape == (3,)
    many.close()


@pytest.mark.parametrize(
    "mask", [[True, False], [False] * 3, [1, 0, 1], [[True, False, True]]]
)
def test_a_mask_that_cannot_be_meant_is_refused(mask):
    many = gymnasium.make_vec(ENV_ID, num_envs=3)
    first, _ = many.reset(seed=0)
    with pytest.raises(UserError, match=r"reset_mask is .*, expected 3 times True"):
        many.reset(seed=1, options={"reset_mask": np.array(mask)})
    with pytest.raises(UserError, match="3 scenes have 2 seeds"):
        many.reset(seed=[1, 2])
    assert np.array_equal(many.step(first["qpos"])[0]["qpos"].shape, (3, 6))
    many.close()


def test_unknown_task_lists_the_known():
    with pytest.raises(UserError, match=r"no task 'nope'.*so100_pick_place"):
        make_task("nope")
