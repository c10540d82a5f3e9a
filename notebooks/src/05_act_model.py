# %% title [markdown]
# # 05 · The ACT model, piece by piece
#
# {{runtime}} · 120 minutes of work · any laptop
#
# After this lesson you can **assemble ACT** from eight small functions of your own,
# **say the shape at every line**, and read the attention of a trained network. Lesson 06
# trains what you write here.
#
# You need lessons 02 (chunks) and 03 (the CVAE), and a little torch: matrix products,
# `cat`, broadcasting.

# %% set-up
from pathlib import Path

import torch
import torch.nn.functional as F

import course
from act_minimal.checkpoint import load_policy
from course import capstone, check, hint, predict, reveal, show
from course.figures import lesson_05_attention as attention
from course.figures import lesson_05_parts as parts
from course.toolkit import schematics

DATA = Path(course.ROOT) / "data"
course.begin("05")

# %% question [markdown]
# ## The question
#
# Joint angles, the cube's pose or camera images, and a random vector z go in; 50 actions
# come out, all at once. What happens in between?
#
# The details matter. The original code had an error for years that no shape revealed
# and no exception reported: of seven decoder layers it used the output of the first.
# Training worked, and papers were built on it.

# %% predict
predict("05.layers")

# %% shapes-text [markdown]
# ## Look first
#
# A batch of four windows runs through a small, untrained ACT. Each line shows a part of
# the network, its input, its output, and its number of parameters. Letters: B = 4 batch,
# k = 50 chunk, A = 6 actions, D = 64 width, Z = 16 latent.

# %% shapes
state_policy = load_policy(DATA / "checkpoints/so100_pick_place_state")
batch = parts.sample_batch(state_policy)
model = parts.fresh()
eps = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
for line in parts.shapes(model, batch, eps):
    print(line)
schematics.act_shapes()

# %% idea [markdown]
# Two lines look odd. `cvae.encoder` returns one token of 52, because only the first is
# used afterwards. `self_attn` runs with a batch of 1: before the decoder meets the
# observation, all samples are alike.
#
# ## The idea, then the maths
#
# Everything is a **token**, a vector of D numbers. Attention exchanges information
# between tokens; an MLP then works on each alone. The *encoder* does so with z, joints,
# cube or image cells. Its output is the **memory**, which the *decoder* turns into
# actions.
#
# Attention ignores order, so each token also gets a position. ACT's CVAE encodes
# position p with waves: for $j = 0, 1, \dots$
#
# $$ s_{p,2j} = \sin(p\,r_j), \quad s_{p,2j+1} = \cos(p\,r_j), \quad
# r_j = 10000^{-2j/D}. $$
#
# ### Exercise: positions (8 minutes, easy)


# %% sinusoid tags=["exercise"]
def sinusoid(length, width):
    """Positions (length, width): sine and cosine in turn."""
    # solution
    position = torch.arange(length)[:, None]  # (length, 1)
    rate = 10000.0 ** (-torch.arange(0, width, 2) / width)  # (width / 2,)
    angle = position * rate  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)  # (length, width)
    # stub
    # ...  # position (length, 1), rate (width / 2,), angle (length, width / 2)
    # end


check("05.sinusoid", sinusoid)

# %% sinusoid-hint
hint("05.sinusoid")

# %% waves
show(
    parts.sinusoid_figure(),
    "Left: the table of 52 positions and 64 channels, waves that slow down to the "
    "right. Right: each of n = 3 positions is most like itself and its neighbours.",
)

# %% attend-text [markdown]
# The dot product of two positions is large for neighbours and smaller for distant ones,
# so attention can prefer what is near.
#
# ### Exercise: attention (10 minutes)
#
# A query $q$ is compared with every key. The result is the mean of the values, weighted
# by how well their keys match:
#
# $$ \mathrm{attend}(Q, K, V) = \mathrm{softmax}\big(Q K^\top / \sqrt d\,\big)\, V. $$
#
# The dot product of d numbers of variance 1 has variance d. Without the division by
# $\sqrt d$ the softmax would pick one key from the start, and its gradient would almost
# vanish. `mask` is True where attention is allowed; it has the shape (..., 1, S).


# %% attend tags=["exercise"]
def attend(query, key, value, mask=None):
    """query (..., T, d), key and value (..., S, d) to (..., T, d)."""
    # solution
    score = query @ key.mT / query.shape[-1] ** 0.5  # (..., T, S)
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf)
    return score.softmax(-1) @ value  # (..., T, d)
    # stub
    # ...  # score (..., T, S); mask it; softmax over S; mean of the values
    # end


check("05.attend", attend)

# %% attend-hint
hint("05.attend")

# %% heads-text [markdown]
# ### Exercise: heads (5 minutes, a common mistake)
#
# Four heads attend to different tokens at once. Head h gets the numbers $h\,D/4$ to
# $(h+1)\,D/4 - 1$ of every token.


# %% heads tags=["exercise"]
def split_heads(x, heads):
    """(B, T, D) to (B, heads, T, D / heads)."""
    # solution
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
    # stub
    # ...  # the right shape is not yet the right numbers
    # end


check("05.split-heads", split_heads)

# %% heads-hint
hint("05.split-heads")

# %% layer-text [markdown]
# ### Exercise: an encoder layer (10 minutes)
#
# A layer adds two corrections to x, one by attention and one by the MLP. With
# $\mathrm{n}_1, \mathrm{n}_2$ layer norms and p the positions:
#
# $$ y = \mathrm{n}_1(x), \quad x \leftarrow x + \mathrm{attention}(y + p,\; y + p,\; y),
# \quad x \leftarrow x + \mathrm{mlp}(\mathrm{n}_2(x)). $$
#
# `w` holds the layer's weights. `w.norm("norm1", x)`, `w.mlp(x)` and
# `w.attention("self_attn", query, key, value, mask)` use them; the last one projects,
# and calls `split_heads` and `attend`.


# %% layer tags=["exercise"]
def encoder_layer(w, x, position, mask=None):
    """x (B, T, D), position (T, D), mask (B, T) to (B, T, D)."""
    # solution
    y = w.norm("norm1", x)  # (B, T, D)
    place = y + position  # (B, T, D)
    x = x + w.attention("self_attn", place, place, y, mask)  # (B, T, D)
    return x + w.mlp(w.norm("norm2", x))  # (B, T, D)
    # stub
    # ...  # two halves, each x + f(norm(x))
    # end


check("05.encoder-layer", encoder_layer)

# %% layer-hint
hint("05.encoder-layer")

# %% posterior-text [markdown]
# ### Exercise: the CVAE's encoder (12 minutes)
#
# In training, z is drawn from a distribution that depends on the demonstrated chunk. A
# transformer reads `[CLS, joints, action 1, ..., action k]`; CLS is a learned token whose
# output summarises the sequence. Padded actions must have no influence: the mask is False
# there.
#
# `w["cls"]` is (D,); `w.linear("qpos_proj", x)`, `w.linear("action_proj", x)` and
# `w.linear("latent_proj", x)` are linear layers; `w.encoder(x, position, mask)` runs your
# layers; `w.sinusoid(n)` gives n positions.


# %% posterior tags=["exercise"]
def posterior(w, qpos, action, is_pad):
    """qpos (B, S), action (B, k, A), is_pad (B, k) to mean and log variance (B, Z)."""
    # solution
    cls = w["cls"].expand(len(qpos), 1, -1)  # (B, 1, D)
    joints = w.linear("qpos_proj", qpos)[:, None]  # (B, 1, D)
    actions = w.linear("action_proj", action)  # (B, k, D)
    x = torch.cat([cls, joints, actions], 1)  # (B, 2 + k, D)
    mask = F.pad(~is_pad, (2, 0), value=True)  # (B, 2 + k)
    x = w.encoder(x, w.sinusoid(x.shape[1]), mask)  # (B, 2 + k, D)
    return w.linear("latent_proj", x[:, 0]).chunk(2, -1)  # (B, Z), (B, Z)
    # stub
    # mean = logvar = None  # three kinds of tokens, a mask, the encoder, CLS
    # return mean, logvar
    # end


check("05.posterior", posterior)

# %% posterior-hint
hint("05.posterior")

# %% images-text [markdown]
# ### Exercise: image tokens (12 minutes)
#
# A convolution network turns an image into a feature map of h × w cells with C channels.
# Each cell becomes a token. Its position has two parts: the first D/2 numbers encode the
# row, the others the column. ResNet-18 has one cell for 32 × 32 pixels: how many tokens
# does a camera of 480 × 640 give?
#
# `w.linear("proj", x)` makes D numbers of C; `w.wave(n)` gives the waves (n, D/2) of n
# rows or columns.


# %% images tags=["exercise"]
def image_tokens(w, features):
    """features (B, C, h, w) to tokens (B, h w, D) and positions (h w, D)."""
    # solution
    h, n = features.shape[2:]
    tokens = w.linear("proj", features.flatten(2).mT)  # (B, h n, D)
    rows = w.wave(h)[:, None].expand(h, n, -1)  # (h, n, D / 2)
    columns = w.wave(n)[None].expand(h, n, -1)  # (h, n, D / 2)
    return tokens, torch.cat([rows, columns], -1).flatten(0, 1)
    # stub
    # tokens = position = None  # cells row by row, channels last
    # return tokens, position
    # end


check("05.image-tokens", image_tokens)

# %% images-hint
hint("05.image-tokens")

# %% decode-text [markdown]
# (15 × 20 = 300 tokens a camera.)
#
# ### Exercise: the decoder (12 minutes)
#
# The decoder has k rows, one an action, which begin as zeros. k **learned queries** are
# their positions. Self-attention runs between the rows, then cross-attention from the
# rows to the memory: `key` is memory + positions and gives the keys, `memory` gives the
# values. Each part is again $x + f(\mathrm{n}(x))$.
#
# `w["queries"]` is (k, D). The layer is `w.part("decoder.0")`, with `self_attn`,
# `cross_attn`, `norm1` to `norm3` and `mlp`. At the end come `w.norm("decoder_norm", x)`
# and `w.linear("action_head", x)`.


# %% decode tags=["exercise"]
def decode(w, memory, key):
    """memory and key (B, T, D) to actions (B, k, A)."""
    # solution
    query = w["queries"]  # (k, D)
    layer = w.part("decoder.0")
    x = torch.zeros(len(memory), *query.shape)  # (B, k, D)
    y = layer.norm("norm1", x)
    x = x + layer.attention("self_attn", y + query, y + query, y)  # (B, k, D)
    y = layer.norm("norm2", x)
    x = x + layer.attention("cross_attn", y + query, key, memory)  # (B, k, D)
    x = x + layer.mlp(layer.norm("norm3", x))  # (B, k, D)
    return w.linear("action_head", w.norm("decoder_norm", x))  # (B, k, A)
    # stub
    # ...  # zeros; self_attn; cross_attn; mlp; decoder_norm; action_head
    # end


check("05.decode", decode)

# %% decode-hint
hint("05.decode")

# %% whole-text [markdown]
# ### Exercise: the whole network (12 minutes)
#
# In training the batch holds "action" and "is_pad", and z comes from the posterior:
# $z = \mu + \sigma\,\epsilon$ with $\sigma = \exp(\tfrac12 \log \sigma^2)$. On the robot
# there are no actions, and z is zeros (B, Z); `w["latent_proj.weight"]` is (D, Z).
#
# `w.posterior(qpos, action, is_pad)` and `w.decode(memory, key)` call your functions;
# `w.tokens(z, batch)` gives all tokens (B, T, D) and their positions (T, D).


# %% whole tags=["exercise"]
def act(w, batch, eps=None):
    """Actions (B, k, A), mean and log variance (B, Z); None, None without actions."""
    # solution
    mean = logvar = None
    z = torch.zeros(len(batch["qpos"]), w["latent_proj.weight"].shape[1])  # (B, Z)
    if "action" in batch:
        mean, logvar = w.posterior(batch["qpos"], batch["action"], batch["is_pad"])
        z = mean + (0.5 * logvar).exp() * eps  # (B, Z)
    x, position = w.tokens(z, batch)  # (B, T, D), (T, D)
    memory = w.encoder(x, position)  # (B, T, D)
    return w.decode(memory, memory + position), mean, logvar
    # stub
    # ...  # z; tokens; the encoder; the decoder, with memory + position as keys
    # end


check("05.act", act)

# %% whole-hint
hint("05.act")

# %% kept-text [markdown]
# ## Yours, against the package's
#
# Every function that its check calls right is kept in `my_act.py` in the course's
# folder; lesson 06 reads that file. Where one is missing, the course's is used, and the
# list below says so.
#
# Correct shapes prove little. So we give your functions the weights of the package's
# `ACT`, the same batch and the same noise, and compare the actions: once with the cube's
# pose, once with an image.

# %% yours
pieces = capstone.pieces()
print(f"in {capstone.my_file().name}:", pieces, sep="\n")
for name, network, inputs in (
    ("cube's pose", model, batch),
    ("image", *parts.with_image(batch)),
):
    actions, _, _ = pieces.act(parts.Weights(network, pieces=pieces), inputs, eps)
    gap = parts.difference(network, actions, inputs, eps)
    print(f"{name}: {tuple(actions.shape)} actions, largest difference {gap:.1e}")

# %% queries-text [markdown]
# Where the differences are as small as rounding errors, the networks compute the same.
#
# ## What do the rows exchange?
#
# The decoder's rows begin as zeros, and the values of the self-attention are made of the
# rows without the queries. **How much will its outputs differ between the 50 rows, after
# training?** Decide before you run the cell; it prints the answer, and the spread of the
# cross-attention beside it.
#
# The figure shows what the queries learned: left the cosine of each pair, right the mean
# cosine against how far apart their actions are.

# %% queries
for name, spread in parts.row_spread(state_policy.module, batch).items():
    print(f"{name}: outputs differ by {spread:.1e} between rows")
show(
    parts.query_figure(model.queries, state_policy.module.queries),
    "Left: cosines between the 50 trained queries. Right: mean cosine against the "
    "distance of two actions, untrained about zero throughout; n = 1 network each.",
)

# %% decoder-story [markdown]
# Self-attention gave every row the same vector: the norm of zeros is one constant, so all
# values are equal, and so is any mean of them. With one decoder layer it does nothing
# more; rows differ only by their queries. These learned a little order: neighbours became
# slightly more alike (a cosine of 0.06 to 0.08 instead of 0, in this one network), although
# nothing says that action 12 follows action 11.
#
# ## Seven layers, one of them used
#
# The published decoder stacks seven layers. The original code collected all of their
# outputs and took element `[0]`, which was meant as "the only output" and was the first
# layer's. Which layers get a gradient from the loss?

# %% decoder-layers
for output in ("first", "last"):
    alive = parts.reached(layers=7, output=output)
    print(f"{output:5}", " ".join("learns" if one else "dead  " for one in alive))
seven, one = (parts.paper_parameters(n) for n in (7, 1))
print(f"paper's network: {seven:,} parameters, {seven - one:,} of them in dead layers")
reveal("05.layers")

# %% look-text [markdown]
# Six layers get no gradient and change no output. The original still computes them at
# every step, so they cost time as well as memory. LeRobot builds one layer. The few
# points that seven used layers gain here cost
# {{claims/C09 summary layers=7 output=last -> train_seconds_mean 0}} s of training instead
# of {{claims/C09 summary layers=1 output=last -> train_seconds_mean 0}} s.
#
# ## What does it attend to?
#
# The vision policy reduces each image to 64 **keypoints** (where a channel is most
# active), and these to four tokens. We run it along a demonstration. **Compare the reach
# with the grasp, and early actions with late ones.** A larger dot moves this action more
# when its keypoint moves by one pixel; the bars are the action's attention.

# %% explorer
vision_policy = load_policy(DATA / "checkpoints/so100_pick_place_vision")
seen = attention.along(vision_policy, DATA / "samples/vision/episode_0.hdf5")
for name, share in zip(attention.TOKENS, seen.weight.mean((0, 1)), strict=True):
    print(f"{name:8} {100 * share:4.1f} % of all attention")
attention.camera_explorer(seen)

# %% summary [markdown]
# ## Where it fails
#
# **Attention says who is read, not what matters.** The joints get about half of it, but the
# encoder mixed the tokens before: the joints' token may carry what a camera saw. What a
# keypoint does to the action is therefore measured by moving it (the dots). **Keypoints are not objects**: some follow the cube or the jaw, others
# nothing that has a name. **Equal shapes are not equal networks**: swap two cameras or
# forget a position, and everything still runs.
#
# ## Summary
#
# Positions enter queries and keys, never values; padding is masked. Test a network against
# another with equal weights, and check where gradients go.
#
# | sign | meaning |
# |---|---|
# | B, k, A | batch, chunk size, actions |
# | D, Z, C | width of a token, of the latent, channels of a feature map |
# | T, S | number of queries, of keys |
# | d | width of a head, D / heads |
# | memory | the encoder's output (B, T, D) |
#
# ## Read more
#
# | reference | read it for |
# |---|---|
# | Zhao et al. 2023, [arXiv 2304.13705](https://arxiv.org/abs/2304.13705) | ACT: section IV and the appendix's table of sizes |
# | Vaswani et al. 2017, [arXiv 1706.03762](https://arxiv.org/abs/1706.03762) | attention, heads, and the waves |
# | Carion et al. 2020, [arXiv 2005.12872](https://arxiv.org/abs/2005.12872) | DETR, whose learned queries and 2-D positions ACT inherits |
# | Xiong et al. 2020, [arXiv 2002.04745](https://arxiv.org/abs/2002.04745) | why the norm comes first here, not last |
# | Finn et al. 2016, [arXiv 1509.06113](https://arxiv.org/abs/1509.06113) | spatial softmax: keypoints from feature maps |
# | Jain and Wallace 2019, [arXiv 1902.10186](https://arxiv.org/abs/1902.10186) | attention is not explanation |
#
# ## Where next
#
# [06](06_training.ipynb) trains your network, and asks when to stop.
