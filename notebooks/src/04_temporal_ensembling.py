# %% title [markdown]
# # 04 · Temporal ensembling
#
# {{runtime}} · 50 minutes of work · any laptop
#
# After this lesson you can **write the ensembler**, tell its **two directions** apart,
# and say **when averaging hurts**.
#
# You need lesson 02 (chunks, receding horizon). Nothing to install.

# %% set-up
from pathlib import Path

import numpy as np

import course
from act_minimal.checkpoint import load_policy
from act_minimal.execution import ExecutionConfig
from course import check, hint, predict, reveal, show
from course.figures import lesson_04 as ensembling
from course.toolkit import schematics

course.begin("04")

# %% question [markdown]
# ## The question
#
# Ask a policy with chunks of k = 50 at *every* tick, and for the present tick you have
# up to 50 predictions: one from the newest chunk, and the others from chunks that were
# predicted earlier. Lesson 02's executor uses one chunk at a time. It throws most
# predictions away, and the command may jump where it switches to the next chunk.
#
# Temporal ensembling averages all of them instead. The ACT paper does so, and reports
# 3.3 points more success. Does it help here?

# %% predict
predict("04.helps")

# %% look-text [markdown]
# ## Look first
#
# We ask the state policy that comes with the course at every tick of one scene, while
# it executes half of each chunk. Each thin line is a chunk, drawn from the tick at
# which it was predicted.

# %% look
policy = load_policy(Path(course.ROOT) / "data/checkpoints/so100_pick_place_state")
found = ensembling.trace(policy, scene=3)
show(
    ensembling.fan(found),
    "Predicted chunks of the shoulder fan out around the executed path; n = 1 rollout.",
)

# %% idea [markdown]
# Where the lines coincide, averaging changes nothing. Where they fan out, the policy
# has changed its prediction, and the average lies somewhere in between.
#
# ## The idea, then the maths
#
# Number the predictions for tick $t$ from the **oldest**: $\hat a_t^{(0)}, \dots,
# \hat a_t^{(n-1)}$. The ensembled action is their weighted mean,
#
# $$ a_t = \frac{\sum_i w_i \hat a_t^{(i)}}{\sum_i w_i}, \qquad w_i = e^{-m i}. $$
#
# So with m > 0 the *oldest* prediction weighs most. Several articles say the opposite;
# the paper and its code agree with the formula.

# %% average-text [markdown]
# ### Exercise: the weighted mean (8 minutes, easy)
#
# `predictions` has shape (n, A), its row 0 is the oldest. m may be 0 or negative.


# %% average tags=["exercise"]
def average(predictions, m):
    """The ensembled action (A,) of predictions (n, A), oldest first."""
    # solution
    weights = np.exp(-m * np.arange(len(predictions)))  # (n,)
    return weights @ predictions / weights.sum()  # (A,)
    # stub
    # ...  # weights (n,), then their mean (A,)
    # end


check("04.average", average)

# %% average-hint
hint("04.average")

# %% online-text [markdown]
# ### Exercise: the same, online (12 minutes, harder)
#
# An executor need not keep 50 chunks. For each tick to come it keeps the mean so far,
# and how many predictions are in it. When a new prediction arrives, it has
# i = `count`, and all you need is its *share* of the new mean. Again, m may be 0.


# %% online tags=["exercise"]
def take_in(mean, count, new, m):
    """The mean (A,) of `count` predictions, with a new one (A,) in it."""
    # solution
    older = np.exp(-m * np.arange(count)).sum()
    newest = np.exp(-m * count)
    return mean + newest / (older + newest) * (new - mean)
    # stub
    # ...  # the share of the new one depends on count and m
    # end


check("04.online", take_in)

# %% online-hint
hint("04.online")

# %% explorer-text [markdown]
# ## Two directions
#
# Articles disagree on which end i counts from, and one codes the reverse of what it
# says. Both are here. **Move m from −0.3 to 0.3 in both orders.** Watch the age of what
# is averaged, and the *roughness*: the root mean square third difference of the
# commands. Which settings are the same thing?

# %% explorer
explorer = ensembling.ensemble_explorer(found)
explorer

# %% directions [markdown]
# Counting from the newest is the same as counting from the oldest with −m: all weights
# change by one factor, which the division by their sum takes out again. With a large
# positive m (oldest first) the arm follows what was planned k ticks ago, as if it
# executed whole chunks. With a large negative m it follows only the newest prediction,
# as if it executed one action of each chunk.
#
# How much does m = 0.01, the paper's choice, differ from m = 0, the plain mean?

# %% age
for k in (50, 100):
    for m in (-0.1, 0.0, 0.01, 0.1):
        newest, age = np.exp(-m * (k - 1)), ensembling.mean_age(m, k)
        print(
            f"k = {k:3}, m = {m:5.2f}: newest / oldest weight {newest:8.3g}, mean age "
            f"{age:4.1f} ticks, {1000 * age / 30:4.0f} ms at 30 Hz"
        )

# %% lag [markdown]
# At k = 50, m = 0.01 is **nearly** the plain mean: what it averages is two ticks older.
# At k = 100 it is eight ticks older, and the newest prediction weighs 0.37 of the oldest.
#
# While all predictions agree, their age costs nothing: they are all about the *same*
# tick. It matters when the world changes, because the old ones were made before.
#
# To see that, we replay the rollout, but from tick 30 on the policy is shown the cube
# 3 cm further along x. The newest prediction takes that in at once. How long does the
# ensemble take?

# %% reaction
fig, half = ensembling.reaction_figure(policy, found, (-0.3, 0.0, 0.01, 0.1), at=30)
for m, ticks in half.items():
    when = f"after {ticks:.0f} ticks" if ticks < 40 else "not within 40 ticks"
    print(f"m = {m:5.2f}: half of the reaction {when}")
show(
    fig, "Share of the reaction to a moved cube over ticks, for four m; n = 1 rollout."
)

# %% horizon-text [markdown]
# For m = 0 and 0.01 this takes longer than the mean age. Predictions that were made
# just after the move know of it, but react less than the newest one does.
#
# ## The shorter horizon is gone
#
# Lesson 02 gave a reason for chunks: whoever executes h actions of each decides h times
# less often, and has h times fewer occasions to drift.

# %% horizon
schematics.horizon_against_ensembling()

# %% live-text [markdown]
# An ensemble asks at every tick. **That cancels the reduction of the horizon**: there
# are as many decisions as in single-step cloning. What is different is that each moves
# the command by its share only, 1/50 at m = 0.
#
# So we compare four ways to execute the same policy on the same 50 fresh scenes. The
# second also asks at every tick, and executes the newest prediction alone. Beside
# success stand the median time of the rollouts that succeed, and the **jerk**: the
# formula of roughness, but of *measured* joint positions. (The servos round off what
# jumps in the commands.)

# %% live
ways = {
    "half of each chunk": ExecutionConfig("receding"),
    "newest action only": ExecutionConfig("receding", execute=1),
    "ensemble, m = 0.01": ExecutionConfig("ensemble", m=0.01),
    "ensemble, m = -0.1": ExecutionConfig("ensemble", m=-0.1),
}
for name, way in ways.items():
    e = course.rollouts(policy, way, n=50, seed=7)
    print(ensembling.outcome(name, e))

# %% control-text [markdown]
# With the newest action only, the policy stands still ("frozen") more than half of the
# time and rarely arrives. The ensembles decide as often and do not suffer: most of each
# of their commands was predicted earlier.
#
# ## Is it just smoothing?
#
# A control experiment: half of each chunk is executed, and a plain **low-pass filter**
# smooths the commands, $y_t = y_{t-1} + g\,(a_t - y_{t-1})$. We choose g so that what it
# averages is as old as in the two ensembles. But it averages commands for *past* ticks,
# where the ensemble averages predictions for *this* one.

# %% control
for m, way in ((0.01, ensembling.low_pass()), (-0.1, ensembling.low_pass(short=True))):
    e = course.rollouts(policy, way, n=50, seed=7)
    age = ensembling.mean_age(m, k=policy.chunk_size)
    print(ensembling.outcome(f"low-pass, {age:.0f} ticks", e))

# %% control-judged [markdown]
# The long filter is as old as the ensemble with m = 0.01, and fails: the arm follows
# every motion most of a second late, and the gripper too. The short one is about as
# smooth as the ensembles and succeeds about as often, but takes half as long again.
# An ensemble is not late in this way. It is late only about what its old predictions
# could not know.

# %% reveal
reveal("04.helps")

# %% fails [markdown]
# ## Where it fails
#
# The same over three seeds and four chunk sizes, human-like demonstrations:
#
# | chunks | half of each | whole | ensemble, m = 0.01 |
# |---|---|---|---|
# | k = 10 | {{chunk_size summary demonstrator=human k=10 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=10 cvae=true execution=whole -> success percent}} | {{chunk_size summary demonstrator=human k=10 cvae=true execution=ensemble}} |
# | k = 25 | {{chunk_size summary demonstrator=human k=25 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=25 cvae=true execution=whole -> success percent}} | {{chunk_size summary demonstrator=human k=25 cvae=true execution=ensemble}} |
# | k = 50 | {{chunk_size summary demonstrator=human k=50 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=50 cvae=true execution=whole -> success percent}} | {{chunk_size summary demonstrator=human k=50 cvae=true execution=ensemble}} |
# | k = 100 | {{chunk_size summary demonstrator=human k=100 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=100 cvae=true execution=whole -> success percent}} | {{chunk_size summary demonstrator=human k=100 cvae=true execution=ensemble}} |
#
# Against half chunks it wins at k = 10 and loses at 50 and 100: the longer the chunks, the
# older what it averages. Against whole chunks it never wins; after scripted demonstrations
# it does no harm. LeRobot's maintainers had 70.8 % with m = 0.01 at k = 100, 87.6 % without
# (one checkpoint, 500 episodes each).
#
# Newest action only, k = 50: {{claims/C14 summary execute=1 pushed=false}}.

# %% summary [markdown]
# ## Summary
#
# Ensembling smooths without a filter's delay, decides at every tick, and with m ≥ 0 reacts
# late to what is new. Whether it helps depends on k: measure it on your own task.
#
# | sign | meaning |
# |---|---|
# | k | chunk size, actions |
# | m | decay per prediction; m > 0 favours old ones |
# | i | number of a prediction for this tick, 0 = oldest |
# | $w_i$ | its weight, $e^{-mi}$ |
# | roughness | RMS third difference of commands, rad/s³ |
# | jerk | the same of measured joint positions |
#
# ## References
#
# | | read it for |
# |---|---|
# | Zhao et al. 2023, [arXiv:2304.13705](https://arxiv.org/abs/2304.13705) | ACT; section IV-A defines the ensemble |
# | Chi et al. 2023, [arXiv:2303.04137](https://arxiv.org/abs/2303.04137) | Diffusion Policy: receding horizon, without an ensemble |
# | Liu et al. 2024, [arXiv:2408.17355](https://arxiv.org/abs/2408.17355) | bidirectional decoding: choosing among chunks instead of averaging |
# | Black et al. 2025, [arXiv:2506.07339](https://arxiv.org/abs/2506.07339) | real-time chunking: joining chunks under inference delay |
# | LeRobot, [pull request 319](https://github.com/huggingface/lerobot/pull/319) | the measurement quoted above |
#
# ## Where next
#
# [05](05_act_model.ipynb) opens the network that makes the chunks.
