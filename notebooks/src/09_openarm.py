# %% title [markdown]
# # 09 · OpenArm: two arms, one policy, and nothing that brakes
#
# {{runtime}} · 35 minutes of work · any laptop; two arms if you have them
#
# After this lesson you can **decide whether two arms need one policy**, **write the
# frame** that turns a motor into a spring, and **let a policy drive two arms over CAN**
# without letting them fall.
#
# You need lessons 07 and 08. Nothing to install: sixteen virtual motors answer the real
# frames.

# %% set-up
import numpy as np

import course
from course import check, hint, predict, reveal, show
from course.figures import lesson_09_can_bus as can_bench
from course.figures import lesson_09_two_arms as two_arms

course.begin("09")

# %% question [markdown]
# ## The question
#
# Two OpenArms at one table. An action is **16 numbers**, 50 times a second: seven joints
# and a gripper of the right arm, then of the left. The right hand takes a bar from the
# table and gives it to the left; no other hand, no table may help.
#
# Must one policy think of all sixteen? Or are two policies of eight enough, one an arm,
# each with its own eyes on the bar?
#
# First see what it is about: a few handovers of the policy that comes with the course.

# %% look
policy = two_arms.checkpoint()
found = two_arms.live(policy, n=20)
done = [rollout for rollout in found.rollouts if rollout.success]
print(found, two_arms.sort_out(found.rollouts))
show(
    two_arms.strip(done[0]),
    "Five pictures of one handover, n = 1: the right hand takes the bar, lifts it, the "
    "left closes on it, then the right opens. Below, the openings of both hands.",
)

# %% predict-two
predict("09.two")

# %% side-text [markdown]
# ## Two policies as one
#
# The control loop wants one policy. Two are soon one, as long as each is shown what it
# was trained with: the eight joints of its own arm, and the bar's pose.
#
# ### Exercise: side by side (5 minutes, easy)
#
# `seen["qpos"]` is (B, 16), `seen["env_state"]` is (B, 7); `predict_chunk` of either
# policy gives (B, k, 8).


# %% side tags=["exercise"]
def side_by_side(right, left, seen):
    """The chunk of both arms, (B, k, 16), of two policies for one arm each."""
    # solution
    qpos = seen["qpos"]
    chunks = [
        right.predict_chunk(seen | {"qpos": qpos[:, :8]}),
        left.predict_chunk(seen | {"qpos": qpos[:, 8:]}),
    ]
    return np.concatenate(chunks, axis=2)
    # stub
    # ...  # each its own joints; then one chunk
    # end


check("09.side_by_side", side_by_side)

# %% side-hint
hint("09.side_by_side")

# %% ways-text [markdown]
# Here is what that gives: the same 50 human-like demonstrations, the same 4000 updates a
# network, three seeds.

# %% ways
show(
    two_arms.ways_figure(),
    "Success with 95 % intervals, and kinds of failure, of one policy for both arms "
    "and of two policies side by side; n = 300 each.",
)

# %% reveal-two
reveal("09.two")

# %% why-text [markdown]
# ## Why
#
# Most failures of the two happen when the bar changes hands: the right hand holds on for
# ever, or opens before the left one has it. Look at the moment in which the left hand
# has just closed. All get the very same scenes; what do they plan for the right hand?

# %% why
show(
    two_arms.plans_figure(),
    "Planned opening of the right hand in the next second, 0.2 s after the left hand "
    "closed: one policy opens it, the policy of the right arm alone does not.",
)

# %% why-prose [markdown]
# The left hand can do without the other arm's joints: the bar itself tells it where to
# go. The right hand cannot: while the left closes, **the bar does not move**. "Not yet
# taken" and "taken" look the same to it, and demonstrators wait for a varying time. So
# it holds on for ever, the pause of lesson 01 that never ends, or it opens by the clock,
# whether or not somebody is there.
#
# *Seeing* is what was missing, not deciding together: the same two policies, shown both
# arms' joints, reach {{claims/C28 summary policies=two sees=both -> success percent}}.
# Does the one policy look at the left fingers, too? Lie to it.
#
# **Move the slider until the right hand holds tight.**

# %% told
explorer = two_arms.told_explorer(policy, two_arms.moments(found.rollouts))
explorer

# %% can-text [markdown]
# ## Plug them in
#
# Now the same policy through wires. Each arm is a CAN bus with eight motors; both have
# the same ids, so each needs a bus of its own. The next cell starts two virtual arms.

# %% plug
arms = can_bench.plug_in()
can_bench.health(arms)

# %% frame-text [markdown]
# A motor in MIT mode is a spring with a damper, and some torque on top:
#
# $$ \tau = k_p (q^* - q) + k_d (\dot q^* - \dot q) + \tau^* $$
#
# All five numbers go into eight bytes, each as a **share of its range**: 16 bits for the
# position, 12 for each other. How wide the ranges are the motor knows. Above, joints 3
# and 4 say VMAX 10, where most tables say 8: who believes the table is wrong by a
# quarter in every velocity. Ask the motor.
#
# ### Exercise: a frame by hand (10 minutes, medium)


# %% frame tags=["exercise"]
def frame(goal, ranges):
    """8 bytes of five numbers; `ranges` has (low, high, bits) of each. Refuses NaN."""
    # solution
    packed = 0
    for x, (low, high, bits) in zip(goal, ranges, strict=True):
        share = (min(max(x, low), high) - low) / (high - low)
        packed = packed << bits | int(share * (2**bits - 1))
    return packed.to_bytes(8, "big")
    # stub
    # ...  # cut off, share, whole steps; first number in the highest bits
    # end


check("09.frame", frame)

# %% frame-hint
hint("09.frame")

# %% exchange-text [markdown]
# The package's own codec, to the elbow of the right arm. Its torque is off, so it takes
# the goal for a question, and answers on an id of its own with how it is.

# %% exchange
from hardware.openarm.protocol import Feedback, Mit, Scale

scale = Scale(12.5, 10.0, 28.0)  # rad, rad/s, N·m: PMAX, VMAX, TMAX of motor 4
goal = Mit(position=1.4, kp=60, kd=2, torque=4).encode(scale)
answered, data = can_bench.exchange(arms, 4, goal)
print("asked    0x004", goal.hex(" ").upper())
print(f"answered 0x{answered:03X}", data.hex(" ").upper())
says = Feedback.decode(data, scale)
print(f"{says.status.words()}, {says.position:.3f} rad, {says.torque:.2f} N·m")

# %% spring-text [markdown]
# ## An arm on springs
#
# A spring pulls only when it is stretched. An arm that weighs something therefore hangs
# below its goal, unless somebody adds $\tau^*$: what gravity asks for at these angles,
# from a model of the arm. The model knows the arm. It does not know what the hand holds.

# %% springs
springs = can_bench.sag_explorer()
springs

# %% measured-text [markdown]
# That was a model. The virtual arms, through the bus, with the gentle gains:

# %% measured
for gravity in (False, True):
    sag = can_bench.measured_sag(arms, "gentle", gravity)
    print(f"gravity compensation {gravity}: {100 * sag:.1f} cm below the goal")

# %% predict-fall
predict("09.fall")

# %% fall-text [markdown]
# ## What falls
#
# Both arms are held up. Then one of four things happens. (With real arms: never try.)

# %% fall
falls = [can_bench.let_go(arms, how) for how in can_bench.HOW]
for one in falls:
    print(f"{one.how:15} down {100 * one.lost:.0f} cm, up to {one.speed:.1f} rad/s")
show(
    can_bench.descents_figure(falls),
    "Height of the hand after a power cut, after the program is killed, with a "
    "timeout in the motors, and while the driver softens; n = 1 each.",
)

# %% reveal-fall
reveal("09.fall")

# %% sink-text [markdown]
# A killed program is harmless here: a motor keeps its last goal. `TIMEOUT` turns that
# into a fall, so choose it only where falling is the lesser evil.
#
# Where it cannot lay the arms down, the driver lets them *sink*: stiffness and carried
# weight fade, the damping stays.
#
# ### Exercise: let it sink (5 minutes, easy)


# %% sink tags=["exercise"]
def sinking(share, kp, kd, brake):
    """What is sent when `share` (0 to 1) of the fading is over.

    Returns stiffness and damping of each motor, and the share of the weight carried.
    """
    # solution
    return (1 - share) * kp, np.maximum(kd, brake), 1 - share
    # stub
    # ...  # what holds, what brakes, what carries
    # end


check("09.sink", sinking)

# %% sink-hint
hint("09.sink")

# %% run-text [markdown]
# ## Through the bus
#
# Now the policy. Between it and the motors stand the limits of lesson 08, and one more:
# the arms must not come too near to each other. Where the bar is, the virtual arm tells, as
# motion capture would. Each trial begins with a slow ramp.

# %% run
robot = can_bench.safe_robot(arms)
robot.connect()
tally = can_bench.trials(policy, robot, arms, n=3)
robot.close()
print(tally, dict(robot.interventions.counts))

# %% fails [markdown]
# ## Where it fails
#
# Three trials tell little (lesson 07). Through the bus {{openarm_bus_success bus}}; the
# same scenes in plain simulation: {{openarm_bus_success simulation}}. Failures are mostly
# bars that were never picked up or fell on the way. What real arms add
# (`hardware/openarm/GUIDE.md`):
#
# | what | why |
# |---|---|
# | 120 Ω at both ends of each bus | else frames are lost, or nobody answers |
# | CAN-FD or classic, all the same | else silence, as if there were no power |
# | zero, once, hanging | a wrong one turns what carries the arm against it |
# | VMAX, read at each start | velocities off by a quarter |
# | a policy with cameras | nobody tells a real arm the bar's pose |
# | emergency stop | it lets the arms fall; keep heads out from under them |

# %% summary [markdown]
# ## Summary
#
# What one arm must know of the other, its policy must see. One policy sees it anyway; two
# that see both arms do as well. A MIT frame is a spring, a damper and a torque; ranges
# come from the motor. Without gravity compensation arms hang low, with it they do not
# know their load. Without power they fall.
#
# | sign | meaning |
# |---|---|
# | $q, \dot q, \tau$ | angle, speed, torque of a motor |
# | $q^*, \dot q^*, \tau^*$ | what is asked for |
# | $k_p, k_d$ | stiffness, damping |
#
# ## Where next
#
# With arms of your own: the guide, from the first cable on. One arm: [08](08_so100.ipynb).
# The pause that never ends: [01](01_compounding_error.ipynb).
