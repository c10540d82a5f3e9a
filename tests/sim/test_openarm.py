"""Two simulated OpenArms: kinematics, the official model, tasks, demonstrators."""

import mujoco
import numpy as np
import pytest
from openarm_mujoco.v2 import openarm_bimanual_xml

from act_minimal.command import demo
from act_minimal.episodes import load_episode
from act_minimal.sim import World, make_task
from act_minimal.sim.demonstrators import make_expert
from act_minimal.sim.film import Take, film
from act_minimal.sim.openarm import arms as openarm
from act_minimal.sim.openarm.experts import HandReach, pointing
from act_minimal.sim.openarm.insertion import CUP, HOLE, PEG
from act_minimal.sim.openarm.table import (
    ARM_NQ,
    SHOULDER,
    TABLE,
    in_hand,
    rotation_of,
)
from act_minimal.sim.recording import record, scene_seed
from act_minimal.sim.replay import replay
from act_minimal.sim.world import start
from act_minimal.support.errors import UserError

from .test_tasks import OPENARMS as TASKS

pytestmark = pytest.mark.mostly_quick

# q of the right arm; the wrist's centre from between the shoulders, the hand's
# quaternion (wxyz), the elbow. Computed once from openarm-mujoco 2.3.0's own XML.
FORWARD_KINEMATICS = [
    ([0, 0, 0, 0, 0, 0, 0], [0, -0.1535, -0.436], [1, 0, 0, 0], [0, -0.1535, -0.22]),
    (
        [0, 0, 0, 1.570796, 0, 0, 0],
        [0.216, -0.1535, -0.22],
        [0.707107, 0, -0.707107, 0],
        [0, -0.1535, -0.22],
    ),
    (
        [0.4, 0.3, -0.2, 1.2, 0.5, -0.3, 0.6],
        [0.297299, -0.203435, -0.196506],
        [0.551115, 0.245360, -0.772573, 0.197992],
        [0.081846, -0.218514, -0.193583],
    ),
    (
        [-0.6, 0.9, 0.7, 0.6, -1, 0.5, -0.8],
        [-0.028048, -0.514318, -0.206203],
        [-0.413313, 0.825474, -0.178973, -0.340196],
        [-0.077217, -0.325832, -0.112868],
    ),
    (
        [1.2, 0.15, 1.1, 2, 0.9, 0.2, 1],
        [0.127810, -0.346019, 0.045896],
        [0.228174, -0.070033, 0.964945, -0.109149],
        [0.202746, -0.186376, -0.078824],
    ),
]


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return make_task(request.param)


@pytest.fixture(scope="module")
def handover():
    return make_task("openarm_handover")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("q", "wrist", "quaternion", "elbow"), FORWARD_KINEMATICS)
def test_forward_kinematics(handover, side, q, wrist, quaternion, elbow):
    mirror = np.array([1, 1 if side == "right" else -1, 1])
    joints = np.array(q) if side == "right" else np.array(q) * openarm.MIRROR
    model = handover.model()
    data = mujoco.MjData(model)
    first = 0 if side == "right" else 9
    data.qpos[first : first + 7] = joints
    mujoco.mj_kinematics(model, data)
    hand = data.body(f"openarm_{side}_ee_base_link")
    shoulder = np.array([0, 0, SHOULDER])
    np.testing.assert_allclose(hand.xpos - shoulder, wrist * mirror, atol=1e-5)
    link4 = data.body(f"openarm_{side}_link4").xpos - shoulder
    np.testing.assert_allclose(link4, elbow * mirror, atol=1e-5)
    seen = np.array(quaternion) * (1 if side == "right" else [1, -1, 1, -1])
    between = np.zeros(3)
    mujoco.mju_subQuat(between, hand.xquat, seen)
    assert np.linalg.norm(between) < 1e-5
    position, rotation = openarm.hand_pose(side, joints[None])
    np.testing.assert_allclose(rotation[0].ravel(), hand.xmat, atol=1e-9)
    tip = data.site(f"{side}_grasp").xpos - shoulder
    np.testing.assert_allclose(position[0], tip, atol=1e-9)


@pytest.mark.slow
def test_joints_inertias_and_servos_are_the_official_models(handover):
    ours = handover.model()
    official = mujoco.MjModel.from_xml_path(openarm_bimanual_xml())
    assert official.nbody == 21
    for kind, numbers, keys in (
        ("body", range(1, 21), ("mass", "inertia", "ipos", "iquat", "quat")),
        (
            *("joint", range(official.njnt)),
            ("axis", "range", "damping", "armature", "frictionloss"),
        ),
        (
            *("actuator", range(official.nu)),
            ("gainprm", "biasprm", "forcerange", "ctrlrange"),
        ),
    ):
        for i in numbers:
            theirs = getattr(official, kind)(i)
            mine, name = getattr(ours, kind)(theirs.name), theirs.name
            for key in keys:
                one, other = getattr(mine, key), getattr(theirs, key)
                np.testing.assert_array_equal(one, other, name)
            if kind == "body":
                lifted = name.endswith("base_link") and "ee" not in name
                lift = [0, 0, SHOULDER] if lifted else 0
                np.testing.assert_allclose(mine.pos, theirs.pos + lift, atol=1e-12)


def test_actions_are_the_right_arm_then_the_left(handover):
    model = handover.model()
    names = [model.actuator(i).name for i in range(model.nu)]
    joints = [f"right_joint{i}_ctrl" for i in range(1, 8)]
    assert names[:8] == [*joints, "right_finger1_ctrl"]
    assert [n.replace("left", "right") for n in names[8:]] == names[:8]
    assert len(handover.joints) == handover.action_dim == 16
    assert handover.joints[7] == "right_gripper"


def test_state_and_action_speak_the_same_units(handover):
    qpos = handover.sample(np.random.default_rng(5))[None]
    state = handover.state(qpos)
    np.testing.assert_allclose(state[0, [7, 15]], 0.3, atol=1e-6)
    np.testing.assert_allclose(handover.ctrl(state), handover.hold(qpos), atol=1e-9)
    wide = np.full((1, 16), 9.0)
    low, high = handover.model().actuator_ctrlrange.T
    for action in (wide, -wide):
        ctrl = handover.ctrl(action)[0]
        assert (ctrl >= low - 1e-4).all()
        assert (ctrl <= high + 1e-4).all()


def test_arms_stay_where_they_are_told_to(task):
    world = World(task, 2)
    world.reset([1, 2])
    before = world.observe()["qpos"]
    for _ in range(50):
        world.step(before)
    after = world.observe()
    assert np.abs(after["qpos"] - before).max() < 0.01
    assert after["effort"].shape == (2, 16)
    np.testing.assert_allclose(after["env_state"], task.env_state(world.qpos))


def test_the_hands_close_on_what_is_between_them_and_not_on_air():
    angle = openarm.FINGER_OPEN * np.linspace(0, 1, 8)
    assert not openarm.closed_on(0.03, angle[:1])[0]
    assert not openarm.closed_on(0.03, angle[3:]).any()
    assert openarm.closed_on(0.03, np.array([0.159, -0.159])).all()


def test_starts_fill_the_zones_and_touch_nothing(task):
    model = task.model()
    data = mujoco.MjData(model)
    scenes = [*range(300), *(scene_seed(0, i) for i in range(100))]
    starts = np.array([start(task, scene) for scene in scenes])
    objects = starts[:, ARM_NQ:].reshape(len(scenes), -1, 7)
    edge = 0.15 if task.name == "openarm_handover" else 0.10
    for k in range(objects.shape[1]):
        spread = np.ptp(objects[:, k, :2], axis=0)
        assert (spread > 0.95 * edge).all()
        assert (spread <= edge).all()
        side = objects[:, k, 1]
        assert (side < 0).all() if k == 0 else (side > 0).all()
    for qpos in starts[:40]:
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        table = model.geom("table").id
        for contact in data.contact:
            assert table in contact.geom
            other = contact.geom[0] + contact.geom[1] - table
            assert model.geom_bodyid[other] > 20, "an arm touches the table"


@pytest.fixture(scope="module", params=TASKS)
def done(request):
    """A task and the state at the end of a scripted demonstration of it."""
    task = make_task(request.param)
    world, scene = World(task), 7
    world.reset([scene])
    for action in make_expert(task).plan(world.qpos[0], scene):
        world.step(action[None])
    assert world.success[0]
    qvel = np.zeros((1, world.qvel.shape[1]))
    return task, np.array(world.qpos), qvel


def test_success_is_strict(done):
    task, qpos, qvel = done

    def placed(change=None, speed=0.0):
        q, v = qpos.copy(), qvel.copy()
        v[0, ARM_NQ + 1] = speed
        if change:
            change(q[0])
        return bool(task.placed(q, v)[0])

    def down(q):  # everything lies on the table
        q[ARM_NQ + 2 :: 7] = TABLE + 0.015

    def left_open(q):
        q[16:18] = 0.4

    def left_empty(q):  # closed, on nothing
        q[16:18] = 0.0

    def left_elsewhere(q):
        q[9] += 0.25

    assert placed()
    assert not placed(speed=0.3)
    for change in (down, left_open, left_empty, left_elsewhere):
        assert not placed(change), change.__name__


def test_a_handover_is_over_when_the_right_hand_is_away(handover):
    world = World(handover)
    world.reset([7])
    plan = make_expert(handover).plan(world.qpos[0], 7)
    both = []
    for action in plan:
        world.step(action[None])
        q = np.array(world.qpos)
        bar = q[:, ARM_NQ : ARM_NQ + 3], q[:, ARM_NQ + 3 : ARM_NQ + 7]
        right = np.abs(in_hand("right", q, *bar))[0]
        if (right < [0.02, 0.06, 0.02]).all():
            both.append(bool(handover.placed(q, np.array(world.qvel))[0]))
    assert len(both) > 50
    assert not any(both)
    assert world.success[0]


@pytest.mark.slow
def test_success_agrees_with_the_contacts(task):
    """Success is told from geometry; here it is compared with who touches what."""
    model = task.model()
    data = mujoco.MjData(model)
    owner = [model.body(int(b)).name for b in model.geom_bodyid]
    world, expert = World(task, 1), make_expert(task, "human")
    seen = 0
    for scene in range(4):
        world.reset([scene])
        for action in expert.plan(world.qpos[0], scene):
            world.step(action[None])
            if not task.placed(world.qpos, world.qvel)[0]:
                continue
            seen += 1
            data.qpos[:] = world.qpos[0]
            mujoco.mj_forward(model, data)
            pairs = {frozenset(owner[int(g)] for g in c.geom) for c in data.contact}
            touched = {
                (arm, thing)
                for arm in ("right", "left")
                for thing in ("bar", "peg", "socket", "world")
                for pair in pairs
                if thing in pair and any(f"_{arm}_ee_" in name for name in pair)
            }
            if task.name == "openarm_handover":
                assert touched == {("left", "bar")}
            else:
                assert {("right", "peg"), ("left", "socket")} <= touched
            assert not any("world" in pair for pair in pairs)
    assert seen > 30


@pytest.mark.parametrize("done", ["openarm_insertion"], indirect=True)
def test_an_insertion_needs_depth_and_both_hands(done):
    task, qpos, still = done
    assert task.placed(qpos, still)[0]
    socket = rotation_of(qpos[:, ARM_NQ + 10 : ARM_NQ + 14])[0]
    for shift in ([0, -0.03, 0], [0, 0, HOLE / 2 + 0.005], [HOLE / 2 + 0.005, 0, 0]):
        moved = qpos.copy()
        moved[0, ARM_NQ : ARM_NQ + 3] += socket @ shift
        assert not task.placed(moved, still)[0], shift
    for finger in (7, 16):
        let_go = qpos.copy()
        let_go[0, finger : finger + 2] *= 2.5
        assert not task.placed(let_go, still)[0]
    assert PEG[0] < HOLE < CUP


def test_what_is_dropped_lies_on_the_floor(handover):
    world = World(handover)
    world.reset([0])
    world.qpos[0, ARM_NQ : ARM_NQ + 3] = [0.3, 0.8, 0.5]
    action = world.observe()["qpos"]
    for _ in range(60):
        world.step(action)
    assert 0 < world.qpos[0, ARM_NQ + 2] < 0.1


@pytest.mark.slow
def test_cameras_see_the_objects(task):
    world = World(task)
    world.reset([1])
    seen = world.observe(task.cameras)
    for camera in task.cameras:
        assert seen[f"images/{camera}"].shape == (1, 96, 128, 3)
        assert seen[f"images/{camera}"].std() > 10

    def red(image):
        return int(((image[..., 0] > 110) & (image[..., 1:].max(-1) < 70)).sum())

    assert red(seen["images/top"]) > 30
    plan = make_expert(task).plan(world.qpos[0], 1)
    closing = int(np.argmax(np.diff(plan[:, 7]) < -0.02))
    for action in plan[:closing]:
        world.step(action[None])
    assert red(world.observe(("right_wrist",))["images/right_wrist"]) > 100
    world.close()


@pytest.mark.slow
def test_films_show_the_full_meshes(handover, tmp_path, monkeypatch):
    light, full = handover.model(), handover.film_model()
    assert full.nmesh > 30
    assert light.nmesh == 0
    for key in ("body_mass", "jnt_range", "actuator_gainprm", "body_gravcomp"):
        assert np.array_equal(getattr(light, key), getattr(full, key)), key
    take = Take("x", handover.sample(np.random.default_rng(0))[None], True)
    settings = {"size": (96, 128), "progress": False}
    shown = film(handover, [take], tmp_path / "full.mp4", **settings).read_bytes()
    monkeypatch.setattr(type(handover), "film_model", type(handover).model)
    boxes = film(handover, [take], tmp_path / "light.mp4", **settings).read_bytes()
    assert len(shown) > 1000
    assert shown != boxes
    again = film(handover, [take], tmp_path / "again.mp4", **settings).read_bytes()
    assert again == boxes


def test_plans_are_smooth_and_within_the_limits(task):
    low, high = task.action_limits.T
    for demonstrator, noise in (("scripted", 1e-9), ("human", 0.02)):
        expert = make_expert(task, demonstrator)
        for scene in range(10):
            first = task.sample(np.random.default_rng(scene))
            plan = expert.plan(first, scene)
            assert np.abs(plan[0] - task.state(first[None])[0]).max() <= noise
            assert (plan > low - 0.02).all()
            assert (plan < high + 0.02).all()
            speed = np.abs(np.diff(plan, axis=0)).max() * task.fps
            assert speed < 3.5, "rad/s, and openings a second"


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_hand_gets_to_where_it_is_sent(side):
    reach, sign = HandReach(), -1.0 if side == "right" else 1.0
    place, hand = np.array([0.3, sign * 0.2, 0.45]), pointing(side, 0.3)
    joints = reach(side, place, hand)
    position, rotation = reach.hand(side, joints)
    np.testing.assert_allclose(position, place, atol=1e-3)
    assert np.trace(rotation.T @ hand) > 1 + 2 * np.cos(0.03)
    with pytest.raises(UserError, match=f"the {side} arm cannot reach .* nearest"):
        reach(side, np.array([0.9, 0.0, 0.5]), hand)


@pytest.mark.slow
def test_recordings_replay(tmp_path, task):
    paths = record(task, tmp_path, 4, demonstrator="human", seed=3, progress=False)
    episode = load_episode(paths[0])
    assert (episode.fps, episode.action.shape[1]) == (50, 16)
    assert episode.env_state is not None
    assert episode.env_state.shape[1] == task.env_state_dim
    result = replay(tmp_path, 4, progress=False)
    assert result["successes"] == 4


def test_the_demo_has_recipes_for_two_arms(task):
    assert demo.recipe_for("so100_pick_place", False) is demo.STATE
    assert demo.recipe_for("so100_pick_place", True) is demo.VISION
    assert demo.recipe_for(task.name, False).cameras == ()
    assert demo.recipe_for(task.name, True).cameras == task.cameras
