# %% title [markdown]
# # 08 · SO-100: from a box of servos to a safe policy run
#
# {{runtime}} · 75 minutes of work · any laptop; an arm if you have one
#
# After this lesson you can **read what goes over the wire**, **tie steps to angles** by
# a calibration, and **let a policy drive an arm** with limits between the two.
#
# You need lesson 07 (what a success rate is worth). Nothing to install: the arm here is
# virtual. Six servos answer the real bytes on a real port, on the physics you know.

# %% set-up
import numpy as np

import course
from course import check, hint, predict, reveal, show
from course.figures import lesson_07 as field
from course.figures import lesson_08 as bench

course.begin("08")

# %% question [markdown]
# ## The question
#
# In simulation the vision policy puts {{checkpoints checkpoints
# checkpoint=so100_pick_place_vision -> rate percent}} of the cubes into the bin. What is left to go wrong between it and an
# arm on a table?
#
# Its numbers become **steps**, the steps become **bytes**, the bytes take **time**,
# cameras run at their own pace, and nobody resets the scene when a finger is caught. We
# take these one at a time, and then let the same policy drive through all of them.

# %% predict-bus
predict("08.bus")

# %% plug-text [markdown]
# ## Plug it in
#
# A virtual arm is a process with a port. It knows nothing of Python: any program for
# these servos can talk to it, and several do in our tests. With an arm of your own, only
# the next cell changes, to something like
# `port, calibration, cameras = "/dev/ttyACM0", "follower.json", ("top=0", "wrist=2")`.
# Do that **after** the lesson: some of its experiments are not for a real arm.

# %% plug
arm = bench.plug_in()
port, calibration, cameras = arm.port, arm.calibration, arm.cameras
bench.health(port)

# %% bytes-text [markdown]
# ## Bytes
#
# All six servos hang on one line and listen to all of it. The computer asks, the one
# whose id is called answers:
#
# | byte | FF | FF | id | length | instruction | address | size | checksum |
# |---|---|---|---|---|---|---|---|---|
# | | begin | begin | 1 to 253 | of what follows it | 2: READ | of a register | in bytes | |
#
# The checksum is the inverse of the sum of everything from the id on, its low byte only:
# `~sum & 0xFF`. A servo that finds another one there stays silent.
#
# ### Exercise: ask a servo (10 minutes, easy)


# %% packet tags=["exercise"]
def read_request(id, address, size):
    """The bytes that ask servo `id` for `size` bytes from `address` on."""
    # solution
    body = bytes([id, 4, 2, address, size])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])
    # stub
    # ...  # bytes([...]): begin, id, length, READ, address, size, checksum
    # end


check("08.packet", read_request)

# %% packet-hint
hint("08.packet")

# %% exchange-text [markdown]
# Register 56 holds the position, two bytes, the low one first. The answer has the shape
# of the question, with an error byte in place of the instruction. One wrong bit in the
# checksum, and there is none.

# %% exchange
from hardware.so100 import protocol

asked = protocol.read(3, 56, 2).encode()
answer = bench.exchange(port, asked)
print(f"asked    {bench.hexadecimal(asked)}\nanswered {bench.hexadecimal(answer)}")
print("position", int.from_bytes(answer[5:7], "little"), "steps")
spoilt = asked[:-1] + bytes([asked[-1] ^ 1])
print("spoilt  ", bench.hexadecimal(bench.exchange(port, spoilt)))

# %% steps-text [markdown]
# ## Steps
#
# A turn of the shaft is 4096 steps. Where a joint's zero lies in them depends on how the
# horn was screwed on, so every arm has its own **calibration**: all joints are swept
# from end to end by hand, and the sweep's middle is taken for the middle of the joint's
# range,
#
# $$ q = q_{\text{mid}} + s \cdot \Bigl(n - \tfrac{n_{\text{first}} +
# n_{\text{last}}}{2}\Bigr) \cdot \frac{2\pi}{4096}, \qquad s = \pm 1. $$
#
# ### Exercise: an angle (8 minutes, easy)


# %% steps tags=["exercise"]
def angle(steps, first, last, middle, sense):
    """The joint's angle in rad; `middle` is its angle at mid-sweep, `sense` 1 or -1."""
    # solution
    return middle + sense * (steps - (first + last) / 2) * 2 * np.pi / 4096
    # stub
    # ...  # how far from mid-sweep, in radians, and which way
    # end


check("08.steps", angle)

# %% steps-hint
hint("08.steps")

# %% tip-text [markdown]
# Whoever sweeps a joint not quite to its end, or bends it over, moves its middle. What
# does that cost at the fingertip, 20 to 40 cm away? Below, each joint in turn is off by
# five degrees.

# %% tip
show(
    bench.calibration_figure(np.radians(5)),
    "How far the fingertip is from where it is believed to be, if one joint's "
    "calibration is off by 5 degrees; n = 100 poses of a demonstration.",
)

# %% tip-prose [markdown]
# The cube is 2.5 cm wide. A policy with cameras can make up for a part of this, if its
# demonstrations were recorded with the *same* error: it never sees an angle's true
# value. What it cannot survive is a calibration that changes between recording and
# deployment. Never calibrate in between.
#
# ## Torque
#
# Now let the motors hold.

# %% predict-torque
predict("08.torque")

# %% torque
careless = bench.torque_on(arm, careful=False)
careful = bench.torque_on(arm, careful=True)
for start in (careless, careful):
    print(f"careful {start.careful}: {np.degrees(start.travel):.0f} degrees, "
          f"up to {start.speed:.1f} rad/s")  # fmt: skip
show(
    bench.starts_figure(careless, careful),
    "The shoulder after torque on: with a goal left behind it runs 69 degrees in half "
    "a second; with goals set first it stays; n = 1 each.",
)

# %% reveal-torque
reveal("08.torque")

# %% limit-text [markdown]
# ## Limits
#
# The servo obeys. Whatever is to be refused must be refused before the bus, for any
# policy, teacher or script. The core of it is small.
#
# ### Exercise: the last thing before the bus (10 minutes, medium)
#
# Keep each target in its joint's range, and within `step` of the last target. A wish
# that is not finite raises `ValueError`: something upstream is broken, and an arm must
# not hide it.


# %% limit tags=["exercise"]
def limited(wish, last, low, high, step):
    """The targets (6,) to send, given those sent a tick before."""
    # solution
    if not np.isfinite(wish).all():
        raise ValueError(f"the wish is {wish}")
    return np.clip(np.clip(wish, low, high), last - step, last + step)
    # stub
    # ...  # refuse, then two limits
    # end


check("08.limit", limited)

# %% limit-hint
hint("08.limit")

# %% governor-text [markdown]
# The package's `Governor` limits speed, acceleration, distance from the *measured*
# position, the place of joints and fingertips, and the grip. Here it meets a
# demonstration in which a single action is wrong by 46 degrees.
#
# **Lower the speed limit until the demonstration itself suffers.** Which margin would
# you leave above its fastest motion?

# %% explorer
explorer = bench.governor_explorer()
explorer

# %% faults-text [markdown]
# ## Things that break
#
# Cables, plugs, supplies and cameras break more often than policies. The virtual arm has
# a switch for each. A driver should say in one sentence what is wrong, and leave the arm
# where nobody is hurt. Try two:

# %% try-fault
print(bench.try_fault(arm, missing=3))
print(bench.try_fault(arm, frozen_camera="top"))

# %% table-text [markdown]
# All of them, each while a policy drives, from a committed campaign. *Unsafe* means that
# somebody beside the arm saw a joint beyond its range, faster than its limit, a fingertip
# in the table, or a fall.

# %% table
print(bench.fault_table("deploy"))

# %% dry-text [markdown]
# ## The run
#
# First dry: the policy looks and predicts, nothing is sent. Three numbers decide whether
# to go on: a prediction must fit its tick (33 ms), pictures must be fresh, and the first
# action must be near the arm.

# %% dry
policy = field.checkpoint("vision")
robot = bench.safe_robot(port, calibration, cameras)
robot.connect()
robot.go(robot.limits.ready)
seen = bench.look_before(policy, robot)
ms = seen["prediction_ms"]
print(f"a prediction takes {ms['median']:.1f} ms, {ms['worst']:.1f} ms at worst")
print(f"the first action is at most {seen['jump']:.2f} rad from the arm")
print("pictures are", {c: f"{age:.0f} ms" for c, age in seen["frames"].items()}, "old")

# %% run-text [markdown]
# Then for real, by the clock. Each trial starts with a slow ramp to the ready pose; the
# loop is the one that ran in simulation, line for line. At the end the arm is laid down
# and its torque taken off.

# %% run
tally = bench.trials(policy, robot, arm, n=5)
robot.close()
print(tally, dict(robot.interventions.counts))

# %% timing
show(
    bench.timing_figure(tally),
    "Median and worst time of a prediction, and how far ticks were off, in each of "
    "five trials; n = 5.",
)

# %% reveal-bus
reveal("08.bus")

# %% fails [markdown]
# ## Where it fails
#
# Through the bus {{so100_success bus}}; the same scenes in plain simulation:
# {{so100_success simulation}}. Bytes, clock and limits cost little while ticks are on
# time: {{so100_loop policy_30_hz.ticks}} of them were off by {{so100_loop
# policy_30_hz.jitter_ms_p99 -> 2}} ms (99 %).
#
# The virtual arm has no play in its gears, no warm grease, no lamp of yours. This policy
# will not work on your table; its *way* will: record there, train, deploy. A simulated
# hand at a virtual leader, with 50 demonstrations: {{so100_teleop deploy}}, by these
# commands. With an arm, `hardware/so100/GUIDE.md` begins at the box. Keep a hand near the
# space bar.

# %% commands
print("\n\n".join(course.load_result("so100_teleop")["commands"]))

# %% summary [markdown]
# ## Summary
#
# A calibration ties steps to angles; never change it between recording and deployment.
# Torque on means "go to your goal": set the goal first. Limits live between policy and
# bus, refuse what is not finite, and count what they change. Look dry before you run.
#
# | sign | meaning |
# |---|---|
# | n, $n_{\text{first}}$, $n_{\text{last}}$ | position in steps; ends of the sweep |
# | $q$, $q_{\text{mid}}$ | angle in rad; at mid-sweep |
# | s | sense: 1 where steps grow with the angle, else -1 |
#
# ## Where next
#
# Next: two arms at once, over CAN, that fall when the power is cut:
# [09](09_openarm.ipynb). How to count your own trials: [07](07_sim_rollout.ipynb).
