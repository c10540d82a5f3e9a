"""Schematics: ideas that have a shape, drawn from code; `sketch.py` is their style."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from act_minimal.execution import ExecutionConfig, make_executor
from hardware.openarm.motors import ARM_MOTORS, SIDES
from hardware.so100.protocol import HEADER, Packet, write
from hardware.so100.registers import REGISTERS

from .sketch import BLUE, GREEN, GREY, ORANGE, PINK, SMALL, YELLOW, Sketch, drawing


@drawing(
    "A demonstrated path inside a band of states that training has seen, and the path "
    "of a single-step policy: each small error moves the next state, the errors add "
    "up, and outside the band, where nothing was demonstrated, it leaves for good."
)
def walk() -> Figure:
    """Single-step cloning drifts off the demonstrated path."""
    sketch = Sketch(2.9)
    x = np.linspace(0.4, 7.1, 200)

    def path(x: Any) -> Any:
        return 0.95 + 0.25 * np.sin(0.8 * x)

    band = np.r_[path(x) + 0.35, (path(x) - 0.35)[::-1]]
    outline = np.c_[np.r_[x, x[::-1]], band]
    sketch.axes.add_patch(Polygon(outline, facecolor=BLUE, alpha=0.2))
    sketch.axes.plot(x, path(x), color=BLUE, lw=2)
    ticks = np.linspace(0.4, 6.4, 13)
    off = np.array([0, 2, 5, 9, 13, 18, 25, 35, 48, 66, 90, 120, 155]) / 100
    y = path(ticks) + off
    states = list(zip(ticks, y, strict=True))
    for i, (start, end) in enumerate(itertools.pairwise(states)):
        sketch.arrow(start, end, ORANGE, "-|>" if i else "-")
    sketch.axes.plot(ticks, y, "o", color=ORANGE, ms=5)
    sketch.words(5.2, 2.0, "single-step policy", ORANGE, align="right")
    sketch.words(6.15, 0.9, "demonstrated path", BLUE)
    sketch.words(5.35, 0.25, "states that training has seen", BLUE)
    sketch.words(1.25, 1.85, "each action has a small error,\nwhich the next state has")
    sketch.arrow((1.25, 1.6), (1.35, 1.34))
    sketch.words(2.9, 2.6, "never demonstrated: the next action is a guess")
    sketch.arrow((4.55, 2.55), (5.75, 2.2))
    return sketch.fig


@drawing(
    "An episode of twelve actions as a row of squares. A window of k = 5 actions that "
    "starts at t = 3 lies inside it; one that starts at t = 9 has three actions and "
    "two places of padding, which repeat the last action and have is_pad = 1."
)
def window_and_padding() -> Figure:
    """An episode, a window of k actions, and one that the episode's end cuts."""
    sketch = Sketch(3.3)
    length, k, side, left = 12, 5, 0.4, 1.35
    for t in range(length):
        sketch.box(left + t * side, 2.4, side, side, str(t), BLUE, round=0)
    sketch.words(left - 0.15, 2.6, "episode", align="right")
    sketch.words(left, 3.0, "actions a, one a tick; T = 12", align="left")
    for start, y in ((3, 1.6), (9, 0.85)):
        x = left + start * side
        for j in range(k):
            padded, where = start + j >= length, x + j * side
            last = min(start + j, length - 1)
            colour = GREY if padded else GREEN
            sketch.box(where, y, side, side, str(last), colour, filled=not padded,
                       round=0)  # fmt: skip
            sketch.words(where + side / 2, y - 0.15, str(int(padded)), size=SMALL)
        sketch.words(x - 0.12, y + side / 2, f"window at t = {start}", align="right")
        sketch.words(x - 0.12, y - 0.15, "is_pad", align="right", size=SMALL)
    sketch.arrow((left + 3 * side, 2.18), (left + 8 * side, 2.18), GREEN, "<|-|>")
    sketch.words(left + 8 * side + 0.12, 2.18, "k = 5", GREEN, align="left")
    note = "padding: the last action again,\nleft out of the loss"
    sketch.words(left + 14 * side, 0.3, note, align="right", size=SMALL)
    return sketch.fig


def ensemble_weights(k: int, m: float) -> np.ndarray:
    """Share (k,) of each of k predictions, the oldest first, by the executor itself."""
    executor = make_executor(ExecutionConfig("ensemble", m=m), k)
    shares = []
    for i in range(k):
        # Only chunk i predicts 1 for the tick that all k of them reach.
        executor.reset()
        for t in range(k):
            action = executor.step(np.full((1, k, 1), float(t == i)))
        shares.append(float(action[0, 0]))
    return np.array(shares)


@drawing(
    "Two time lines. Receding horizon: chunks of k = 6 actions start every h = 3 "
    "ticks, the first three actions of each are executed and the rest dropped. "
    "Temporal ensembling: a chunk starts at every tick, and the action at t = 5 is a "
    "mean of the six predictions for it, whose weights exp(-m i) are largest for the "
    "oldest."
)
def horizon_against_ensembling() -> Figure:
    """When chunks are asked for, and what is made of those that overlap."""
    sketch = Sketch(4.6)
    k, h, m, cell, left = 6, 3, 0.3, 0.36, 1.3
    height = 0.22

    def at(tick: float) -> float:
        return left + tick * cell

    top = 4.4
    sketch.words(0.15, top, "Receding horizon: the first h of each chunk", align="left")
    for n in range(4):
        start, y = n * h, top - 0.45 - n * 0.27
        for j in range(k):
            kept = j < h
            sketch.box(at(start + j), y, cell, height, "",
                       BLUE if kept else GREY, filled=kept, round=0)  # fmt: skip
        if n == 0:
            sketch.words(at(k) + 0.15, y + 0.11, "k = 6 predicted", align="left")
            sketch.words(at(0) - 0.1, y + 0.11, "chunk at t = 0", align="right",
                         size=SMALL)  # fmt: skip
        if n == 1:
            sketch.words(at(3 + k) + 0.15, y + 0.11, "h = 3 executed", BLUE,
                         align="left")  # fmt: skip
    middle = 2.55
    sketch.words(
        0.15, middle, "Temporal ensembling: a mean of all predictions", align="left"
    )
    now, weights = k - 1, ensemble_weights(k, m)
    last = middle - 0.45 - (k - 1) * 0.27
    for i, weight in enumerate(weights):
        y = middle - 0.45 - i * 0.27
        for j in range(k):
            used = i + j == now
            sketch.box(at(i + j), y, cell, height, "", ORANGE if used else GREY,
                       filled=used, round=0)  # fmt: skip
        bar = at(2 * k - 1) + 0.55
        sketch.words(bar - 0.08, y + 0.11, f"i = {i}", align="right", size=SMALL)
        sketch.box(bar, y + 0.03, 3.2 * weight, 0.16, "", ORANGE, round=0)
        sketch.words(bar + 3.2 * weight + 0.08, y + 0.11, f"{weight:.2f}", ORANGE,
                     align="left", size=SMALL)  # fmt: skip
    sketch.words(at(0) - 0.1, middle - 0.34, "chunk at t = 0", align="right",
                 size=SMALL)  # fmt: skip
    sketch.words(at(2 * k - 1) + 0.55, middle - 0.1,
                 f"exp(−m i), m = {m}", align="left",
                 size=SMALL)  # fmt: skip
    axis = last - 0.15
    sketch.arrow((at(0), axis), (at(2 * k), axis))
    for tick in range(2 * k):
        sketch.words(at(tick + 0.5), axis - 0.14, str(tick), size=SMALL)
    sketch.words(at(2 * k) + 0.1, axis - 0.05, "tick t", align="left", size=SMALL)
    return sketch.fig


@drawing(
    "Three chunks of k = 10 actions on one time line. The prediction of each takes "
    "d = 3 ticks, in which the arm executes actions of the chunk before, the committed "
    "ones; the first three actions of a new chunk are past when it comes. A prediction "
    "begins every s = 5 ticks. Where the next chunk takes over is a seam."
)
def late_chunks() -> Figure:
    """Delay d, execution horizon s and chunk size k on one time line."""
    sketch = Sketch(3.3)
    k, d, s, cell, left, height = 10, 3, 5, 0.28, 1.1, 0.26

    def at(tick: float) -> float:
        return left + tick * cell

    for n in range(3):
        start, y = n * s, 2.45 - n * 0.62
        for j in range(k):
            past, driven = n and j < d, d <= j < d + s or (not n and j < d + s)
            colour = ORANGE if past else BLUE if driven else GREY
            sketch.box(at(start + j), y, cell, height, "", colour,
                       filled=driven and not past, round=0)  # fmt: skip
        sketch.words(at(start) - 0.08, y + 0.13, f"asked at t = {start}", align="right",
                     size=SMALL)  # fmt: skip
        if n:
            sketch.words(at(start + d / 2), y - 0.13, f"d = {d}, past", ORANGE,
                         size=SMALL)  # fmt: skip
            seam = at(start + d)
            sketch.arrow((seam, y + 0.85), (seam, y + height + 0.02), PINK)
            sketch.words(seam + 0.08, y + 0.43, "seam", PINK, align="left", size=SMALL)
    sketch.words(at(2.5), 2.9, "executed", BLUE)
    sketch.words(at(k) - 0.35, 2.9, "never reached", size=SMALL)
    axis = 0.55
    sketch.arrow((at(0), axis), (at(2 * s + k), axis))
    for tick in range(0, 2 * s + k, 5):
        sketch.words(at(tick), axis - 0.16, str(tick), size=SMALL)
    sketch.words(at(2 * s + k) + 0.08, axis, "tick t", align="left", size=SMALL)
    sketch.arrow((at(s), 0.2), (at(2 * s), 0.2), GREEN, "<|-|>")
    sketch.words(at(2 * s) + 0.1, 0.2, "s = 5 between two requests", GREEN,
                 align="left", size=SMALL)  # fmt: skip
    return sketch.fig


@drawing(
    "The CVAE twice. In training an encoder reads the joints and the demonstrated "
    "chunk, gives mu and sigma, and z = mu + sigma times noise enters the policy with "
    "the observation; the loss is L1 plus beta times the KL divergence from a standard "
    "normal. At test the encoder is gone and z = 0."
)
def cvae() -> Figure:
    """The CVAE in training and at test."""
    sketch = Sketch(3.75)
    sketch.axes.set_ylim(0.15, 3.9)
    sketch.words(0.15, 3.7, "In training", align="left", weight="bold")
    sketch.box(0.15, 2.75, 1.5, 0.55, "demonstrated\nchunk a", GREEN)
    sketch.box(0.15, 1.75, 1.5, 0.55, "observation\njoints, images", BLUE)
    sketch.box(2.0, 2.75, 1.2, 0.55, "CVAE\nencoder", PINK)
    sketch.box(3.55, 2.75, 0.75, 0.55, "μ, σ", PINK)
    sketch.box(4.65, 2.75, 1.25, 0.55, "z = μ + σ ε\nε ~ N(0, 1)", PINK)
    sketch.box(4.65, 1.75, 1.25, 0.55, "policy", YELLOW)
    sketch.box(6.25, 1.75, 1.1, 0.55, "predicted\nchunk â", GREEN)
    for x, end in ((1.65, 2.0), (3.2, 3.55), (4.3, 4.65)):
        sketch.arrow((x, 3.02), (end, 3.02))
    sketch.arrow((5.27, 2.75), (5.27, 2.3))
    sketch.arrow((1.65, 2.02), (4.65, 2.02))
    sketch.path((2.6, 2.02), (2.6, 2.75))
    sketch.words(2.7, 2.38, "joints", align="left", size=SMALL)
    sketch.arrow((5.9, 2.02), (6.25, 2.02))
    sketch.words(3.92, 3.5, "β KL( N(μ, σ²) ‖ N(0, 1) )", ORANGE)
    sketch.words(6.8, 2.5, "L1(â, a)", ORANGE)
    sketch.words(6.45, 3.5, "loss: the sum\nof both", ORANGE, size=SMALL)
    sketch.axes.plot([0.15, 7.35], [1.5, 1.5], color=GREY, lw=0.8, ls=(0, (3, 3)))
    sketch.words(0.15, 1.25, "At test", align="left", weight="bold")
    sketch.box(0.15, 0.3, 1.5, 0.55, "observation\njoints, images", BLUE)
    sketch.box(4.65, 0.3, 1.25, 0.55, "policy", YELLOW)
    sketch.box(6.25, 0.3, 1.1, 0.55, "predicted\nchunk â", GREEN)
    sketch.box(4.65, 1.05, 1.25, 0.3, "z = 0", PINK)
    sketch.arrow((5.27, 1.05), (5.27, 0.85))
    sketch.arrow((1.65, 0.57), (4.65, 0.57))
    sketch.arrow((5.9, 0.57), (6.25, 0.57))
    sketch.words(4.5, 1.2, "no encoder: the mean of N(0, 1)", align="right", size=SMALL)
    return sketch.fig


# Shapes as the drawing prints them; a test compares them with the model's tensors. t is
# the number of tokens a camera: h w with image_tokens "grid".
SHAPES = {
    "qpos": "(B, S)",
    "env_state": "(B, E)",
    "images": "(B, N, 3, H, W)",
    "action": "(B, k, A)",
    "cvae tokens": "(B, 2 + k, D)",
    "mu": "(B, Z)",
    "logvar": "(B, Z)",
    "z": "(B, Z)",
    "features": "(B N, C, h, w)",
    "image tokens": "(B, N t, D)",
    "tokens": "(B, 3 + N t, D)",
    "memory": "(B, 3 + N t, D)",
    "queries": "(k, D)",
    "decoder": "(B, k, D)",
    "output": "(B, k, A)",
}


@drawing(
    "ACT with the shape of every tensor. Joints (B, S) and the demonstrated chunk "
    "(B, k, A) enter the CVAE encoder, in training only, which gives z (B, Z). Images "
    "(B, N, 3, H, W) become tokens (B, N t, D). With one token each for z, qpos and "
    "env_state the encoder makes a memory (B, 3 + N t, D); k learned queries (k, D) "
    "attend to it in the decoder, and a linear head gives the actions (B, k, A)."
)
def act_shapes() -> Figure:
    """ACT, with every tensor's shape."""
    sketch = Sketch(5.3)
    sketch.axes.set_ylim(0.33, 5.63)
    s = SHAPES
    columns = ((0.15, 2.1), (2.6, 2.1), (5.25, 2.1))
    high = 0.52

    def tensor(column: int, y: float, name: str, key: str, colour: str) -> None:
        x, w = columns[column]
        sketch.box(x, y, w, high, f"{name}\n{s[key]}", colour)

    def module(column: int, y: float, text: str) -> None:
        x, w = columns[column]
        sketch.box(x, y, w, 0.34, text, YELLOW)

    def down(column: int, start: float, end: float) -> None:
        x, w = columns[column]
        sketch.arrow((x + w / 2, start), (x + w / 2, end))

    sketch.words(1.2, 5.42, "CVAE, in training only")
    tensor(0, 4.72, "demonstrated action", "action", GREEN)
    module(0, 4.1, "[CLS, qpos, action] → D")
    tensor(0, 3.3, "tokens", "cvae tokens", PINK)
    module(0, 2.68, "CVAE encoder, at CLS")
    tensor(0, 1.88, "mu, logvar, each", "mu", PINK)
    module(0, 1.26, "z = mu + exp(logvar/2) ε")
    tensor(0, 0.46, "z; 0 at test", "z", PINK)
    for start, end in ((4.72, 4.44), (4.1, 3.82), (3.3, 3.02), (2.68, 2.4),
                       (1.88, 1.6), (1.26, 0.98)):  # fmt: skip
        down(0, start, end)

    sketch.words(3.65, 5.42, "observation")
    tensor(1, 4.72, "images", "images", BLUE)
    module(1, 4.1, "backbone")
    tensor(1, 3.3, "features", "features", BLUE)
    module(1, 2.68, "grid or keypoints → D")
    tensor(1, 1.88, "image tokens", "image tokens", BLUE)
    for start, end in ((4.72, 4.44), (4.1, 3.82), (3.3, 3.02), (2.68, 2.4)):
        down(1, start, end)
    half = 1.0
    sketch.box(2.6, 1.1, half, high, f"qpos\n{s['qpos']}", BLUE)
    sketch.box(3.7, 1.1, half, high, f"env_state\n{s['env_state']}", BLUE, size=SMALL)
    module(1, 0.55, "z, qpos, env_state → D")
    sketch.arrow((3.1, 1.1), (3.1, 0.89))
    sketch.arrow((4.2, 1.1), (4.2, 0.89))
    sketch.arrow((2.25, 0.72), (2.6, 0.72))

    sketch.words(6.3, 5.42, "policy")
    tensor(2, 0.46, "tokens", "tokens", GREEN)
    module(2, 1.26, "encoder")
    tensor(2, 1.88, "memory", "memory", GREEN)
    module(2, 2.68, f"decoder, queries {s['queries']}")
    tensor(2, 3.3, "decoder output", "decoder", GREEN)
    module(2, 4.1, "linear → A")
    tensor(2, 4.72, "predicted actions", "output", GREEN)
    for start, end in ((0.98, 1.26), (1.6, 1.88), (2.4, 2.68), (3.02, 3.3),
                       (3.82, 4.1), (4.44, 4.72)):  # fmt: skip
        down(2, start, end)
    sketch.arrow((4.7, 0.72), (5.25, 0.72))
    sketch.path((4.7, 2.14), (4.97, 2.14), (4.97, 0.86), (5.25, 0.86))
    return sketch.fig


def packet_bytes() -> tuple[Packet, Packet]:
    """A command to servo 1, and its answer: position 2048, nothing wrong."""
    goal = REGISTERS["Goal_Position"]
    return write(1, goal.address, (2048).to_bytes(goal.size, "little")), Packet(1, 0)


@drawing(
    "The bytes of two packets of a Feetech servo. The command FF FF 01 05 03 2A 00 08 "
    "C4 writes 2048, low byte first, to register 42 of servo 1; the answer FF FF 01 "
    "02 00 FC reports no error. LEN counts the bytes after it; the checksum is the "
    "inverted sum of the bytes between the header and itself."
)
def servo_packet() -> Figure:
    """A packet that moves a servo, and its answer, byte by byte."""
    sketch = Sketch(3.6)
    sketch.axes.set_ylim(0.35, 3.95)
    command, answer = packet_bytes()
    w, left = 0.72, 0.4
    names = {
        "command": ["header", "header", "ID", "LEN", "WRITE", "register",
                    "low byte", "high byte", "checksum"],
        "answer": ["header", "header", "ID", "LEN", "error", "checksum"],
    }  # fmt: skip
    colours = {"header": GREY, "ID": BLUE, "LEN": PINK, "checksum": ORANGE}
    rows = (("command", command, 3.0), ("answer", answer, 0.75))
    for row, packet, y in rows:
        data = packet.encode()
        title = "Command to servo 1: go to position 2048 (register 42)"
        if row == "answer":
            title = "Answer of servo 1: no error"
        sketch.words(left, y + 0.72, title, align="left")
        for i, (value, name) in enumerate(zip(data, names[row], strict=True)):
            colour = colours.get(name, GREEN)
            sketch.box(left + i * w, y, w - 0.06, 0.42, f"{value:02X}", colour)
            sketch.words(left + (i + 0.46) * w, y - 0.14, name, size=SMALL)
    body = command.encode()[len(HEADER) : -1]
    right = left + 8 * w - 0.06
    sketch.bracket(left + 4 * w, left + 9 * w - 0.06, 2.6, "LEN = 5 bytes follow")
    total = " + ".join(f"{b:02X}" for b in body)
    sketch.bracket(
        left + 2 * w, right, 2.1,
        f"checksum = ~({total}) & FF = {command.encode()[-1]:02X}",
    )  # fmt: skip
    return sketch.fig


@drawing(
    "A computer with two CAN adapters. Bus can0 goes to the right OpenArm, bus can1 to "
    "the left one. On each bus hang the same eight motors, joint 1 to 7 and the "
    "gripper, with ids 01 to 08 and answers on 11 to 18, and 120 ohms at both ends."
)
def two_buses() -> Figure:
    """Two OpenArms on two CAN buses."""
    sketch = Sketch(3.1)
    sketch.axes.set_ylim(0.3, 3.4)
    sketch.box(0.15, 1.35, 1.05, 0.9, "computer\none loop,\n50 Hz", YELLOW)
    for side, y, colour in zip(SIDES, (2.45, 0.65), (BLUE, ORANGE), strict=True):
        bus = "can0" if side == "right" else "can1"
        sketch.box(1.55, y, 0.85, 0.5, f"adapter\n{bus}", colour)
        _bus(sketch, y, side, colour)
    sketch.path((0.67, 2.25), (0.67, 2.7), (1.55, 2.7))
    sketch.path((0.67, 1.35), (0.67, 0.9), (1.55, 0.9))
    sketch.words(0.9, 3.05, "USB", size=SMALL)
    sketch.words(
        4.9, 1.85, "the same ids on both buses: only the bus tells the arms apart"
    )
    return sketch.fig


def _bus(sketch: Sketch, y: float, side: str, colour: str) -> None:
    first, step, middle = 2.75, 0.56, y + 0.25
    ids: Sequence[Any] = ARM_MOTORS
    end = first + step * len(ids) + 0.05
    sketch.axes.plot([2.4, end], [middle, middle], color=colour, lw=1.6,
                     zorder=0)  # fmt: skip
    for i, motor in enumerate(ids):
        x = first + i * step
        name = motor.joint.replace("joint", "J").replace("gripper", "grip")
        sketch.box(x, y, step - 0.1, 0.5, f"{name}\n{motor.id:02X}", colour, size=SMALL)
        sketch.words(x + 0.23, y - 0.14, f"{motor.master:02X}", colour, size=SMALL)
    sketch.words(first - 0.08, y - 0.14, "answers on", align="right", size=SMALL)
    sketch.words(first, y + 0.68, f"{side} arm: 8 motors", colour, align="left")
    sketch.words(end - 0.05, y + 0.68, "120 Ω at both ends", size=SMALL, align="right")
