"""Where a person's wishes come from: a leader arm, a gamepad, or keys."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from act_minimal.control import Observation
from act_minimal.support.errors import UserError
from act_minimal.support.extras import require

from .safety.keys import SPACE, Keys
from .safety.safe_robot import SafeRobot
from .so100.arm import IDS, check_calibration, check_servos, servo_bus
from .so100.calibration import Calibration, load_calibration
from .so100.kinematics import ARMS

STEP = 0.03  # rad, or openings of the jaw, a press
PAD_SPEED = 0.9  # rad/s, or openings/s, of a stick pushed to its end
DEAD = 0.12  # share of a stick's way in which it counts as at rest
KEYS = "qawsedrftgyhujik"  # up and down for each joint, in order
OTHER_ARM = "\t"


class Source(Protocol):
    """Gives joint targets, tick by tick."""

    def open(self) -> None: ...
    def wish(self, here: np.ndarray) -> np.ndarray:
        """Joint targets (A,), given where the arm is."""
        ...

    def other(self) -> str:
        """The next key that means no joint: Enter, space, x, z; or ""."""
        ...

    def close(self) -> None: ...


class Described(Protocol):
    """A source that says in a terminal how it is used."""

    hint: str
    """In one line."""

    def keys_of(self, place: int) -> str:
        """What moves the joint at this place of the state now, such as "q a"."""
        ...


class ByHand:
    """What all leaders share: a person moves them, and keys say the rest."""

    keys: Keys | None
    hint = "the arm follows the leader; space ends it"

    def keys_of(self, place: int) -> str:
        """No key moves it."""
        return "leader"

    def other(self) -> str:
        """The next key."""
        return self.keys.pressed() if self.keys else ""


class Leader(ByHand):
    """A second SO-100 or SO-101 whose torque is off, moved by hand.

    Args:
        port: of its bus.
        calibration: its own file.
        model: so100 or so101.
        keys: of the terminal, for starting and stopping.
    """

    def __init__(
        self,
        port: str,
        calibration: Path,
        model: str = "so100",
        keys: Keys | None = None,
    ):
        self.keys = keys
        self.bus = servo_bus(port)
        self.path, self.arm = calibration, ARMS[model]
        self.calibration: Calibration | None = None

    def open(self) -> None:
        """Open its bus; makes sure that nothing holds it.

        Raises:
            UserError: as when a follower is connected: a servo is missing or unwell, or
                holds another calibration than the file.
        """
        self.calibration = load_calibration(self.path)
        self.bus.open()
        try:
            check_servos(self.bus)
            check_calibration(
                self.bus, self.calibration, self.path, self.arm, leader=True
            )
            for id in IDS:
                self.bus.write(id, "Torque_Enable", 0)
        except BaseException:
            self.bus.close()
            raise

    def wish(self, here: np.ndarray) -> np.ndarray:
        """Where the leader is."""
        assert self.calibration is not None
        steps = self.bus.read_all(IDS, "Present_Position")
        row = np.array([steps[id] for id in IDS])
        return self.calibration.state_of(row, self.arm)

    def close(self) -> None:
        """Close its bus."""
        self.bus.close()


class LeaderPair(ByHand):
    """Two leaders, of which each moves one arm of a pair.

    Args:
        leaders: the left one, the right one.
        keys: of the terminal, for starting and stopping.
    """

    def __init__(self, leaders: Sequence[Leader], keys: Keys | None = None):
        self.leaders, self.keys = tuple(leaders), keys

    def open(self) -> None:
        """Open both; see `Leader.open`."""
        try:
            for leader in self.leaders:
                leader.open()
        except BaseException:
            self.close()
            raise

    def wish(self, here: np.ndarray) -> np.ndarray:
        """Where the leaders are."""
        parts = np.split(here, len(self.leaders))
        wishes = [a.wish(part) for a, part in zip(self.leaders, parts, strict=True)]
        return np.concatenate(wishes)

    def close(self) -> None:
        """Close their buses, whatever fails on the way."""
        with contextlib.ExitStack() as last:
            for leader in self.leaders:
                last.callback(leader.close)


class OpenArmLeader(ByHand):
    """A second pair of OpenArms whose torque stays off, moved by hand.

    Args:
        arm: not connected.
        keys: of the terminal, for starting and stopping.
    """

    def __init__(self, arm: Any, keys: Keys | None = None):
        self.arm, self.keys = arm, keys

    def open(self) -> None:
        """Open both buses, and check every motor; torque off, whoever had it on."""
        self.arm.attach()
        try:
            self.arm.disable()
        except BaseException:
            self.arm.close()
            raise

    def wish(self, here: np.ndarray) -> np.ndarray:
        """Where the leader is."""
        return self.arm.measure()[0]

    def close(self) -> None:
        """Close both buses."""
        self.arm.close()


class Steered:
    """What keys and a gamepad share: they move a target from where the arm is."""

    def __init__(self) -> None:
        self.target: np.ndarray | None = None
        self.others: list[str] = []
        """Keys that meant no joint."""

    def open(self) -> None:
        """Begin where the arm is."""
        self.target, self.others = None, []

    def other(self) -> str:
        """The oldest key that meant no joint, or ""."""
        return oldest(self.others)


class Keyboard(Steered):
    """Two keys a joint: q a, w s, e d, r f, t g, y h, u j, i k, as many as there are.

    The last pair is the gripper's. With two arms, tab takes the other one.

    Args:
        keys: of the terminal.
        joints: of one arm, with its gripper.
        arms: one or two.
    """

    def __init__(self, keys: Keys, joints: int = 6, arms: int = 1):
        super().__init__()
        self.joints, self.arms, self.arm = joints, arms, 0
        self.keys = keys
        more = "; tab takes the other arm" if arms > 1 else ""
        self.hint = f"of each pair the first key moves up, the second down{more}; space"
        self.hint += " ends it"

    def keys_of(self, place: int) -> str:
        """Up and down; nothing for the arm whose turn it is not."""
        arm, joint = divmod(place, self.joints)
        return " ".join(KEYS[2 * joint : 2 * joint + 2]) if arm == self.arm else ""

    def press(self, key: str) -> None:
        """Move the target by one step; keys that mean no joint go to `others`."""
        if key == OTHER_ARM and self.arms > 1:
            self.arm = 1 - self.arm
            return
        place = KEYS.find(key, 0, 2 * self.joints)
        if place < 0:
            self.others.append(key)
            return
        if self.target is None:
            return
        joint, down = divmod(place, 2)
        self.target[self.arm * self.joints + joint] += STEP * (-1 if down else 1)

    def wish(self, here: np.ndarray) -> np.ndarray:
        """The target, moved by the keys that were pressed since."""
        if self.target is None:
            self.target = here.copy()
        while key := self.keys.pressed():
            self.press(key)
        return self.target.copy()

    def close(self) -> None:
        """Nothing to close."""


class Gamepad(Steered):
    """Sticks and buttons of a gamepad; how far a stick is pushed is how fast.

    Left stick: shoulder pan and lift. Right stick: wrist roll and elbow. Cross: wrist.
    Shoulder buttons: the gripper. A or cross is Enter, B or circle x, start is space.

    Args:
        fps: ticks a second.
        pad: a pygame joystick; None takes the first that is plugged in.

    Raises:
        UserError: none is plugged in, or pygame is missing.
    """

    BUTTONS: ClassVar = {0: "\n", 1: "x", 3: "z", 7: " "}
    MOVED_BY: ClassVar = (
        "left stick, across",
        "left stick, up and down",
        "right stick, up and down",
        "cross, up and down",
        "right stick, across",
        "shoulder buttons",
    )
    hint = "A is Enter, B is x, start is space and ends it"
    OPEN, CLOSE = 5, 4  # shoulder buttons, right and left

    def __init__(self, fps: float, pad: Any = None):
        super().__init__()
        self.pad = pad or _first_gamepad()
        self.step = PAD_SPEED / fps
        self._down: set[int] = set()

    def keys_of(self, place: int) -> str:
        """The stick or button."""
        return self.MOVED_BY[place]

    def wish(self, here: np.ndarray) -> np.ndarray:
        """The target, moved by how far the sticks are pushed now."""
        if self.target is None:
            self.target = here.copy()
        _pump()
        pad = self.pad
        across, down, right_across, right_down = (
            _dead(pad.get_axis(i)) for i in (0, 1, 3, 4)
        )
        hat = pad.get_hat(0)[1] if pad.get_numhats() else 0
        jaw = pad.get_button(self.OPEN) - pad.get_button(self.CLOSE)
        push = np.array([across, -down, -right_down, hat, right_across, jaw])
        self.target = self.target + self.step * push
        now = {b for b in self.BUTTONS if pad.get_button(b)}
        self.others += [self.BUTTONS[b] for b in sorted(now - self._down)]
        self._down = now
        return self.target.copy()

    def close(self) -> None:
        """Let it go."""
        self.pad.quit()


def oldest(keys: list[str]) -> str:
    """Take the oldest key, or ""; a space, which stops the arm, comes before all."""
    if SPACE in keys:
        keys[:] = [SPACE]
    return keys.pop(0) if keys else ""


def _dead(value: float) -> float:
    """No stick rests at exactly 0."""
    return 0.0 if abs(value) < DEAD else value


def _pump() -> None:
    import pygame

    if pygame.get_init():
        pygame.event.pump()


def _first_gamepad() -> Any:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window is wanted
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    require("gamepad")
    import pygame

    pygame.init()
    if not pygame.joystick.get_count():
        raise UserError("no gamepad is plugged in; without --gamepad the keys are used")
    pad = pygame.joystick.Joystick(0)
    pad.init()
    return pad


def teleoperate(
    robot: SafeRobot,
    source: Source,
    ticks: int | None = None,
    on_tick: Callable[[int, Observation, np.ndarray], Any] | None = None,
    cameras: tuple[str, ...] = (),
) -> int:
    """Let the arm follow a source within its limits, until `on_tick` says so.

    The arm first goes slowly to where the source is, so that it never leaps there.

    Args:
        robot: connected.
        source: open.
        ticks: how many; None for no end.
        on_tick: called with tick, observation and the target that was sent (1, A);
            a true value ends it.
        cameras: looked through at every tick.

    Returns:
        The number of ticks done.
    """
    limits = robot.limits
    state, _, _ = robot.arm.measure()
    first = np.clip(source.wish(state), limits.low, limits.high)
    robot.go(first)
    robot.arm.ticker.start()
    tick = 0
    while ticks is None or tick < ticks:
        observation = robot.observe(cameras)
        wish = source.wish(observation["qpos"][0].astype(float))
        robot.act(wish[None])
        sent = robot.governor.target
        assert sent is not None
        if on_tick and on_tick(tick, observation, sent[None].copy()):
            return tick + 1
        tick += 1
    return tick
