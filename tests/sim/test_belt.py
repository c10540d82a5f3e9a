"""The cube on the belt: it rides with the belt, at the speed that is drawn and seen."""

import numpy as np
import pytest

from act_minimal.sim import World, make_task
from act_minimal.sim.so100.belt import BELT_HEIGHT, BELT_Y, SPEEDS, Belt
from act_minimal.sim.world import MovingTask
from act_minimal.support.errors import SettingError
from hardware.so100.emulator.service import VirtualArmConfig, assemble

pytestmark = pytest.mark.quick


def test_the_cube_rides_with_the_belt_until_somebody_takes_it():
    world = World(Belt(), 8)
    world.reset(range(8))
    first = world.observe()
    begin, speed = first["env_state"][:, :3], first["env_state"][:, 7]
    assert (speed >= SPEEDS[0]).all()
    assert (speed <= SPEEDS[1]).all()
    assert np.ptp(speed) > 0.01
    for _ in range(60):
        world.step(first["qpos"])
    now = world.observe()["env_state"]
    moved = now[:, :3] - begin
    np.testing.assert_allclose(moved[:, 0], 2 * speed, atol=2e-3)
    np.testing.assert_allclose(moved[:, 1:], 0, atol=2e-3)
    np.testing.assert_array_equal(now[:, 7], speed)  # what a policy is told stays


def test_a_scene_is_its_place_and_its_speed():
    task = Belt()
    rng = np.random.default_rng(0)
    for corner in ((0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)):
        start = task.sample(rng, np.array(corner))
        assert start[14] == SPEEDS[int(corner[3])]
        assert abs(start[7] - BELT_Y) <= 0.015 + 1e-9
        assert start[8] == pytest.approx(BELT_HEIGHT + 0.0125)
        velocity = task.start_velocity(start[None])[0]
        np.testing.assert_array_equal(np.flatnonzero(velocity), [6, 12])
    assert isinstance(task, MovingTask)
    assert not isinstance(make_task("so100_pick_place"), MovingTask)


def test_no_virtual_arm_stands_at_a_belt():
    """The cube would have left before the arm has come to its ready pose."""
    with pytest.raises(SettingError, match=r"'so100_belt', .*: so100_pick_place$"):
        assemble(VirtualArmConfig("arm", task="so100_belt"))
