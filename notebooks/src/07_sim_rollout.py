# %% title [markdown]
# # 07 · Rollouts: what a success rate is worth, and why policies fail
#
# {{runtime}} · 60 minutes of work · any laptop
#
# After this lesson you can **measure a success rate** with an interval, **compare two
# policies** without fooling yourself, and **say how a policy fails** instead of only
# how often.
#
# You need lesson 04 (ways to execute a chunk). Nothing to install.

# %% set-up
import numpy as np

import course
from act_minimal.evaluation import wilson
from act_minimal.execution import ExecutionConfig
from act_minimal.sim.so100.changed_scenes import Change
from course import check, hint, predict, reveal, show
from course.figures import lesson_07 as field

course.begin("07")

# %% question [markdown]
# ## The question
#
# You roll your policy out in 20 scenes, and 17 succeed. A colleague changes one
# setting, rolls out 20 times, and 19 succeed. Is the change good?
#
# Papers in robot learning are full of such pairs, because a rollout on a real arm costs
# a minute of somebody's life. In simulation it costs a tenth of a second. So let us
# find out here what 17 of 20 is worth.

# %% predict
predict("07.seventeen")

# %% groups-text [markdown]
# ## Look first
#
# The state policy that comes with the course, on 300 fresh scenes, counted in groups of
# 20. Same policy, same settings: whatever differs between groups is chance.

# %% groups
state = field.checkpoint("state")
found = course.rollouts(state, n=300, seed=7)
counts = field.groups_of(found)
show(
    field.groups_figure(found),
    f"Successes in 15 groups of 20 rollouts of one policy: {counts.min()} to "
    f"{counts.max()}; n = 300.",
)

# %% reveal
reveal("07.seventeen")

# %% idea [markdown]
# ## The idea, then the maths
#
# Let $p$ be the true success rate. Each rollout is a coin that shows success with
# chance $p$. The share of successes $\hat p = s/n$ then scatters about $p$ with
# standard deviation $\sqrt{p(1-p)/n}$, and stays within $z = 1.96$ of these in 95 % of
# all series.
#
# We know $\hat p$ and want $p$. So believe every $p$ that would make our $\hat p$
# unsurprising:
#
# $$ |\hat p - p| \le z \sqrt{p(1-p)/n}. $$
#
# Below, that is where the solid line lies under the dashed one.

# %% believable
show(
    field.believable_figure(17, 20),
    "Distance from 85 % and 1.96 deviations, over p: from 64 to 95 % the distance "
    "is smaller; n = 20.",
)

# %% wilson-maths [markdown]
# Square both sides and sort by powers of $p$:
#
# $$ \Bigl(1 + \tfrac{z^2}{n}\Bigr) p^2 - \Bigl(2\hat p + \tfrac{z^2}{n}\Bigr) p + \hat
# p^2 \le 0. $$
#
# A parabola, open upwards, below zero between its two roots. The roots are **Wilson's
# interval** (1927). The textbook interval takes the deviation at $\hat p$ instead of
# $p$; at 20 of 20 that deviation is zero, and the textbook is certain of perfection.
#
# ### Exercise: the interval (12 minutes, easy)
#
# Return the lower and the upper limit as shares, for $z = 1.96$.


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
# The width shrinks with $\sqrt n$: half the width costs four times the rollouts.
#
# 17 of 20 against 19 of 20: the *difference* has an interval, too. Combine the two
# Wilson intervals as independent errors (Newcombe, 1998). It works for different n and
# for different scenes.

# %% width
for n in (20, 60, 100, 300, 1000):
    low, high = wilson(round(0.85 * n), n)
    print(f"85 % of n = {n:4}: {100 * low:.0f} to {100 * high:.0f} %")
for a, b in (((19, 20), (17, 20)), ((95, 100), (85, 100)), ((285, 300), (17, 20))):
    d, low, high = (100 * x for x in field.difference(a, b))
    print(
        f"{a[0]}/{a[1]} against {b[0]}/{b[1]}: {d:+.0f} points, "
        f"95 % interval {low:+.0f} to {high:+.0f}"
    )

# %% pair-text [markdown]
# ## The same scenes
#
# Some scenes are hard for every policy. If both policies meet the *same* scenes, that
# part of chance is shared, and only the scenes on which they **differ** tell them
# apart. In simulation this is free: a scene has a number. On a real arm, mark the start
# poses on the table.
#
# A: half of each chunk, as above. B: the temporal ensemble of lesson 04.

# %% pair
ensemble = ExecutionConfig("ensemble", m=0.01)
other = course.rollouts(state, ensemble, n=100, seed=7)
print(f"B alone: {other}")
print(field.pair(found, other))

# %% paired-maths [markdown]
# Let $b$ scenes be solved by A only and $c$ by B only. If neither policy were better,
# each of these $b + c$ scenes would be a fair coin. With $k = \min(b, c)$, a split at
# least this uneven has the chance
#
# $$ p = \min\Bigl(1,\; 2 \sum_{i=0}^{k} \binom{b+c}{i} 2^{-(b+c)}\Bigr). $$
#
# The 2 counts both tails. This is the **exact McNemar test**.
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
# So far one trained policy was measured well. But a *recipe* (data, network, settings)
# gives another policy for each training seed. Each dot is one such policy; its bar is
# what rollouts leave uncertain.

# %% seeds
rows = field.seed_rows()
for row in rows:
    print(
        f"{row.name:20} seeds {len(row.rates)}, n = {row.n} each: deviation "
        f"{100 * row.between:.1f} points, by chance alone {100 * row.by_chance:.1f}"
    )
show(
    field.seeds_figure(rows),
    "Success of three training seeds for each recipe, with 95 % intervals; n = 100 "
    "rollouts a dot.",
)

# %% seeds-maths [markdown]
# Do the seeds differ, or only their rollouts? If all had the same $p$, rates over $n$
# rollouts would still have variance $p(1-p)/n$. Independent variances add:
#
# $$ \mathrm{var}(\text{rates}) \approx \sigma_{\text{seed}}^2 +
# \overline{p(1-p)}/n. $$
#
# ### Exercise: what seeds add (8 minutes, easy)
#
# `rates` holds one rate a seed. Estimate $\sigma_{\text{seed}}$; where chance explains
# all of the spread, say 0.


# %% spread tags=["exercise"]
def seed_spread(rates, n):
    """Standard deviation between seeds, beyond that of n rollouts each."""
    # solution
    chance = np.mean(rates * (1 - rates)) / n
    return np.sqrt(max(0.0, np.var(rates, ddof=1) - chance))
    # stub
    # ...  # the variance that is seen, less that of chance
    # end


check("07.seeds", seed_spread)

# %% spread-hint
hint("07.seeds")

# %% spread-prose [markdown]
# Three seeds cannot say much about a deviation, but they can say when a comparison of
# single seeds is worthless. So the results of this course pool three seeds and show
# each beside the pool. The pooled intervals count rollouts only.
#
# ## How does it fail?
#
# A rate says how often. To mend a policy you must know *how*. A few lines sort the
# failures of the 300 rollouts by the cube's path: was it ever off the table, where was
# it let go, where is it at the end?

# %% kinds
for name, failed in field.sort_failures(found.rollouts).items():
    print(f"{name:20} {len(failed):2} of n = {found.n}, scenes", [
        r.scene for r in failed[:6]
    ])  # fmt: skip

# %% film
field.failures_film(found)

# %% scrub-text [markdown]
# ## The moment it is lost
#
# A film runs past the moment that matters. **Move the slider to the first tick at which
# you would bet against this rollout.** What is the distance between fingers and cube
# when the jaw begins to close? Then compare with the success.

# %% explorer
explorer = field.scrub_explorer(field.pick_scrubs(found))
explorer

# %% field-text [markdown]
# A policy without memory of its failure repeats it: look at the joints long after the
# jaw has closed on nothing. Demonstrations that recover from a failed grasp are the
# usual cure.
#
# ## Into the field
#
# Now the vision policy: two cameras, no cube pose. It was trained with one camera pose,
# one red cube of 25 mm, one light. What of that did it come to rely on?

# %% predict-camera
predict("07.camera")

# %% views-text [markdown]
# How far is a centimetre for the network? With focal length $f$ in pixels and depth $Z$
# to the table, a shift of the camera by $\Delta x$ moves the picture by $f \Delta x /
# Z$. In training, every image was moved at random by up to 4 pixels.

# %% views
pixels = field.pixels_a_centimetre()
print(f"1 cm of camera = {pixels:.1f} pixels; 4 pixels = {4 / pixels:.1f} cm")
show(
    field.views(),
    "The upper camera's view of scene 0 under six conditions: as demonstrated, camera "
    "2 and 5 cm aside, green cube, larger cube, half the light; n = 1 scene.",
)

# %% trial-text [markdown]
# So the augmentation covers nearly 2 cm, and nothing covers 5 cm, a green cube or less
# light. That is a prediction. The same 20 scenes under each change:

# %% trial
trial = field.field_trial(field.checkpoint("vision"), n=20, seed=7)
print(field.outcome_table(trial))

# %% reveal-camera
reveal("07.camera")

# %% own-text [markdown]
# Look at the kinds of failure, too: a hand that closes beside the cube and a hand that
# never finds it need different cures.
#
# Now change something yourself: another shift, colour, size or light.

# %% own
mine = Change(camera=(0.0, 0.0, 0.03))
tried = field.rollouts_on(field.checkpoint("vision"), mine, n=20, seed=7)
print(f"{mine.name}: {tried}: {field.kinds_text(tried)}")

# %% fails [markdown]
# ## Where it fails
#
# 300 rollouts a row, three sets of scenes, one checkpoint:
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
# And the paper's ablations, here (50 human-like demonstrations, k = 50, equal updates):
#
# | | success |
# |---|---|
# | ACT | {{claims/ablation summary row=act demonstrator=human}} |
# | no chunks (k = 1) | {{claims/ablation summary row=no_chunks demonstrator=human}} |
# | no CVAE | {{claims/ablation summary row=no_cvae demonstrator=human}} |
# | with ensembling | {{claims/ablation summary row=ensemble demonstrator=human}} |
#
# The method has limits of its own. An interval covers chance over *these* scenes, not
# the scene you never drew. And the best of ten settings looks better than it is:
# measure the winner again, on new scenes.

# %% summary [markdown]
# ## Summary
#
# Give n and an interval with every rate. Compare on the same scenes, and count those
# that differ. Train several seeds before you praise a recipe. Sort failures before you
# mend them.
#
# | sign | meaning |
# |---|---|
# | $p$, $\hat p = s/n$ | true and seen success rate; s successes of n |
# | z | 1.96, deviations that hold 95 % |
# | b, c | scenes solved by A only, by B only |
# | $\sigma_{\text{seed}}$ | deviation of the true rate between training seeds |
# | f, Z | focal length in pixels, depth in m |
#
# ## Where next
#
# Next comes an SO-100, [08](08_so100.ipynb): bytes, calibration, a safe first run.
# Policy B came from [04](04_temporal_ensembling.ipynb).
