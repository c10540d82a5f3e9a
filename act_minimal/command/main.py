"""The `act` command. `act --help` lists what it can do, `act train --help` teaches.

The settings of each command are the parameters of a function or the fields of a
dataclass; tyro makes the flags from them. Heavy imports happen inside the commands, so
that `act --help` answers at once.
"""

import contextlib
import functools
import inspect as inspection_of_code
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..execution import ExecutionConfig
from ..support.console import prepare_output
from ..support.errors import SettingError, UserError
from ..support.extras import require
from ..support.files import reason
from ..support.plugins import plugin
from ..support.results import Json, Result, print_json
from ..support.validation import (
    Bounds,
    ClassPath,
    Count,
    Port,
    Positive,
    SceneSeed,
    Side,
    TaskName,
    Whole,
    check_arguments,
    check_settings,
)
from . import data as data_commands
from . import exchange
from .diagnose import diagnose
from .train import speaks, train_command, train_residual

OVERVIEW = """\
usage: act COMMAND [flags]          act COMMAND --help teaches each one

From nothing to a robot arm that does what it was shown, in one command:
  demo      record, train, roll out beside single-step cloning, and film

The same, step by step:
  doctor    what this machine has, what is missing, how to install it
  record    demonstrations by a simulated expert
  inspect   what is in a dataset, and what is wrong with it
  replay    do the recorded actions succeed again, without looking?
  train     a policy on demonstrations
  eval      roll a policy out on unseen scenes: success with its interval
  diagnose  why a policy fails: its data, its training, its trials
  train-residual   a head that corrects each action, for slow predictions

On an arm, real or virtual (GUIDE.md of hardware/so100 or hardware/openarm leads):
  virtual   plug in a virtual arm, with a port like a real one
  ports, cameras, health      what is plugged in, and how it is
  setup, calibrate            ids and calibration of a new arm
  teleop    move the arm by a leader arm or keys
  record    with --robot so100, so101 or openarm: demonstrations on the arm
  deploy    let a policy drive the arm, trial by trial, with a tally

Data and policies, here and elsewhere:
  data      merge, split, repair folders of episodes; convert LeRobot's datasets
  export-lerobot   a policy as a LeRobot checkpoint
  import-lerobot   a LeRobot checkpoint as a policy
  export-onnx      a policy as one ONNX file

The course:
  course    the notebooks in JupyterLab, from why single steps drift to a real arm

  act record --out demos --n 50
  act inspect demos --picture demos.png
  act replay demos
  act train --data demos --out runs/first --threads 1
  act eval --policy runs/first --n 100 --film first.mp4

Commands that end by themselves take --json: nothing but JSON on standard output, for
machines; an error is {"error": "what", "exit_code": 2} there, too. virtual, setup,
calibrate, teleop and record --robot talk with a person instead.
NO_COLOR=1 keeps colours out.
Exit codes: 0 well, 1 something is wrong, 2 a flag or setting is, 130 Ctrl-C.
"""

Task = Annotated[
    TaskName | ClassPath,
    tyro.conf.arg(help="Which simulated task, or one of your own as module:Class."),
]


def doctor(json: Json = False) -> Result:
    """Say what this machine has, what is missing, and the line that installs it.

    $ act doctor
    """
    from .doctor import diagnose, result

    return result(diagnose())


def record(
    out: Path,
    n: Annotated[int, Bounds(1, 33_333)] = 50,
    task: Task = "so100_pick_place",
    demonstrator: Literal["scripted", "human"] = "human",
    cameras: tuple[str, ...] = (),
    size: tuple[Side, Side] = (96, 128),
    compression: Literal["raw", "jpeg"] = "jpeg",
    seed: Whole = 0,
    json: Json = False,
) -> Result:
    """Record demonstrations by a simulated expert; only successes are kept.

    A recording that was stopped, even by kill -9, goes on when the same command is
    given again; a larger --n adds to it. On an arm: act record --robot so100 --help

    $ act record --out demos --n 50
    $ act record --out demos_vision --n 200 --cameras top wrist

    Args:
        out: Folder for episode_0.hdf5, episode_1.hdf5, ...
        n: How many episodes the folder shall hold.
        demonstrator: scripted is clean and always alike; human varies in speed,
            pauses, approach, aim and gripper timing.
        cameras: Also record what these see, such as top wrist; takes five times as
            long.
        size: Height and width of the images, in pixels.
        compression: How images are stored; raw takes ten times the space.
        seed: Decides scenes and styles.
    """
    from ..episodes import list_episodes
    from ..sim import make_task
    from ..sim.recording import record as record_episodes

    paths = record_episodes(
        make_task(task),
        out,
        n,
        demonstrator=demonstrator,
        seed=seed,
        cameras=cameras,
        size=size,
        compression=compression,
        progress=not json,
    )
    there = len(list_episodes(out))
    return Result(
        {"folder": str(out), "episodes": [p.name for p in paths]},
        f"{there} episodes in {out}; look at them with: act inspect {out}",
    )


def inspect(
    data: tyro.conf.Positional[Path], picture: Path | None = None, json: Json = False
) -> Result:
    """Look at a dataset: counts, rates, ranges, pictures, and what is wrong with it.

    Recordings of a real arm are also held against each other: poses, durations, grip,
    timing, light, and whether a camera was moved.
    Reads this package's recordings and those of ALOHA and Mobile ALOHA. Exits with 1
    if a file cannot be read.

    $ act inspect demos --picture demos.png

    Args:
        data: Folder of episodes.
        picture: Also draw frames and actions of a few episodes into this PNG file.
    """
    from ..datasets import inspect as inspection
    from ..support.files import check_output_file

    if picture:
        check_output_file(picture, "picture", ".png")
    report = inspection.inspect_dataset(data, progress=not json)
    if report.real:
        report.warnings += plugin("check_recordings")(data)

    def draw() -> None:
        if picture:
            inspection.contact_sheet(data, picture)

    return Result(
        inspection.report_json(report),
        inspection.render_report(report),
        code=1 if report.broken else 0,
        then=draw if picture else None,
    )


def replay(
    data: tyro.conf.Positional[Path],
    n: Count = 10,
    task: ClassPath | None = None,
    film: Path | None = None,
    json: Json = False,
) -> Result:
    """Send the recorded actions to the same scenes again, without looking.

    If this fails, no policy can be blamed: the recording and the simulator disagree.
    Exits with 1 then.

    $ act replay demos --n 20 --film replay.mp4

    Args:
        data: Folder of simulated episodes.
        n: How many episodes to replay, from the first.
        task: The task of your own that they were recorded in, as module:Class.
        film: Also film the first twelve, into this mp4 file.
    """
    from ..sim.replay import replay as replay_episodes

    results = replay_episodes(data, n, task=task, film=film, progress=not json)
    lines = []
    for row in results["episodes"]:
        how = "success" if row["success"] else "failure"
        apart = row["largest_difference"]
        lines.append(
            f"{row['episode']}: {how}, at most {apart:.2g} rad from the recording"
        )
    lines.append(f"{results['successes']} of {results['n']} succeed again")
    code = 0 if results["successes"] == results["n"] else 1
    return Result(results, "\n".join(lines), code)


@dataclass(frozen=True)
class EvalConfig:
    """What to roll out, and how."""

    policy: Path
    """A checkpoint folder, or a training run (its newest checkpoint is taken)."""
    network: ClassPath | None = None
    """The network of your own that it was trained with, as module:Class."""
    task: Task = "so100_pick_place"
    n: Annotated[int, Bounds(1, 10_000)] = 100
    """Number of scenes; no demonstration starts from any of them."""
    seed: SceneSeed = 0
    """Decides the scenes."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    out: Path | None = None
    """Keep the rollouts here; a stopped evaluation goes on from them."""
    film: Path | None = None
    """Film eight rollouts into this mp4 file: failures first, then successes."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, mps."""
    fps: Positive | None = None
    """The rate at which the policy acts, in place of what its card says; it has to be
    the task's."""
    delay: Whole = 0
    """Ticks that a prediction takes. Meanwhile the arm stands still, or goes on with a
    mode that says how: switch, overlap, fade or ensemble."""
    delay_spread: Annotated[float, Bounds(1)] = 1.0
    """Delays vary: their 99th percentile over their median. Ten scenes at a time share
    one sequence of them. 1: always the same."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.delay_spread != 1 and not self.delay:
            raise SettingError(
                f"delay_spread is {self.delay_spread:g} without a delay, expected "
                "--delay too: it is the median"
            )


def evaluate(
    config: tyro.conf.OmitArgPrefixes[EvalConfig], json: Json = False
) -> Result:
    """Roll a policy out on unseen scenes: success rate with its 95 % interval.

    Chunks of k actions are executed in one of three ways: the whole chunk, its first
    part, or the weighted mean of all predictions for a tick (temporal ensembling).
    Three more ways are for predictions that take several ticks.

    $ act eval --policy runs/state --n 100 --film state.mp4
    $ act eval --policy runs/state --mode receding --execute 5
    $ act eval --policy runs/state --mode ensemble --m 0.01 --out rollouts
    $ act eval --policy runs/state --mode fade --delay 8
    """
    from ..checkpoint import find_checkpoint
    from ..evaluation import evaluate as run_rollouts
    from ..evaluation import late_text
    from ..residual import load_driver
    from ..support.files import check_output_file
    from ..support.processes import choose_device

    if config.film:
        check_output_file(config.film, "film", ".mp4")
    folder = find_checkpoint(config.policy)
    policy = load_driver(folder, choose_device(config.device), config.network)
    if config.fps is not None:
        policy.card["fps"] = config.fps
    result = run_rollouts(
        policy,
        config.task,
        config.execution,
        n=config.n,
        seed=config.seed,
        out=config.out,
        delay=config.delay,
        spread=config.delay_spread,
        progress=not json,
    )

    def draw() -> None:
        from ..sim import make_task
        from ..sim.film import film, pick

        if config.film:
            takes = pick(result.rollouts, policy.name, 8, policy)
            film(make_task(config.task), takes, config.film, progress=not json)

    took = result.seconds_to_success
    return Result(
        {"checkpoint": str(folder)} | result.to_json(),
        f"{folder}: success {result}\n"
        f"median time to success {f'{took:.1f} s' if took else '-'}; standing still "
        f"{100 * result.frozen:.0f} % of the time; root mean square jerk "
        f"{result.jerk:.0f} rad/s³; a prediction takes {result.chunk_ms:.1f} ms"
        + late_text(result.late),
        then=draw,
    )


def demo(
    out: Path | None = None,
    task: Annotated[
        TaskName, tyro.conf.arg(help="Which simulated task.")
    ] = "so100_pick_place",
    vision: bool = False,
    seed: SceneSeed = 0,
    json: Json = False,
) -> Result:
    """From nothing to a rolled-out ACT: record, train, evaluate, film. One command.

    Beside ACT, single-step behaviour cloning is trained on the same demonstrations for
    the same time. Two to five minutes on two cores; a second call goes on where the
    first was stopped.

    $ act demo
    $ act demo --task openarm_handover
    $ act demo --vision --out runs/with_cameras

    Args:
        out: Folder for everything; by default runs/demo, with the task's name behind it
            and _vision, where they are not the usual.
        vision: Let the policies see camera images instead of the objects' poses, and
            record 200 demonstrations instead of 50 (two arms: 100); takes ten to
            twenty-five minutes, and longer with two arms' three cameras.
        seed: Decides demonstrations, weights and scenes.
    """
    from .demo import default_folder, run_demo

    out = out or default_folder(task, vision)
    return Result(run_demo(out, task, vision=vision, seed=seed, progress=not json))


def course(
    lesson: str = "0",
    browser: bool | None = None,
    port: Port | None = None,
    handout: Path | None = None,
    json: Json = False,
) -> Result | int:
    """The notebooks in JupyterLab; Ctrl-C ends it, and loses nothing that was saved.

    Without a display no browser is opened: the address to open is printed instead.

    $ act course
    $ act course --lesson 4
    $ act course --handout handout.zip

    Args:
        lesson: The lesson to open, 0 to 9, F1 to F3.
        browser: Whether to open a browser; by default where there is a display.
        port: Of JupyterLab; by default the first free one from 8888.
        handout: Write the notebooks without solutions into this zip file instead.
    """
    from . import course as classroom

    if handout is not None:
        names = classroom.hand_out(handout)
        return Result(
            {"handout": str(handout), "notebooks": names},
            f"{handout}: {len(names)} notebooks, without solutions",
        )
    path = classroom.find_lesson(lesson)
    require("course")
    shown = classroom.has_display() if browser is None else browser
    if json:
        command = classroom.lab_command(path, browser=shown, port=port)
        return Result({"lesson": str(path), "command": command})
    if port is not None:
        classroom.check_port(port)
    if not shown:
        print("no display here: open the address below in a browser", flush=True)
    return classroom.open_lab(path, browser=shown, port=port)


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "doctor": doctor,
    "record": record,
    "inspect": inspect,
    "replay": replay,
    "train": train_command,  # see `find_command`
    "train-residual": train_residual,
    "eval": evaluate,
    "diagnose": diagnose,
    "course": course,
    **exchange.COMMANDS,
}
ARM_COMMANDS = ("virtual", "ports", "cameras", "setup", "calibrate", "health")
ARM_COMMANDS += ("teleop", "deploy")
ON_ARMS = ("record", "diagnose")  # commands that --robot makes another one of


def main(args: Sequence[str] | None = None) -> None:
    """Run the `act` command; exits with 0, 1 (something is wrong) or 2 (usage)."""
    prepare_output()
    words = list(sys.argv[1:] if args is None else args)
    json = "--json" in words and speaks()
    if not words or words[0] in ("-h", "--help", "help"):
        print(OVERVIEW, end="", file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else 2)
    try:
        done = _find(words[0], words[1:], json)()
        code = done.show(json) if isinstance(done, Result) else done
        if sys.stdout:  # there is none where it was closed
            sys.stdout.flush()
    except UserError as error:
        code = _fail(str(error), error.exit_code, json)
    except KeyboardInterrupt as stop:
        code = _fail(str(stop) or "stopped; the same command goes on", 130, json)
    except BrokenPipeError:  # `act inspect demos | head`: whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except MemoryError as error:
        code = _fail(f"there is not enough memory for this ({error})", 1, json)
    except OSError as error:  # such as no room for what is printed
        where = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{where}{reason(error)}", 1, json)
    sys.exit(code)


def find_command(name: str) -> Callable[..., Result | int]:
    """The function of a command that is none of an arm's and none of `act data`."""
    return train_command() if name == "train" else COMMANDS[name]


def _fail(sentence: str, code: int, json: bool) -> int:
    """Say what is wrong, to a person or to a machine; returns the exit code."""
    print(f"act: {sentence}", file=sys.stderr)
    if json:
        print_json({"error": sentence, "exit_code": code})
    return code


def _find(name: str, words: list[str], json: bool) -> Callable[[], Result | int]:
    """The command that the words ask for, with all its settings, ready to run."""
    known = (*COMMANDS, "data", *ARM_COMMANDS)
    if name not in known:
        raise SettingError(
            f"no command '{name}'; the commands are: {', '.join(known)} "
            "(act --help explains them)"
        )
    on_arm = name in ON_ARMS and any(w.split("=")[0] == "--robot" for w in words)
    if on_arm or name in ARM_COMMANDS:
        command = plugin("arm_commands")[f"{name} --robot" if on_arm else name]
    elif name == "data":
        if words[:1] in ([], ["-h"], ["--help"]):
            code, stream = (0, sys.stdout) if words else (2, sys.stderr)
            print(data_commands.OVERVIEW, end="", file=stream)
            return lambda: code
        command = data_commands.find_verb(words)
        name, words = f"data {words[0]}", words[1:]
    else:
        command = find_command(name)
    return _parse(command, name, words, json)


def _parse(
    command: Callable[..., Result | int], name: str, words: list[str], json: bool
) -> Callable[[], Result | int]:
    @functools.wraps(command)  # its flags and help, but nothing runs yet
    def later(*args: Any, **settings: Any) -> Callable[[], Result | int]:
        given = inspection_of_code.signature(command).bind(*args, **settings)
        check_arguments(command, given.arguments)
        return functools.partial(command, *args, **settings)

    about = inspection_of_code.getdoc(command) or ""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                later,
                prog=f"act {name}",
                description=about.partition("\n\nArgs:")[0],
                args=words,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if json and end.code:
            print_json({"error": _unframed(said.getvalue()), "exit_code": end.code})
        raise
    finally:
        print(said.getvalue(), end="", file=sys.stderr)


def _unframed(text: str) -> str:
    """What stands in the frame that tyro draws around an error, as one line."""
    lines = [line.strip("│| ") for line in text.splitlines()[1:]]  # no title
    said = [line for line in lines if line.strip("─-╰╯+")]
    return " ".join(said).partition(" For full help")[0]


if __name__ == "__main__":
    main()
