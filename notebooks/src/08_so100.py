# %% title [markdown]
# # 08 · SO-100: from a box of servos to a safe policy run
#
# {{runtime}} · 75 minutes of work · any laptop; an arm if you have one
#
# After this lesson you can **read the packets on a servo bus**, **convert steps to
# angles** with a calibration, and **let a policy drive an arm** within limits.
#
# You need lesson 07 (what a success rate is worth). Nothing to install: the arm in this
# lesson is virtual. Its six servos answer real packets at a serial port, and the
# simulation of the earlier lessons moves its joints.

# %% set-up
import numpy as np

import course
from course import check, hint, predict, reveal, show
from course.figures import lesson_07 as evaluation
from course.figures import lesson_08 as so100
from course.toolkit import schematics

course.begin("08")

# %% question [markdown]
# ## The question
#
# In simulation the vision policy puts the cube into the bin in {{checkpoints checkpoints
# checkpoint=so100_pick_place_vision}} of fresh scenes; on the other scenes of lesson 07 in
# {{claims/C21 summary policy=committed axis=none shift_cm=0}}. What can still go wrong when
# it drives an arm on a table?
#
# Its actions are converted to **steps** of the servos and the steps to **bytes**, which
# take **time** to send. Cameras deliver pictures at a rate of their own, and motors
# obey a wrong number as readily as a right one. We look at these one at a time, and
# then let the same policy drive through all of them.

# %% predict-bus
predict("08.bus")

# %% plug-text [markdown]
# ## Plug it in
#
# The virtual arm runs in a process of its own and has a serial port, so any program for
# these servos can talk to it. With an arm of your own, only the next cell changes, to
# something like
# `port, calibration, cameras = "/dev/ttyACM0", "follower.json", ("top=0", "wrist=2")`.
# Do that **after** the lesson: some of its experiments would damage a real arm.

# %% plug
arm = so100.plug_in()
port, calibration, cameras = arm.port, arm.calibration, arm.cameras
so100.health(port)

# %% bytes-text [markdown]
# ## Bytes
#
# All six servos share one line, and every servo receives every packet. The computer
# asks, and only the servo with the id in the packet answers. The drawing shows a packet
# that writes a goal, and the answer.

# %% packet-drawing
schematics.servo_packet()

# %% packet-text [markdown]
# A packet that reads asks a servo for some of its registers:
#
# | byte | what |
# |---|---|
# | 1, 2 | FF, FF: a packet begins |
# | 3 | the servo's id |
# | 4 | length: counts all bytes that follow it |
# | 5 | instruction: 2 (READ) |
# | 6 | address of the first register |
# | 7 | size: the number of bytes to read |
# | 8 | checksum: `~sum & 0xFF` |
#
# The checksum is the inverted sum of everything from the id on, of which only the low
# byte is kept. A servo that computes another checksum does not answer.
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
# Register 56 holds the position in two bytes, the low one first. The answer has the
# form of the question, with an error byte in place of the instruction. In the last line
# one bit of the checksum is wrong, and no answer comes: the dash stands for silence.

# %% exchange
from hardware.so100 import protocol

asked = protocol.read(3, 56, 2).encode()
answer = so100.exchange(port, asked)
print(f"asked    {so100.hexadecimal(asked)}\nanswered {so100.hexadecimal(answer)}")
print("position", int.from_bytes(answer[5:7], "little"), "steps")
spoilt = asked[:-1] + bytes([asked[-1] ^ 1])
print("spoilt  ", so100.hexadecimal(so100.exchange(port, spoilt)))

# %% steps-text [markdown]
# ## Steps
#
# A turn of a servo's shaft is 4096 steps. Which step belongs to a joint's zero depends
# on how the arm was screwed together, so every arm has its own **calibration**: each
# joint is moved by hand from one end of its range to the other, and the middle of this
# sweep is taken as the middle of the joint's range. A position of $n$ steps is then the
# angle
#
# $$ q = q_{\text{mid}} + s \cdot \Bigl(n - \tfrac{n_{\text{first}} +
# n_{\text{last}}}{2}\Bigr) \cdot \frac{2\pi}{4096}, \qquad s = \pm 1. $$
#
# where $s$ says whether steps grow with the angle.
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
# If a joint is not swept to both of its ends, the middle is wrong, and every angle of
# this joint is off by the same amount. How far off is the fingertip then, 20 to 40 cm
# away? Below, one joint at a time is off by five degrees.

# %% tip
print(so100.tip_lines(np.radians(5)))
show(
    so100.calibration_figure(np.radians(5)),
    "How far the fingertip is from where its angles put it, if one joint's "
    "calibration is off by 5 degrees; n = 100 poses of a demonstration.",
)

# %% tip-prose [markdown]
# The cube is 2.5 cm wide, so an error of this size at any joint but the roll can miss it.
# The roll does not move the fingertip, as the tip lies on its axis. If the
# demonstrations were recorded with the *same* error, an angle means the same pose in
# both, so the error should matter little (this is not measured here). If the
# calibration changes between recording and deployment, every angle of that joint means
# another pose than it did in training: never calibrate in between.
#
# ## Torque
#
# So far the motors were off. Now they are to hold the arm.

# %% predict-torque
predict("08.torque")

# %% torque
careless = so100.torque_on(arm, careful=False)
careful = so100.torque_on(arm, careful=True)
print(careless, careful, sep="\n")
show(
    so100.starts_figure(careless, careful),
    f"The shoulder's angle after torque on. {careless}. {careful}. n = 1 each.",
)

# %% reveal-torque
reveal("08.torque")

# %% limit-text [markdown]
# The shoulder comes to rest at the old goal, but first it overshoots: it arrives too
# fast to stop there.
#
# ## Limits
#
# A servo goes to any goal that it is sent, so whatever has to be refused must be
# refused before the bus, whoever asks for it.
#
# ### Exercise: a limit before the bus (10 minutes, medium)
#
# Keep each target in its joint's range, and within `step` of the last target. Where the
# last target is outside the range (somebody pushed the arm there), both cannot hold:
# then the joint comes back by `step` a tick, as a leap is the worse of the two. If a
# number of the wish is not finite, something upstream is broken: raise `ValueError`.


# %% limit tags=["exercise"]
def limited(wish, last, low, high, step):
    """The targets (6,) to send, given those sent a tick before."""
    # solution
    if not np.isfinite(wish).all():
        raise ValueError(f"the wish is {wish}")
    inside = np.clip(wish, low, high)
    return np.clip(inside, last - step, last + step)  # last, so that it always holds
    # stub
    # ...  # refuse, then two limits: which one last?
    # end


check("08.limit", limited)

# %% limit-hint
hint("08.limit")

# %% governor-text [markdown]
# The package's `Governor` limits speed, acceleration, the distance from the *measured*
# position, where joints and fingertips may be, and how hard the gripper presses. Here
# it is given the actions of a demonstration, one of which was made wrong by 46 degrees.
#
# The slider opens at a speed limit that the demonstration itself exceeds, so the arm
# lags. **Raise it until what is sent follows the demonstration again.** How much more
# would you allow, and what does the wrong action then do?

# %% explorer
explorer = so100.governor_explorer()
explorer

# %% faults-text [markdown]
# At a limit of 0.6 rad/s one wrong action changes what is sent by about one degree a tick.
# It lasts for one tick, and beyond some speed the acceleration limit is what stops it.
#
# ## Things that break
#
# Cables, plugs, power supplies and cameras fail, too. The virtual arm has a switch for
# each of these faults. A driver should say in one sentence what is wrong, and leave the
# arm in a safe state. Try two:

# %% try-fault
print(so100.try_fault(arm, missing=3))
print(so100.try_fault(arm, frozen_camera="top"))

# %% table-text [markdown]
# The table has every fault, each switched on while a policy was driving. *Unsafe* means
# that the simulation saw a joint beyond its range or clearly above its speed limit, a goal
# far from its joint, a body over 2 mm in another one or in the table, over 15 N on the
# table for over 0.3 s, or a fall of the arm.

# %% table
print(so100.fault_table("deploy"))

# %% dry-text [markdown]
# Where nothing was said, the driver had asked again and got its answer in time, or the
# fault does not matter while a policy drives.
#
# ## The run
#
# First a **dry run**: the policy predicts, but nothing is sent. Three numbers decide
# whether to go on. A prediction must be ready within its tick, or the arm waits for it
# at each new chunk; pictures must be fresh; and the first action must be near the arm.

# %% dry
policy = evaluation.checkpoint("vision")
with so100.connected(port, calibration, cameras) as robot:
    robot.go(robot.limits.ready)
    seen = so100.look_before(policy, robot)
print(so100.advice(seen, robot))

# %% run-text [markdown]
# Now the policy drives, at 30 ticks a second. Each trial begins with a slow motion to
# the ready pose, and the control loop is the one that ran in simulation. However the
# block ends, also by an error or the stop button, the arm is laid down and its torque
# taken off. If this computer is too busy for the measurement, that is printed.

# %% run
with so100.connected(port, calibration, cameras) as robot:
    tally = so100.trials(policy, robot, arm, n=5)
print(f"{tally}. {so100.stepped_in(robot)}")

# %% timing
show(
    so100.timing_figure(tally),
    "Median and worst time of a prediction, and how far ticks were off, in each of "
    "five trials; n = 5.",
)

# %% reveal-bus
reveal("08.bus")

# %% fails [markdown]
# Most interventions are for a gripper asked to squeeze harder (grip) or a joint asked for
# the end of its range (joint limit). About a hundred a trial did not prevent success.
#
# ## Where it fails
#
# | the same scenes | success |
# |---|---|
# | through the bus | {{so100_success bus}} |
# | in simulation | {{so100_success simulation}} |
#
# The intervals overlap: bytes, clock and limits cost little while ticks come on time. On a
# quiet computer (the figure's may have been busy), 99 % of {{so100_loop
# policy_30_hz.ticks}} ticks were off by less than {{so100_loop
# policy_30_hz.jitter_ms_p99 -> 2}} ms.
#
# The virtual arm has no play in its gears, and its light never changes, so *this* policy
# need not work on your table. Record, train and deploy there. The commands below did so on
# a virtual arm, with a virtual leader: {{so100_teleop deploy}}.

# %% commands
print("\n\n".join(course.load_result("so100_teleop")["commands"]))

# %% summary [markdown]
# ## Summary
#
# A calibration converts steps to angles; never change it between recording and
# deployment. When torque comes on, a servo goes to its goal, so set the goal first.
# Limits belong between policy and bus; they refuse what is not finite, and count what
# they change. Do a dry run before a run, and keep a hand near the space bar.
#
# | sign | meaning |
# |---|---|
# | n, $n_{\text{first}}$, $n_{\text{last}}$ | position in steps; ends of the sweep |
# | $q$, $q_{\text{mid}}$ | angle in rad; at mid-sweep |
# | s | sense: 1 where steps grow with the angle, else -1 |
#
# ## Read more
#
# | reference | read it for |
# |---|---|
# | Feetech, communication protocol user manual (191218) | packets, instructions, checksum |
# | Feetech, memory table of the STS3215 | what each register holds |
# | Zhao et al. 2023, [arXiv:2304.13705](https://arxiv.org/abs/2304.13705) | the arms that ACT was made for, and their rate |
# | Chi et al. 2024, [arXiv:2402.10329](https://arxiv.org/abs/2402.10329) | measuring and matching the delays of arm and cameras |
# | Tobin et al. 2017, [arXiv:1703.06907](https://arxiv.org/abs/1703.06907) | why a policy from one simulation fails elsewhere, and a remedy |
# | ISO/TS 15066:2016 | how hard a robot may touch a person |
#
# ## Where next
#
# With an arm of your own, `hardware/so100/GUIDE.md` begins at the box; count your trials
# as in [07](07_sim_rollout.ipynb). The next lesson has two arms on CAN, which fall when
# the power is cut: [09](09_openarm.ipynb).
