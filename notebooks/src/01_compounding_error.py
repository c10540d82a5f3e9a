# %% title [markdown]
# # 01 · Compounding error
#
# {{runtime}} · 75 minutes of work · any laptop
#
# After this lesson you can show **why single-step cloning drifts**, measure how fast,
# say **when it does not**, and correct it with **DAgger**.
#
# You need lesson 00, and some torch. There is nothing to install.

# %% set-up
import numpy as np

import course
from act_minimal.evaluation import evaluation_scenes
from act_minimal.execution import ExecutionConfig
from course import check, hint, predict, reveal, show
from course.figures import lesson_01_dagger as arm
from course.figures import lesson_01_drift as drift
from course.toolkit import schematics

course.begin("01")

# %% question [markdown]
# ## The question
#
# In behaviour cloning a network sees what the expert saw, and is trained to do what the
# expert did. There are two ways to test it:
#
# - **Open loop**: the expert acts, and at each of its states we ask the network what it
#   would do. A training or validation loss measures this.
# - **Closed loop**: the network acts, so its actions decide what it sees next.
#
# We clone a script, **one action at a time**, from 50 demonstrations without noise or
# pauses. The network, a perceptron with three hidden layers, reads the joints and the
# cube's pose, and predicts the next joint targets. For comparison we train it again, with
# all else equal, for 25 actions at a time.

# %% predict-clean
predict("01.clean")

# %% clone
data = drift.recorded(50, "scripted")
recipe = {"policy": "bc_mlp", "steps": 3000, "save_every": 3000}
single = course.trained(data, **recipe).policy
chunked = course.trained(data, **recipe, chunk_size=25).policy
print(f"k = {single.chunk_size} and k = {chunked.chunk_size}, 3000 updates each")

# %% loops
scenes = evaluation_scenes(seed=1, n=50)
paths = drift.expert_paths(scenes)
opened = drift.action_errors(single, paths)
one = course.rollouts(single, n=50, seed=1)
half = course.rollouts(chunked, ExecutionConfig("receding"), n=50, seed=1)
degrees = np.degrees(np.concatenate(opened))
print(f"open loop: worst joint off by {degrees.mean():.1f}° (n = {len(scenes)} scenes)")
print(f"closed loop, single steps: {one}")
print(f"closed loop, chunks of 25: {half}")

# %% error
errors = {
    "open loop: asked on the expert's states": opened,
    "closed loop: single steps": drift.path_errors(drift.visited(one), paths),
    "closed loop: chunks of 25": drift.path_errors(drift.visited(half), paths),
}
show(
    drift.over_time(errors, "worst joint's error, rad"),
    "Three error curves over 6 s, median and middle half of 50 scenes each: open loop, "
    "and in closed loop for single steps and for chunks of 25.",
)
reveal("01.clean")

# %% idea [markdown]
# ## The idea
#
# The open-loop curve is the distance of the network's answer from the expert's action.
# The closed-loop curves are the distance of the arm from where the expert's arm is at
# that moment. The picture below shows why the second can grow while the first stays
# small.

# %% walk
schematics.walk()

# %% drift-text [markdown]
# In closed loop a policy makes its own inputs. A small error moves the arm to a state
# that no demonstration visited. The network was not trained there, so its next error is
# likely to be larger, and so on. This is **compounding error**. The difference between
# the states that were demonstrated and those that the policy visits is called
# **covariate shift**.
#
# ### Exercise: two walkers (8 minutes, easy)
#
# States are numbers here, and `step(x, action)` gives the next one. The expert and the
# policy begin in the same state, and each acts on its own state. Return how far apart
# the two are: T + 1 distances.


# %% drift tags=["exercise"]
def distances(policy, expert, step, start, T):
    """How far a policy is from the expert after 0, 1, ..., T steps: (T + 1,)."""
    # solution
    x = e = start
    found = [0.0]
    for _ in range(T):
        x, e = step(x, policy(x)), step(e, expert(e))
        found.append(abs(x - e))
    return np.array(found)
    # stub
    # ...  # two states, each acted on by its own walker
    # end


check("01.drift", distances)

# %% drift-hint
hint("01.drift")

# %% growth-text [markdown]
# ## How fast? The argument of Ross and Bagnell
#
# Imagine a walker on a ridge, for $T$ steps. On the ridge each step is a mistake with
# probability $\varepsilon$, the error of supervised learning. A mistake ends beside the
# ridge, where nothing was learned: there is **no way back**, and each step costs 1.
#
# 1. After $t$ steps the walker is still on the ridge with probability
#    $(1-\varepsilon)^t$.
# 2. So step $t$ costs $1-(1-\varepsilon)^t$ on average.
# 3. While $\varepsilon t$ is small, that is about $\varepsilon t$.
# 4. The sum is $\sum_{t=1}^{T} \varepsilon t = \varepsilon\, T(T+1)/2 \approx
#    \varepsilon T^2/2$.
#
# A walker that is put back after each mistake would pay only $\varepsilon T$.
#
# ### Exercise: the exact cost (8 minutes, medium)
#
# Step 3 is an approximation. Give the exact sum of step 2.


# %% cost tags=["exercise"]
def expected_cost(T, eps):
    """Expected number of the T steps that are off the ridge."""
    # solution
    t = np.arange(1, T + 1)
    return (1 - (1 - eps) ** t).sum()
    # stub
    # ...  # over t = 1 ... T
    # end


check("01.cost", expected_cost)

# %% cost-hint
hint("01.cost")

# %% ridge
show(
    drift.ridge_figure(),
    "Mean cost of 2000 walks with mistakes of 0.002 a step against the horizon, on "
    "logarithmic axes: without a way back it follows the line of T squared; with a "
    "chance of 0.2 a step to find back it runs parallel to the line of T.",
)
reveal("00.growth")

# %% explorer-text [markdown]
# So T² does not belong to cloning as such. It belongs to **errors that are not
# corrected**. In the next toy the distance $e$ from the expert obeys
# $e_{t+1} = (1-c)\,e_t + \text{mistake}$, where $c$ is the share of the distance that
# each step corrects.
#
# **Move c up from 0.** How much correction turns T² into T? And what changes when
# mistakes go either way, so that they partly cancel?

# %% explorer
drift.tracking_explorer()

# %% horizon-text [markdown]
# With $c = 0$ and mistakes all one way the power is 2. A few per cent of correction bring
# it close to 1 at this horizon. Mistakes that go either way give 1.5.
#
# ### On the arm
#
# Now the same picture for the arm: its error, added up to the horizon. The dotted lines
# are T and T², drawn through the first curve at T = 10.

# %% horizon
closed = {name: e for name, e in errors.items() if name.startswith("closed")}
show(
    drift.horizon_figure(closed),
    "Error added up against the horizon on logarithmic axes, single steps and chunks "
    "of 25, n = 50 scenes each, beside lines for T and T squared.",
)

# %% horizon-measured [markdown]
# Over three seeds, from T = 10 to 80, single steps grow with the power
# {{claims/C01 horizon expert=scripted variant=absolute -> power 2}}, chunks with
# {{claims/C01 horizon expert=scripted variant=chunk-25 -> power 2}}: more slowly once T is
# longer than a chunk. Before, their sum is even larger:
#
# | T | single steps, rad · steps | chunks of 25 |
# |---|---|---|
# | 20 | {{claims/C01 horizon expert=scripted variant=absolute -> cost.20 1}} | {{claims/C01 horizon expert=scripted variant=chunk-25 -> cost.20 1}} |
# | 80 | {{claims/C01 horizon expert=scripted variant=absolute -> cost.80 1}} | {{claims/C01 horizon expert=scripted variant=chunk-25 -> cost.80 1}} |
#
# ## How far from the data?
#
# For each visited state, we look for the nearest demonstrated one.
#
# ### Exercise: the nearest demonstration (10 minutes, medium)
#
# A metre of the cube's position cannot be compared with a radian of a joint. Divide each
# number by its standard deviation over the demonstrations.


# %% nearest tags=["exercise"]
def nearest(visited, demonstrated):
    """Distance of each visited state (T, S) to the nearest of (M, S): (T,)."""
    # solution
    std = demonstrated.std(0)  # (S,)
    apart = (visited[:, None] - demonstrated[None]) / std  # (T, M, S)
    return np.linalg.norm(apart, axis=2).min(1)  # (T,)
    # stub
    # ...  # differences of all pairs (T, M, S), in units of std
    # end


check("01.nearest", nearest)

# %% nearest-hint
hint("01.nearest")

# %% leave
known = drift.Known(data)
ways = {"single steps": drift.visited(one), "chunks of 25": drift.visited(half)}
ways["the expert itself"] = [path.qpos for path in paths]
far = {name: [known.distance(s) for s in states] for name, states in ways.items()}
show(
    drift.over_time(far, "distance to the data, deviations"),
    "Distance to the nearest demonstrated state over 6 s, median and middle half of 50 "
    "fresh scenes each: single steps, chunks of 25, and the expert itself.",
)

# %% stall [markdown]
# Compare with the expert's own curve: fresh scenes are never quite the demonstrated ones.
# How do failures end? A script that moves from rest to rest is slow at its waypoints, and
# there the demonstrated target is almost where the arm is already. A clone that comes to
# rest beside a waypoint may **stall** there. The next cell counts the time that the arm
# stands still.
#
# ## Is the single step to blame?
#
# Take another expert for the same task, one with **feedback**: it looks at the present
# state, decides what to do next, and moves there at a steady pace. It is *Markov*: the
# same state always gets the same action. Network, number of demonstrations and updates
# are the same as before.

# %% markov
feedback = course.trained(drift.recorded(50, "feedback"), **recipe).policy
found = course.rollouts(feedback, n=50, seed=1)
for name, rolled in (("the script", one), ("the feedback expert", found)):
    print(f"single steps, cloned from {name}: {rolled};")
    print(f"    it stands still for {100 * rolled.frozen:.0f} % of the time")

# %% markov-measured [markdown]
# Over three seeds, the script's clone reaches
# {{claims/C01 summary expert=scripted variant=absolute}}, the feedback expert's
# {{claims/C01 summary expert=feedback variant=absolute}}. So it depends on the
# demonstrations. The two experts differ in pace as well as in feedback (the script slows
# down to rest at each waypoint, the feedback expert keeps a steady pace and is done
# sooner), and this comparison does not tell which of the two matters.
#
# ## What helps
#
# A **delta** target says how far to move from here. A **history** of observations shows
# the speed. **Input noise** in training makes the network ignore small deviations.
# **DART** disturbs the expert's arm while it demonstrates. **DAgger** lets the clone
# drive, and asks an expert what would have been right.

# %% predict-rescue
predict("01.rescue")

# %% disturb-text [markdown]
# ### Exercise: DART's recording loop (10 minutes, medium)
#
# The arm does the expert's action plus `noise[t]`. What is written down as the label?


# %% disturb tags=["exercise"]
def record_disturbed(expert, step, start, noise):
    """States (T, S) and labels (T, A) of a disturbed demonstration."""
    # solution
    states, labels, state = [], [], start
    for push in noise:
        states.append(state)
        labels.append(expert(state))
        state = step(state, labels[-1] + push)
    return np.array(states), np.array(labels)
    # stub
    # ...  # what is right goes into the labels, what is done moves the state
    # end


check("01.disturb", record_disturbed)

# %% disturb-hint
hint("01.disturb")

# %% dagger-text [markdown]
# ### Exercise: DAgger (12 minutes, medium)
#
# DAgger repeats three steps: the policy drives, the expert **labels** the states that it
# visited, the new pairs are **added** to the old ones, and a policy is **retrained** on
# all of them. These functions are given:
#
# - `retrain(pairs)` trains a policy from scratch; a pair is (states, labels) of one
#   rollout,
# - `drive(policy)` rolls it out and gives the states of each rollout,
# - `expert(states)` gives the right actions.
#
# Train on the given pairs first; then come `rounds` rounds.


# %% dagger tags=["exercise"]
def dagger(pairs, rounds, retrain, drive, expert):
    """The last policy, and the list of all pairs that it learned from."""
    # solution
    pairs = list(pairs)
    policy = retrain(pairs)
    for _ in range(rounds):
        for states in drive(policy):
            pairs.append((states, expert(states)))
        policy = retrain(pairs)
    return policy, pairs
    # stub
    # ...  # let it drive, label, add, retrain
    # end


check("01.dagger", dagger)

# %% dagger-hint
hint("01.dagger")

# %% dagger-run
whose, pairs = arm.learn(dagger)
print(
    f"{whose}: {arm.GIVEN} demonstrations, {len(pairs) - arm.GIVEN} rollouts labelled"
)
for name, some in (("50 demonstrations", arm.given(50)), ("with DAgger", pairs)):
    policy = arm.retrain(some, arm.FINAL)
    rolled = course.rollouts(policy, n=50, seed=1)
    print(f"single steps, {name:17}: {rolled}")

# %% dagger-says [markdown]
# Both policies learned from 50 episodes, with the same network and 3000 updates. The
# first saw human-like demonstrations only. For the second, half of the episodes are
# rollouts of its predecessors, labelled by the feedback expert. (Those predecessors had
# 750 updates each, which come on top.) This is one run, 50 rollouts; the answer below
# is of three runs, 300 rollouts.

# %% reveal-rescue
reveal("01.rescue")

# %% stable-text [markdown]
# ## When can a chunk help at all?
#
# While a chunk is executed, nobody looks. Whether that is forgiven depends on what the
# system does with an error by itself: shrink it, keep it, or multiply it. In a linear
# system the next state is a matrix times the state, plus the action; the matrix's
# *spectral radius* says which of the three: below 1, 1, above 1.
#
# Each clone below learned from ten demonstrations. On the left they stay on one line,
# and beside it a clone acts by chance, as an untrained network does; on the right every
# second one was disturbed, and so shows the rest. A balanced pole forgives nothing; what
# about an arm whose servos hold their position?

# %% stable
show(
    drift.stability_figure(),
    "Linear clones that stay within 0.5 of an expert starting at 1, n = 300 each: "
    "where errors shrink (0.8) chunks of 25 cure it, where they grow (1.1) they ruin "
    "it; after disturbed demonstrations single steps stay near in all three.",
)

# %% trial [markdown]
# ## Single steps, by recipe
#
# Rates depend on the recipe, after either demonstrator (three seeds):
#
# | demonstrations | network | targets | also | updates | success |
# | --- | --- | --- | --- | --- | --- |
# | human-like | perceptron | absolute |  | 3000 | {{claims/C01 summary expert=human variant=absolute}} |
# | human-like | perceptron | absolute | 2 observations | 3000 | {{claims/C01 summary expert=human variant=history-2}} |
# | human-like | perceptron | absolute | 3 observations | 3000 | {{claims/C01 summary expert=human variant=history-3}} |
# | human-like | perceptron | absolute | DART | 3000 | {{claims/C01 summary expert=human variant=dart}} |
# | human-like | perceptron | delta |  | 3000 | {{claims/C01 summary expert=human variant=delta}} |
# | human-like | perceptron | delta | DART | 3000 | {{claims/C01 summary expert=human variant=dart-delta}} |
# | human-like | perceptron | delta | input noise | 3000 | {{claims/C01 summary expert=human variant=delta-noise}} |
# | human-like | perceptron | delta | input noise | about {{state summary policy=bc demonstrator=human -> steps.0}} (lesson 00) | {{state summary policy=bc demonstrator=human}} |
# | human-like | transformer | absolute | input noise | 2000 (lesson 02) | {{chunk_size summary demonstrator=human k=1 cvae=false execution=half}} |
# | human-like | transformer with CVAE | absolute | input noise | 2000 | {{chunk_size summary demonstrator=human k=1 cvae=true execution=half}} |
# | human-like | perceptron | absolute | DAgger, 25 of the 50 corrected | 3000 | {{claims/C01 summary expert=human variant=dagger}} |
# | human-like | *transformer, k = 10* | absolute | input noise | 2000 | {{chunk_size summary demonstrator=human k=10 cvae=false execution=half}} |
# | human-like | *perceptron, k = 25* | absolute |  | 3000 | {{claims/C01 summary expert=human variant=chunk-25}} |
# | scripted | perceptron | absolute |  | 3000 (above) | {{claims/C01 summary expert=scripted variant=absolute}} |
# | scripted | perceptron | absolute | DART | 3000 | {{claims/C01 summary expert=scripted variant=dart}} |
# | scripted | perceptron | delta |  | 3000 | {{claims/C01 summary expert=scripted variant=delta}} |
# | scripted | perceptron | delta | input noise | 3000 | {{claims/C01 summary expert=scripted variant=delta-noise}} |
# | scripted | perceptron | delta | input noise | about {{state summary policy=bc demonstrator=scripted -> steps.0}} | {{state summary policy=bc demonstrator=scripted}} |
# | scripted | transformer | absolute | input noise | 2000 | {{chunk_size summary demonstrator=scripted k=1 cvae=false execution=half}} |
# | scripted | *perceptron, k = 25* | absolute |  | 3000 | {{claims/C01 summary expert=scripted variant=chunk-25}} |
#
# After human-like demonstrations no remedy tried reaches k = 25. DAgger is near k = 10, and
# needs an expert who labels any state.
#
# ## Where it fails
#
# What the clean script does not show:
#
# | what | k = 1 | chunks |
# |---|---|---|
# | arm not disturbed | {{claims/C01 noise expert=scripted variant=absolute disturb_rad=0.0}} | k = 25: {{claims/C01 noise expert=scripted variant=chunk-25 disturb_rad=0.0}} |
# | arm disturbed by 0.04 rad | {{claims/C01 noise expert=scripted variant=absolute disturb_rad=0.04}} | k = 25: {{claims/C01 noise expert=scripted variant=chunk-25 disturb_rad=0.04}} |
# | pauses of 0 to 1 s: success | {{claims/C12 summary pauses=random k=1}} | k = 10: {{claims/C12 summary pauses=random k=10}}; k = 50: {{claims/C12 summary pauses=random k=50}} |
# | time frozen there | {{claims/C12 summary pauses=random k=1 -> frozen percent}} | k = 10: {{claims/C12 summary pauses=random k=10 -> frozen percent}}; k = 50: {{claims/C12 summary pauses=random k=50 -> frozen percent}} |
# | human-like, deltas, input noise, last action unseen | {{claims/C13 summary target=delta k=1 last_action=false}} | k = 25: {{claims/C13 summary target=delta k=25 last_action=false}} |
# | human-like, deltas, input noise, last action as input | {{claims/C13 summary target=delta k=1 last_action=true}} | k = 25: {{claims/C13 summary target=delta k=25 last_action=true}} |
# | its error on held-out demonstrations: unseen | {{claims/C13 summary target=delta k=1 last_action=false -> error_rad 4}} rad | k = 25: {{claims/C13 summary target=delta k=25 last_action=false -> error_rad 4}} rad |
# | as input | {{claims/C13 summary target=delta k=1 last_action=true -> error_rad 4}} rad | k = 25: {{claims/C13 summary target=delta k=25 last_action=true -> error_rad 4}} rad |
#
# **Pauses** are not Markov: no state says when one ends. The **last action** nearly equals
# the next one. As an input it lowers the error on held-out demonstrations far more than
# it helps: do not judge a policy by that error.
#
# ## Summary
#
# A clone makes its own inputs. In the toys cost grows like T² without correction, like T
# with it; on the arm, success depends on the demonstrations. Chunks leave fewer decisions.
#
# | sign | meaning |
# |---|---|
# | T | horizon, steps |
# | ε | chance of a mistake on the expert's states |
# | c | share of a deviation that a step corrects |
# | k | chunk size, actions |
# | S, A, M | numbers in a state, in an action; demonstrated states |
#
# ## Read more
#
# | reference | read it for |
# |---|---|
# | Ross, Bagnell 2010, [PMLR 9:661](https://proceedings.mlr.press/v9/ross10a.html) | the argument for T² |
# | Ross, Gordon, Bagnell 2011, [arXiv:1011.0686](https://arxiv.org/abs/1011.0686) | DAgger, and why its cost grows like T |
# | Laskey et al. 2017, [arXiv:1703.09327](https://arxiv.org/abs/1703.09327) | DART, and how much noise to inject |
# | de Haan, Jayaraman, Levine 2019, [arXiv:1905.11979](https://arxiv.org/abs/1905.11979) | why more inputs can make a clone worse |
# | Zhang et al. 2025, [arXiv:2507.09061](https://arxiv.org/abs/2507.09061) | the theorem on chunks and stable systems |
# | Foster, Block, Misra 2024, [arXiv:2407.15007](https://arxiv.org/abs/2407.15007) | when cloning does not pay T² |
#
# ## Where next
#
# [02](02_action_chunking.ipynb) predicts more than one step.
