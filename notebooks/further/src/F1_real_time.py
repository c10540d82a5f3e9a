# %% title [markdown]
# # F1 · Real time
#
# {{runtime}} · 60 minutes of work · any laptop
#
# After this lesson you can say **what a slow prediction costs**, **join chunks that come
# late**, train a policy **that knows of the delay**, and choose the settings for an arm
# from one measured number.
#
# You need lessons 02 (chunks) and 04 (ensembling).

# %% set-up
import numpy as np

import course
from act_minimal.policy import future_place
from course import check, hint, predict, reveal, show
from course.figures import lesson_f1 as late
from course.toolkit import schematics

course.begin("F1")

# %% question [markdown]
# ## The question
#
# In the lessons so far the simulated world stood still while a policy predicted. The
# real one does not. A tick at 30 Hz lasts 33 ms; the ACT of the paper takes some 130 ms
# for one prediction on two CPU cores, and a large model behind a network takes a
# second. What shall the arm do meanwhile?
#
# To find out, we need a task that does not wait. A cube rides past the arm on a belt, at
# 2 to 6 cm/s; it has to come into the bin. The policy sees the cube's pose and speed.

# %% predict
predict("F1.cost")

# %% clock-text [markdown]
# ## One clock
#
# All methods can be described by one clock. A prediction begins at tick t with the
# observation of that tick, and takes **d** ticks, the *delay*. Its chunk of **k** actions
# is for ticks t to t + k − 1, so when it comes, its first d actions are past. Meanwhile
# the arm executes d actions that were chosen before: the *committed* ones. The next
# prediction begins **s** ticks after this one, the *execution horizon*.

# %% clock
schematics.late_chunks()

# %% clock-rule [markdown]
# Two things follow. A prediction must not begin during another one, so d ≤ s. And the arm
# must not run out of actions before the next chunk is there, so s + d ≤ k. Together:
#
# $$ d \le s \le k - d. $$
#
# Hence no policy can cope with a delay of more than half of its chunk. Where two chunks
# meet is a **seam**: the new one comes from a newer observation, and need not go on where
# the old one was.

# %% film-text [markdown]
# ## Look first
#
# The same policy on the same four scenes, with a delay of 8 ticks (267 ms). Above the arm
# **waits**: it keeps its last target until the chunk is there. Below it goes on.

# %% film
policy = late.belt_policy("plain")
late.rides_film(policy, ["arm waits", "align and fade"], delay=8, n=4)

# %% switch-text [markdown]
# ### Exercise: switch (8 minutes, easy)
#
# The simplest way to go on is to take the new chunk as soon as it is there. The prediction
# began `late` ticks ago, and row 0 of `chunk` was for that tick. `plan` holds the actions
# that are left of the old chunk, from this tick on. What will be executed from now on?


# %% switch tags=["exercise"]
def switch(plan, chunk, late):
    """The actions from now on, of a plan (T, A) and a chunk (k, A)."""
    # solution
    return chunk[late:] if late < len(chunk) else plan
    # stub
    # ...  # what of the chunk is not past? and if all of it is?
    # end


check("F1.switch", switch)

# %% switch-hint
hint("F1.switch")

# %% seam-text [markdown]
# ## The seam
#
# Now look at the targets that such an arm is sent, over three seconds of one rollout. A
# marker shows where a new chunk takes over.

# %% seam
rides = {
    name: late.ride(policy, late.way(name), delay=8, scene=5)
    for name in ("switch", "align and fade")
}
show(
    late.seam_figure(rides, span=(1.5, 4.5)),
    "Targets of the shoulder pan over three seconds: they jump where a chunk takes "
    "over by switching, and not where its offset is faded out; n = 1 rollout.",
)

# %% seam-number
for name, one in rides.items():
    near, apart = late.near_and_apart(one)
    print(
        f"{name:15} acceleration of the targets within 3 ticks of a seam "
        f"{near:4.1f} rad/s², elsewhere {apart:4.1f}: {near / apart:.1f} ×"
    )

# %% fade-text [markdown]
# The new chunk was predicted from an arm that is behind its targets, as every servo is.
# It begins where the arm *was*, so by switching the target is pulled back each time.
#
# ### Exercise: align and fade (12 minutes)
#
# Begin where the old plan would have gone on, and let the offset fade out. With
# $e = \text{plan}_0 - \text{new}_0$, the j-th action from now on is
#
# $$ \text{new}_j + e \, \max(0, 1 - j / m). $$
#
# `new` is what `switch` returns, and both begin with this tick.


# %% fade tags=["exercise"]
def fade(plan, new, m):
    """The actions (T', A) from now on, of a plan (T, A) and a new one (T', A)."""
    # solution
    share = np.maximum(0, 1 - np.arange(len(new)) / m)  # (T',)
    return new + share[:, None] * (plan[0] - new[0])
    # stub
    # ...  # the offset at the seam, and its share at each tick
    # end


check("F1.fade", fade)

# %% fade-hint
hint("F1.fade")

# %% ways-text [markdown]
# ## Five ways to join
#
# There are other ways to join two chunks. **Overlap** takes a weighted mean of both
# where both have an action (0.3 for the old one and 0.7 for the new one). The
# **ensemble** of lesson 04 works under delay, too, but a chunk can vote only from the
# moment at which it is there.
#
# We roll all of them out on the same 50 scenes, with a delay of 8 ticks. A chunk is asked
# for every 25 ticks, half of its length; for the ensemble as often as the delay allows.

# %% ways
for name in late.NAMES:
    found = late.measured(policy, name, delay=8, n=50)
    print(late.outcome(name, found))
print(late.outcome("no delay", late.measured(policy, "switch", delay=0, n=50)))

# %% ways-judged [markdown]
# The arm that waits loses many of the cubes: while it stands, the cube goes on. Every way
# of going on does about as well as the policy without delay. They differ at the seams, in
# how much they shake the arm.

# %% reveal
reveal("F1.cost")

# %% explorer-text [markdown]
# ## Try it
#
# One scene, all five ways. Move the time through the rollout, then change one thing.
# **From which delay on does the waiting arm miss this cube? What does a longer horizon
# change at the seams?**

# %% explorer
explorer = late.clock_explorer(policy, scene=5)
explorer

# %% told-text [markdown]
# ## A policy that is told
#
# So far the policy knew nothing of the delay. It can be told what is committed. In
# **training-time real-time chunking**, the committed actions enter ACT's encoder as more
# tokens, beside joints, z and images. In training each sample gets a random delay d, the
# first d demonstrated actions of its chunk are the committed ones, and the loss is of
# what follows.
#
# ### Exercise: what counts (10 minutes)
#
# `is_pad` (B, k) is True at padding, and sample b has `d[b]` committed actions. Which
# actions count in the loss?


# %% mask tags=["exercise"]
def counted(is_pad, d):
    """Which actions count, (B, k) bool, with is_pad (B, k) bool and d (B,)."""
    # solution
    told = np.arange(is_pad.shape[1]) < d[:, None]  # (B, k)
    return ~is_pad & ~told
    # stub
    # ...  # neither padding nor told
    # end


check("F1.mask", counted)

# %% mask-hint
hint("F1.mask")

# %% prefix-text [markdown]
# Such a policy comes with the course. It is the same network with up to 16 more tokens,
# trained on the same demonstrations for the same number of steps; half of its samples had
# no delay. Both are asked on the 50 scenes of above, and by *switching*: nothing but the
# policy itself joins two chunks.

# %% prefix
told = late.belt_policy("prefix")
for name, one in {"plain": policy, "told": told}.items():
    print(late.outcome(name, late.measured(one, "switch", delay=8, n=50)))

# %% future-text [markdown]
# ## A policy that is shown the future
#
# The other way needs no new token. The arm will be somewhere else when the chunk takes
# over, and where is known: it follows the committed actions. So show the policy *that*
# state of the arm, and let its chunk begin there (VLASH). In training the joints are
# those of d ticks later, and everything else is as it is now: where the cube will be,
# nobody can know.
#
# ### Exercise: the future state (10 minutes)
#
# A servo is `lag` ticks behind its targets. `committed` (d, A) will be sent next. Where
# will the arm be after them? If the lag is not shorter than d, nothing of it has happened
# by then: keep `qpos`.


# %% future tags=["exercise"]
def future_state(committed, qpos, lag):
    """The state (A,) to show a policy, with committed (d, A) and qpos (A,)."""
    # solution
    d = len(committed)
    return committed[d - 1 - lag] if d > lag else qpos
    # stub
    # ...  # which of the d targets will the arm have reached?
    # end


check("F1.future", future_state)

# %% future-hint
hint("F1.future")

# %% future-package
print("of 8 committed actions with a lag of 3 the package takes number",
      future_place(8, lag=3))  # fmt: skip

# %% compare-text [markdown]
# The policy of the course that is shown the future takes the lag to be 3 ticks. Again it
# switches, on the same 50 scenes.

# %% compare
shown = late.belt_policy("future")
print(late.outcome("shown", late.measured(shown, "switch", delay=8, n=50)))
print(late.outcome("no delay", late.measured(shown, "switch", delay=0, n=50)))

# %% fails [markdown]
# ## Where each fails
#
# The belt, three seeds with policies of their own, 100 scenes each; chunks of 50 actions,
# asked for every 25 ticks (the ensemble: as often as it can):
#
# | way | d = 0 | d = 4 | d = 8 | d = 16 |
# |---|---|---|---|---|
# | arm waits | {{claims/C23 summary world=belt way='arm waits' delay=0 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='arm waits' delay=4 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='arm waits' delay=8 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='arm waits' delay=16 horizon=25 spread=1.0}} |
# | switch | {{claims/C23 summary world=belt way='switch' delay=0 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='switch' delay=4 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='switch' delay=8 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='switch' delay=16 horizon=25 spread=1.0}} |
# | overlap | {{claims/C23 summary world=belt way='overlap' delay=0 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='overlap' delay=4 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='overlap' delay=8 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='overlap' delay=16 horizon=25 spread=1.0}} |
# | ensemble | {{claims/C23 summary world=belt way='ensemble' delay=0 horizon=1 spread=1.0}} | {{claims/C23 summary world=belt way='ensemble' delay=4 horizon=4 spread=1.0}} | {{claims/C23 summary world=belt way='ensemble' delay=8 horizon=8 spread=1.0}} | {{claims/C23 summary world=belt way='ensemble' delay=16 horizon=16 spread=1.0}} |
# | align and fade | {{claims/C23 summary world=belt way='align and fade' delay=0 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='align and fade' delay=4 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='align and fade' delay=8 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='align and fade' delay=16 horizon=25 spread=1.0}} |
# | told (prefix), switch | {{claims/C23 summary world=belt way='prefix' delay=0 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='prefix' delay=4 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='prefix' delay=8 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='prefix' delay=16 horizon=25 spread=1.0}} |
# | shown the future, switch | {{claims/C23 summary world=belt way='future state, lag' delay=0 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='future state, lag' delay=4 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='future state, lag' delay=8 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='future state, lag' delay=16 horizon=25 spread=1.0}} |
# | head above plain, switch | {{claims/C23 summary world=belt way='residual' delay=0 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='residual' delay=4 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='residual' delay=8 horizon=25 spread=1.0}} | {{claims/C23 summary world=belt way='residual' delay=16 horizon=25 spread=1.0}} |
#
# The arm that waits has lost nearly all cubes at half a second. No way of going on has lost
# more than these rollouts could show by chance, switching included, but for the ensemble
# at 16 ticks. A policy that knows of the delay pays in smaller seams, not in success.

# %% settings-text [markdown]
# ## On your arm
#
# Measure first: `act deploy --dry-run` says how long a prediction takes. From that, the
# rate and the chunk size follow d, the horizons that it allows, and the flags.

# %% settings
for milliseconds in (20, 80, 130, 300, 700):
    print(late.advice(milliseconds, fps=30, chunk_size=50))

# %% summary [markdown]
# ## What cannot be foreseen
#
# A belt can be foreseen, these toys cannot; at the post half of the teachers go each way.
# A new chunk is asked for as soon as one has come:
#
# | world | d | switch | fade | told (prefix) | shown the future | head above plain |
# |---|---|---|---|---|---|---|
# | a ball that a gust takes aside | 4 | {{claims/C23 summary world=catch way='switch' delay=4 horizon=4 spread=1.0}} | {{claims/C23 summary world=catch way='align and fade' delay=4 horizon=4 spread=1.0}} | {{claims/C23 summary world=catch way='prefix' delay=4 horizon=4 spread=1.0}} | {{claims/C23 summary world=catch way='future state, lag' delay=4 horizon=4 spread=1.0}} | {{claims/C23 summary world=catch way='residual' delay=4 horizon=4 spread=1.0}} |
# | a pole that is kicked | 2 | {{claims/C23 summary world=cart_pole way='switch' delay=2 horizon=2 spread=1.0}} | {{claims/C23 summary world=cart_pole way='align and fade' delay=2 horizon=2 spread=1.0}} | {{claims/C23 summary world=cart_pole way='prefix' delay=2 horizon=2 spread=1.0}} | {{claims/C23 summary world=cart_pole way='future state, lag' delay=2 horizon=2 spread=1.0}} | {{claims/C23 summary world=cart_pole way='residual' delay=2 horizon=2 spread=1.0}} |
# | a target to stay with | 2 | {{claims/C23 summary world=follow way='switch' delay=2 horizon=2 spread=1.0}} | {{claims/C23 summary world=follow way='align and fade' delay=2 horizon=2 spread=1.0}} | {{claims/C23 summary world=follow way='prefix' delay=2 horizon=2 spread=1.0}} | {{claims/C23 summary world=follow way='future state, lag' delay=2 horizon=2 spread=1.0}} | {{claims/C23 summary world=follow way='residual' delay=2 horizon=2 spread=1.0}} |
# | two ways around a post | 8 | {{claims/C23 summary world=post way='switch' delay=8 horizon=8 spread=1.0}} | {{claims/C23 summary world=post way='align and fade' delay=8 horizon=8 spread=1.0}} | {{claims/C23 summary world=post way='prefix' delay=8 horizon=8 spread=1.0}} | {{claims/C23 summary world=post way='future state, lag' delay=8 horizon=8 spread=1.0}} | {{claims/C23 summary world=post way='residual' delay=8 horizon=8 spread=1.0}} |
# | the same, by a flow | 8 | {{claims/C23 summary world=post way='flow' delay=8 horizon=8 spread=1.0}} | | guided: {{claims/C23 summary world=post way='flow, guided' delay=8 horizon=8 spread=1.0}} | | |
#
# Fading, or sticking to a plan, costs most where something happens meanwhile; correcting
# each action costs least. Around a post sticking to it is right.
#
# ## Summary
#
# An arm need not wait for its policy. It executes what was committed, takes the new chunk
# when it is there, and joins the two at a seam. Fading the offset out needs no training.
# A policy that is told what is committed has smaller seams of its own.
#
# | sign | meaning |
# |---|---|
# | k | chunk size, actions |
# | d | inference delay, ticks: how long a prediction takes |
# | s | execution horizon, ticks between two requests |
# | committed | the d actions that are sent while a prediction runs |
# | seam | where a new chunk takes over |
# | m | ticks over which an offset is faded out |
#
# ## References
#
# | | read it for |
# |---|---|
# | Black et al. 2025, [arXiv:2506.07339](https://arxiv.org/abs/2506.07339) | real-time chunking: the clock of this lesson, and joining by inpainting |
# | Black et al. 2025, [arXiv:2512.05964](https://arxiv.org/abs/2512.05964) | the same, trained: a policy that is told what is committed |
# | Tang et al. 2025, [arXiv:2512.01031](https://arxiv.org/abs/2512.01031) | VLASH: the future state |
# | Sendai et al. 2025, [arXiv:2509.23224](https://arxiv.org/abs/2509.23224) | A2C2: a head that corrects every action |
# | Liu et al. 2024, [arXiv:2408.17355](https://arxiv.org/abs/2408.17355) | bidirectional decoding, for policies that can be asked for many chunks |
#
# ## Where next
#
# [08](../08_so100.ipynb) and [09](../09_openarm.ipynb) lead to the arms; there `--mode`
# is a flag of `act deploy`.
