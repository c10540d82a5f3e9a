# %% title [markdown]
# # 06 · Training, and when to stop
#
# {{runtime}} · 60 minutes of work · any laptop
#
# After this lesson you can **train** a policy, **read its curves**, choose a
# **checkpoint by rollouts**, and set learning rate, normalisation and number of
# demonstrations for reasons.
#
# You need lesson 03 (z and the posterior) and lesson 05 (the network).

# %% set-up
from pathlib import Path

import numpy as np

import course
from act_minimal.checkpoint import load_policy
from act_minimal.dataset import Demonstrations, Windows
from course import check, hint, predict, reveal, show
from course.figures import lesson_06 as practice

course.begin("06")

# %% question [markdown]
# ## The question
#
# A run goes on for as long as one lets it, and its loss nearly always falls a little
# more. The robot does not run on loss. When is training done, and which of the
# checkpoints goes on the arm?

# %% predict
predict("06.loss")

# %% train-text [markdown]
# ## A run, live
#
# 50 human-like demonstrations, five of them held out; a checkpoint every 50 steps, all
# kept. The curve grows while it trains, well under a minute on a free core. (A second
# call finds the finished run.)

# %% train
data = course.demonstrations(50)
settings = {"chunk_size": 50, "lr": 2e-3, "state_noise": 0.02, "steps": 800}
settings |= {"model": {"cvae_actions_per_token": 10}}
settings |= {"val_fraction": 0.1, "val_every": 50, "save_every": 50}
run = practice.train_live(data, **settings)
print(f"{run.steps} steps of 64 windows in {run.seconds:.0f} s of training")

# %% read-text [markdown]
# ## Read the curves
#
# The grey line is the raw training loss, noisy since every batch is another one. Its
# running mean shows the trend. The dots are the held-out demonstrations.

# %% read
last, val = run.losses[-2], [r["val_l1"] for r in run.losses if "val_l1" in r]
print(f"last step: L1 {last['l1']:.3f}, KL {last['kl']:.4f}, rate {last['lr']:.1e}")
best = 50 * (1 + int(np.argmin(val)))
print(f"held out: lowest, {min(val):.3f}, at step {best}; {val[-1]:.3f} at the end")
show(
    practice.loss_figure(run),
    "Training loss falls through all 800 steps; the held-out loss falls steeply at "
    "first, then levels off or rises; n = 1 run.",
)

# %% roll-text [markdown]
# Where the two part, the network begins to learn these 45 demonstrations by heart: the
# classic advice is to stop there. Is it right? Ask the arm. Six checkpoints, each on the
# same 50 fresh scenes:

# %% roll
rolled = practice.roll_out_all(run, (50, 100, 200, 300, 500, 800), n=50, seed=6)
for step, e in rolled.items():
    print(f"step {step:3}: held out {val[step // 50 - 1]:.3f}, success {e}")

# %% explorer-text [markdown]
# **Smooth until you see a trend. Then walk through the checkpoints.** Between which two
# does success jump most, and does a loss tell you? Where would each curve alone have
# made you stop?

# %% explorer
practice.run_explorer(run, rolled)

# %% reveal
reveal("06.loss")

# %% idea [markdown]
# ## The idea: loss is a proxy, and often a poor one
#
# The loss averages over what *the expert* saw, and counts all errors alike. The arm
# succeeds or fails by a few ticks (the grasp), in states that *the policy* brought about.
# Early, loss and success move together. Later they need not.
#
# To compare two orders, compare ranks: give each value its rank, and correlate those
# (Spearman). For ranks $r_i, s_i$ with means $\bar r, \bar s$:
#
# $$ \rho = \frac{\sum_i (r_i - \bar r)(s_i - \bar s)}
# {\sqrt{\sum_i (r_i - \bar r)^2 \sum_i (s_i - \bar s)^2}} $$
#
# ### Exercise: rank correlation (10 minutes)
#
# No two values are equal. One of numpy's functions looks like ranks, and is not.


# %% ranks tags=["exercise"]
def rank_correlation(a, b):
    """Spearman's correlation of a (n,) and b (n,), which hold no equal values."""
    # solution
    ranks_a, ranks_b = (x.argsort().argsort() for x in (a, b))  # (n,), (n,)
    return np.corrcoef(ranks_a, ranks_b)[0, 1]
    # stub
    # ...  # ranks of a, ranks of b, then their correlation
    # end


check("06.ranks", rank_correlation)

# %% ranks-hint
hint("06.ranks")

# %% correlate
held_out = [val[step // 50 - 1] for step in rolled]
success = [e.rate for e in rolled.values()]
for name, part in (("all six", slice(None)), ("the last four", slice(2, None))):
    rho = practice.rank_correlation(held_out[part], success[part])
    print(f"{name}: held-out loss against success, rank correlation {rho:+.2f}")

# %% z-text [markdown]
# A helpful loss has −1. Six points of one run prove nothing: the reveal counts three
# runs, {{claims/C19 summary step=400 -> n}} rollouts a checkpoint.
#
# ## Validate what the robot gets: z = 0
#
# The original code validates with z from the posterior, which has *seen* the actions it
# is to predict. The arm never has that z. Two short runs, one with hardly any KL weight:

# %% z
demos = Demonstrations.load(data)
for weight in (1.0, 0.001):
    policy, losses = practice.short_run(demos, steps=300, kl_weight=weight)
    drawn, zero = practice.both_losses(policy, demos)
    print(
        f"kl_weight {weight:5}: L1 {drawn:.3f} with the posterior's z, {zero:.3f} at 0"
    )

# %% epochs-text [markdown]
# Where the KL is kept low the two agree. Where it is not, the posterior's loss flatters,
# and a checkpoint chosen by it was chosen for the wrong thing.
#
# ## Epochs or updates?
#
# "Train 2000 epochs", says the original. Its data set has *one* random window a
# demonstration, so an epoch visits each training episode once, whatever its length.
#
# ### Exercise: count the updates (5 minutes, easy)
#
# `episodes` demonstrations of `frames` frames; `share` of them are for training (a whole
# number here), in batches of `batch`; a last batch that is not full counts.


# %% updates tags=["exercise"]
def updates(epochs, episodes, frames, batch, share):
    """How often the original's optimizer steps."""
    # solution
    windows = round(share * episodes)  # one of each training episode
    return epochs * -(-windows // batch)
    # stub
    # ...  # windows an epoch, batches an epoch, updates
    # end


check("06.updates", updates)

# %% updates-hint
hint("06.updates")

# %% updates-text [markdown]
# 50 episodes, a batch of 8: 2000 epochs are 10 000 updates. Counted by frames, as most
# libraries do, 2000 epochs would be millions. So compare **updates**, and windows seen.
#
# ## The learning rate
#
# Five short runs from the same weights, over four decades:

# %% rates
rates = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
runs = {lr: practice.short_run(demos, steps=200, lr=lr)[1] for lr in rates}
show(
    practice.rate_figure(runs),
    "Loss of five short runs, one a learning rate from 0.00001 to 0.1, over 200 steps; "
    "n = 1 run a rate.",
)

# %% rates-after [markdown]
# Lore says: 1e-5 is right, 1e-4 unstable. That was said of 80 million numbers, a batch
# of 8 and no warm-up. Ours after equal updates, three seeds, 300 rollouts each:
#
# | rate | success |
# |---|---|
# | 1e-6 | {{claims/C18 summary lr=1e-6}} |
# | 1e-5 | {{claims/C18 summary lr=1e-5}} |
# | 1e-4 | {{claims/C18 summary lr=1e-4}} |
# | 1e-3 | {{claims/C18 summary lr=1e-3}} |
# | 1e-2 | {{claims/C18 summary lr=1e-2}} |
#
# Try powers of ten on *your* network, and take one somewhat below the best.
#
# ## Normalisation
#
# The loss adds up errors of all joints. What are they like?

# %% joints
for line in practice.joint_lines(demos):
    print(line)

# %% scale-text [markdown]
# A joint that swings three times as wide counts three times as much, and inputs off zero
# slow learning down. So each number x becomes $(x - \mu)/\sigma$, with mean and deviation
# of the demonstrations.
#
# A joint that never moved has σ close to 0. Divide by it, and noise of a tenth of a
# milliradian looks like a wide swing. Hence a **floor**: σ is never taken smaller.
#
# ### Exercise: mean and deviation (8 minutes)


# %% scale tags=["exercise"]
def scale(x, floor):
    """Mean (S,) and deviation (S,), at least `floor`, of x (M, S)."""
    # solution
    return x.mean(0), np.maximum(x.std(0), floor)
    # stub
    # mean = std = None
    # return mean, std
    # end


check("06.scale", scale)

# %% scale-hint
hint("06.scale")

# %% still-text [markdown]
# What the floor is worth: we add a seventh joint that rested at 0.5 rad in every
# demonstration, and train twice. Then that joint rests a little further on, as after
# a new calibration. It has nothing to do with the task.

# %% still
seven = practice.still_joint(demos, tremor=1e-4)
windows = Windows(seven, range(50), chunk_size=25)
offsets, errors = np.deg2rad([0, 0.1, 0.3, 1, 3]), {}
for floor in (0.01, 1e-8):
    policy, _ = practice.short_run(seven, windows.statistics(floor), steps=300)
    errors[f"floor {floor:g}"] = practice.error_when_moved(policy, seven, offsets)
show(
    practice.moved_figure(offsets, errors),
    "Error against the displacement of a joint that did not move in training, with a "
    "floor of 0.01 rad and without; n = 1 run each.",
)

# %% demos-text [markdown]
# Over three seeds, the error after a displacement of 1 degree is
# {{claims/C20 still floor=0.01 degrees=1.0 -> l1 2}} with the floor and
# {{claims/C20 still floor=1e-08 degrees=1.0 -> l1 2}} without. And with no normalisation
# at all: {{claims/C20 summary statistics=none}}, against
# {{claims/C20 summary statistics=standard}}.
#
# ## How many demonstrations?
#
# | demonstrations | success, equal updates |
# |---|---|
# | 10 | {{claims/C10 summary demonstrations=10}} |
# | 25 | {{claims/C10 summary demonstrations=25}} |
# | 50 | {{claims/C10 summary demonstrations=50}} |
# | 100 | {{claims/C10 summary demonstrations=100}} |
# | 200 | {{claims/C10 summary demonstrations=200}} |
#
# And what to predict, with which loss? L1 and absolute targets:
# {{claims/C08 summary loss=l1 target=absolute}}; L2:
# {{claims/C08 summary loss=l2 target=absolute}}; L1 and deltas:
# {{claims/C08 summary loss=l1 target=delta}}.
#
# ## With cameras
#
# `uv run act demo --vision` records, trains and rolls out with two cameras, in 10 to 25
# minutes. Its policy comes with the course:

# %% vision
vision = load_policy(Path(course.ROOT) / "data/checkpoints/so100_pick_place_vision")
seen = course.rollouts(vision, n=20, seed=6)
print(f"top and wrist camera: {seen}, {seen.seconds_to_success:.1f} s to success")
film = practice.rollout_film(seen, course.home() / "lesson_06_vision.mp4", n=3)
course.show_film(film, "Three rollouts of the vision policy, failures first if any.")

# %% fails [markdown]
# ## Where it fails
#
# **Choosing flatters.** The best of many checkpoints is partly the luckiest. Choose on
# some scenes, report on others; lesson 07 does the sums.
#
# **Rollouts need a robot.** On a real arm ten a checkpoint is a day's work. Then take a
# late checkpoint with averaged weights, and spend the day on demonstrations.
#
# **A loss still finds bugs.** One that does not fall, or is NaN, or is low while z = 0 is
# high, says something no rollout says as fast.

# %% summary [markdown]
# ## Summary
#
# Count updates, validate at z = 0, keep several checkpoints and roll them out; try rates
# by powers of ten; normalise with a floor.
#
# | sign | meaning |
# |---|---|
# | L1, KL | parts of the loss: mean absolute error, distance of z to the prior |
# | μ, σ | mean and deviation of a number over the demonstrations |
# | ρ | rank correlation, from −1 to 1 |
#
# ## Where next
#
# [07](07_sim_rollout.ipynb) asks what a success rate is worth, and why rollouts fail.
