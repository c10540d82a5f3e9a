# %% title [markdown]
# # 02 · Action chunking
#
# {{runtime}} · 50 minutes of work · any laptop
#
# After this lesson you can **cut demonstrations into windows**, execute chunks by a
# **receding horizon**, and **choose a chunk size** for a task and a rate, and defend it.
#
# You need lesson 01 (why single steps drift).

# %% set-up
from pathlib import Path

import numpy as np

import course
from act_minimal.checkpoint import load_policy
from act_minimal.dataset import Demonstrations, Windows
from act_minimal.execution import ExecutionConfig
from course import check, hint, predict, reveal, show
from course.figures import lesson_02 as chunks

course.begin("02")

# %% question [markdown]
# ## The question
#
# Lesson 01 asked the policy for one action, then looked, then asked again, hundreds of
# times an episode. Every look is a chance to leave the states that the demonstrations
# show.
#
# Why not ask for more at once? A **chunk** is the next k actions, predicted together.
# Then the arm can act for a while without asking. A larger k means fewer chances to go
# wrong, and a longer time without looking. How large should k be?

# %% predict
predict("02.best")

# %% windows-text [markdown]
# ## Look first: what a policy learns from
#
# A **window** is one training sample: what is seen at tick t, and the k actions from t
# on. One starts at every tick of every demonstration, so 50 demonstrations give
# thousands.

# %% windows
data = course.demonstrations(50)
demos = Demonstrations.load(data)
windows = Windows(demos, np.arange(50), chunk_size=25)
batch = windows.batch([0, 1, 2, 3])
print(f"{len(demos)} demonstrations, {len(windows)} windows; a batch of 4 holds")
for name, tensor in batch.items():
    print(f"  {name:9} {tuple(tensor.shape)} {tensor.dtype}")

# %% end-text [markdown]
# Near the end of an episode there are fewer than k actions left. The window is filled
# up, and `is_pad` remembers what was invented. (Both windows are lifted a little above
# the line that they lie on.)

# %% end
show(
    chunks.window_figure(demos, k=25, before_end=(45, 12)),
    "A window of 25 actions from 45 ticks before the end has no padding; one from 12 "
    "ticks before the end has 12 actions and 13 crosses of padding; n = 1 episode.",
)

# %% window-text [markdown]
# ### Exercise: a window (8 minutes, easy)
#
# `actions` (T, A) is one episode. Return the chunk that starts at tick `t`, shape
# (k, A), and `is_pad`, shape (k,), True where the episode was over. Fill up with the
# last action: an arm can follow a command that stays, not one that jumps to zero.


# %% window tags=["exercise"]
def window(actions, t, k):
    """The chunk (k, A) from tick t on, and is_pad (k,)."""
    # solution
    ticks = t + np.arange(k)  # (k,)
    is_pad = ticks >= len(actions)
    return actions[np.minimum(ticks, len(actions) - 1)], is_pad
    # stub
    # ...  # which ticks are wanted, which of them exist?
    # end


check("02.window", window)

# %% window-hint
hint("02.window")

# %% loss-text [markdown]
# ### Exercise: the loss that ignores padding (6 minutes, easy)
#
# ACT's loss is L1, the mean absolute error, over what was really demonstrated:
#
# $$ L = \frac{\sum_{b,i} v_{bi} \sum_a |\hat a_{bia} - a_{bia}|}
# {A \sum_{b,i} v_{bi}} $$
#
# where b counts samples, i ticks of the chunk, a the A joints, and $v_{bi}$ is 0 on
# padding and 1 elsewhere. What should a chunk weigh that is half padding?


# %% loss tags=["exercise"]
def masked_l1(prediction, target, is_pad):
    """Mean absolute error of prediction, target (B, k, A) where not is_pad (B, k)."""
    # solution
    valid = ~is_pad[:, :, None]  # (B, k, 1)
    error = np.abs(prediction - target) * valid
    return error.sum() / (valid.sum() * prediction.shape[-1])
    # stub
    # ...  # mask, add up, divide by how many numbers are left
    # end


check("02.loss", masked_l1)

# %% loss-hint
hint("02.loss")

# %% train-text [markdown]
# ## The shortest experiment
#
# The same network, the same 50 demonstrations, the same 1000 steps; only k differs.
# Each policy then acts in the same 30 fresh scenes and executes h = 1, 5, 10, 25 or 50
# actions of each chunk before it is asked again. (`cvae_actions_per_token` is there for
# speed; lesson 03 explains what reads them.)

# %% train
policies = {}
for k, pack in ((1, 1), (10, 5), (50, 10)):
    run = course.trained(
        data, chunk_size=k, model={"cvae_actions_per_token": pack}, steps=1000, lr=2e-3
    )
    policies[k] = run.policy
    print(f"k = {k:2}: {run.seconds:3.0f} s of training, L1 {run.losses[-1]['l1']:.3f}")

# %% rollouts
found = {}
for k, policy in policies.items():
    for h in (1, 5, 10, 25, 50):
        if h <= k:
            way = ExecutionConfig("receding", execute=h)
            found[k, h] = course.rollouts(policy, way, n=30, seed=2)
            print(f"k = {k:2}, h = {h:2}: {found[k, h]}")

# %% explorer-text [markdown]
# Two numbers were varied, and it is easy to mix them up. **Hold k and move the executed
# length; then hold the executed length and move k.** Which of the two changes the
# success more?

# %% explorer
explorer = chunks.chunk_explorer(found, fps=30)
explorer

# %% explorer-answer [markdown]
# Compare the rows with h = 1: they differ in k, and all of them ask at every tick. Then
# compare the rows of k = 50. Predicting far ahead is a way to *train*; executing far
# ahead is what cuts the number of decisions. A large k with h = 1 throws its advantage
# away. Watch the share of time frozen, too: a policy that is asked at every tick stops
# where a demonstrator paused.

# %% reveal
reveal("02.best")

# %% sizes
fig, says = chunks.size_figure()
show(fig, says)

# %% name [markdown]
# ## The idea, then the maths
#
# Predicting k actions and executing h of them before looking again is a **receding
# horizon**, as in model-predictive control.
#
# Why does it help? Let an episode last T ticks. With h executed per look there are
# N = T/h looks. Suppose that each one leaves the demonstrated states with probability
# ε, and that from then on every tick costs 1. A departure at look n wastes the rest,
# T − nh ticks, so the expected cost is at most
#
# $$ \sum_{n=0}^{N-1} \epsilon\,(T - nh) \approx \epsilon\,\frac{N T}{2}
# = \epsilon\,\frac{T^2}{2h}. $$
#
# Lesson 01's T² is still there, divided by h.

# %% catch
policy = load_policy(Path(course.ROOT) / "data/checkpoints/so100_pick_place_state")
ahead = chunks.error_ahead(policy, course.demonstrations(20, seed=1))
fig, ax = course.figure(height=2.6)
ax.plot(np.arange(1, 51), 1000 * ahead, label="mean over 5 joints, n = 512 frames")
ax.set_xlabel("ticks ahead")
ax.set_ylabel("error, mrad")
ax.set_ylim(0)
ax.legend()
show(
    fig, f"Error {1000 * ahead[0]:.0f} mrad at once, {1000 * ahead[-1]:.0f} mrad at 50."
)

# %% receding-text [markdown]
# The catch is in ε. On demonstrations that the policy has not seen, the error depends
# on how far ahead it predicts: people differ in speed, and pause. ε is not a constant;
# it grows with h. As long as ε grows more slowly than h, longer is better.
#
# The bound says nothing about *surprises*, which nobody could predict from here. We
# come to them below.
#
# ### Exercise: the receding horizon (8 minutes, medium)
#
# Somebody recorded what a policy predicted at every tick: `chunks[t]` is the chunk
# (k, A) made at tick t. Which actions does an arm execute that asks at ticks 0, h,
# 2h, ...? Return them all, shape (T, A).


# %% receding tags=["exercise"]
def executed(chunks, h):
    """Actions (T, A) when h actions of each chunk are executed; chunks (T, k, A)."""
    # solution
    t = np.arange(len(chunks))
    asked = t // h * h  # the tick of the last look
    return chunks[asked, t - asked]
    # stub
    # ...  # when was the chunk made that rules tick t?
    # end


check("02.receding", executed)

# %% receding-hint
hint("02.receding")

# %% rule-text [markdown]
# ## How long, then?
#
# A rule of thumb from people who tune such policies: a chunk covers **one sub-motion**
# (reach, descend, lift, ...) so duration times control rate, rounded up to the next
# multiple of 25.
#
# ### Exercise: the rule (4 minutes, easy)


# %% rule tags=["exercise"]
def chunk_size(seconds, fps):
    """Actions that cover a sub-motion of so many seconds, a multiple of 25."""
    # solution
    return 25 * int(np.ceil(seconds * fps / 25))
    # stub
    # ...  # ticks, then up to a multiple of 25
    # end


check("02.rule", chunk_size)

# %% rule-hint
hint("02.rule")

# %% durations-text [markdown]
# Our demonstrators' sub-motions can be measured: from standing still to standing still.

# %% durations
seconds = chunks.submotions(demos)
show(
    chunks.duration_figure(seconds, demos.fps),
    f"{len(seconds)} sub-motions of 50 demonstrations last {np.median(seconds):.2f} s "
    f"in the median, nine in ten less than {np.percentile(seconds, 90):.2f} s.",
)

# %% rule-applied
for name, share in (("the median", 50), ("nine in ten", 90)):
    long = float(np.percentile(seconds, share))
    sizes = {fps: chunks.rule_of_thumb(long, fps) for fps in (30, 50)}
    print(f"{name:11} {long:.2f} s: k = {sizes[30]} at 30 Hz, {sizes[50]} at 50 Hz")

# %% rule-judged [markdown]
# How good is the rule? Human-like demonstrations, half of each chunk executed:
#
# | rate | k | success |
# |---|---|---|
# | 30 Hz, the rule | {{claims/C11 rule demonstrator=human -> k 0}} | {{claims/C11 rule demonstrator=human -> success percent}} |
# | 30 Hz, the best | {{claims/C11 rule demonstrator=human -> best_k 0}} | {{claims/C11 rule demonstrator=human -> best_success percent}} |
# | 50 Hz, 0.5 s | 25 | {{claims/C11 fifty k=25 -> success percent}} |
# | 50 Hz, 1 s | 50 | {{claims/C11 fifty k=50 -> success percent}} |
#
# (n = 300 each; the training at 50 Hz was shorter.) At 50 Hz the same seconds hold more
# ticks, so the rule speaks of seconds. Its steps of 25 are coarse: take its answer as
# the middle of what you try.
#
# ## When longer hurts
#
# A chunk cannot react. So far nothing happened that it could not foresee. Now somebody
# pushes the cube by 3 to 5 cm while the arm is on its way, at a random moment between
# 0.7 and 1.4 s, before any demonstrator has touched it.

# %% push-predict
predict("02.push")

# %% push
found = {"left alone": {}, "pushed": {}}
for h in (5, 10, 25, 50):
    for name, ours in found.items():
        ours[h] = chunks.outcome(policy, h, n=50, seed=3, pushed=name == "pushed")
        print(f"h = {h:2}, {name:10}: {ours[h]}")

# %% push-figure
show(
    chunks.push_figure(found),
    "Success against executed length, with and without a push, n = 50 scenes a point: "
    + "; ".join(
        f"h = {h} {100 * o.rate:.0f} % pushed" for h, o in found["pushed"].items()
    ),
)

# %% push-judged [markdown]
# The policy never saw a push, but it saw cubes everywhere, so a new look is all it
# needs. Short executions give it that look, and pay with more decisions. Long ones are
# steady, and blind. The best length is a compromise, and it moves with how often your
# world surprises you. Three policies, n = 300 a number:
#
# | h | left alone | pushed |
# |---|---|---|
# | 1 | {{claims/C14 summary execute=1 pushed=false -> success percent}} | {{claims/C14 summary execute=1 pushed=true -> success percent}} |
# | 5 | {{claims/C14 summary execute=5 pushed=false -> success percent}} | {{claims/C14 summary execute=5 pushed=true -> success percent}} |
# | 10 | {{claims/C14 summary execute=10 pushed=false -> success percent}} | {{claims/C14 summary execute=10 pushed=true -> success percent}} |
# | 25 | {{claims/C14 summary execute=25 pushed=false -> success percent}} | {{claims/C14 summary execute=25 pushed=true -> success percent}} |
# | 50 | {{claims/C14 summary execute=50 pushed=false -> success percent}} | {{claims/C14 summary execute=50 pushed=true -> success percent}} |

# %% push-reveal
reveal("02.push")

# %% summary [markdown]
# ## Where it fails
#
# Half of each chunk or the whole of it, human-like demonstrations, n = 300 each:
#
# | k | half | whole |
# |---|---|---|
# | 10 | {{chunk_size summary demonstrator=human k=10 cvae=true execution=half -> success percent}} | {{chunk_size summary demonstrator=human k=10 cvae=true execution=whole -> success percent}} |
# | 25 | {{chunk_size summary demonstrator=human k=25 cvae=true execution=half -> success percent}} | {{chunk_size summary demonstrator=human k=25 cvae=true execution=whole -> success percent}} |
# | 50 | {{chunk_size summary demonstrator=human k=50 cvae=true execution=half -> success percent}} | {{chunk_size summary demonstrator=human k=50 cvae=true execution=whole -> success percent}} |
# | 100 | {{chunk_size summary demonstrator=human k=100 cvae=true execution=half -> success percent}} | {{chunk_size summary demonstrator=human k=100 cvae=true execution=whole -> success percent}} |
#
# (The paper: 1 % for k = 1, 44 % for k = 100 at 50 Hz.) Success against k belongs to
# task, rate and data, not to the method. And the arm may jump where one chunk ends and
# the next begins: lesson 04.
#
# ## Summary
#
# Windows with marked padding make chunks learnable. Fewer decisions are fewer chances
# to drift: the executed length h buys them, and k only has to allow it. Choose h long
# enough for a sub-motion, short enough to notice what happens, and measure both.
#
# | sign | meaning |
# |---|---|
# | k | chunk size, actions predicted at once |
# | h | executed length, actions before the next look |
# | T | ticks of an episode |
# | ε | chance that one look leads astray |
# | is_pad, v | marks padding; v = 0 there |
#
# ## Where next
#
# [03](03_cvae.ipynb): two people demonstrate the same task in two ways. What should a
# chunk be then?
