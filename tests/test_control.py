"""The one loop, with a robot, a policy and an executor that write down what happens."""

import numpy as np
import pytest

from act_minimal.control import run
from act_minimal.execution import RecedingHorizon, TemporalEnsemble
from act_minimal.support.errors import UserError

pytestmark = pytest.mark.quick


class FakeRobot:
    n, fps, action_dim, cameras = 2, 30.0, 3, ("top", "wrist")

    def __init__(self, diary):
        self.diary, self.tick, self.sent = diary, 0, []

    def connect(self):
        self.diary.append("connect")

    def observe(self, cameras=()):
        self.diary.append(("observe", tuple(cameras)))
        images = {f"images/{c}": np.zeros((self.n, 2, 2, 3), np.uint8) for c in cameras}
        return {"qpos": np.full((self.n, 3), self.tick, np.float32)} | images

    def act(self, action):
        self.diary.append("act")
        self.sent.append(action.copy())
        self.tick += 1

    def close(self):
        self.diary.append("close")


class FakePolicy:
    """Predicts tick + 0.1 i for the i-th action of a chunk."""

    cameras = ("wrist",)

    def __init__(self, diary, k):
        self.diary, self.k = diary, k

    def predict_chunk(self, observation):
        self.diary.append("predict")
        assert "images/wrist" in observation
        ahead = 0.1 * np.arange(self.k)[None, :, None]  # (1, k, 1)
        return observation["qpos"][:, None] + ahead  # (n, k, A)


@pytest.fixture
def diary():
    return []


def test_the_order_of_things(diary):
    def on_tick(tick, observation, action):
        diary.append(("on_tick", tick))

    robot = FakeRobot(diary)
    ticks = run(robot, FakePolicy(diary, 2), RecedingHorizon(2), 3, on_tick=on_tick)
    assert ticks == 3
    # Images only where the policy looks: every second tick.
    assert diary == [
        *(("observe", ("wrist",)), "predict", ("on_tick", 0), "act"),
        *(("observe", ()), ("on_tick", 1), "act"),
        *(("observe", ("wrist",)), "predict", ("on_tick", 2), "act"),
    ]
    np.testing.assert_allclose([a[0, 0] for a in robot.sent], [0.0, 0.1, 2.0])


def test_an_ensemble_looks_at_every_tick(diary):
    run(FakeRobot(diary), FakePolicy(diary, 4), TemporalEnsemble(4), 5)
    assert diary.count(("observe", ("wrist",))) == diary.count("predict") == 5


def test_a_robot_is_neither_connected_nor_closed_by_the_loop(diary):
    run(FakeRobot(diary), FakePolicy(diary, 1), RecedingHorizon(1), 1)
    assert "connect" not in diary
    assert "close" not in diary


def test_on_tick_ends_the_run_before_the_action_is_sent(diary):
    robot, policy = FakeRobot(diary), FakePolicy(diary, 1)
    end = {"on_tick": lambda tick, observation, action: tick == 4}
    assert run(robot, policy, RecedingHorizon(1), 10, **end) == 4
    assert len(robot.sent) == 4
    assert diary[-1] == "predict"


def test_on_tick_sees_what_is_sent(diary):
    robot, seen = FakeRobot(diary), []
    policy, executor = FakePolicy(diary, 3), RecedingHorizon(3)
    run(robot, policy, executor, 3, on_tick=lambda t, o, a: seen.append((o, a)))
    assert np.array_equal([a for _, a in seen], robot.sent)
    assert [o["qpos"][0, 0] for o, _ in seen] == [0, 1, 2]


def test_the_executor_starts_afresh(diary):
    robot, executor = FakeRobot(diary), RecedingHorizon(5)
    run(robot, FakePolicy(diary, 5), executor, 2)
    run(robot, FakePolicy(diary, 5), executor, 2)
    assert diary.count("predict") == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("arms", "of_arm"), [(2, " of arm 1"), (1, "")])
def test_an_action_that_is_no_number_is_never_sent(diary, bad, arms, of_arm):
    class Broken(FakePolicy):
        def predict_chunk(self, observation):
            chunk = super().predict_chunk(observation)
            chunk[-1, 2, 1] = bad  # the last arm, the chunk's third action, joint 1
            return chunk

    robot = FakeRobot(diary)
    robot.n = arms
    words = rf"tick 2 is {bad} for joint 1{of_arm}, expected.*not sent"
    with pytest.raises(UserError, match=words):
        run(robot, Broken(diary, 4), RecedingHorizon(4), 10)
    assert len(robot.sent) == 2
    assert np.isfinite(robot.sent).all()
