# %% title [markdown]
# # 01 · Compounding error
#
# {{runtime}} · 60 minutes of work · any laptop
#
# After this lesson you can show **why single-step cloning drifts**, measure how fast,
# and say **when it does not**.
#
# You need lesson 00, and some torch. Nothing to install.

# %% set-up
import numpy as np

import course
from act_minimal.evaluation import evaluation_scenes
from act_minimal.execution import ExecutionConfig
from course import check, hint, predict, reveal, show
from course.figures import lesson_01_drift as drift

course.begin("01")

# %% question [markdown]
# ## The question
#
# Behaviour cloning: a network sees what the expert saw, and is trained to do what the
# expert did. On the expert's own states that works well. Does it work on the arm?
#
# Here the expert is a script: no noise, no pauses. We clone it **one action at a time**
# from 50 demonstrations. The network is a perceptron with three hidden layers: it reads
# the six joints and the cube's pose, and predicts the next joint targets. For
# comparison we train it once more, with all else equal, for 25 actions at a time.

# %% predict-clean
predict("01.clean")

# %% clone
data = drift.recorded(50, "scripted")
recipe = {"policy": "bc_mlp", "steps": 3000, "save_every": 3000}
single = course.trained(data, **recipe).policy
chunked = course.trained(data, **recipe, chunk_size=25).policy
print(f"k = {single.chunk_size} and k = {chunked.chunk_size}, 3000 updates each")

# %% loops-text [markdown]
# ## The shortest experiment
#
# **Open loop**: the expert works in 50 fresh scenes, and we ask the clone at each of
# its states: what would *you* do now? The clone never acts. A training loss tells the
# same, and so does a validation loss.
#
# **Closed loop**: the clone acts, and what it does decides what it sees next.

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

# %% reveal-clean
reveal("01.clean")

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

# %% idea [markdown]
# ## The idea
#
# Open loop, this is the distance of the clone's answer from the expert's action; closed
# loop, that of the arm from where the expert's arm is at that moment.
#
# In closed loop a policy makes its own inputs. A small error puts the arm where no
# demonstration was. There the network was never corrected; its answer is a guess, so
# the next error is larger. This is **compounding error**, and the data that a policy
# meets but never saw is **covariate shift**.
#
# ### Exercise: two walkers (8 minutes, easy)
#
# The states are numbers. `step(x, action)` gives the next one. Let the expert walk its
# way and the policy its own from the same start, and return how far apart they are:
# T + 1 distances.


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
# A walker goes along a ridge for $T$ steps. On the ridge it makes a mistake with
# probability $\varepsilon$ a step: the error of supervised learning. Off the ridge it
# knows nothing, and there is **no way back**; each step there costs 1.

# %% predict-growth
predict("00.growth")

# %% derive [markdown]
# Step by step:
#
# 1. It is still on the ridge after $t$ steps with probability $(1-\varepsilon)^t$.
# 2. So step $t$ costs, on average, $1-(1-\varepsilon)^t$.
# 3. For small $\varepsilon t$ that is about $\varepsilon t$: the chance that *any* of the
#    first $t$ steps was the mistake.
# 4. Add up: $\sum_{t=1}^{T} \varepsilon t = \varepsilon\, T(T+1)/2 \approx
#    \varepsilon T^2/2$.
#
# Somebody who is put back after each mistake would pay $\varepsilon T$. The extra factor
# $T/2$ is the price of nobody putting you back.
#
# ### Exercise: the exact cost (8 minutes, medium)
#
# Step 3 is an approximation. Give the exact sum of step 2. The next figure shows
# 2000 walks with $\varepsilon = 0.002$; once without a way back, once with a chance of
# 0.2 a step to find it.


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
    "Mean cost of 2000 walks against the horizon on logarithmic axes: without a way "
    "back it follows the line of T squared, with one the line of T.",
)

# %% reveal-growth
reveal("00.growth")

# %% explorer-text [markdown]
# T² is not a law of cloning. It is a law of **not coming back**. Here is a toy in which
# the distance $e$ obeys $e_{t+1} = (1-c)\,e_t + \text{mistake}$, where $c$ is the share
# of the distance that each step corrects.
#
# **Move c up from 0.** How little is enough to turn T² into T? And what do mistakes
# that cancel change?

# %% explorer
drift.tracking_explorer()

# %% horizon-text [markdown]
# With $c = 0$ and mistakes all one way the power is 2; a few per cent of correction bring
# it close to 1 at this horizon. Mistakes that cancel give 1.5.
#
# ### On the arm
#
# The arm's error, added up to the horizon. The dotted lines are T and T², drawn through
# the first curve at T = 10.

# %% horizon
closed = {name: e for name, e in errors.items() if name.startswith("closed")}
show(
    drift.horizon_figure(closed),
    "Error added up against the horizon on logarithmic axes, single steps and chunks "
    "of 25, n = 50 scenes each, beside lines for T and T squared.",
)

# %% horizon-measured [markdown]
# Measured with three seeds, between T = 10 and T = 80: single steps grow with the power
# {{claims/C01 horizon expert=scripted variant=absolute -> power 2}}, chunks with
# {{claims/C01 horizon expert=scripted variant=chunk-25 -> power 2}}. A power alone does
# not say who is better: the arm's reach bounds every error, and a small error may grow
# fast. Compare the heights, too: after 80 steps the sums are
# {{claims/C01 horizon expert=scripted variant=absolute -> cost.80 2}} and
# {{claims/C01 horizon expert=scripted variant=chunk-25 -> cost.80 2}} rad · steps.
#
# ## Where does it leave the data?
#
# For each visited state, look for the nearest demonstrated one.
#
# ### Exercise: the nearest demonstration (10 minutes, medium)
#
# A cube's metre is not a joint's radian. Divide each number by its standard deviation
# over the demonstrations.


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

# %% where
show(
    drift.where(known, ways["single steps"], one),
    "Demonstrated states as grey dots in the plane of shoulder and elbow, and up to "
    "four failed single-step rollouts as lines that end beside or between them.",
)

# %% leave-explorer-text [markdown]
# The expert's line in the first picture is the yardstick: fresh scenes are never quite
# the demonstrated ones. The second shows the same in the plane of two joints.
#
# **Go through the scenes, with both policies.** When does a rollout leave the data, and
# does it come back? Below the dotted line lie 95 % of the expert's own states in these
# scenes.

# %% leave-explorer
limit = np.quantile(np.concatenate(far["the expert itself"]), 0.95)
both = {name: ways[name] for name in ("single steps", "chunks of 25")}
drift.leave_explorer(known, both, limit)

# %% stall [markdown]
# Look at where the failures end. A clone need not fly off; it may **stall**, close to
# the data. A script that moves from rest to rest passes its waypoints slowly, so there
# the demonstrated target is almost where the arm already is. A clone that has come to
# rest beside such a place sees "stay", and stays.
#
# ## Is the single step to blame?
#
# Before we blame it, a fair trial. Take another expert for the same task: one with
# **feedback**, which looks at the present state, decides what to do next, and moves
# towards it at a steady pace. It is *Markov*: the same state, the same action.
# Same network, same 50 demonstrations, same 3000 updates, single steps.

# %% markov
feedback = course.trained(drift.recorded(50, "feedback"), **recipe).policy
found = course.rollouts(feedback, n=50, seed=1)
print(f"single steps, cloned from the planner:         {one}")
print(f"single steps, cloned from the feedback expert: {found}")

# %% markov-measured [markdown]
# Over three seeds: the planner's clone
# {{claims/C01 summary expert=scripted variant=absolute}}, the feedback expert's
# {{claims/C01 summary expert=feedback variant=absolute}}. A planner follows time, not
# the state, and never shows a return from a deviation.
#
# ## Rescues
#
# A **delta** target says how far to move from here. A **history** shows speed. **Input
# noise** blurs where the arm is. **DAgger** lets the clone drive, and asks an expert
# (here the one with feedback) what was right. **DART** disturbs the expert's arm:
#
# ### Exercise: DART's recording loop (10 minutes, medium)
#
# The arm does the expert's action plus `noise[t]`. What is written down?


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

# %% predict-rescue
predict("01.rescue")

# %% reveal-rescue
reveal("01.rescue")

# %% trial [markdown]
# ## The fair trial
#
# The same perceptron, 50 demonstrations, 3000 updates, three seeds, n = 300 each:
#
# | k = 1, and ... | success, human-like demonstrations |
# |---|---|
# | absolute targets | {{claims/C01 summary expert=human variant=absolute}} |
# | delta targets | {{claims/C01 summary expert=human variant=delta}} |
# | 2 observations | {{claims/C01 summary expert=human variant=history-2}} |
# | 3 observations | {{claims/C01 summary expert=human variant=history-3}} |
# | delta, input noise | {{claims/C01 summary expert=human variant=delta-noise}} |
# | DART | {{claims/C01 summary expert=human variant=dart}} |
# | DART, delta | {{claims/C01 summary expert=human variant=dart-delta}} |
# | DAgger, 25 of the 50 corrected | {{claims/C01 summary expert=human variant=dagger}} |
# | *for comparison: k = 25* | {{claims/C01 summary expert=human variant=chunk-25}} |
#
# On scripted demonstrations: delta
# {{claims/C01 summary expert=scripted variant=delta -> success percent}}, with input
# noise {{claims/C01 summary expert=scripted variant=delta-noise -> success percent}},
# DART {{claims/C01 summary expert=scripted variant=dart -> success percent}}, chunks
# {{claims/C01 summary expert=scripted variant=chunk-25 -> success percent}}. (DAgger's
# policies between its five rounds cost extra updates.) At the start of the course you
# guessed about a longer training:

# %% reveal-single
reveal("00.single_step")

# %% fails [markdown]
# ## Where it fails
#
# Three things that the clean script does not show, measured apart:
#
# | what | k = 1 | chunks |
# |---|---|---|
# | arm disturbed by 0.04 rad | {{claims/C01 noise expert=scripted variant=absolute disturb_rad=0.04}} | k = 25: {{claims/C01 noise expert=scripted variant=chunk-25 disturb_rad=0.04}} |
# | pauses of 0 to 1 s: success | {{claims/C12 summary pauses=random k=1}} | k = 50: {{claims/C12 summary pauses=random k=50}} |
# | time frozen there | {{claims/C12 summary pauses=random k=1 -> frozen percent}} | k = 50: {{claims/C12 summary pauses=random k=50 -> frozen percent}} |
# | human-like, last action unseen | {{claims/C13 summary target=delta k=1 last_action=false}} | k = 25: {{claims/C13 summary target=delta k=25 last_action=false}} |
# | human-like, last action as input | {{claims/C13 summary target=delta k=1 last_action=true}} | k = 25: {{claims/C13 summary target=delta k=25 last_action=true}} |
#
# **Pauses** are not Markov: no state says when one ends. The **last action** is a
# shortcut: it nearly equals the next one. With it, the error on held-out demonstrations
# goes from
# {{claims/C13 summary target=delta k=1 last_action=false -> error_rad 4}} to
# {{claims/C13 summary target=delta k=1 last_action=true -> error_rad 4}} rad (k = 1).
# Success hardly notices: do not judge by that error.
#
# ## Summary
#
# A clone makes its own inputs. Without a way back its cost grows like T²; with one, like
# T. That depends on the demonstrations as much as on k. Chunks attack T: k actions from
# one look leave T/k decisions.
#
# | sign | meaning |
# |---|---|
# | T | horizon, steps |
# | ε | chance of a mistake on the expert's states |
# | c | share of a deviation that a step corrects |
# | k | chunk size, actions |
# | S, A, M | numbers in a state, in an action; demonstrated states |
#
# ## Where next
#
# [02](02_action_chunking.ipynb) predicts more than one step.
