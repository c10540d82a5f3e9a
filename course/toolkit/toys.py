"""Small worlds in NumPy, a thousand at once, in which a late decision costs something.

Each is a `Robot` (control.py) whose actions are targets of a servo, as an arm's are; to
keep a target is to stand still. Lengths in m, angles in rad, times in s.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from act_minimal.control import Observation
from act_minimal.episodes import Episode, episode_path, save_episode
from act_minimal.support.files import atomic_folder

FPS = 30
SUBSTEPS = 4  # physics steps a tick
SERVO = 12.0  # rad/s: how fast a servo follows its target, critically damped
GRAVITY = 9.81


class Toy:
    """`n` worlds; the scene of each is drawn from its seed.

    Args:
        seeds: one a world.

    Attributes:
        failed: (n,) what has gone wrong so far.
    """

    name: str
    seconds: float
    failed: np.ndarray
    action_dim = 1
    cameras: tuple[str, ...] = ()
    fps = float(FPS)

    def __init__(self, seeds: Sequence[int]):
        self.seeds, self.n = tuple(seeds), len(seeds)
        self.connect()

    def connect(self) -> None:
        """Every world at its start."""
        self.rngs = [np.random.default_rng([seed, 3]) for seed in self.seeds]
        self.place = np.zeros((self.n, self.action_dim))
        self.speed = np.zeros_like(self.place)
        self.failed = np.zeros(self.n, bool)
        self.tick = 0
        self.begin()

    def draw(self, low: float, high: float, *shape: int) -> np.ndarray:
        """(n, *shape) uniform numbers, each world's own."""
        return np.stack([rng.uniform(low, high, shape) for rng in self.rngs])

    def observe(self, cameras: Sequence[str] = ()) -> Observation:
        return {
            "qpos": self.place.astype(np.float32),
            "env_state": self.seen().astype(np.float32),
        }

    def act(self, action: np.ndarray) -> None:
        dt = 1 / FPS / SUBSTEPS
        for _ in range(SUBSTEPS):
            pull = SERVO**2 * (action - self.place) - 2 * SERVO * self.speed
            self.speed = self.speed + dt * pull
            self.place = self.place + dt * self.speed
            self.move(pull, dt)
        self.tick += 1

    def close(self) -> None:
        """Nothing to let go of."""

    @property
    def ticks(self) -> int:
        """Of an episode."""
        return round(self.seconds * FPS)

    @property
    def success(self) -> np.ndarray:
        """(n,) at the episode's end."""
        return ~self.failed

    # What each world has of its own.

    def begin(self) -> None:
        """Draw the scenes."""
        raise NotImplementedError

    def seen(self) -> np.ndarray:
        """(n, E) what there is beside the servo's place."""
        raise NotImplementedError

    def move(self, pull: np.ndarray, dt: float) -> None:
        """The rest of the world, for dt s; the servos accelerate by `pull` (n, A)."""
        raise NotImplementedError

    def expert(self) -> np.ndarray:
        """(n, A) the targets that an expert sends now."""
        raise NotImplementedError


class CartPole(Toy):
    """A pole on a cart whose place is the target; what is sent gets noise added."""

    name, seconds = "cart_pole", 8.0
    LENGTH, NOISE, FALLEN = 0.6, 0.02, 0.5

    def begin(self) -> None:
        self.pole = self.draw(-0.1, 0.1, 2)  # angle and its speed
        self.gain = balance(self.LENGTH)

    def act(self, action: np.ndarray) -> None:
        kicks = [rng.normal(0, self.NOISE, 1) for rng in self.rngs]
        super().act(action + np.stack(kicks))

    def seen(self) -> np.ndarray:
        return np.concatenate([self.speed, self.pole], axis=1)

    def move(self, pull: np.ndarray, dt: float) -> None:
        angle, turning = self.pole.T
        bend = GRAVITY * np.sin(angle) - pull[:, 0] * np.cos(angle)
        turning = turning + dt * bend / self.LENGTH
        self.pole = np.stack([np.clip(angle + dt * turning, -3, 3), turning], 1)
        self.failed |= np.abs(self.pole[:, 0]) > self.FALLEN

    def expert(self) -> np.ndarray:
        return np.concatenate([self.place, self.seen()], axis=1) @ -self.gain.T


def balance(length: float) -> np.ndarray:
    """(1, 4) gains of a linear-quadratic regulator, from the discrete Riccati equation.

    Of place, speed, angle and its speed, to the servo's target.
    """
    dt = 1 / FPS
    a, b = np.zeros((4, 4)), np.zeros((4, 1))
    a[0, 1] = a[2, 3] = 1.0
    a[1, :2], b[1] = (-(SERVO**2), -2 * SERVO), SERVO**2
    a[3, :2], a[3, 2] = -a[1, :2] / length, GRAVITY / length
    b[3] = -(SERVO**2) / length
    steps = 50  # of Euler's method in a tick
    one = np.eye(4) + dt / steps * a
    held = np.linalg.matrix_power(one, steps)
    into = sum(np.linalg.matrix_power(one, i) for i in range(steps)) @ b * dt / steps
    cost, effort = np.diag([1.0, 0.1, 10.0, 0.1]), np.array([[0.1]])
    value = cost
    for _ in range(2000):
        gain = np.linalg.solve(effort + into.T @ value @ into, into.T @ value @ held)
        value = cost + held.T @ value @ (held - into @ gain)
    return gain


class Catch(Toy):
    """A ball that falls slowly, with a gust of wind on its way, onto a paddle."""

    name, seconds = "catch", 2.2
    over: np.ndarray  # (n,) whether the ball has come down
    HALF, FALL = 0.07, 0.6  # m, half the paddle; m/s²

    def begin(self) -> None:
        start = self.draw(-0.4, 0.4, 2)
        self.ball = np.stack([start[:, 0], np.ones(self.n)], 1)
        self.flying = np.stack([0.4 * start[:, 1], self.draw(-0.1, 0.1, 1)[:, 0]], 1)
        self.gust_at = self.draw(0.8, 1.6, 1)[:, 0]
        self.gust = self.draw(-0.8, 0.8, 1)[:, 0]
        self.over = np.zeros(self.n, bool)

    def seen(self) -> np.ndarray:
        return np.concatenate([self.ball, self.flying], axis=1)

    def move(self, pull: np.ndarray, dt: float) -> None:
        time = self.tick / FPS
        blows = (self.gust_at <= time) & (self.gust != 0)
        self.flying[blows, 0] += self.gust[blows]
        self.gust = np.where(blows, 0.0, self.gust)
        self.flying[:, 1] -= dt * self.FALL
        self.ball = self.ball + dt * self.flying * ~self.over[:, None]
        lands = ~self.over & (self.ball[:, 1] <= 0)
        self.failed |= lands & (np.abs(self.ball[:, 0] - self.place[:, 0]) > self.HALF)
        self.over |= lands

    def expert(self) -> np.ndarray:
        height, sinks = np.maximum(self.ball[:, 1], 0), self.flying[:, 1]
        left = (sinks + np.sqrt(sinks**2 + 2 * self.FALL * height)) / self.FALL
        return (self.ball[:, 0] + self.flying[:, 0] * left)[:, None]

    @property
    def success(self) -> np.ndarray:
        return self.over & ~self.failed


class Follow(Toy):
    """A hand on a plane that shall stay with a target on a smooth random path."""

    name, seconds = "follow", 6.0
    action_dim = 2
    NEAR, BEGINS = 0.05, 1.0  # m on the mean, from so many s on

    def begin(self) -> None:
        self.rates = self.draw(0.8, 4.5, 2, 3)  # rad/s
        self.phases = self.draw(0, 2 * np.pi, 2, 3)
        self.far, self.count = np.zeros(self.n), 0
        self.place = self.target(0.0)[0]

    def target(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Place and speed, (n, 2) each."""
        waves, size = self.rates * time + self.phases, 0.5 / self.rates
        return (size * np.sin(waves)).sum(-1), 0.5 * np.cos(waves).sum(-1)

    def seen(self) -> np.ndarray:
        return np.concatenate(self.target(self.tick / FPS), axis=1)

    def move(self, pull: np.ndarray, dt: float) -> None:
        if self.tick >= self.BEGINS * FPS:
            away = self.place - self.target(self.tick / FPS)[0]
            self.far, self.count = self.far + np.hypot(*away.T), self.count + 1

    def expert(self) -> np.ndarray:
        place, speed = self.target(self.tick / FPS)
        return place + speed * (2 / SERVO)  # by as much a servo is behind

    @property
    def success(self) -> np.ndarray:
        return self.far / max(1, self.count) < self.NEAR


class Post(Toy):
    """A hand that goes to the other side of a post, on its left or on its right."""

    name, seconds = "post", 3.0
    action_dim = 2
    RADIUS, REACH, TAKES = 0.2, 0.08, 2.0

    def begin(self) -> None:
        self.place = np.concatenate(
            [self.draw(-0.03, 0.03, 1), -np.ones((self.n, 1))], 1
        )
        self.start = self.place.copy()
        self.side = np.array([rng.choice([-1.0, 1.0]) for rng in self.rngs])

    def seen(self) -> np.ndarray:
        return np.zeros((self.n, 1))

    def move(self, pull: np.ndarray, dt: float) -> None:
        self.failed |= np.hypot(*self.place.T) < self.RADIUS

    def expert(self) -> np.ndarray:
        share = min(1.0, (self.tick + 1) / FPS / self.TAKES)
        aside = 0.4 * np.sin(np.pi * share)
        x = (1 - share) * self.start[:, 0] + self.side * aside
        return np.stack([x, np.full(self.n, 2 * share - 1)], axis=1)

    @property
    def success(self) -> np.ndarray:
        return ~self.failed & (
            np.hypot(self.place[:, 0], self.place[:, 1] - 1) < self.REACH
        )


TOYS: dict[str, type[Toy]] = {toy.name: toy for toy in (CartPole, Catch, Follow, Post)}


def record(
    toy: type[Toy], folder: Path, n: int, seed: int, noise: float = 0.02
) -> None:
    """Episodes of the expert, whose hand is unsteady: what is sent has noise added."""
    world = toy([10**9 + 10**5 * seed + i for i in range(n)])
    rng, rows = np.random.default_rng([seed, 4]), []
    for _ in range(world.ticks):
        seen, action = world.observe(), world.expert()
        rows.append((seen["qpos"], seen["env_state"], action.astype(np.float32)))
        world.act(action + rng.normal(0, noise, action.shape))
    qpos, env_state, action = (np.stack(part, 1) for part in zip(*rows, strict=True))
    with atomic_folder(folder, made_by="course.toolkit.toys") as temporary:
        for i in range(n):
            still = np.zeros_like(qpos[i])
            episode = Episode(qpos[i], still, still, action[i], env_state=env_state[i])
            episode.fps = world.fps
            save_episode(episode_path(temporary, i), episode)
