"""What holds for every simulated task: determinism, Gymnasium, demonstrators."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from act_minimal.sim import GYM_IDS, World, make_task
from act_minimal.sim.demonstrators import make_expert
from act_minimal.sim.recording import demonstrate
from act_minimal.support.errors import SettingError, UserError

from ..programs import python

OPENARMS = ("openarm_handover", "openarm_insertion")
SO100S = ("so100_pick_place", "so100_belt")
TASKS = (*SO100S, *OPENARMS)
IDS = {name: gym_id for gym_id, name in GYM_IDS.items()}


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return make_task(request.param)


def walk(name, n, scenes, ticks=40):
    """States of random walks, (n, ticks, nq)."""
    world = World(make_task(name), n)
    world.reset(scenes)
    rng = [np.random.default_rng(s) for s in scenes]
    action = world.observe()["qpos"].copy()
    rows = []
    for _ in range(ticks):
        for i in range(n):
            action[i] += rng[i].normal(0, 0.05, action.shape[1])
        world.step(action)
        rows.append(np.array(world.qpos))
    return np.stack(rows, 1)


@pytest.mark.quick
def test_many_scenes_equal_one_at_a_time_to_the_bit(task):
    together = walk(task.name, 4, [11, 12, 13, 14])
    for i in range(4):
        assert np.array_equal(together[i], walk(task.name, 1, [11 + i])[0])


@pytest.mark.parametrize("name", ["so100_pick_place", "openarm_insertion"])
def test_same_seed_same_episode_in_another_process(name):
    program = (
        "import hashlib, sys; from tests.sim.test_tasks import walk; "
        "print(hashlib.sha256(walk(sys.argv[1], 2, [3, 4]).tobytes()).hexdigest())"
    )
    runs = [python("-c", program, name).stdout for _ in range(2)]
    assert runs[0] == runs[1] != ""


# Physical units are what this course is about, so actions are not scaled to [-1, 1].
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space.*:UserWarning")
@pytest.mark.parametrize(
    ("name", "cameras", "actions", "fps"),
    [
        ("so100_pick_place", (), 6, 30),
        ("so100_pick_place", ("top", "wrist"), 6, 30),
        ("so100_belt", (), 6, 30),
        *((name, ("top",), 16, 50) for name in OPENARMS),
    ],
)
def test_gymnasium_checker_passes(name, cameras, actions, fps):
    env = gymnasium.make(IDS[name], cameras=cameras, render_mode="rgb_array")
    check_env(env.unwrapped)
    assert env.spec is not None
    assert env.spec.max_episode_steps == make_task(name).max_ticks
    assert env.action_space.shape == (actions,)
    assert env.metadata["render_fps"] == fps
    env.close()


@pytest.mark.parametrize("demonstrator", ["scripted", "human"])
def test_experts_succeed_and_people_vary(task, demonstrator):
    """On 100 scenes that nothing else here uses."""
    so100 = task.name in SO100S
    found = [e for _, e in demonstrate(task, range(100), demonstrator, seed=77)]
    assert sum(bool(e.attributes["success"]) for e in found) >= (97 if so100 else 95)
    lengths = np.array([len(e) for e in found])
    assert lengths.max() < task.max_ticks
    if demonstrator == "scripted":  # only the way is longer or shorter
        assert lengths.std() < (20 if so100 else 30)
        assert not so100 or np.ptp(lengths) < 90
    else:
        assert lengths.std() > (30 if so100 else 40)
        assert not so100 or np.ptp(lengths) > 120


@pytest.mark.quick
def test_scripted_depends_on_the_scene_alone_human_on_the_seed_too(task):
    here, there = (task.sample(np.random.default_rng(i)) for i in (3, 4))
    scripted, human = make_expert(task), make_expert(task, "human")
    plan, other = scripted.plan(here, 0), scripted.plan(there, 0)
    assert np.array_equal(plan, scripted.plan(here, 1))
    assert np.array_equal(plan, make_expert(task, "scripted").plan(here, 0))
    if task.name in SO100S:  # it ends over the same bin
        assert not np.allclose(plan[len(plan) // 3], other[len(other) // 3], atol=0.02)
    else:
        assert not np.array_equal(plan[-1], other[-1])
    assert np.array_equal(human.plan(here, 0), human.plan(here, 0))
    assert len(human.plan(here, 0)) != len(human.plan(here, 1))


@pytest.mark.quick
def test_unknown_demonstrators_and_tasks_are_refused(task):
    with pytest.raises(UserError, match=r"no demonstrator 'robot'.*scripted, human"):
        make_expert(task, "robot")

    class Other:
        name = "other"

    with pytest.raises(SettingError, match="no expert demonstrates other"):
        make_expert(Other())  # pyright: ignore[reportArgumentType]
