# %% title [markdown]
# # F2 · Many ways
#
# {{runtime}} · 60 minutes of work · any laptop
#
# After this lesson you can say **what ACT does where two ways are right**, build the
# target and the step of **flow matching**, the second pass of **MIP**, and the likelihood
# of a **mixture**, and decide when ACT is enough.
#
# You need lessons 02 (chunks) and 03 (the post, and z).

# %% set-up
import numpy as np

import course
from course import check, hint, predict, reveal, show
from course.figures import lesson_f2 as ways

course.begin("F2")

# %% question [markdown]
# ## The question
#
# In lesson 03 half of the teachers passed a post on its left, half on its right, and what
# they saw was the same. A policy with one answer for one observation has to answer with
# something between the two. ACT's latent z was meant to tell the ways apart, but the
# robot sets z = 0.
#
# Other policies answer with a *sample*: diffusion, flow matching, mixtures. They cost more
# time. Do we need one? Here the post is a small world in which a hand really walks: servos
# that lag behind, 30 ticks a second, 3 s to the other side.

# %% teachers
data = ways.teachers()
show(
    ways.walks_figure({"teachers": ways.shown(data)}),
    "The walks of 40 teachers from below to above the post, on its left or its right, "
    "by 0.4 m.",
)

# %% predict
predict("F2.l1")

# %% l1-text [markdown]
# ## ACT, with one answer
#
# A small ACT (width 64, chunks of 40 actions, no CVAE) learns from 100 teachers, about
# half on each side. Its loss is the absolute error, L1. Half of each chunk is executed, then it
# looks again.

# %% l1
l1 = ways.learnt(data, "l1")
walks = ways.walk(l1, n=200)
print("L1", walks)
show(
    ways.walks_figure({"L1": walks}),
    "40 walks by ACT with L1: nearly all pass; some that start in the middle "
    "decide late.",
)

# %% reveal
reveal("F2.l1")

# %% starts-text [markdown]
# ## Where the first chunk leads
#
# It passes, and on both sides. How does it choose? Teachers start up to 3 cm beside the
# middle, and take either side from anywhere. We ask for the *first* chunk from 61 starts,
# and look where its last action lies.

# %% starts
show(
    ways.starts_figure({"L1": l1}),
    "The last x of L1's first chunk against the start: on one side of a narrow band "
    "all chunks end on the left, on the other side on the right; in the band they "
    "lead through the post.",
)
starts, chunks = ways.first_chunks(l1)
print(f"{ways.through(chunks).sum()} of {len(starts)} lead through the post")

# %% starts-judged [markdown]
# Nothing in the demonstrations says that a start on the right should pass on the right.
# The network says it: one answer for one observation, so some starts get one side, some
# the other, and between them lies a band in which the answer goes over from the one to the
# other, *through* the post. What if such a chunk is executed to its end?

# %% whole
print("L1, whole chunks:", ways.walk(l1, n=200, execute=40))

# %% whole-judged [markdown]
# Executed whole, the chunks of the band hit the post. By halves most of these walks are
# saved: halfway the hand is off the middle, and the next chunk sees that.

# %% flow-text [markdown]
# ## Flow matching
#
# To have many answers, a policy must start from something random. **Flow matching** draws
# noise of a chunk's shape, and learns a *velocity* that leads from there to a
# demonstrated chunk in one unit of time t. On the line between them
#
# $$ x_t = (1 - t)\,\epsilon + t\,A, \qquad \dot x_t = A - \epsilon, $$
#
# and the network is shown $x_t$ and t, and asked for $\dot x_t$.
#
# ### Exercise: place and velocity (10 minutes)
#
# `action` and `noise` are (B, k, A), and `t` is (B,): each sample has its own.


# %% velocity tags=["exercise"]
def place_and_velocity(action, noise, t):
    """x at time t, and the velocity there: (B, k, A) each."""
    # solution
    way = t[:, None, None]
    return (1 - way) * noise + way * action, action - noise
    # stub
    # ...  # the point on the line, and how fast it moves along it
    # end


check("F2.velocity", place_and_velocity)

# %% velocity-hint
hint("F2.velocity")

# %% euler-text [markdown]
# On the robot there is no demonstration, only noise. The network says where to go from
# there, and n small steps lead to a chunk (Euler's method).
#
# ### Exercise: one Euler step (8 minutes, easy)
#
# `velocity(x, t)` asks the network. Where is x after one of `n` steps, begun at time t?


# %% euler tags=["exercise"]
def euler_step(velocity, x, t, n):
    """x (B, k, A) after one of n steps, which begins at time t."""
    # solution
    return x + velocity(x, t) / n
    # stub
    # ...  # the velocity here and now, for the time that a step takes
    # end


check("F2.euler", euler_step)

# %% euler-hint
hint("F2.euler")

# %% flow-trained [markdown]
# In the package (`act_minimal/heads.py`) a **head** says what ACT's
# decoder is asked, and what its loss is. Encoder, memory and data stay as they are. With
# the head `flow` the decoder's queries also carry x and t, and five steps make a chunk.

# %% flow
flow = ways.learnt(data, "flow")
print("flow", ways.walk(flow, n=200))
show(
    ways.starts_figure({"L1": l1, "flow": flow}),
    "The last x of the first chunk against the start: L1 goes over from one side to "
    "the other in a narrow band; flow ends on both sides from all starts.",
)
show(
    ways.chunks_figure({"L1": l1, "flow": flow}),
    "Thirty chunks for one observation: L1's lie on each other, those of flow spread "
    "to both sides of the post.",
)

# %% flow-judged [markdown]
# The start no longer says the side, and one observation gives both ways. Each sample is
# rougher than L1's chunk, and some still lead through the post.

# %% explorer-text [markdown]
# ## Try it
#
# The chunks of the flow, and on the right how the noise becomes the last action. **What
# does one step give? What do more steps change?**

# %% explorer
explorer = ways.flow_explorer(flow)
explorer

# %% steps
for n in (1, 2, 5, 20):
    print(f"n = {n:2}:", ways.walk(ways.with_steps(flow, n), n=200))

# %% steps-judged [markdown]
# At t = 0 the best guess of where noise leads is the mean of what teachers did, between
# the ways: one step gives nearly that. With more steps the chunks part.

# %% mip-text [markdown]
# ## Two passes
#
# Do the samples make such policies good, or that the network is asked *again*? **MIP**
# (minimal iterative policy) has no samples: the decoder answers once, then reads its own
# answer and answers again. In training the second pass reads the demonstration with noise
# of 1 − t, for t = 0.9.
#
# ### Exercise: both errors (10 minutes)
#
# `ask()` is the first answer, `ask(x, t)` the second. The loss is the mean absolute error
# of the first pass over t, plus that of the second over 1 − t.


# %% mip tags=["exercise"]
def two_passes(ask, action, noise, t):
    """The loss of both passes, of action and noise (B, k, A)."""
    # solution
    first = np.abs(ask() - action).mean()
    second = np.abs(ask(action + (1 - t) * noise, t) - action).mean()
    return first / t + second / (1 - t)
    # stub
    # ...  # what the first pass misses, and what the second one does
    # end


check("F2.second", two_passes)

# %% mip-hint
hint("F2.second")

# %% mixture-text [markdown]
# ## A mixture
#
# The oldest way to keep several answers is a **mixture**: M chunks, each with a weight.
# The loss is how unlikely the demonstration is under all of them,
#
# $$ -\log \sum_m w_m \prod_{j,a} \mathcal N(A_{ja};\; \mu_{mja}, s). $$
#
# The product is over the whole chunk: one component has to explain all of it.
#
# ### Exercise: the likelihood (12 minutes)
#
# `mean` (M, k, A) are the components' chunks, `s` their deviation, `weight` (M,).


# %% mixture tags=["exercise"]
def log_likelihood(action, mean, s, weight):
    """Log likelihood of a chunk (k, A) under the mixture, a number."""
    # solution
    apart = (action - mean) / s  # (M, k, A)
    each = -0.5 * apart**2 - np.log(s) - 0.5 * np.log(2 * np.pi)
    return np.logaddexp.reduce(np.log(weight) + each.sum((1, 2)))
    # stub
    # ...  # of each component the whole chunk, then of any of them
    # end


check("F2.mixture", log_likelihood)

# %% mixture-hint
hint("F2.mixture")

# %% all
policies = {"L1": l1, "flow": flow}
policies |= {"MIP": ways.learnt(data, "mip"), "mixture": ways.learnt(data, "mdn")}
show(
    ways.chunks_figure(policies),
    "Thirty chunks for one observation: L1 and MIP give one; flow spreads to both "
    "sides; the mixture has two clean ways.",
)

# %% outcomes
for name, policy in policies.items():
    print(ways.outcome(name, policy))
for name, policy in policies.items():
    print(f"whole chunks: {name:8}", ways.walk(policy, n=200, execute=40))

# %% outcomes-judged [markdown]
# MIP has one answer for one observation, as L1, and does about as well. The mixture is
# best with whole chunks and worst with halves.

# %% fails [markdown]
# ## Where each fails
#
# Three seeds x 100 walks, half chunks; "at one place": of 200 chunks for one observation,
# the share that goes the rarer way.
#
# | head | passes | left, of all | rarer way, at one place | ms |
# |---|---|---|---|---|
# | L1 (ACT) | {{claims/C29 summary task=post head=l1}} | {{claims/C29 summary task=post head=l1 -> went_left percent}} | {{claims/C29 summary task=post head=l1 -> rarer_way percent}} | {{claims/C29 summary task=post head=l1 -> ms 1}} |
# | MIP | {{claims/C29 summary task=post head=mip}} | {{claims/C29 summary task=post head=mip -> went_left percent}} | {{claims/C29 summary task=post head=mip -> rarer_way percent}} | {{claims/C29 summary task=post head=mip -> ms 1}} |
# | flow, 5 steps | {{claims/C29 summary task=post head=flow}} | {{claims/C29 summary task=post head=flow -> went_left percent}} | {{claims/C29 summary task=post head=flow -> rarer_way percent}} | {{claims/C29 summary task=post head=flow -> ms 1}} |
# | L1 flow | {{claims/C29 summary task=post head=l1_flow}} | {{claims/C29 summary task=post head=l1_flow -> went_left percent}} | {{claims/C29 summary task=post head=l1_flow -> rarer_way percent}} | {{claims/C29 summary task=post head=l1_flow -> ms 1}} |
# | diffusion, 5 steps | {{claims/C29 summary task=post head=diffusion}} | {{claims/C29 summary task=post head=diffusion -> went_left percent}} | {{claims/C29 summary task=post head=diffusion -> rarer_way percent}} | {{claims/C29 summary task=post head=diffusion -> ms 1}} |
# | mixture | {{claims/C29 summary task=post head=mdn}} | {{claims/C29 summary task=post head=mdn -> went_left percent}} | {{claims/C29 summary task=post head=mdn -> rarer_way percent}} | {{claims/C29 summary task=post head=mdn -> ms 1}} |
# | bins | {{claims/C29 summary task=post head=bins}} | {{claims/C29 summary task=post head=bins -> went_left percent}} | {{claims/C29 summary task=post head=bins -> rarer_way percent}} | {{claims/C29 summary task=post head=bins -> ms 1}} |

# %% summary [markdown]
# ## Summary
#
# Where two ways are right, ACT takes one by what it sees; in a band between, its answer is
# wrong. Looking again in time saves it. A policy that samples keeps both ways, and pays
# with passes of the decoder. **ACT is enough** where half a chunk leads to where the ways
# differ, and nobody needs both.
#
# | sign | meaning |
# |---|---|
# | ε | noise of the shape of a chunk |
# | t | time from noise (0) to demonstration (1) |
# | n | steps from noise to chunk |
# | M | components of a mixture |
#
# ## References
#
# | | read it for |
# |---|---|
# | Lipman et al. 2022, [arXiv:2210.02747](https://arxiv.org/abs/2210.02747) | flow matching |
# | Chi et al. 2023, [arXiv:2303.04137](https://arxiv.org/abs/2303.04137) | diffusion policy |
# | Pan et al. 2025, [arXiv:2512.01809](https://arxiv.org/abs/2512.01809) | MIP: what generative policies gain, and why (its errors are squared, ours absolute) |
# | Bishop 1994, [NCRG/94/004](https://publications.aston.ac.uk/id/eprint/373/) | mixture density networks |
# | Brohan et al. 2022, [arXiv:2212.06817](https://arxiv.org/abs/2212.06817) | RT-1: actions in bins |
#
# ## Where next
#
# `act train --model head flow` trains any policy of the course with another head.
