# %% title [markdown]
# # 03 · The CVAE
#
# {{runtime}} · 55 minutes of work · any laptop
#
# After this lesson you can say **what z buys, on which data**, and **read the KL**: see
# when z has died, and what it costs to keep it alive.
#
# You need lesson 02 (chunks) and a little probability: mean, variance, a Gaussian.

# %% set-up
import torch

import course
from act_minimal.checkpoint import load_policy
from act_minimal.dataset import Demonstrations
from course import check, hint, predict, reveal, show
from course.figures import lesson_03 as latent

course.begin("03")

# %% question [markdown]
# ## The question
#
# A post stands in the way. Some people pass it on the left, some on the right. Both are
# right; the mean of both is not.
#
# A policy that maps what it sees to *one* chunk has one answer for all demonstrators.
# ACT's remedy is a **latent** z: a few numbers that say *which way*, read off the
# demonstrated chunk in training, and set to 0 when the robot acts. The paper reports
# that without it success on human data falls from 35 % to 2 %. What does z do, and is
# it at work here?

# %% predict
predict("03.middle")

# %% plain-text [markdown]
# ## The shortest experiment
#
# 250 paths of 20 ticks around the post. What is seen is always the same, so a policy
# without z can only learn one path for everybody. We fit it by gradient descent, as
# always, with two losses and two shares of left-goers.

# %% plain
halves, most_left = latent.two_ways(250, left=0.5), latent.two_ways(250, left=0.6)
learned = {
    "L1, half go left": latent.fit_one_path(halves, "l1"),
    "L2, half go left": latent.fit_one_path(halves, "l2"),
    "L1, 60 % go left": latent.fit_one_path(most_left, "l1"),
    "L2, 60 % go left": latent.fit_one_path(most_left, "l2"),
}
for name, path in learned.items():
    end = "misses the post" if latent.passes(path[None])[0] else "hits the post"
    print(f"{name}: {path[10]:+.2f} m to the left, {end}")

# %% plain-figure
show(
    latent.ways_figure(halves, learned),
    "Half of 250 demonstrated paths swing left, half right of a post; with half and "
    "half both losses learn a path into the post, with 60 % on the left L1 goes left.",
)

# %% plain-judged [markdown]
# The best path under L2 is the **mean**. Under L1 it is the **median**, tick by tick.
# With equal shares every point between the two ways is a median, so the path may lie
# anywhere in between. With unequal shares the median is on the larger side.
#
# So "L1 averages two strategies" is only half true: it averages where nothing decides,
# and follows the majority elsewhere.

# %% reveal
reveal("03.middle")

# %% sample-text [markdown]
# ## The idea, then the maths
#
# A hidden z with prior $p(z) = N(0, I)$ explains a chunk a through a decoder
# $p(a \mid z)$. (What is seen conditions everything; we leave it out.) By Jensen's
# inequality, for any $q(z)$,
#
# $$ \log p(a) = \log \int q \,\frac{p(a \mid z)\,p(z)}{q}\,dz \;\ge\;
# E_{q}[\log p(a \mid z)] - \mathrm{KL}(q \,\|\, p). $$
#
# An encoder chooses $q(z \mid a) = N(\mu, \sigma^2)$. The first term wants a rebuilt,
# the second wants q like the prior: it counts, in nats, what z tells about a.
#
# ### Exercise: the reparametrisation (5 minutes, easy)
#
# Gradients must get through a sample of z to μ and σ. So the noise `eps`, from N(0, 1),
# is drawn outside. The encoder returns `logvar` $= \log \sigma^2$.


# %% sample tags=["exercise"]
def sample(mu, logvar, eps):
    """z (B, Z) of N(mu, exp(logvar)), from standard normal eps; torch tensors."""
    # solution
    return mu + (0.5 * logvar).exp() * eps
    # stub
    # ...  # scale the noise, then move it
    # end


sample_verdict = check("03.sample", sample)
sample_verdict

# %% sample-hint
hint("03.sample")

# %% kl-text [markdown]
# ### Exercise: the KL (8 minutes, medium)
#
# For one dimension, from the definition, with $E_q[(z-\mu)^2] = \sigma^2$ and
# $E_q[z^2] = \mu^2 + \sigma^2$:
#
# $$ \mathrm{KL} = E_q\!\left[\log \frac{q(z)}{p(z)}\right]
# = E_q\!\left[-\tfrac12 \log \sigma^2 - \tfrac{(z-\mu)^2}{2\sigma^2}
# + \tfrac{z^2}{2}\right]
# = \tfrac12\,(\mu^2 + \sigma^2 - 1 - \log \sigma^2). $$
#
# Dimensions are independent, so their KLs add up. Average over the batch.


# %% kl tags=["exercise"]
def kl(mu, logvar):
    """KL in nats of N(mu, exp(logvar)) (B, Z) from N(0, 1): one number."""
    # solution
    each = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)  # (B, Z)
    return each.sum(-1).mean()
    # stub
    # ...  # each dimension, then sum over Z, mean over B
    # end


kl_verdict = check("03.kl", kl)
kl_verdict

# %% kl-hint
hint("03.kl")

# %% loop-text [markdown]
# ## A CVAE from scratch
#
# With these two, the whole training fits into a cell. The loop uses *your* functions if
# they are right, and the package's otherwise.

# %% loop
my_sample = sample if sample_verdict.state == "right" else latent.sample
my_kl = kl if kl_verdict.state == "right" else latent.kl
encoder, decoder = latent.networks()
weights = [*encoder.parameters(), *decoder.parameters()]
optimizer, noise = torch.optim.Adam(weights, lr=5e-3), torch.Generator().manual_seed(0)
for _ in range(1000):
    mu, logvar = encoder(halves).chunk(2, -1)  # (250, 1) each
    z = my_sample(mu, logvar, torch.randn(mu.shape, generator=noise))
    loss = (decoder(z) - halves).abs().sum(-1).mean() + 1.0 * my_kl(mu, logvar)
    optimizer.zero_grad(), loss.backward(), optimizer.step()
mine = latent.as_toy(encoder, decoder, halves)
print(f"KL {mine.kl:.2f} nats; {100 * mine.passing():.0f} % pass with z from the prior")

# %% loop-figure
show(
    latent.ways_figure(halves, {f"z = {z:g}": mine.path(z) for z in (-1.0, 0.0, 1.0)}),
    f"Decoded paths: z = -1 swings to {mine.path(-1.0)[10]:+.1f} m, z = 1 to "
    f"{mine.path(1.0)[10]:+.1f} m, z = 0 to {mine.path(0.0)[10]:+.1f} m; n = 250.",
)

# %% loop-judged [markdown]
# One number now says which way. To tell left from right takes $\log 2 \approx 0.69$
# nats; the rest of the KL says how wide.
#
# And z = 0? It is the middle of the prior, where the decoder must change from one way
# to the other. The z that a robot is given, the most harmless one, can be the worst.

# %% betas-text [markdown]
# ## β: how dear a nat is
#
# A weight β before the KL makes information cheap or dear. We train the same network
# with five of them.

# %% betas
toys = {beta: latent.fit_toy(halves, beta) for beta in (0.0, 0.1, 1.0, 10.0, 300.0)}
for beta, toy in toys.items():
    print(
        f"beta = {beta:5.1f}: KL {toy.kl:5.2f} nats, {100 * toy.passing():3.0f} % pass"
    )

# %% toy-explorer
explorer = latent.toy_explorer(toys, halves)
explorer

# %% betas-judged [markdown]
# Three regimes:
#
# - **β = 0** is not plain cloning. It is an autoencoder that may put its z anywhere:
#   the KL is large, the posteriors are needles, and the prior falls into the gaps
#   between them, where the decoder never was.
# - **β in the middle** makes the posteriors together cover the prior. Nearly every z
#   means something.
# - **β large** makes even the 0.69 nats too dear. Every posterior becomes the prior, z
#   says nothing, and we are back at one path for all: **posterior collapse**.

# %% predict-act
predict("03.alive")

# %% act-text [markdown]
# ## ACT's own z
#
# ACT's encoder is a small transformer over a learned token, the joints and the
# demonstrated chunk; z has 16 numbers here. We ask the policy that comes with the
# course (trained with `kl_weight` 1) about 512 chunks.

# %% act
demos = Demonstrations.load(course.demonstrations(50))
policy = load_policy(course.ROOT / "data/checkpoints/so100_pick_place_state")
found = latent.posterior(policy, demos)
print(f"kl_weight {policy.config.kl_weight}: {found}")
seen = latent.first_sight(scene=3)
far = 3 * torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
moved = latent.decode(policy, seen, far) - latent.decode(policy, seen, 0 * far)
print(f"100 wild z move its chunk by at most {moved.abs().max():.1e} rad")

# %% reveal-act
reveal("03.alive")

# %% why [markdown]
# The KL is nearly 0. This z is dead, and the policy works (lesson 00 rolled it out).
# Why did it die?
#
# A Laplace decoder of scale b has $-\log p(a \mid z) = \sum |a - \hat a| / b$ + const,
# a *sum* over k ticks and A joints. ACT's loss takes the *mean* $L_1$, so the bound is
#
# $$ \frac{kA}{b} L_1 + \mathrm{KL}, \qquad\text{that is}\qquad
# L_1 + \frac{b}{kA}\,\mathrm{KL}. $$
#
# The best b is the mean error itself.
#
# ### Exercise: the β of the bound (6 minutes, easy)
#
# Which β makes the loss $L_1 + \beta\,\mathrm{KL}$ a true bound?


# %% beta tags=["exercise"]
def elbo_beta(l1, k, joints):
    """The beta at which mean L1 + beta KL is the ELBO, up to a factor."""
    # solution
    return l1 / (k * joints)
    # stub
    # ...  # from the line above, with b = l1
    # end


check("03.beta", elbo_beta)

# %% beta-hint
hint("03.beta")

# %% beta-values
for k, joints, name in ((50, 6, "here"), (100, 14, "the paper")):
    print(f"{name}: beta of the bound about {0.1 / (k * joints):.0e} at L1 = 0.1")

# %% reduction [markdown]
# The customary β, 1 here and 10 in the paper, is thousands of times that, or more.
# Whether z lives then depends on how much a choice of way is worth in L1.
#
# Mind the **reduction**, too. The original sums the KL over the Z dimensions; some code
# averages it. Averaging divides it by Z, so `kl_weight` 10 with "mean" over 32
# dimensions is 0.3 with "sum". A β without its reduction says nothing.
#
# ## Mended?
#
# Three short trainings that differ in `kl_weight` only:

# %% mend
policies, posteriors = {}, {}
for beta in (1.0, 0.003, 0.001):
    model = {"cvae_actions_per_token": 5, "kl_weight": beta}
    run = course.trained(
        course.demonstrations(50), chunk_size=25, model=model, steps=1000, lr=2e-3
    )
    policies[beta] = run.policy
    posteriors[beta] = latent.posterior(run.policy, demos)
    print(f"kl_weight {beta:5}: {posteriors[beta]}")

# %% mend-judged [markdown]
# A cheap nat keeps z alive. With the posterior's z the chunk is then rebuilt much more
# closely, and that is the loss that training shows. But the robot has no demonstrated
# chunk to read z from. Look at the other number, the error with z = 0. Then see what z
# has learned to say.

# %% latent-explorer
explorer = latent.latent_explorer(policies, posteriors, seen)
explorer

# %% latent-judged [markdown]
# Move one slider at a time and compare with the dashed line. Does the arm go somewhere
# else, or does it go there sooner or later? In these demonstrations one person is
# twice as fast as another, and pauses: much of what one look cannot foretell is *when*.
#
# Does it help the robot? z = 0 and z drawn from the prior, 50 fresh scenes each:

# %% live
for beta, one in policies.items():
    for name, ours in (("z = 0", one), ("z drawn", latent.sampled(one))):
        e = course.rollouts(ours, n=50, seed=7)
        print(f"kl_weight {beta:5}, {name:7}: {e}, frozen {100 * e.frozen:.0f} %")

# %% fails [markdown]
# ## Where it fails
#
# Three seeds, n = 300 a row, k = 25, the same budget for each:
#
# | kl_weight, sum | KL, nats | z = 0 | z drawn |
# |---|---|---|---|
# | no CVAE | | {{claims/C06 summary kl_weight=none z=zero -> success percent}} | |
# | 10 | {{claims/C06 summary kl_weight=10.0 reduction=sum z=zero -> kl 4}} | {{claims/C06 summary kl_weight=10.0 reduction=sum z=zero -> success percent}} | {{claims/C07 summary kl_weight=10.0 reduction=sum z=drawn -> success percent}} |
# | 1 | {{claims/C06 summary kl_weight=1.0 reduction=sum z=zero -> kl 4}} | {{claims/C06 summary kl_weight=1.0 reduction=sum z=zero -> success percent}} | {{claims/C07 summary kl_weight=1.0 reduction=sum z=drawn -> success percent}} |
# | 0.1 | {{claims/C06 summary kl_weight=0.1 reduction=sum z=zero -> kl 4}} | {{claims/C06 summary kl_weight=0.1 reduction=sum z=zero -> success percent}} | {{claims/C07 summary kl_weight=0.1 reduction=sum z=drawn -> success percent}} |
# | 0.01 | {{claims/C06 summary kl_weight=0.01 reduction=sum z=zero -> kl 4}} | {{claims/C06 summary kl_weight=0.01 reduction=sum z=zero -> success percent}} | {{claims/C07 summary kl_weight=0.01 reduction=sum z=drawn -> success percent}} |
# | 0.001 | {{claims/C06 summary kl_weight=0.001 reduction=sum z=zero -> kl 2}} | {{claims/C06 summary kl_weight=0.001 reduction=sum z=zero -> success percent}} | {{claims/C07 summary kl_weight=0.001 reduction=sum z=drawn -> success percent}} |
# | 0 | {{claims/C06 summary kl_weight=0.0 reduction=sum z=zero -> kl 1}} | {{claims/C06 summary kl_weight=0.0 reduction=sum z=zero -> success percent}} | {{claims/C07 summary kl_weight=0.0 reduction=sum z=drawn -> success percent}} |
#
# And around the post: is z = 0 a lucky choice or an unlucky one? The same fit, with half
# of the demonstrators on the left, and with 60 %:

# %% toy-table
for share, paths in (("50 %", halves), ("60 %", most_left)):
    for beta in (1.0, 300.0):
        toy = latent.fit_toy(paths, beta)
        passed = "misses" if latent.passes(toy.path(0.0)[None])[0] else "hits"
        drawn = f"{100 * toy.passing():.0f} % of drawn z miss it"
        print(f"{share} left, beta {beta:3.0f}: z = 0 {passed} the post, {drawn}")

# %% summary [markdown]
# The paper's own comparison, repeated (`kl_weight` 1, k from 5 to 100, half chunks), and
# the post, passed by a small ACT (whole chunks, half of its teachers go left):
#
# | | with CVAE | without |
# |---|---|---|
# | human-like data | {{claims/C05 summary demonstrator=human cvae=true}} | {{claims/C05 summary demonstrator=human cvae=false}} |
# | scripted data | {{claims/C05 summary demonstrator=scripted cvae=true}} | {{claims/C05 summary demonstrator=scripted cvae=false}} |
# | post, `kl_weight` 1, z drawn | {{claims/C15 summary variant=cvae kl_weight=1.0 left=0.5 execute=20 z=drawn}} | {{claims/C15 summary variant=l1 left=0.5 execute=20 z=zero}} |
# | post, 0.1, z drawn | {{claims/C15 summary variant=cvae kl_weight=0.1 left=0.5 execute=20 z=drawn}} | with L2: {{claims/C15 summary variant=l2 left=0.5 execute=20 z=zero}} |
#
# L2 averages the two ways and hits the post; L1 takes the median, mostly one of them.
# (Diffusion and flow matching, built to keep several ways, are not in this course yet.)
#
# ## Summary
#
# Data with two ways needs something that says which. A CVAE can, if β lets it, and then
# a robot needs a good z, which nobody is there to choose. Where the KL is 0, ACT is a
# plain chunk predictor. So print the KL of every run.
#
# | sign | meaning |
# |---|---|
# | z | latent, Z numbers (16 here, 32 in the paper) |
# | μ, σ, logvar | posterior of z given a chunk; logvar = log σ² |
# | KL | nats that z tells about the chunk |
# | β, `kl_weight` | price of a nat; meaningless without its reduction |
# | b | scale of the Laplace decoder, the mean error |
#
# ## Where next
#
# [04](04_temporal_ensembling.ipynb): chunks that overlap do not agree. Average them?
