"""The commands of `act` that drive an arm: deploy, teleop, record."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from act_minimal.execution import ExecutionConfig
from act_minimal.support.errors import SettingError
from act_minimal.support.files import check_output_folder, sole_writer
from act_minimal.support.results import Json, Result
from act_minimal.support.validation import (
    Bounds,
    ClassPath,
    Count,
    Positive,
    Side,
    Threads,
    Whole,
)

from ..robots import (
    OPENARM,
    PAIR,
    TASKS,
    VIRTUAL,
    RobotConfig,
    make_openarm,
    two_ports,
)

Live = Annotated[
    int,
    Bounds(-1, 65535),
    tyro.conf.arg(
        help="Port of a web page with the cameras' pictures; 0: a free one, -1: none."
    ),
]


@dataclass(frozen=True)
class DeployConfig(RobotConfig):
    """Which policy drives which arm, and how often it is tried."""

    policy: Path = Path("runs/real")
    """A checkpoint folder, or a training run."""
    network: ClassPath | None = None
    """The network of your own that it was trained with, as module:Class."""
    trials: Count = 10
    """How many in all; those in --out count."""
    seconds: Positive = 20.0
    """A trial lasts at most so long."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    dry_run: bool = False
    """Go to the ready pose, look and predict there, and say what the policy would do;
    nothing of the policy is sent."""
    out: Path | None = None
    """Tally and log of interventions, of one policy on one arm; a second call goes on.
    By default runs/deploy/POLICY_ROBOT."""
    task: str | None = None
    """The scene that a 'virtual' arm stands in; by default the arm's usual one."""
    scenes: Whole | None = None
    """For a virtual arm: lay evaluation scenes of this seed, and let it judge."""
    live: Live = 0
    threads: Threads = 1
    """CPU threads of the policy; one is steadier on a busy machine."""


def deploy(config: tyro.conf.OmitArgPrefixes[DeployConfig], json: Json = False) -> int:
    """Let a policy drive an arm, trial by trial, and keep the tally.

    Begin with --dry-run. Space or Ctrl-C stops the arm; it then goes slowly to its rest
    pose. Success or failure is asked after each trial; s ends a trial early.

    $ act deploy --policy runs/vision --port /dev/ttyACM0 --cameras top=0 wrist=2 \
          --dry-run
    $ act deploy --policy runs/vision --port /dev/ttyACM0 --cameras top=0 wrist=2
    """
    import torch

    from act_minimal.realtime import longest_delay
    from act_minimal.residual import load_driver

    from ..deployment import GOES_ON, about_trials, check_fit, dry_run, open_tally
    from ..deployment import deploy as run_trials
    from ..robots import make_robot

    torch.set_num_threads(config.threads)
    policy = load_driver(config.policy, network=config.network)
    say = (lambda text: None) if json else print
    out = config.out or default_folder(config.policy, config.robot)
    log = out / "interventions.jsonl"
    # Before an arm is touched: is there anything left to do, and may it be mixed?
    about: dict[str, Any] = {"robot": config.robot, "task": _task(config)}
    about |= {"fps": config.fps, "gains": config.gains, "seconds": config.seconds}
    whose = about_trials(policy, config.execution, **about)
    done = open_tally(None if config.dry_run else out, whose, _scenes(config))
    if len(done.trials) >= config.trials:
        say(f"{config.trials} of {config.trials} already done in {out}: {done}")
        return Result(done.to_json() | {"interventions": {}}).show(json)
    if config.port == VIRTUAL:  # it shows and tells what the policy wants to know
        config = replace(
            config,
            cameras=config.cameras or policy.cameras,
            objects=VIRTUAL if policy.config.env_state_dim else config.objects,
        )
    with session(config) as (stop, keys, here, last):
        if not config.dry_run:
            last.enter_context(sole_writer(out))
        robot = make_robot(here, policy.image_sizes, stop, log)
        _say_rate(policy.card, config.fps, robot.fps, say)
        check_fit(policy, robot)
        judge = None
        if not config.dry_run:
            judge = judge_of(config, here.port, keys, robot, last)
        with driven(robot, config.live, say):
            if judge is None:
                robot.go(robot.limits.ready)
                report = dry_run(policy, robot, config.execution)
                goes_on = config.execution.mode in GOES_ON
                most = longest_delay(policy)
                text = _dry_run_text(report, robot.fps, goes_on, most)
                return Result(report, text).show(json)
            tally = run_trials(
                policy,
                robot,
                judge,
                execution=config.execution,
                trials=config.trials,
                seconds=config.seconds,
                out=out,
                about=about,
                say=say,
            )
    counts = dict(robot.interventions.counts)
    text = f"interventions: {counts or 'none'}"
    return Result(tally.to_json() | {"interventions": counts}, text).show(json)


@contextlib.contextmanager
def session(config: Any) -> Iterator[tuple[Any, Any, Any, contextlib.ExitStack]]:
    """Emergency stop, keys, the arm as it is plugged in, and what ends before them."""
    from ..robots import plugged_in
    from ..safety.keys import Keys, watch_keys
    from ..safety.stop import EmergencyStop

    with (
        EmergencyStop() as stop,
        Keys() as keys,
        plugged_in(config, config.task) as here,
        contextlib.ExitStack() as last,
    ):
        stop.watch = lambda: watch_keys(keys, stop)
        yield stop, keys, here, last


@contextlib.contextmanager
def driven(robot: Any, live: int, say: Callable[[str], Any]) -> Iterator[None]:
    """The arm, connected, and its live view; first of all at the end it is laid down.

    Raises:
        UserError: it cannot be connected, or not be laid down.
    """
    with contextlib.ExitStack() as last:
        last.callback(_complain, robot)
        _look_on(last, robot, live, say)
        robot.connect()
        last.callback(robot.close)
        yield


def _complain(robot: Any) -> None:
    """Say what failed beside the arm, after it was laid down."""
    for said in robot.complaints:
        with contextlib.suppress(OSError):
            print(f"note: {said}", file=sys.stderr)


def _say_rate(
    card: dict[str, Any], given: float | None, fps: float, say: Callable[[str], Any]
) -> None:
    """Say at which rate a policy drives where its card says none or another one.

    --fps then stands in for the card's rate, and `check_fit` finds nothing to refuse.
    """
    taught = card.get("fps")
    if taught is None:
        say(f"the policy's card names no rate; this loop ticks at {fps:g} Hz")
    elif given is not None and given != taught:
        say(f"taught at {taught:g} Hz, driven at {fps:g} Hz: --fps says so")
    if given is not None:
        card["fps"] = given


def judge_of(
    config: Any, port: str, keys: Any, robot: Any, last: contextlib.ExitStack
) -> Any:
    """What lays the objects and judges a trial: a person, or the virtual arm itself."""
    from ..deployment import SceneJudge

    scenes = _scenes(config)
    if scenes is None:
        from ..safety.operator import Judging

        if not keys.here:
            raise SettingError(
                "act deploy needs a terminal, to be told how a trial went; for a "
                "virtual arm give --scenes"
            )
        return Judging(keys, robot)
    judge = SceneJudge(_ports(config, port), scenes)
    last.callback(judge.close)
    return judge


def _scenes(config: Any) -> list[int] | None:
    """The scenes that are laid, one a trial; None where a person lays the objects."""
    from act_minimal.evaluation import evaluation_scenes

    alone = _task(config) == "alone"  # nothing is judged there
    if config.scenes is None and (config.port != VIRTUAL or alone):
        return None
    return evaluation_scenes(config.scenes or 0, config.trials)


def default_folder(policy: Path, robot: str) -> Path:
    """Where the trials of a policy on an arm go if nobody says where."""
    words = [w for w in Path(os.path.abspath(policy)).parts if w != "checkpoints"]
    # A run's checkpoints, and a demo's, are called like everybody's.
    few = 2 if words[-1].isdecimal() or words[-1] in ("checkpoint", "last") else 1
    return Path("runs") / "deploy" / "_".join([*words[-few:], robot.replace(":", "_")])


def _look_on(
    last: contextlib.ExitStack, robot: Any, port: int, say: Callable[[str], Any]
) -> None:
    """Open the live view, if there are cameras and it is wanted."""
    if port < 0 or not robot.arm.sources:
        return
    from ..live import LiveView

    def said() -> dict[str, Any]:
        timing = robot.arm.ticker.report()
        return {k: round(v, 2) for k, v in timing.items()} | {
            "interventions": dict(robot.interventions.counts)
        }

    view = last.enter_context(LiveView(robot.arm.sources, said, port))
    say(f"what the cameras see: {view.address}")


def _dry_run_text(report: dict[str, Any], fps: float, goes_on: bool, most: int) -> str:
    ms = report["prediction_ms"]
    ticks = math.ceil(ms["worst"] / 1000 * fps)
    lines = [
        f"a prediction takes {ms['median']:.1f} ms, {ms['worst']:.1f} at worst; a tick "
        f"lasts {1000 / fps:.0f} ms",
        *(
            f"camera {name}: pictures are {age:.0f} ms old when they are used"
            for name, age in report["frames"].items()
        ),
        f"the first action would be at most {report['jump']:.2f} rad from the arm",
    ]
    if ticks > 1 and not goes_on:
        remedy = (
            "with --mode fade it goes on meanwhile"
            if ticks <= most
            else f"too many for --mode fade, with which this policy may take {most}"
        )
        lines.append(
            f"the arm would stand still for {ticks - 1} ticks at each prediction: "
            f"{remedy}"
        )
    if report["unfamiliar"]:
        lines.append(
            f"joints {report['unfamiliar']} are far from anything in the "
            "demonstrations: check the calibration"
        )
    lines.append(
        "nothing of the policy was sent: the arm went to its ready pose, and back to "
        "rest; without --dry-run the policy drives it"
    )
    return "\n".join(lines)


@dataclass(frozen=True)
class TeleopConfig(RobotConfig):
    """Which arm is moved, and by what."""

    leader: str | None = None
    """Port of the leader arm, as --port; without one, the keys."""
    leader_calibration: Path = Path("leader.json")
    """The leader's own calibration file."""
    gamepad: bool = False
    """By the first gamepad that is plugged in."""
    task: str | None = None
    """Written into each episode, and the scene that a 'virtual' arm stands in; by
    default the arm's usual one."""
    seconds: Positive | None = None
    """End after so long; an episode lasts at most so long, or a minute."""
    size: tuple[Side, Side] = (96, 128)
    """Height and width of the pictures."""
    live: Live = 0


def teleop(config: tyro.conf.OmitArgPrefixes[TeleopConfig]) -> int:
    """Move the arm by a leader arm, a gamepad or keys, within its limits.

    Keys, up and down for each joint: q a, w s, e d, r f, t g, y h, u j, i k, the last
    pair for the gripper; tab takes the other arm, space ends it. The arm comes slowly
    to where the leader is, and rests at the end.

    $ act teleop --port /dev/ttyACM0 --leader /dev/ttyACM1
    $ act teleop --port virtual
    $ act teleop --robot openarm --port can0,can1 --table 0.4 --leader can2,can3
    """
    from ..robots import make_robot
    from ..safety.stop import Stop
    from ..teleop import teleoperate
    from .display import shown

    with session(config) as (stop, keys, here, last):
        arm = make_robot(here, config.size, stop)
        source = _source(config, keys, arm, last)
        with shown(arm, source), driven(arm, config.live, print):
            ticks = None if config.seconds is None else round(config.seconds * arm.fps)
            try:
                teleoperate(arm, source, ticks, lambda *_: source.other() == " ")
            except Stop as error:
                print(error)
            timing = arm.arm.ticker.report()
    print(
        f"{timing['ticks']:.0f} ticks, jitter {timing.get('jitter_ms_p99', 0):.1f} ms "
        f"(99th percentile); interventions: {dict(arm.interventions.counts) or 'none'}"
    )
    return 0


def _source(
    config: TeleopConfig, keys: Any, robot: Any, last: contextlib.ExitStack
) -> Any:
    """What moves the arm, open until `last` ends."""
    source = _make_source(config, keys, robot)
    source.open()
    last.callback(source.close)
    return source


def _make_source(config: TeleopConfig, keys: Any, robot: Any) -> Any:
    from ..teleop import Gamepad, Keyboard, Leader, LeaderPair, OpenArmLeader

    arms = robot.limits.arms
    if config.leader and config.robot == OPENARM:
        plugged = replace(config, port=config.leader)
        return OpenArmLeader(make_openarm(plugged, flag="leader")[0], keys)
    if config.leader and config.robot == PAIR:
        from ..so100.pair import SIDES, of_side

        ports, file = two_ports(config.leader, "leader"), config.leader_calibration
        leaders = [
            Leader(port, of_side(file, side))
            for port, side in zip(ports, SIDES, strict=True)
        ]
        return LeaderPair(leaders, keys)
    if config.leader and ":" in config.robot:
        raise SettingError(
            f"leader is '{config.leader}', but a {config.robot} has none; move it by "
            "keys, or write a source as in hardware/teleop.py"
        )
    if config.leader:
        return Leader(config.leader, config.leader_calibration, config.robot, keys)
    if config.gamepad and config.robot not in ("so100", "so101"):
        raise SettingError(
            f"gamepad moves one SO-100 or SO-101; move a {config.robot} by keys"
        )
    if config.gamepad:
        return Gamepad(robot.fps)
    return Keyboard(keys, robot.action_dim // arms, arms)


@dataclass(frozen=True)
class RecordConfig(TeleopConfig):
    """Where the demonstrations go, and how many there shall be."""

    out: Path = Path("demos")
    """Folder for the episodes."""
    n: Count = 50
    """How many episodes the folder shall hold."""
    scenes: Whole | None = None
    """For a virtual arm and a virtual leader: lay the demonstration scenes of this
    seed, and let a simulated operator hold the leader."""


def record_arm(config: tyro.conf.OmitArgPrefixes[RecordConfig]) -> int:
    """Record demonstrations on an arm, by a leader arm, a gamepad or keys.

    Enter begins an episode; Enter again ends and keeps it, x ends and discards it, z
    also removes the one before, and space ends the session. Episodes that were kept are
    never lost; a second call goes on.

    $ act record --robot so100 --out demos --port /dev/ttyACM0 \
          --leader /dev/ttyACM1 --cameras top=0 wrist=2
    $ act record --robot openarm --out demos --port can0,can1 --table 0.4 \
          --leader can2,can3 --cameras top=0 right_wrist=2 left_wrist=4
    """
    from ..recording import record_session
    from ..robots import make_robot
    from .display import shown

    with session(config) as (stop, keys, here, last):
        if config.scenes is None and not keys.here:
            raise SettingError(
                "act record --robot needs a terminal, to be told when; for a virtual "
                "arm and leader give --scenes"
            )
        check_output_folder(config.out, "episodes")
        last.enter_context(sole_writer(config.out))
        log = config.out / "interventions.jsonl"
        arm = make_robot(here, config.size, stop, log)
        source = _source(config, keys, arm, last)
        who = _demonstrator(config, here.port, keys, arm, source, last)
        with shown(arm, source), driven(arm, config.live, print):
            record_session(
                arm,
                source,
                config.out,
                config.n,
                prepare=who.prepare,
                over=who.over,
                verdict=who.verdict,
                cameras=arm.cameras,
                seconds=config.seconds or 60.0,
                attributes=lambda: {
                    **({"task": task} if (task := _task(config)) else {}),
                    "recorded": time.time(),
                    "scene": who.number,
                },
            )
    return 0


def _demonstrator(
    config: RecordConfig,
    port: str,
    keys: Any,
    robot: Any,
    source: Any,
    last: contextlib.ExitStack,
) -> Any:
    """Whoever shows the task: a person at the keys, or a simulated operator."""
    if config.scenes is None:
        from ..safety.operator import Demonstrating

        return Demonstrating(keys, robot, source)
    if not config.leader:
        raise SettingError("--scenes needs --leader, the port of a virtual leader arm")
    from ..virtual.simulated_operator import SimulatedOperator, scenes_left

    scenes = scenes_left(config.out, config.scenes)
    operator = SimulatedOperator(
        _ports(config, port),
        _ports(config, config.leader, "leader"),
        scenes,
        task=_task(config),
    )
    last.callback(operator.close)
    return operator


def _task(config: Any) -> str:
    """What the arm does; of one's own arm nobody knows it if it is not said."""
    return config.task or TASKS.get(config.robot, "")


def _ports(config: Any, port: str, flag: str = "port") -> list[str]:
    """The virtual arms that a port names."""
    return two_ports(port, flag) if config.robot == PAIR else [port]
