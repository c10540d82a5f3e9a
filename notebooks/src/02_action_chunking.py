# %% title [markdown]
# # 02 · Action chunking
#
# {{runtime}} · 60 minutes of work · any laptop
#
# After this lesson you can **cut demonstrations into windows**, execute chunks by a
# **receding horizon**, tell **learning with chunks from executing them**, and **choose a
# chunk size** for a task and a rate, and defend it.
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
from course.toolkit import schematics

course.begin("02")

# %% question [markdown]
# ## The question
#
# In lesson 01 the policy predicted one action, was asked again, and so on, hundreds of
# times an episode. At each of these decisions it can leave the states that the
# demonstrations show.
#
# Why not predict more at once? A **chunk** is the next k actions, predicted together.
# Then the arm can act for a while without a new decision. A larger k allows fewer
# decisions; it also means acting for longer on old observations. How large should k be?

# %% predict
predict("02.best")

# %% windows-text [markdown]
# ## What a policy learns from
#
# A **window** is one training sample: the observation at tick t, and the k actions from
# t on. A window starts at every tick of every demonstration, so 50 demonstrations give
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
# Near the end of an episode fewer than k actions are left. The window is then filled up,
# and `is_pad` marks the actions that were not demonstrated:

# %% end
schematics.window_and_padding()

# %% window-text [markdown]
# ### Exercise: a window (8 minutes, easy)
#
# `actions` (T, A) is one episode. Return the chunk that starts at tick `t`, shape
# (k, A), and `is_pad`, shape (k,), which is True where the episode was over. Fill up with
# the last action: an arm can hold a position, but it cannot follow a jump to zero.


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
# ACT's loss is L1, the mean absolute error, over the actions that were demonstrated:
#
# $$ L = \frac{\sum_{b,i} v_{bi} \sum_a |\hat a_{bia} - a_{bia}|}
# {A \sum_{b,i} v_{bi}} $$
#
# Here b counts samples, i ticks of the chunk, a the A joints, and $v_{bi}$ is 0 on
# padding and 1 elsewhere. The three inputs are torch tensors, and the network is trained
# through your answer. How much should a chunk weigh that is half padding?


# %% loss tags=["exercise"]
def masked_l1(prediction, target, is_pad):
    """Mean absolute error of prediction, target (B, k, A) where not is_pad (B, k)."""
    # solution
    valid = ~is_pad[:, :, None]  # (B, k, 1)
    error = (prediction - target).abs() * valid
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
# Three policies have the same network, the same 50 demonstrations and the same 1000
# updates; only k differs. (They are ACT without its latent z, which lesson 03 adds, and
# with a little noise on the inputs.) Each then acts in the same 30 fresh scenes, and
# executes h = 1, 5, 10, 25 or 50 actions of each chunk before it is asked again.

# %% train
recipe = {"model": {"use_cvae": False}, "lr": 2e-3, "state_noise": 0.02}
policies = {}
for k in (1, 10, 50):
    run = course.trained(data, chunk_size=k, steps=1000, **recipe)
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
# The loss is larger for a larger k, because actions further ahead are harder to predict;
# it does not tell which policy succeeds. Two numbers were varied here. **Hold k and move
# h; then hold h and move k.** Which of the two changes success more? Watch the time that
# the arm stands still, too.

# %% explorer
explorer = chunks.chunk_explorer(found, fps=30)
explorer

# %% grid-text [markdown]
# ## Two effects
#
# **Learning with chunks**: a policy that is trained to predict k actions may learn
# something else than one that is trained on the next action only. The next action nearly
# repeats the present position; to predict a second ahead, the network has to find out
# what is being done. At h = 1 only the first action of each chunk is used, so differences
# between rows at h = 1 are this effect alone.
#
# **Executing chunks**: with the same policy, a larger h leaves fewer decisions.
#
# Thirty scenes cannot separate the two. Here are all pairs with three seeds and n = 300 a
# cell, trained as above for 2000 updates.

# %% grid
fig, says = chunks.grid_figure()
show(fig, says)

# %% effects
print("points of success (95 % interval)")
print(chunks.two_effects(0.02))

# %% effects-says [markdown]
# Each line is the difference between two cells of the grid; where its interval holds 0,
# these rollouts show no effect in either direction. In this recipe to *learn* with larger
# chunks does not help by itself: at h = 1 no row is better than k = 1, and some are worse.
# To *execute* more of a chunk helps in every row, by much more than an interval is wide.
# Both are results about this recipe: with other noise on the inputs, or other
# demonstrations, they may differ.
#
# Next, your prediction, which followed the common practice: half of each chunk is
# executed, so that k and h grow together. (Again without z; with z: C2 of
# `docs/results.md`.)

# %% reveal
reveal("02.best")

# %% sizes
fig, says = chunks.size_figure()
show(fig, says)

# %% name [markdown]
# ## The idea, then the maths
#
# To predict k actions, execute h of them, and predict again is called a **receding
# horizon**, as in model-predictive control. Why do fewer decisions help?
#
# Let an episode last T ticks. With h actions a decision there are N = T/h decisions.
# Suppose that each of them leaves the demonstrated states with probability ε, and that
# from then on every tick costs 1. If decision n is the one, the T − nh ticks after it are
# lost. So the expected cost is at most
#
# $$ \sum_{n=0}^{N-1} \epsilon\,(T - nh) \approx \epsilon\,\frac{N T}{2}
# = \epsilon\,\frac{T^2}{2h}. $$
#
# This is lesson 01's T², divided by h.

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
# But ε is not a constant. The figure shows the error on demonstrations that the policy
# has not seen, against how far ahead it predicts: people differ in speed, and pause, so
# later actions are harder to predict. As long as ε grows more slowly than h, a larger h
# is better.
#
# The bound also leaves out what nobody could predict: disturbances. We come to them
# below.
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
    asked = t // h * h  # the tick of the last prediction
    return chunks[asked, t - asked]
    # stub
    # ...  # when was the chunk made that rules tick t?
    # end


check("02.receding", executed)

# %% receding-hint
hint("02.receding")

# %% rule-text [markdown]
# ## Choosing k
#
# A rule of thumb from people who tune such policies: a chunk covers **one sub-motion**
# (reach, descend, lift, ...). So k is its duration times the control rate, rounded up to
# the next multiple of 25. Below it is applied to the sub-motions of our demonstrators,
# which we measure from standing still to standing still.
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

# %% durations
seconds = chunks.submotions(demos)
for name, share in (("the median", 50), ("nine in ten", 90)):
    long = float(np.percentile(seconds, share))
    sizes = {fps: chunks.rule_of_thumb(long, fps) for fps in (30, 50)}
    print(f"{name:11} {long:.2f} s: k = {sizes[30]} at 30 Hz, {sizes[50]} at 50 Hz")
show(
    chunks.duration_figure(seconds, demos.fps),
    f"{len(seconds)} sub-motions of 50 demonstrations last {np.median(seconds):.2f} s "
    f"in the median, nine in ten less than {np.percentile(seconds, 90):.2f} s.",
)

# %% rule-judged [markdown]
# How good is the rule? ACT after human-like demonstrations, half of each chunk executed:
#
# | rate | k | success |
# |---|---|---|
# | 30 Hz, the rule | {{claims/C11 rule demonstrator=human -> k 0}} | {{claims/C11 rule demonstrator=human -> success percent}} |
# | 30 Hz, the best | {{claims/C11 rule demonstrator=human -> best_k 0}} | {{claims/C11 rule demonstrator=human -> best_success percent}} |
# | 50 Hz, 0.5 s | 25 | {{claims/C11 fifty k=25 -> success percent}} |
# | 50 Hz, 1 s | 50 | {{claims/C11 fifty k=50 -> success percent}} |
#
# (n = 300 each; the training at 50 Hz was shorter.) At 50 Hz the same seconds hold more
# ticks, which is why the rule speaks of seconds. At 30 Hz its answer is at the low end of
# the good sizes: it gives a first size, so try twice as much as well.
#
# ## When longer hurts
#
# A chunk cannot react. So far nothing happened that could not be foreseen. Now something
# pushes the cube by 3 to 5 cm while the arm is on its way, at a random moment between
# 0.7 and 1.4 s, before any demonstrator has touched it.

# %% push-predict
predict("02.push")

# %% push
outcomes = {"left alone": {}, "pushed": {}}
for h in (5, 10, 25, 50):
    for name, ours in outcomes.items():
        ours[h] = chunks.outcome(policy, h, n=50, seed=3, pushed=name == "pushed")
        print(f"h = {h:2}, {name:10}: {ours[h]}")

# %% push-figure
show(
    chunks.push_figure(outcomes),
    "Success against executed length, with and without a push, n = 50 scenes a point: "
    + "; ".join(
        f"{100 * o.rate:.0f} % at h = {h}" for h, o in outcomes["pushed"].items()
    )
    + " when pushed.",
)

# %% push-reveal
reveal("02.push")

# %% summary [markdown]
# Three policies, k = 50, with z and noise 0.02, n = 300 a number:
#
# | h | left alone | pushed |
# |---|---|---|
# | 1 | {{claims/C14 summary execute=1 pushed=false -> success percent}} | {{claims/C14 summary execute=1 pushed=true -> success percent}} |
# | 5 | {{claims/C14 summary execute=5 pushed=false -> success percent}} | {{claims/C14 summary execute=5 pushed=true -> success percent}} |
# | 10 | {{claims/C14 summary execute=10 pushed=false -> success percent}} | {{claims/C14 summary execute=10 pushed=true -> success percent}} |
# | 25 | {{claims/C14 summary execute=25 pushed=false -> success percent}} | {{claims/C14 summary execute=25 pushed=true -> success percent}} |
# | 50 | {{claims/C14 summary execute=50 pushed=false -> success percent}} | {{claims/C14 summary execute=50 pushed=true -> success percent}} |
#
# No demonstration shows a push, but cubes lay everywhere, so a new prediction can
# succeed. A small h reacts sooner and decides more often; a large one reacts late.
#
# ## Where it fails
#
# The best k and h belong to task, rate and data. (The ACT paper found 1 % for k = 1 and
# 44 % for k = 100, at 50 Hz.) The arm may jump between chunks: see lesson 04.
#
# ## Summary
#
# Windows with marked padding make chunks learnable. Learning and executing chunks are two
# effects; measure both, undisturbed and disturbed.
#
# | effect, noise 0.02 | change of the success rate (1 is all) |
# |---|---|
# | learning: k from 1 to 50, h = 1 | {{claims/grid effects effect=learning noise=0.02 k=50 -> difference 2}} |
# | executing: h from 1 to 25, k = 50 | {{claims/grid effects effect=executing noise=0.02 k=50 h=25 -> difference 2}} |
#
# | sign | meaning |
# |---|---|
# | k | chunk size, actions predicted at once |
# | h | executed length, actions before the next prediction |
# | T | ticks of an episode |
# | ε | chance that one decision leaves the demonstrated states |
# | is_pad, v | marks padding; v = 0 there |
#
# ## Read more
#
# | reference | read it for |
# |---|---|
# | Zhao et al. 2023, [arXiv:2304.13705](https://arxiv.org/abs/2304.13705) | ACT; its ablation of the chunk size |
# | Chi et al. 2023, [arXiv:2303.04137](https://arxiv.org/abs/2303.04137) | Diffusion Policy: receding horizons for another kind of policy |
# | Liu et al. 2024, [arXiv:2408.17355](https://arxiv.org/abs/2408.17355) | what chunks win and lose when the world is stochastic |
# | Zhang et al. 2025, [arXiv:2507.09061](https://arxiv.org/abs/2507.09061) | a theory of why executing chunks can stop errors from compounding |
# | Black, Galliker, Levine 2025, [arXiv:2506.07339](https://arxiv.org/abs/2506.07339) | the next chunk is computed while the last one is executed |
#
# ## Where next
#
# [03](03_cvae.ipynb): two people demonstrate the same task in two ways. What should a
# chunk be then?
