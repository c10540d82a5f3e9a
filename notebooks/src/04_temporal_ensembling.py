# %% title [markdown]
# # 04 · Temporal ensembling
#
# {{runtime}} · 45 minutes of work · any laptop
#
# After this lesson you can **write the ensembler**, tell its **two directions** apart,
# and say **when it hurts**.
#
# You need lesson 02 (chunks, receding horizon). Nothing to install.

# %% set-up
from pathlib import Path

import numpy as np

import course
from act_minimal.checkpoint import load_policy
from act_minimal.execution import ExecutionConfig
from course import check, hint, predict, reveal, show
from course.figures import lesson_04 as overlap

course.begin("04")

# %% question [markdown]
# ## The question
#
# A policy with chunks of k = 50 that is asked at *every* tick has up to 50 opinions
# about the present one: the newest, and older ones that were made from further away.
# Executing half a chunk and then switching throws most of them away, and at each
# switch the arm may jump.
#
# Averaging all opinions sounds wise. The ACT paper does it, and reports 3.3 points more
# success. Is it wise here?

# %% predict
predict("04.helps")

# %% look-text [markdown]
# ## Look first
#
# We take the state policy that comes with the course and ask it at every tick of one
# scene, while it executes half of each chunk. Each thin line is a chunk, from the
# moment it was made.

# %% look
policy = load_policy(Path(course.ROOT) / "data/checkpoints/so100_pick_place_state")
found = overlap.trace(policy, scene=3)
show(
    overlap.fan(found),
    "Predicted chunks of the shoulder fan out around the executed path; n = 1 rollout.",
)

# %% idea [markdown]
# Where the lines lie on each other, averaging changes nothing. Where they fan out, the
# policy has changed its mind, and the average lies somewhere in between.
#
# ## The idea, then the maths
#
# For the action at tick $t$ there are predictions $\hat a_t^{(0)}, \dots,
# \hat a_t^{(n-1)}$, **oldest first**. The ensembled action is their weighted mean,
#
# $$ a_t = \frac{\sum_i w_i \hat a_t^{(i)}}{\sum_i w_i}, \qquad w_i = e^{-m i}. $$
#
# With m > 0 the *oldest* weighs most. That surprises most readers.

# %% average-text [markdown]
# ### Exercise: the weighted mean (8 minutes, easy)
#
# `predictions` has shape (n, A), its row 0 is the oldest.


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
# A robot does not keep 50 chunks. It keeps, for each tick to come, the mean so far and
# how many predictions are in it. When a new prediction arrives, only its *share* is
# needed: the newest has i = `count`.


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
# says. Both are here. **Move m from −0.3 to 0.3 in both directions**, and watch the age
# of what is averaged and the jerk. Which settings are the same thing?

# %% explorer
explorer = overlap.ensemble_explorer(found)
explorer

# %% directions [markdown]
# Counting from the newest is counting from the oldest with −m: the weights differ by a
# factor that the sum takes out again. m = 0 is the plain mean. A large positive m (oldest first) is open loop: the
# arm follows what was planned k ticks ago. A large negative m asks only the newest
# prediction: a policy that executes one action of each chunk.

# %% age
ages = {m: overlap.mean_age(m, k=50) for m in (-0.3, -0.1, 0.0, 0.01, 0.1, 0.3)}
for m, age in ages.items():
    print(f"m = {m:5.2f}: {age:4.1f} ticks old, {1000 * age / 30:4.0f} ms at 30 Hz")

# %% lag [markdown]
# This age is the price. While all opinions agree, averaging old ones costs nothing: they
# speak of the same tick. When the world changes, the old ones do not know it yet.
#
# Let us see that. We go through the same rollout again, but from tick 30 on the cube
# lies 3 cm further right. The newest prediction knows at once; how long until the
# ensemble does?

# %% reaction
fig, half = overlap.reaction_figure(policy, found, (-0.3, 0.0, 0.01, 0.1), at=30)
for m, ticks in half.items():
    when = f"after {ticks:.0f} ticks" if ticks < 40 else "not within 40 ticks"
    print(f"m = {m:5.2f}: half of the reaction {when}")
show(
    fig, "Share of the reaction to a moved cube over ticks, for four m; n = 1 rollout."
)

# %% live-text [markdown]
# ## Does it help?
#
# The same policy, the same 50 fresh scenes, three ways to execute. (Asking at every
# tick is what makes the ensembles slower to run.)

# %% live
ways = {
    "half of each chunk": ExecutionConfig("receding"),
    "ensemble, m = 0.01": ExecutionConfig("ensemble", m=0.01),
    "ensemble, newest counts": ExecutionConfig("ensemble", m=-0.1),
}
found = {name: course.rollouts(policy, way, n=50, seed=7) for name, way in ways.items()}
for name, e in found.items():
    print(f"{name:24} {e}, jerk {e.jerk:.0f} rad/s³")

# %% reveal
reveal("04.helps")

# %% fails [markdown]
# ## Where it fails
#
# The same comparison over three seeds and four chunk sizes:
#
# | chunks | half of each | ensemble, m = 0.01 |
# |---|---|---|
# | k = 10 | {{chunk_size summary demonstrator=human k=10 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=10 cvae=true execution=ensemble}} |
# | k = 25 | {{chunk_size summary demonstrator=human k=25 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=25 cvae=true execution=ensemble}} |
# | k = 50 | {{chunk_size summary demonstrator=human k=50 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=50 cvae=true execution=ensemble}} |
# | k = 100 | {{chunk_size summary demonstrator=human k=100 cvae=true execution=half}} | {{chunk_size summary demonstrator=human k=100 cvae=true execution=ensemble}} |
#
# With short chunks the ensemble wins: asked at every tick, it smooths over pauses at
# which short chunks get stuck. With long ones it loses: the average reaches further
# back than the policy's opinions agree. LeRobot's maintainers met that, too: one
# checkpoint with k = 100, 70.8 % with m = 0.01, 87.6 % without (500 episodes).

# %% summary [markdown]
# ## Summary
#
# Ensembling is a low-pass filter over opinions: it removes jerk and reacts late. Whether
# that helps depends on k. Measure it on your task before you leave it on.
#
# | sign | meaning |
# |---|---|
# | k | chunk size, actions |
# | m | decay per prediction; m > 0 favours old ones |
# | i | number of a prediction for this tick, 0 = oldest |
# | $w_i$ | its weight, $e^{-mi}$ |
#
# ## Where next
#
# [05](05_act_model.ipynb) opens the network that makes the chunks.
