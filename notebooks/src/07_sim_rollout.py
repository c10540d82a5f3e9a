# %% title [markdown]
# # 07 · Rollouts: what a success rate is worth, and why policies fail
#
# {{runtime}} · 85 minutes of work · any laptop
#
# After this lesson you can **measure a success rate** with an interval, **compare two
# policies** fairly, **sort failures** by what went wrong, and **find mistakes in
# deployment code** by running it.
#
# You need lesson 04 (ways to execute a chunk). Nothing to install.

# %% set-up
import numpy as np

import course
from act_minimal.evaluation import wilson
from act_minimal.execution import ExecutionConfig
from act_minimal.sim.so100.changed_scenes import Change
from course import check, hint, predict, reveal, show
from course.exercises.lesson_07_deploy import bench, drive
from course.figures import lesson_07 as evaluation

course.begin("07")

# %% question [markdown]
# ## The question
#
# You roll your policy out in 20 scenes, and it succeeds in 17. A colleague changes one
# setting, rolls the new policy out 20 times, and it succeeds in 19. Is the change an
# improvement?
#
# Many comparisons in robot learning rest on 20 rollouts each, because on a real arm
# every rollout has to be set up by hand. In simulation we can afford hundreds, and so
# measure how much 20 of them tell.

# %% predict
predict("07.seventeen")

# %% groups-text [markdown]
# ## Look first
#
# The state policy that comes with the course meets 300 fresh scenes, and we count its
# successes in groups of 20. Policy and settings never change, so the groups differ by
# chance alone: by the scenes that they happened to get.

# %% groups
state = evaluation.checkpoint("state")
found = course.rollouts(state, n=300, seed=7)
counts = evaluation.groups_of(found)
show(
    evaluation.groups_figure(found),
    f"Successes in 15 groups of 20 rollouts of one policy: {counts.min()} to "
    f"{counts.max()}; n = 300.",
)

# %% reveal
reveal("07.seventeen")

# %% idea [markdown]
# ## The idea, then the maths
#
# Let $p$ be the true success rate. Each rollout succeeds with probability $p$. The
# observed rate $\hat p = s/n$ then scatters about $p$ with standard deviation
# $\sqrt{p(1-p)/n}$, and for large $n$ it stays within $z = 1.96$ of these deviations in
# 95 % of all experiments.
#
# We know $\hat p$ and want to know $p$. The interval therefore holds every $p$ from
# which our $\hat p$ is at most 1.96 deviations away:
#
# $$ |\hat p - p| \le z \sqrt{p(1-p)/n}. $$
#
# In the figure below this is where the solid line lies under the dashed one.

# %% believable
show(
    evaluation.believable_figure(17, 20),
    "Distance from 85 % and 1.96 deviations, over p: from 64 to 95 % the distance "
    "is smaller; n = 20.",
)

# %% wilson-maths [markdown]
# To solve for $p$, square both sides and sort by powers of $p$:
#
# $$ \Bigl(1 + \tfrac{z^2}{n}\Bigr) p^2 - \Bigl(2\hat p + \tfrac{z^2}{n}\Bigr) p + \hat
# p^2 \le 0. $$
#
# The left side is a parabola that opens upwards, so it is below zero between its two
# roots. These roots are the limits of **Wilson's interval** (1927). The textbook
# (Wald) interval takes the deviation at $\hat p$ instead of $p$. For 20 successes of 20
# that deviation is zero, and the interval shrinks to the single value 100 %.
#
# ### Exercise: the interval (12 minutes, easy)
#
# Return the lower and the upper limit as shares from 0 to 1, for $z = 1.96$.


# %% wilson tags=["exercise"]
def interval(successes, n):
    """Wilson's 95 % interval (low, high) of a success rate, shares from 0 to 1."""
    z, seen = 1.96, successes / n
    # solution
    a, b, c = 1 + z**2 / n, -(2 * seen + z**2 / n), seen**2
    root = np.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)
    # stub
    # ...  # a, b, c of the parabola, then its two roots
    # end


check("07.wilson", interval)

# %% wilson-hint
hint("07.wilson")

# %% width-text [markdown]
# ## How many rollouts, and which of two policies?
#
# The width shrinks with $\sqrt n$, so half the width takes four times the rollouts.
#
# To compare 19 of 20 with 17 of 20, compute an interval for the *difference* of the two
# rates. Newcombe (1998) combines the two Wilson intervals as independent errors are
# combined. Both the n and the scenes of the two policies may differ.

# %% width
for n in (20, 60, 100, 300, 1000):
    low, high = wilson(round(0.85 * n), n)
    print(f"85 % of n = {n:4}: {100 * low:.0f} to {100 * high:.0f} %")
for a, b in (((19, 20), (17, 20)), ((95, 100), (85, 100)), ((285, 300), (17, 20))):
    d, low, high = (100 * x for x in evaluation.difference(a, b))
    print(
        f"{a[0]}/{a[1]} against {b[0]}/{b[1]}: {d:+.0f} points, "
        f"95 % interval {low:+.1f} to {high:+.1f}"
    )

# %% pair-text [markdown]
# An interval that includes zero does not show which policy is better. All three pairs
# differ by ten points; only the one with n = 100 on both sides excludes zero. In the
# last one 300 rollouts on one side do not help, as the 20 on the other dominate.
#
# ## The same scenes
#
# Some scenes are hard for every policy. If both policies meet the *same* scenes, this
# part of the chance is shared, and only the scenes on which they **differ** tell them
# apart. In simulation a scene is a number; on a table, mark the start poses.
#
# Policy A executes half of each chunk, as above. Policy B uses the temporal ensemble of
# lesson 04.

# %% pair
ensemble = ExecutionConfig("ensemble", m=0.01)
other = course.rollouts(state, ensemble, n=100, seed=7)
pairs = evaluation.pair(found, other)
a, b = pairs.only_a, pairs.only_b
print(f"B alone: {other}")
print(pairs)
print(f"{a + b} of {other.n} scenes tell A and B apart, split {a} to {b}")

# %% paired-maths [markdown]
# The last line counts the scenes that tell A and B apart. Is their split uneven enough
# to call one of the two better?
#
# Let $b$ scenes be solved by A only and $c$ by B only. If neither policy were better,
# each of these $b + c$ scenes would be a fair coin toss. With $k = \min(b, c)$, the
# probability of a split at least this uneven is
#
# $$ p = \min\Bigl(1,\; 2 \sum_{i=0}^{k} \binom{b+c}{i} 2^{-(b+c)}\Bigr). $$
#
# The factor 2 counts both tails. This is the **exact McNemar test**. The p printed above
# is its p for this split: a large one says that chance alone often splits the scenes as
# unevenly.
#
# ### Exercise: the paired test (10 minutes, medium)


# %% paired tags=["exercise"]
from math import comb


def paired(only_a, only_b):
    """Two-sided p value: how surprising is this split if neither is better?"""
    # solution
    n, k = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)
    # stub
    # ...  # one tail of a fair coin, then both
    # end


check("07.paired", paired)

# %% paired-hint
hint("07.paired")

# %% seeds-text [markdown]
# ## Seeds
#
# So far we have measured one trained policy. A *recipe* (data, network and settings)
# gives a different policy for each training seed. Below, each dot is one such policy,
# and its bar is the Wilson interval of its rollouts.

# %% seeds
rows = evaluation.seed_rows()
for row in rows:
    print(
        f"{row.name:20} seeds {len(row.rates)}, n = {row.n} each: deviation "
        f"{100 * row.between:.1f} points, by chance alone {100 * row.by_chance:.1f}"
    )
show(
    evaluation.seeds_figure(rows),
    "Success of three training seeds for each recipe, with 95 % intervals; n = 100 "
    "rollouts a dot.",
)

# %% seeds-maths [markdown]
# In the first row the three rates lie closer together than chance alone would have
# them on average; in two of the five they spread about twice as much. Do the seeds differ, or only
# their rollouts? If all seeds had the same $p$, rates over $n$ rollouts would still
# have variance $p(1-p)/n$. Variances of independent causes add up:
#
# $$ \mathrm{var}(\text{rates}) \approx \sigma_{\text{seed}}^2 +
# \overline{p(1-p)}/n. $$
#
# ### Exercise: what seeds add (8 minutes, easy)
#
# `rates` is an array with one rate for each seed. Estimate $\sigma_{\text{seed}}$, and
# return 0 where chance alone would give as large a spread.


# %% spread tags=["exercise"]
def seed_spread(rates, n):
    """Standard deviation between seeds, beyond that of n rollouts each."""
    # solution
    chance = np.mean(rates * (1 - rates)) / n
    return np.sqrt(max(0.0, np.var(rates, ddof=1) - chance))
    # stub
    # ...  # the observed variance, less that of chance
    # end


check("07.seeds", seed_spread)

# %% spread-hint
hint("07.seeds")

# %% spread-prose [markdown]
# Three seeds are too few to estimate a deviation well, but enough to warn: where it is
# several points, two single seeds cannot be compared. The results of this course
# therefore pool three seeds and also list each one. Their intervals include the chance
# of rollouts only, not that of seeds.
#
# ## How does it fail?
#
# A rate tells how often a policy fails. To improve it you need to know how. The next
# cell sorts the failures of the 300 rollouts by the path of the cube: was it ever off
# the table, where was it released, and where is it at the end?

# %% kinds
for name, failed in evaluation.sort_failures(found.rollouts).items():
    print(f"{name:20} {len(failed):2} of n = {found.n}, scenes", [
        r.scene for r in failed[:6]
    ])  # fmt: skip
evaluation.failures_film(found, state)

# %% scrub-text [markdown]
# ## The moment it is lost
#
# The slider below steps through a rollout. It opens where the jaw begins to close: how
# far are the fingers from the cube? **Move it to the first tick at which you would
# expect this rollout to fail.** Then choose the success, and compare.

# %% explorer
explorer = evaluation.scrub_explorer(evaluation.pick_scrubs(found))
explorer

# %% changes-text [markdown]
# The policy does not remember that its grasp failed. In the rollout shown, after the jaw
# has closed on nothing, its joints repeat a short motion until the time is over; the
# demonstrations never show what to do next. Demonstrations that include failed grasps
# and second tries are the usual remedy.
#
# ## Changed scenes
#
# Now the vision policy, which sees two camera images but not the cube's pose. All its
# demonstrations had the same camera pose, the same red cube of 25 mm and the same
# light. On which of these does it depend?

# %% predict-camera
predict("07.camera")

# %% views-text [markdown]
# How far does the image move if the camera is moved by one centimetre? With focal
# length $f$ in pixels and distance $Z$ to the table, moving the camera by $\Delta x$
# moves the image by $f \Delta x / Z$. In training, every image was shifted at random by
# up to 4 pixels. Which of these six conditions does that cover? Decide, and then run
# the same 20 scenes under each.

# %% views
pixels = evaluation.pixels_a_centimetre()
print(f"1 cm of camera = {pixels:.1f} pixels; 4 pixels = {4 / pixels:.1f} cm")
show(
    evaluation.views(),
    "The upper camera's view of scene 0 under six conditions: as demonstrated, camera "
    "2 and 5 cm aside, green cube, larger cube, half the light; n = 1 scene.",
)

# %% trial
mine = Change(camera=(0.0, 0.0, 0.03))  # yours: a shift, colour, size or light
changes = evaluation.CHANGES | {f"mine: {mine.name}": mine}
trial = evaluation.trial_of_changes(
    evaluation.checkpoint("vision"), changes, n=20, seed=7
)
print(evaluation.outcome_table(trial))
reveal("07.camera")

# %% deploy-text [markdown]
# The random shift covers about 2 cm, and nothing in training covers 5 cm, a green cube
# or less light. If 2 cm aside succeeds more often here than no change at all, that is
# within chance: the two intervals overlap, and with n = 300 (below) the two agree.
#
# ## Spot the mistakes
#
# A policy may also fail because of the code around it, and such faults need not raise an
# error. The next three cells would pass many reviews, yet they contain **nine faults**.
#
# ### Exercise: mend them (25 minutes, hard)
#
# Read, mend, and run the cells again. `drive` takes a small simulated robot through two
# episodes and prints what is still wrong with the run.


# %% deploy-look tags=["exercise"]
def look(robot, policy):
    """Joints (A,), normalised, and pictures (C, H, W, 3) from 0 to 1."""
    seen = robot.read()
    # solution
    names = policy.joints
    # stub
    # names = sorted(seen["joints"])
    # end
    qpos = np.array([seen["joints"][name] for name in names])
    # solution
    qpos = (qpos - policy.mean["qpos"]) / policy.std["qpos"]
    # stub
    # qpos = (qpos - policy.mean["action"]) / policy.std["action"]
    # end
    images = np.stack([seen["images"][camera] for camera in policy.cameras])
    # solution
    return qpos, images.astype(np.float32) / 255
    # stub
    # return qpos, images.astype(np.float32)
    # end


def in_rad(chunk, policy):
    """The actions (k, A), in rad, of a normalised chunk."""
    # solution
    # stub
    # chunk = np.clip(chunk, -1, 1)
    # end
    return chunk * policy.std["action"] + policy.mean["action"]


policy, robot = bench()
print("the policy is told (normalised)", look(robot, policy)[0].round(2))
print("its first action means (rad)   ", in_rad(policy.chunks[0], policy)[0].round(2))


# %% deploy-ensemble tags=["exercise"]
class Ensemble:
    """The mean of all predictions for a tick; weights exp(-m i), i = 0 the oldest."""

    def __init__(self, m):
        self.m, self.queue = m, []

    def reset(self):
        self.queue = []

    def add(self, actions):
        self.queue.append(actions)

    def step(self, actions):
        """Takes the actions (k, A) of a new chunk; returns those to execute, (A,)."""
        self.add(actions)
        # solution
        now = np.array([chunk[0] for chunk in self.queue])
        self.queue = [chunk[1:] for chunk in self.queue if len(chunk) > 1]
        # stub
        # self.queue = [chunk[1:] for chunk in self.queue if len(chunk) > 1]
        # now = np.array([chunk[0] for chunk in self.queue])
        # end
        # solution
        weights = np.exp(-self.m * np.arange(len(now)))
        # stub
        # weights = np.exp(-self.m * np.arange(len(now)))[::-1]
        # end
        return weights @ now / weights.sum()


print("of a first chunk 0, 1, 2, 3 it executes", *Ensemble(0.3).step(np.c_[:4.0]))


# %% deploy-episode tags=["exercise"]
def episode(policy, robot, ensemble, ticks):
    """Drive the robot for so many ticks, at the rate of the demonstrations."""
    # solution
    ensemble.reset()
    # stub
    # end
    due = robot.now()
    for _ in range(ticks):
        chunk = policy.predict(*look(robot, policy))
        actions = in_rad(chunk, policy)
        # solution
        # stub
        # ensemble.add(actions)
        # end
        action = ensemble.step(actions)
        robot.send(dict(zip(policy.joints, action, strict=True)))
        # solution
        due += 1 / policy.fps
        # stub
        # due = robot.now() + 1 / policy.fps
        # end
        robot.sleep(max(0.0, due - robot.now()))


drive(episode, Ensemble)
# solution
print("The three cells as they were, with all nine faults:")
drive()
# stub
# end
check("07.deploy", episode, Ensemble)

# %% deploy-hint
hint("07.deploy")

# %% fails [markdown]
# ## Where it fails
#
# One checkpoint, 300 rollouts for each row, in three sets of scenes:
#
# | change | success |
# |---|---|
# | none | {{claims/C21 summary policy=committed axis=none shift_cm=0}} |
# | camera 2 cm to the right | {{claims/C21 summary policy=committed axis=x shift_cm=2}} |
# | camera 5 cm to the right | {{claims/C21 summary policy=committed axis=x shift_cm=5}} |
# | green cube | {{claims/C27 summary policy=vision change=green}} |
# | cube of 32 mm | {{claims/C27 summary policy=vision change=32mm}} |
# | half the light | {{claims/C27 summary policy=vision change=half_light}} |
#
# The paper's ablations on this task (50 human-like demonstrations, k = 50, equal
# updates):
#
# | | success |
# |---|---|
# | ACT | {{claims/ablation summary row=act demonstrator=human}} |
# | no chunks (k = 1) | {{claims/ablation summary row=no_chunks demonstrator=human}} |
# | no CVAE | {{claims/ablation summary row=no_cvae demonstrator=human}} |
# | with ensembling | {{claims/ablation summary row=ensemble demonstrator=human}} |
#
# An interval says nothing about scenes of another kind. And the best of ten settings
# looks better than it is, as luck helped to choose it: measure it again, on new scenes.

# %% summary [markdown]
# ## Summary
#
# Report n and an interval with every rate. Compare on the same scenes, and count those
# on which policies differ. Train several seeds before you compare recipes. Sort
# failures before you mend them, and test deployment code before it moves an arm.
#
# | sign | meaning |
# |---|---|
# | $p$, $\hat p = s/n$ | true and observed success rate; s successes of n |
# | z | 1.96, the deviations that hold 95 % |
# | b, c | scenes solved by A only, by B only |
# | $\sigma_{\text{seed}}$ | deviation of the true rate between training seeds |
# | f, Z | focal length in pixels, distance in m |
#
# ## Read more
#
# | reference | read it for |
# |---|---|
# | E. B. Wilson, JASA 1927, [doi:10.1080/01621459.1927.10502953](https://doi.org/10.1080/01621459.1927.10502953) | the interval: four pages |
# | Brown, Cai, DasGupta, Statistical Science 2001, [doi:10.1214/ss/1009213286](https://doi.org/10.1214/ss/1009213286) | why not the textbook interval |
# | R. G. Newcombe, [Statistics in Medicine 17:873, 1998](https://doi.org/10.1002/%28SICI%291097-0258%2819980430%2917:8%3C873::AID-SIM779%3E3.0.CO;2-I) | the interval of a difference |
# | Q. McNemar, Psychometrika 1947, [doi:10.1007/BF02295996](https://doi.org/10.1007/BF02295996) | the paired test |
# | Agarwal et al. 2021, [arXiv:2108.13264](https://arxiv.org/abs/2108.13264) | reporting results of few training seeds |
# | Zhao et al. 2023, [arXiv:2304.13705](https://arxiv.org/abs/2304.13705) | the ablations above, as the paper has them |
#
# ## Where next
#
# The next lesson drives a SO-100, [08](08_so100.ipynb): bytes, calibration, and a safe
# first run. Policy B came from [04](04_temporal_ensembling.ipynb).
