# %% title [markdown]
# # 06 · Training, and when to stop
#
# {{runtime}} · 75 minutes of work · any laptop
#
# After this lesson you can **write a training loop**, train your own network, **read its
# curves**, choose a **checkpoint by rollouts**, and set learning rate and normalisation
# for reasons.
#
# You need lesson 03 (z and the posterior) and lesson 05 (the network).

# %% set-up

from pathlib import Path

import numpy as np

import course
from act_minimal.checkpoint import load_policy
from act_minimal.dataset import Demonstrations, Windows
from course import capstone, check, hint, predict, reveal, show
from course.figures import lesson_06 as training

course.begin("06")

# %% question [markdown]
# ## The question
#
# A training run can go on for as long as one likes, and its loss nearly always falls a
# little further. But the robot is judged by whether the cube ends in the bin. When is
# training done, and which of the checkpoints should go on the arm?

# %% predict
predict("06.loss")

# %% own-text [markdown]
# ## Your own network, your own loop
#
# Lesson 05 kept your functions. They become a network here; where one is missing, the
# course's is used, and the list says so.
#
# ### Exercise: the training loop (15 minutes)
#
# `batches` gives pairs of a batch and noise eps. `model(batch, eps)` returns the actions
# (B, k, A), the mean and the log variance (B, Z). The loss is L1 over the actions that are
# not padding, plus $\beta$ times the KL divergence of z from the prior (lesson 03):
#
# $$ \mathrm{KL} = \tfrac12 \sum_j \left(\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2\right),
# \quad \text{averaged over the batch.} $$


# %% loop tags=["exercise"]
def train(model, batches, optimizer, beta):
    """Make one step for each batch; returns a list of L1, a number a step."""
    history = []
    # solution
    for batch, eps in batches:
        actions, mean, logvar = model(batch, eps)
        error = (actions - batch["action"]).abs()  # (B, k, A)
        l1 = error[~batch["is_pad"]].mean()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(-1).mean()
        loss = l1 + beta * kl
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append(l1.item())
    return history
    # stub
    # ...  # for each batch: forward, L1 and KL, backward, step, zero_grad, history
    # end


check("06.train", train)

# %% loop-hint
hint("06.train")

# %% own
data = course.demonstrations(50)
demos = Demonstrations.load(data)
windows = Windows(demos, range(50), chunk_size=25)
mine = capstone.train_own(windows, train, steps=600, lr=4e-3)
print(mine)
show(training.own_figure(mine.losses), "L1 of your training over its steps; n = 1 run.")

# %% own-roll-text [markdown]
# The loss falls fast at first, then slowly. What does the arm do? 50 fresh scenes, with
# the executors that you wrote in lessons 02 and 04 where your answers were right.

# %% own-roll
rates = {
    name: capstone.roll_out(mine.policy, way, n=50, seed=6)
    for name, way in capstone.ways().items()
}
for name, rate in rates.items():
    print(f"{name}: {rate}")

# %% train-text [markdown]
# ## The package's run, live
#
# The same with everything around it: five demonstrations held out, the weights averaged
# over time, chunks of 50, a checkpoint every 50 steps, all kept. (A second call finds the
# finished run.)

# %% train
settings = {"chunk_size": 50, "lr": 2e-3, "state_noise": 0.02, "steps": 800}
settings |= {"model": {"cvae_actions_per_token": 10}}
settings |= {"val_fraction": 0.1, "val_every": 50, "save_every": 50}
run = training.train_live(data, **settings)
print(f"{run.steps} steps of 64 windows in {run.seconds:.0f} s of training")

# %% roll-text [markdown]
# Where the held-out loss stops falling, the network begins to memorise these 45
# demonstrations. The classic advice is to stop there. Six checkpoints, each on the same
# 50 scenes as yours:

# %% roll
held_out = {r["step"]: r["val_l1"] for r in run.losses if "val_l1" in r}
rolled = training.roll_out_all(run, (50, 100, 200, 300, 500, 800), n=50, seed=6)
for step, e in rolled.items():
    print(f"step {step:3}: held-out loss {held_out[step]:.3f}, success {e}")

# %% explorer
training.run_explorer(run, rolled)

# %% film
yours, package = next(iter(rates.values())), rolled[800]
film = training.compared_film(
    (yours, mine.policy), (package, run.policy), course.home() / "lesson_06_own.mp4"
)
print(f"your ACT {yours}\nthe package's {package}")
course.show_film(
    film,
    "One scene, where the two differ if they do: left your ACT. A fading ribbon shows "
    "the fingertips' next predicted positions.",
)

# %% idea [markdown]
# The two differ in chunk size, steps and averaging, and 50 rollouts leave wide intervals.
#
# ## The idea: loss is a proxy
#
# The loss averages over what *the expert* saw. The arm succeeds or fails in a few ticks,
# in states that *the policy* brought about. Do the two agree about checkpoints?
#
# To compare two orders, give each value its rank and correlate the ranks (Spearman). For
# ranks $r_i, s_i$ with means $\bar r, \bar s$:
#
# $$ \rho = \frac{\sum_i (r_i - \bar r)(s_i - \bar s)}
# {\sqrt{\sum_i (r_i - \bar r)^2 \sum_i (s_i - \bar s)^2}} $$
#
# −1: a lower loss always comes with more success. 0: the loss says nothing.
#
# ### Exercise: rank correlation (10 minutes)
#
# No two values are equal. One of NumPy's functions looks like ranks, and is not.


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
success = [e.rate for e in rolled.values()]
rho = training.rank_correlation([held_out[step] for step in rolled], success)
print(f"this run: held-out loss against success, rank correlation {rho:+.2f}")
reveal("06.loss")

# %% z-text [markdown]
# So within one run the loss is a good guide while success rises, and then none: the
# training loss falls from {{claims/C19 summary step=600 -> train_l1 3}} to
# {{claims/C19 summary step=2000 -> train_l1 3}} between steps 600 and 2000, the validation
# loss rises from {{claims/C19 summary step=600 -> val_l1 3}} to
# {{claims/C19 summary step=2000 -> val_l1 3}}, and success stays.
#
# ## Where the loss misleads
#
# Between *different* runs it can point the wrong way. The original code validates with z
# from the posterior, which has *seen* the actions to be predicted; the arm has only z = 0.
# And one action is easier to predict than a chunk of 25. Your run, and two short ones:

# %% z
runs = {"yours, k = 25, beta 1": mine.policy}
for k, beta in ((25, 0.001), (1, 1.0)):
    model = {"chunk_size": k, "cvae_actions_per_token": min(k, 5), "kl_weight": beta}
    runs[f"k = {k}, beta {beta:g}"], _ = training.short_run(demos, steps=300, **model)
for name, policy in runs.items():
    drawn, zero = training.both_losses(policy, demos)
    e = capstone.roll_out(policy, training.HALF, n=50, seed=6)
    print(f"{name:21} L1 {drawn:.3f} by posterior, {zero:.3f} at z = 0; success {e}")

# %% epochs-text [markdown]
# Both short runs have a lower loss than yours, and hardly succeed. With a small KL weight z
# tells the decoder the answer, which the arm will not have: at z = 0 this network is the
# worst. One action is predicted well, and the arm fails all the same (lesson 02). Compare
# losses of equal settings only, and validate at z = 0.
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
# 50 episodes, 80 % of them for training, a batch of 8: 2000 epochs are 10 000 updates. A
# library that counts frames would need millions for 2000 epochs. So compare **updates**.
#
# ## The learning rate
#
# Five short runs from the same weights, over four decades:

# %% rates
tried = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
runs = {lr: training.short_run(demos, steps=200, lr=lr)[1] for lr in tried}
show(
    training.rate_figure(runs),
    "Loss of five short runs, one a learning rate from 0.00001 to 0.1, over 200 steps; "
    "n = 1 run a rate.",
)

# %% rates-after [markdown]
# A guide says: 1e-5 is right, 1e-4 unstable, for 80 million parameters, a batch of 8 and
# no warm-up. Here 1e-5 is slow and does not diverge. By loss after 200 steps 1e-3 leads, as
# 1e-2 takes too large steps; by success after 1000 updates, whose rate falls to 0 at the
# end, 1e-2 wins (three seeds, 300 rollouts):
#
# | rate | success |
# |---|---|
# | 1e-6 | {{claims/C18 summary lr=1e-6}} |
# | 1e-5 | {{claims/C18 summary lr=1e-5}} |
# | 1e-4 | {{claims/C18 summary lr=1e-4}} |
# | 1e-3 | {{claims/C18 summary lr=1e-3}} |
# | 1e-2 | {{claims/C18 summary lr=1e-2}} |
#
# Rate, schedule and number of updates belong together. With AdamW an update moves a weight
# by about the rate: 1000 updates at 1e-5 move it by about 0.01 at most. Try powers of ten on
# *your* network, with the updates that you can afford.
#
# ## Normalisation
#
# The loss adds up the errors of all joints. How far does each move, in rad?

# %% joints
for line in training.joint_lines(demos):
    print(line)

# %% scale-text [markdown]
# A joint that moves twice as far would count twice as much, and inputs far from zero slow
# training down. So each number becomes $(x - \mu)/\sigma$, with mean and deviation of the
# demonstrations. A joint that never moved has σ close to 0: divided by it, noise of a
# tenth of a milliradian looks like a wide motion. Hence a **floor**: σ is never taken
# smaller.
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
# We add a seventh joint that rested at 0.5 rad in every demonstration, and train twice,
# with the floor and without. Then that joint rests a little further on, as after a new
# calibration. It has nothing to do with the task.

# %% still
seven = training.still_joint(demos, tremor=1e-4)
offsets, errors = np.deg2rad([0, 0.1, 0.3, 1, 3]), {}
for floor in (0.01, 1e-8):
    statistics = Windows(seven, range(50), chunk_size=25).statistics(floor)
    policy, _ = training.short_run(seven, statistics, steps=300)
    errors[f"floor {floor:g}"] = training.error_when_moved(policy, seven, offsets)
show(
    training.moved_figure(offsets, errors),
    "Error against the displacement of a joint that did not move in training, with a "
    "floor of 0.01 rad and without; n = 1 run each.",
)

# %% choices [markdown]
# Over three seeds, the error after 1 degree is
# {{claims/C20 still floor=0.01 degrees=1.0 -> l1 2}} with the floor and
# {{claims/C20 still floor=1e-08 degrees=1.0 -> l1 2}} without; where the joint rested it
# is {{claims/C20 still floor=0.01 degrees=0.0 -> l1 2}} with both. Without any
# normalisation a short training learns somewhat less; scaled to [−1, 1] it learns
# most (n = 100 each; a constant rate, no noise and no averaging of weights, hence
# low rates, which another computer's rounding moves by ten points):
#
# | | each seed | together |
# |---|---|---|
# | normalised | {{claims/C20 summary statistics=standard -> each_seed.0 percent}}, {{claims/C20 summary statistics=standard -> each_seed.1 percent}}, {{claims/C20 summary statistics=standard -> each_seed.2 percent}} | {{claims/C20 summary statistics=standard}} |
# | not | {{claims/C20 summary statistics=none -> each_seed.0 percent}}, {{claims/C20 summary statistics=none -> each_seed.1 percent}}, {{claims/C20 summary statistics=none -> each_seed.2 percent}} | {{claims/C20 summary statistics=none}} |
# | to [−1, 1] | {{claims/C20 summary statistics=range -> each_seed.0 percent}}, {{claims/C20 summary statistics=range -> each_seed.1 percent}}, {{claims/C20 summary statistics=range -> each_seed.2 percent}} | {{claims/C20 summary statistics=range}} |
#
# Other choices, with chunks of 25:
#
# | choice | success |
# |---|---|
# | 10 demonstrations | {{claims/C10 summary demonstrations=10}} |
# | 25 | {{claims/C10 summary demonstrations=25}} |
# | 50 | {{claims/C10 summary demonstrations=50}} |
# | 100 | {{claims/C10 summary demonstrations=100}} |
# | 200 | {{claims/C10 summary demonstrations=200}} |
# | L1 loss, absolute targets | {{claims/C08 summary loss=l1 target=absolute}} |
# | L2 loss, absolute targets | {{claims/C08 summary loss=l2 target=absolute}} |
# | L1 loss, deltas | {{claims/C08 summary loss=l1 target=delta}} |
# | single steps (lesson 01), absolute targets | {{claims/C01 summary expert=human variant=absolute}} |
# | single steps (lesson 01), deltas | {{claims/C01 summary expert=human variant=delta}} |
# | the demo (k = 50): the pose, 50 demonstrations | {{state summary policy=act demonstrator=human}} |
# | cameras, 50 demonstrations, {{vision summary demonstrations=50 -> steps.0}} updates | {{vision summary demonstrations=50}} |
# | cameras, 200 demonstrations, as many updates | {{vision summary demonstrations=200}} |
#
# ## With cameras
#
# `uv run act demo --vision` records 200 demonstrations with two cameras, trains and rolls
# out, in 10 to 25 minutes. Its policy comes with the course:

# %% vision
vision = load_policy(Path(course.ROOT) / "data/checkpoints/so100_pick_place_vision")
seen = course.rollouts(vision, n=20, seed=6)
print(f"top and wrist camera: {seen}, {seen.seconds_to_success:.1f} s to success")

# %% summary [markdown]
# ## Where it fails
#
# **Choosing flatters**: the best of many checkpoints is partly the luckiest. Choose on
# some scenes, report on others. **Rollouts need a robot**, and a day's work: then take a
# late checkpoint with averaged weights.
#
# ## Summary
#
# Count updates, validate at z = 0, compare losses within one setting only, roll several
# checkpoints out, try rates by powers of ten, normalise with a floor.
#
# | sign | meaning |
# |---|---|
# | L1, KL | parts of the loss: mean absolute error, distance of z to the prior |
# | β | weight of the KL |
# | μ, σ | mean and deviation of a number over the demonstrations |
# | ρ | rank correlation, from −1 to 1 |
#
# ## Read more
#
# | reference | read it for |
# |---|---|
# | Zhao et al. 2023, [arXiv 2304.13705](https://arxiv.org/abs/2304.13705) | ACT's loss and its training settings |
# | Kingma and Welling 2013, [arXiv 1312.6114](https://arxiv.org/abs/1312.6114) | where the KL term and the noise come from |
# | Mandlekar et al. 2021, [arXiv 2108.03298](https://arxiv.org/abs/2108.03298) | validation loss against success, on many imitation tasks |
# | Loshchilov and Hutter 2017, [arXiv 1711.05101](https://arxiv.org/abs/1711.05101) | AdamW |
# | Goyal et al. 2017, [arXiv 1706.02677](https://arxiv.org/abs/1706.02677) | batch size, learning rate and warm-up |
#
# ## Where next
#
# [07](07_sim_rollout.ipynb) asks what a success rate is worth, and why rollouts fail.
