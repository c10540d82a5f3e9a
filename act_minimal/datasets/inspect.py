"""What is in a folder of episodes, and what is wrong with it.

Most bad data loads without complaint: a camera that froze, actions that are copies of
the state, a joint that never moved, one episode at another rate.
"""

import dataclasses
import io
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..episodes import Episode, find_episodes, list_episodes, load_episode
from ..exchange.lerobot_units import robot_of_episode
from ..support.console import make_console
from ..support.errors import UserError
from ..support.files import atomic_file, check_output_file
from ..support.hdf5_files import EpisodeError, is_true, misnamed_files
from .embodiment import beyond_reach, named_joints

STILL_STD = 1e-2  # rad; the floor of the statistics, below which a joint says nothing
FROZEN_SECONDS = 1.0  # identical images for as long as this: the camera hung,
MOVED = 0.05  # rad; if the arm moved meanwhile (a simulated pause looks the same)
COPY_TOLERANCE = 1e-6  # rad; a command is never met this exactly by a real arm

# Okabe and Ito's palette, which colour-blind people can tell apart.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00")
PALETTE += ("#CC79A7", "#56B4E9", "#F0E442", "#000000")


@dataclass
class Range:
    """What one number did over all frames of all episodes."""

    minimum: float
    maximum: float
    mean: float
    std: float


@dataclass
class FileReport:
    """One readable episode."""

    name: str
    frames: int
    seconds: float
    fps: float
    cameras: dict[str, tuple[int, int]]  # name -> (height, width)
    success: bool | None  # the attribute, where the recorder wrote one


@dataclass
class Report:
    """Result of `inspect_dataset`."""

    folder: str
    episodes: int = 0  # readable ones
    broken: dict[str, str] = field(default_factory=dict)  # file -> fault
    frames: int = 0
    seconds: float = 0.0
    fps: list[float] = field(default_factory=list)  # all rates found
    shortest: int = 0  # frames
    longest: int = 0  # frames
    cameras: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    successes: int = 0  # episodes with the attribute success = True
    failures: int = 0  # with success = False
    unlabelled: int = 0  # without it
    real: int = 0  # episodes of a real arm
    attributes: dict[str, dict[str, int]] = field(default_factory=dict)
    ranges: dict[str, list[Range]] = field(default_factory=dict)  # of "qpos", ...
    warnings: list[str] = field(default_factory=list)
    files: list[FileReport] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing at all was found to complain about."""
        return not self.broken and not self.warnings


def _range(numbers: np.ndarray) -> Range:
    wide = numbers.astype(np.float64)
    return Range(*map(float, (wide.min(), wide.max(), wide.mean(), wide.std())))


def inspect_dataset(
    folder: str | Path, *, images: bool = True, progress: bool = False
) -> Report:
    """Reads every episode of a folder, one at a time, and reports what it finds.

    A broken file does not stop it: it is listed with its fault. `images=False` is much
    faster, but finds no frozen camera.

    Raises:
        UserError: The folder has no episodes at all.
    """
    folder = Path(folder)
    paths = list_episodes(folder) or find_episodes(folder)  # the latter says why not
    report = Report(str(folder))
    report.warnings += [
        f"{path.name} is not read: episodes are called *.hdf5"
        for path in misnamed_files(folder)
    ]
    numbers: dict[str, list[np.ndarray]] = {}
    arms: dict[str, list[str]] = {}  # robot -> names of its joints
    widths: dict[str, int] = {}
    for path in tqdm(paths, desc="inspect", disable=not progress):
        try:
            episode = load_episode(path, images=images)
        except EpisodeError as error:
            report.broken[path.name] = str(error).removeprefix(f"{path}: ")
            continue
        _add_file(report, path.name, episode)
        width = episode.qpos.shape[1]
        joints = named_joints(episode.attributes.get("joints"), width)
        arms[robot_of_episode(episode.attributes, width)] = joints
        arrays = {"qpos": episode.qpos, "action": episode.action}
        arrays |= {"qvel": episode.qvel, "effort": episode.effort}
        if episode.env_state is not None:
            arrays["env_state"] = episode.env_state
        for key, array in arrays.items():
            width = widths.setdefault(key, array.shape[1])
            if array.shape[1] != width:
                report.warnings.append(
                    f"{path.name}: {key} is {array.shape[1]} numbers wide, "
                    f"{width} in the files before"
                )
            else:
                numbers.setdefault(key, []).append(array)
        report.warnings += [f"{path.name}: {w}" for w in _episode_faults(episode)]
    report.ranges = {
        key: [_range(column) for column in np.concatenate(arrays).T]
        for key, arrays in numbers.items()
    }
    report.warnings += _dataset_faults(report)
    if len(arms) == 1 and "qpos" in report.ranges:
        [(robot, joints)] = arms.items()
        low, high = (
            np.array([getattr(r, end) for r in report.ranges["qpos"]])
            for end in ("minimum", "maximum")
        )
        report.warnings += beyond_reach(low, high, robot, joints)
    return report


def _add_file(report: Report, name: str, episode: Episode) -> None:
    cameras = {c: (a.shape[1], a.shape[2]) for c, a in episode.images.items()}
    label = episode.attributes.get("success")
    success = None if label is None else is_true(label)
    seconds = len(episode) / episode.fps
    report.files.append(
        FileReport(name, len(episode), seconds, episode.fps, cameras, success)
    )
    report.episodes += 1
    report.frames += len(episode)
    report.seconds += seconds
    report.shortest = min(report.shortest or len(episode), len(episode))
    report.longest = max(report.longest, len(episode))
    report.fps = sorted({*report.fps, episode.fps})
    report.successes += success is True
    report.failures += success is False
    report.unlabelled += success is None
    report.real += not episode.sim
    for camera, size in cameras.items():
        sizes = report.cameras.setdefault(camera, [])
        if size not in sizes:
            sizes.append(size)
    for key in ("task", "demonstrator"):
        if key in episode.attributes:
            counts = report.attributes.setdefault(key, {})
            value = str(episode.attributes[key])
            counts[value] = counts.get(value, 0) + 1


def _episode_faults(episode: Episode) -> list[str]:
    faults = []
    if episode.qpos.shape == episode.action.shape:
        if np.abs(episode.action - episode.qpos).max() < COPY_TOLERANCE:
            faults.append(
                "the actions equal the state in every frame, so that a policy learns "
                "to stand still; record the commands that were sent"
            )
        shifted = np.abs(episode.action[:-1] - episode.qpos[1:])
        moved = np.ptp(episode.qpos, axis=0).max() > STILL_STD
        if len(shifted) and moved and shifted.max() < COPY_TOLERANCE:
            faults.append(
                "the actions equal the next state in every frame, so they were taken "
                "from the arm that moved; a real arm needs the commands it was sent"
            )
    if np.ptp(episode.action, axis=0).max() == 0:
        faults.append("the action never changes")
    limit = max(2, math.ceil(FROZEN_SECONDS * episode.fps))
    for camera, frames in episode.images.items():
        for start, end in _runs_of_equal(frames):
            moved = np.ptp(episode.qpos[start:end], axis=0).max() > MOVED
            if moved and end - start == len(frames):
                faults.append(f"camera {camera!r} shows the same image throughout")
            elif moved and end - start >= limit:
                faults.append(
                    f"camera {camera!r} is frozen for {end - start} frames from frame "
                    f"{start} on, while the arm moves"
                )
        if frames.max() - frames.min() < 8:
            faults.append(f"camera {camera!r} shows a single colour (covered, or off)")
    return faults


def _runs_of_equal(frames: np.ndarray) -> list[tuple[int, int]]:
    """Stretches (start, end) in which every image equals the one before."""
    starts = [0]
    for t, (before, after) in enumerate(itertools.pairwise(frames), start=1):
        if not np.array_equal(before, after):
            starts.append(t)
    return list(itertools.pairwise([*starts, len(frames)]))


def _dataset_faults(report: Report) -> list[str]:
    faults = []
    if len(report.fps) > 1:
        rates = ", ".join(f"{fps:g}" for fps in report.fps)
        faults.append(f"episodes differ in frames a second: {rates}")
    for camera, sizes in report.cameras.items():
        if len(sizes) > 1:
            listed = ", ".join(f"{h}x{w}" for h, w in sizes)
            faults.append(f"images of camera {camera!r} differ in size: {listed}")
        without = [f.name for f in report.files if camera not in f.cameras]
        if without:
            faults.append(
                f"camera {camera!r} is missing from {len(without)} of "
                f"{report.episodes} episodes, first from {without[0]}"
            )
    for key in ("qpos", "action"):
        for j, r in enumerate(report.ranges.get(key, [])):
            if r.std < STILL_STD:
                faults.append(
                    f"{key}[{j}] hardly moves (standard deviation {r.std:.1e} rad)"
                )
    if report.failures:
        faults.append(
            f"{report.failures} of {report.episodes} episodes marked as failures; "
            "imitation learns those too"
        )
    return faults


def render_report(report: Report, width: int = 88) -> str:
    """The report as plain text for a terminal or a log."""
    from rich.table import Table

    out = io.StringIO()
    console = make_console(file=out, width=width, highlight=False, markup=False)
    console.print(f"Episodes in {report.folder}")
    rates = ", ".join(f"{fps:g}" for fps in report.fps) or "unknown"
    console.print(
        f"{report.episodes} readable, {len(report.broken)} broken; {report.frames} "
        f"frames, {report.seconds:.0f} s at {rates} frames a second; "
        f"{report.shortest} to {report.longest} frames each"
    )
    cameras = (
        f"{camera} {' or '.join(f'{h}x{w}' for h, w in sizes)}"
        for camera, sizes in report.cameras.items()
    )
    console.print(f"Cameras: {', '.join(cameras) or 'none'}")
    console.print(
        f"Marked as success: {report.successes}, as failure: {report.failures}, "
        f"unmarked: {report.unlabelled}"
    )
    for key, counts in report.attributes.items():
        listed = ", ".join(f"{value} ({n})" for value, n in counts.items())
        console.print(f"{key}: {listed}")
    table = Table("number", "min", "max", "mean", "std")
    for key in ("qpos", "action", "env_state"):
        for j, r in enumerate(report.ranges.get(key, [])):
            values = (r.minimum, r.maximum, r.mean, r.std)
            table.add_row(f"{key}[{j}]", *(f"{v:.3f}" for v in values))
    if table.row_count:
        console.print(table)
    for name, fault in report.broken.items():
        console.print(f"BROKEN  {name}: {fault}")
    for warning in report.warnings:
        console.print(f"WARNING {warning}")
    if report.healthy:
        console.print("No problems found.")
    return out.getvalue()


def report_json(report: Report) -> dict:
    """The report as plain dicts, lists, numbers and strings."""
    return dataclasses.asdict(report) | {"healthy": report.healthy}


def contact_sheet(folder: str | Path, path: str | Path, *, episodes: int = 4) -> None:
    """Draws first, middle and last frame of each camera, and actions, of some episodes.

    Args:
        path: Where the picture goes (.png).
        episodes: How many, evenly spread over the folder; broken files are left out.

    Raises:
        SettingError: The name does not end in .png, or cannot be written to.
        UserError: No readable episode, or no room for the picture.
    """
    check_output_file(path, "picture", ".png")
    shown: list[tuple[str, Episode]] = []
    paths = list_episodes(folder)
    picks = np.linspace(0, len(paths) - 1, min(episodes, len(paths))).round()
    for i in sorted({int(i) for i in picks}):
        try:
            shown.append((paths[i].name, load_episode(paths[i])))
        except EpisodeError:
            continue
    if not shown:
        raise UserError(f"{folder} has no readable *.hdf5 episode to draw")
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    cameras = sorted({camera for _, e in shown for camera in e.images})
    columns = 3 * len(cameras) + 3  # the traces are three frames wide
    figure = Figure(
        figsize=(1.5 * columns, 1.6 * len(shown) + 0.6), layout="constrained"
    )
    grid = figure.add_gridspec(len(shown), columns)
    for row, (name, episode) in enumerate(shown):
        moments = (0, len(episode) // 2, len(episode) - 1)
        for c, camera in enumerate(cameras):
            for m, t in enumerate(moments):
                axes = figure.add_subplot(grid[row, 3 * c + m])
                axes.set_axis_off()
                axes.set_title(f"{camera} {t / episode.fps:.1f} s", fontsize=7)
                if camera in episode.images:
                    axes.imshow(episode.images[camera][t])
        axes = figure.add_subplot(grid[row, 3 * len(cameras) :])
        seconds = np.arange(len(episode)) / episode.fps
        for j in range(episode.action.shape[1]):
            style = ("-", "--", ":")[j // len(PALETTE) % 3]
            colour = PALETTE[j % len(PALETTE)]
            axes.plot(
                seconds, episode.action[:, j], style, color=colour, lw=1, label=f"{j}"
            )
        axes.set_title(f"{name}: actions", fontsize=7)
        axes.set_ylabel("rad", fontsize=7)
        axes.tick_params(labelsize=6)
        if row == 0:
            axes.legend(
                title="number", fontsize=5, title_fontsize=5, ncols=2, loc="upper right"
            )
        if row == len(shown) - 1:
            axes.set_xlabel("time, s", fontsize=7)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
