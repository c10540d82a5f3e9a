"""The small worlds in which a late decision costs something."""

import numpy as np
import pytest

from act_minimal.dataset import Demonstrations
from course.toolkit.toys import FPS, SERVO, TOYS, Toy, balance, record

pytestmark = pytest.mark.quick
SEEDS = range(100)


def play(toy, late=0, seeds=SEEDS):
    """The expert's targets, each sent so many ticks late."""
    world = toy(seeds)
    sent = [world.observe()["qpos"].astype(float)] * late
    for _ in range(world.ticks):
        sent.append(world.expert())
        world.act(sent.pop(0))
    return world


@pytest.mark.parametrize("name", TOYS)
def test_experts_succeed_and_lateness_costs_where_something_moves(name):
    toy = TOYS[name]
    assert play(toy).success.mean() >= 0.95
    if name != "post":  # nothing moves there but the hand
        assert play(toy, late=12).success.mean() < 0.7


@pytest.mark.parametrize("name", TOYS)
def test_a_world_is_its_seeds_alone(name):
    together, alone = play(TOYS[name]), play(TOYS[name], seeds=[7])
    for key, value in together.observe().items():
        np.testing.assert_array_equal(value[7:8], alone.observe()[key])


@pytest.mark.parametrize("name", TOYS)
def test_to_keep_a_target_is_to_stand_still(name):
    world = TOYS[name]([0, 1])
    world.place += 0.3
    for _ in range(3):
        before = world.place.copy()
        world.speed[:] = 0
        Toy.act(world, before)  # without the noise that a cart's motor adds
        np.testing.assert_allclose(world.place, before, atol=1e-12)


def test_a_servo_follows_as_its_equation_says():
    """Critically damped: x(t) = 1 - (1 + w t) exp(-w t) after a step."""
    world = TOYS["follow"]([0])
    begin = world.place.copy()
    for tick in range(1, 16):
        world.act(begin + 1)
        t = tick / FPS
        expected = 1 - (1 + SERVO * t) * np.exp(-SERVO * t)
        np.testing.assert_allclose(world.place - begin, expected, atol=0.04)


def test_the_regulator_solves_its_riccati_equation():
    """Closed loop: every eigenvalue of the pole on its cart lies inside the circle."""
    gain = balance(0.6)
    dt, steps = 1 / FPS, 50
    a, b = np.zeros((4, 4)), np.zeros((4, 1))
    a[0, 1] = a[2, 3] = 1
    a[1, :2], b[1] = (-(SERVO**2), -2 * SERVO), SERVO**2
    a[3, :2], a[3, 2], b[3] = -a[1, :2] / 0.6, 9.81 / 0.6, -(SERVO**2) / 0.6
    held, into = np.eye(4), np.zeros((4, 1))
    for _ in range(steps):
        held, into = held + dt / steps * a @ held, into + dt / steps * (a @ into + b)
    assert np.abs(np.linalg.eigvals(held)).max() > 1  # it falls by itself
    assert np.abs(np.linalg.eigvals(held - into @ gain)).max() < 1


def test_recordings_hold_what_was_sent(tmp_path):
    record(TOYS["catch"], tmp_path, 3, seed=0)
    demos = Demonstrations.load(tmp_path, use_env_state=True)
    assert len(demos.lengths) == 3
    assert (demos.lengths == round(2.2 * FPS)).all()
    assert demos.env_state is not None
    assert demos.env_state.shape[1] == 4
    record(TOYS["catch"], tmp_path / "other", 3, seed=1)
    other = Demonstrations.load(tmp_path / "other", use_env_state=True)
    assert not np.array_equal(demos.action, other.action)
