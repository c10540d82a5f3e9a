"""What goes wrong in demonstrations on a real arm, and loads without complaint.

`act inspect` looks at each file by itself; here the episodes of one session are held
against each other. The usual one is the median episode, so that a few bad ones do not
hide themselves. Each finding is one sentence that names the episode and the number.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from act_minimal.episodes import Episode, list_episodes, load_episode
from act_minimal.support.hdf5_files import EpisodeError

POSE = 0.3  # rad: a start this far from the usual one was another start
DURATION = 2.0  # times longer or shorter than usual
MOVING = 0.3  # rad/s at the last frame: it was cut off
GRIP = 0.25  # share of the episode between this one's first grip and the usual one's
CLOSED, OPENED = 0.35, 0.5  # gripper openings that count as such
SHIFT = 2.0  # pixels that a picture may be displaced
SURE = 0.3  # of phase correlation: below, two pictures are not comparable
BRIGHTNESS = 12.0  # of 255, between an episode's pictures and the usual ones
FOLLOW = 0.35  # rad between command and arm, 95th percentile
JITTER = 1.5  # periods of a tick, 99th percentile


@dataclass
class Traits:
    """What one episode is held against the others by."""

    name: str
    start: np.ndarray  # (S,)
    end: np.ndarray  # (S,)
    seconds: float
    last_speed: float  # rad/s of the fastest joint
    grips: float | None  # share of the episode before the jaw first closes
    opens: bool
    apart: float  # rad between command and arm, 95th percentile
    jitter: float | None  # periods, 99th percentile
    pictures: dict[str, np.ndarray]  # camera -> grey (H, W), the first frame
    brightness: dict[str, tuple[float, float]]  # camera -> first and last mean


def traits_of(name: str, episode: Episode) -> Traits:
    """Measure one episode."""
    jaw = episode.action[:, -1]
    opened = np.flatnonzero(jaw > OPENED)
    first_open = int(opened[0]) if len(opened) else 0
    closed = np.flatnonzero(jaw[first_open:] < CLOSED)
    grips = (first_open + int(closed[0])) / len(jaw) if len(closed) else None
    tail = episode.qpos[-4:, :-1]
    speed = np.abs(np.diff(tail, axis=0)).max() * episode.fps if len(tail) > 1 else 0.0
    period = episode.attributes.get("period_ms_p99")
    apart = 0.0
    if episode.action.shape == episode.qpos.shape:
        away = np.abs(episode.action - episode.qpos)[:, :-1].max(axis=1)
        apart = float(np.percentile(away, 95))
    return Traits(
        name=name,
        start=episode.qpos[0],
        end=episode.qpos[-1],
        seconds=len(episode) / episode.fps,
        last_speed=float(speed),
        grips=grips,
        opens=bool(len(opened)),
        apart=apart,
        jitter=None if period is None else float(period) / 1000 * episode.fps,
        pictures={
            camera: cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY).astype(np.float32)
            for camera, frames in episode.images.items()
        },
        brightness={
            camera: (float(frames[0].mean()), float(frames[-1].mean()))
            for camera, frames in episode.images.items()
        },
    )


def check_recordings(folder: str | Path) -> list[str]:
    """Findings over all readable episodes of a folder; [] if there are fewer than 3."""
    found = []
    for path in list_episodes(folder):
        try:
            found.append(traits_of(path.name, load_episode(path)))
        except EpisodeError:
            continue  # `inspect_dataset` says what is wrong with it
    return compare(found) if len(found) >= 3 else []


def compare(episodes: list[Traits]) -> list[str]:
    """Hold the episodes against the usual one."""
    said = []
    usual_start = np.median([e.start for e in episodes], axis=0)
    usual_end = np.median([e.end for e in episodes], axis=0)
    usual_seconds = np.median([e.seconds for e in episodes])
    gripping = [e.grips for e in episodes if e.grips is not None]
    usual_grip = np.median(gripping) if gripping else None
    for e in episodes:
        said += [f"{e.name}: {text}" for text in _alone(e)]
        for what, pose, usual in (
            ("starts", e.start, usual_start),
            ("ends", e.end, usual_end),
        ):
            away = np.abs(pose - usual)[:-1]
            if away.max() > POSE:
                said.append(
                    f"{e.name}: {what} with joint {int(away.argmax())} "
                    f"{away.max():.2f} rad from where the others do"
                )
        ratio = e.seconds / usual_seconds
        if not 1 / DURATION <= ratio <= DURATION:
            said.append(
                f"{e.name}: lasts {e.seconds:.1f} s, the others {usual_seconds:.1f} s"
            )
        if usual_grip is None:
            continue
        if e.grips is None:
            said.append(f"{e.name}: the gripper never closes on anything")
        elif abs(e.grips - usual_grip) > GRIP:
            said.append(
                f"{e.name}: grips after {100 * e.grips:.0f} % of its time, the "
                f"others after {100 * usual_grip:.0f} %"
            )
    return said + _cameras(episodes)


def _alone(e: Traits) -> list[str]:
    said = []
    if e.last_speed > MOVING:
        said.append(
            f"the arm still moves at {e.last_speed:.1f} rad/s at the end: it was cut "
            "off"
        )
    if e.apart > FOLLOW:
        said.append(
            f"the arm is {e.apart:.2f} rad from its command (95th percentile): torque "
            "off, a joint blocked, or two calibrations that disagree"
        )
    if e.jitter is not None and e.jitter > JITTER:
        said.append(
            f"ticks last up to {e.jitter:.1f} periods (99th percentile): the computer "
            "or a camera is too slow"
        )
    if not e.opens:
        said.append("the gripper never opens")
    return said


def _cameras(episodes: list[Traits]) -> list[str]:
    said = []
    for camera in sorted({c for e in episodes for c in e.pictures}):
        having = [e for e in episodes if camera in e.pictures]
        shapes = {e.pictures[camera].shape for e in having}
        if len(shapes) > 1:
            continue  # `inspect_dataset` says so
        usual = np.median([e.pictures[camera] for e in having], axis=0)
        light = float(np.median([e.brightness[camera][0] for e in having]))
        for e in having:
            shift, sure = displacement(usual.astype(np.float32), e.pictures[camera])
            if sure > SURE and np.abs(shift).max() > SHIFT:
                x, y = round(shift[0]), round(shift[1])
                said.append(
                    f"{e.name}: the picture of camera {camera!r} is displaced by "
                    f"{x:+d}, {y:+d} pixels: the camera was moved"
                )
            first, last = e.brightness[camera]
            if abs(first - light) > BRIGHTNESS:
                said.append(
                    f"{e.name}: camera {camera!r} begins with brightness {first:.0f}, "
                    f"the others with {light:.0f}: fix exposure and light"
                )
            elif abs(last - first) > 2 * BRIGHTNESS:
                said.append(
                    f"{e.name}: the brightness of camera {camera!r} goes from "
                    f"{first:.0f} to {last:.0f}: fix its exposure"
                )
    return said


def displacement(usual: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, float]:
    """By how many pixels (x, y) a picture is shifted, and how sure that is, 0 to 1.

    Phase correlation, with a window against the borders.
    """
    window = cv2.createHanningWindow(usual.shape[::-1], cv2.CV_32F)
    shift, sure = cv2.phaseCorrelate(usual, picture, window)
    return np.array(shift), float(sure)
