"""Lesson 05: layers, posterior, decoder, and the whole network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from act_minimal.model import CVAEEncoder, DecoderLayer, EncoderLayer

from ..figures import lesson_05_parts as parts
from ..figures.lesson_05_parts import fresh
from ..toolkit.checks import (
    Wrong,
    attempt,
    each_case,
    exercise,
    same,
    two_parts,
)
from .tensors import CLOSE, agrees, draw, same_gradients, tensor, weights_of

# --- layers ---------------------------------------------------------------------------


OTHER = {"chunk_size": 7, "width": 32, "feedforward": 80, "latent_dim": 5}
OTHER |= {"state_dim": 4, "action_dim": 3, "env_state_dim": 2}
# B samples, T tokens, and the settings of the network.
CASES = {
    "B, T, D, k, Z = 3, 7, 64, 50, 16": (3, 7, {}),
    "B, T, D, k, Z = 4, 9, 32, 7, 5": (4, 9, OTHER),
}


def _each_size(function: Callable, examine: Callable) -> None:
    advice = "take all sizes from the tensors and from the shapes of the weights in w"
    each_case(CASES, lambda case: examine(function, *case), advice)


def _padding(b: int, k: int) -> Tensor:
    """(B, k): one chunk is whole, the others end early."""
    return torch.arange(k) >= torch.tensor([[k], [k // 2], [2], [k - 1]])[:b]


def _random_layer(kind: Any, seed: int, settings: dict[str, int]) -> Any:
    """A layer of the package whose norms and biases do something."""
    torch.manual_seed(seed)
    layer = kind(fresh(**settings).config).eval()
    for parameter in layer.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def _torch_attention(layer: Any, name: str) -> Callable:
    """The same weights in torch's own module."""
    mine = getattr(layer, name)
    width = mine.in_proj_weight.shape[1]
    other = nn.MultiheadAttention(width, mine.heads, batch_first=True)
    other.load_state_dict(mine.state_dict())

    def call(query: Tensor, key: Tensor, value: Tensor, look: Tensor | None = None):
        hidden = None if look is None else ~look
        return other(query, key, value, key_padding_mask=hidden, need_weights=False)[0]

    return call


@exercise(
    "05.encoder-layer",
    minutes=10,
    hints=(
        "Two halves of one form: x + f(norm(x)). The first f is attention, the second "
        "the MLP.",
        "Queries and keys are y + position; the values are y alone.",
        'x = x + w.attention("self_attn", place, place, y, mask), then the MLP of '
        'w.norm("norm2", x).',
    ),
    praise="Positions decide which tokens attend to which; values do not hold them.",
)
def check_encoder_layer(function: Callable) -> None:
    """`function(w, x (B, T, D), position (T, D), mask)` gives (B, T, D)."""
    _each_size(function, _examine_encoder_layer)


def _examine_encoder_layer(
    function: Callable, b: int, t: int, settings: dict[str, int]
) -> None:
    layer = _random_layer(EncoderLayer, 3, settings)
    attention = _torch_attention(layer, "self_attn")
    width = len(layer.norm1.weight)
    x, position = draw(b, t, width, seed=1), draw(t, width, seed=2)
    mask = torch.ones(b, t, dtype=torch.bool)
    mask[1, -2:] = False

    def one(
        *,
        values: bool = False,
        keys: bool = True,
        stay: bool = False,
        skip: bool = True,
        last: bool = True,
    ) -> Tensor:
        start = x + position if stay else x
        y = layer.norm1(start)
        place = y if stay or not keys else y + position
        y = attention(place, place, place if values else y, mask)
        h = start + y if skip else y
        return (h if skip and last else 0) + layer.mlp(layer.norm2(h))

    answer = attempt(function, weights_of(layer), x.clone(), position.clone(), mask)
    found = tensor(answer, tuple(x.shape), "a layer keeps the shape")
    h = x + attention(x + position, x + position, x, mask)
    post = layer.norm1(h)
    post = layer.norm2(post + layer.mlp(post))
    y = layer.norm1(x)
    half = x + attention(y + position, y + position, y, mask)
    free = x + attention(y + position, y + position, y)
    raw = attention(x + position, x + position, x, mask)
    mistakes = {
        "the values have positions in them: queries and keys get them, values do "
        "not": one(values=True),
        "no positions: queries and keys should be y + position": one(keys=False),
        "position is added to x itself; it should only enter queries and keys": one(
            stay=True
        ),
        "the residuals are missing: x + attention, then x + MLP": one(skip=False),
        "the second residual is missing: x + MLP": one(last=False),
        "this is post-norm, norm(x + f(x)), as the original; here the norm comes "
        "first: x + f(norm(x))": post,
        "the attention should see norm1 of x": x
        + raw
        + layer.mlp(layer.norm2(x + raw)),
        "the MLP is missing": half,
        "the MLP should see norm2 of x": half + layer.mlp(half),
        "the MLP sees norm1 of x; its own norm is norm2": half
        + layer.mlp(layer.norm1(half)),
        "`mask` is not passed on to the attention": free + layer.mlp(layer.norm2(free)),
    }
    right = one()
    if not agrees(found, right, mistakes):
        raise Wrong("the output differs; compare each line with the maths")
    same_gradients(answer, right, {"x": x, "norm2's weight": layer.norm2.weight})


@exercise(
    "05.posterior",
    minutes=12,
    hints=(
        "Three kinds of tokens, in this order: CLS, joints, k actions: (B, 2 + k, D).",
        "CLS and joints are always there: two True before ~is_pad make the mask.",
        "The encoder's output at token 0 is the summary; latent_proj makes 2 Z numbers "
        "of it, and chunk(2, -1) cuts them into mean and log variance.",
    ),
    praise="One token gathers the whole chunk, and padding has no say.",
)
def check_posterior(function: Callable) -> None:
    """`function(w, qpos (B, S), action (B, k, A), is_pad (B, k))`: two (B, Z)."""
    _each_size(function, _examine_posterior)


def _examine_posterior(
    function: Callable, b: int, t: int, settings: dict[str, int]
) -> None:
    config = fresh(seed=5, **settings).config
    package = CVAEEncoder(config).eval()
    k = config.chunk_size
    qpos = draw(b, config.state_dim, seed=6)
    action = draw(b, k, config.action_dim, seed=7)
    is_pad = _padding(b, k)
    w = weights_of(package)
    answer = attempt(function, w, qpos.clone(), action.clone(), is_pad.clone())
    wanted = "tensors are wanted: mean and log variance, (B, Z) each"
    answer = two_parts(answer, wanted)
    shape, remark = (b, config.latent_dim), "read one token, CLS, and cut it in two"
    mu, logvar = (tensor(x, shape, remark) for x in answer)
    exact = tuple(package(qpos, action, is_pad))
    right = tuple(x.detach() for x in exact)
    swapped = "mean and log variance are swapped: the mean comes first"
    if agrees((mu, logvar), right, {swapped: right[::-1]}):
        leaves = {"the actions": action, "the joints": qpos, "CLS": package.cls}
        same_gradients(answer, exact, leaves)
        return

    def variant(mask: Tensor, place: Any, read: int = 0, swap: bool = False):
        own = [package.cls.expand(b, 1, -1), package.qpos_proj(qpos)[:, None]]
        x = torch.cat([*(own[::-1] if swap else own), package.action_proj(action)], 1)
        x = package.encoder(x, place, nn.functional.pad(mask, (2, 0), value=True))
        return package.latent_proj(x[:, read]).chunk(2, -1)[0]

    everywhere, place = torch.ones_like(is_pad), package.position
    mistakes = {
        "padded actions have influence: the mask is ~is_pad, with two True before it": (
            variant(everywhere, place)
        ),
        "the mask is upside down: it is True where attention is allowed": variant(
            is_pad, place
        ),
        "positions are missing: w.sinusoid(2 + k)": variant(~is_pad, 0 * place),
        "the last token is read; CLS is token 0": variant(~is_pad, place, -1),
        "token 1, the joints, is read; CLS is token 0": variant(~is_pad, place, 1),
        "the joints come before CLS; CLS should be token 0": variant(
            ~is_pad, place, swap=True
        ),
    }
    agrees(mu, right[0], mistakes)
    if same(mu, right[0], **CLOSE):
        raise Wrong(
            "the mean is right, the log variance is not: it is the second half, as is"
        )
    raise Wrong("mean or log variance differ; is every token in its place?")


# --- the decoder, and the whole -------------------------------------------------------


@exercise(
    "05.decode",
    minutes=12,
    hints=(
        "x begins as zeros (B, k, D). The learned queries are its positions: they are "
        "added to queries and keys, as positions in the encoder.",
        "In the cross-attention `key` (memory with positions) holds the keys, and "
        "`memory` the values.",
        "Three halves x + f(norm(x)): self_attn, cross_attn, mlp; then decoder_norm, "
        "then action_head.",
    ),
    praise="k queries go in, k actions come out, all at once.",
)
def check_decode(function: Callable) -> None:
    """`function(w, memory (B, T, D), key (B, T, D))` gives actions (B, k, A)."""
    _each_size(function, _examine_decode)


def _examine_decode(
    function: Callable, b: int, t: int, settings: dict[str, int]
) -> None:
    model = fresh(seed=9, **settings)
    width = model.config.width
    layer = _random_layer(DecoderLayer, 10, settings)
    model.decoder[0] = layer
    with torch.no_grad():
        model.decoder_norm.weight.add_(draw(width, seed=13))  # so that it can be missed
    own, cross = (_torch_attention(layer, n) for n in ("self_attn", "cross_attn"))
    memory, position = draw(b, t, width, seed=11), draw(t, width, seed=12)
    key, query = memory + position, model.queries

    def one(
        *,
        start: Any = None,
        value: Tensor = memory,
        keys: Tensor = key,
        asks: bool = True,
        last: bool = True,
        mlp: bool = True,
        skip: bool = True,
    ) -> Tensor:
        x = torch.zeros(b, *query.shape) if start is None else start
        y = layer.norm1(x)
        x = x + own(y + query, y + query, y)
        y = layer.norm2(x)
        x = (x if skip else 0) + cross(y + query if asks else y, keys, value)
        x = x + layer.mlp(layer.norm3(x)) if mlp else x
        return model.action_head(model.decoder_norm(x) if last else x)

    answer = attempt(function, weights_of(model), memory.clone(), key.clone())
    shape = (b, model.config.chunk_size, model.config.action_dim)
    found = tensor(answer, shape, "one action for each query, of each sample")
    skipped = torch.zeros(b, *query.shape)
    skipped = skipped + cross(layer.norm2(skipped) + query, key, memory)
    skipped = skipped + layer.mlp(layer.norm3(skipped))
    mistakes = {
        "x begins as the queries; it begins as zeros, and the queries are its "
        "positions": one(start=query.expand(b, -1, -1)),
        "the values of the cross-attention are `key`; they should be `memory`": one(
            value=key
        ),
        "the keys of the cross-attention are `memory`; they should be `key`, which "
        "has the positions": one(keys=memory),
        "the cross-attention's queries lack the learned ones: y + query": one(
            asks=False
        ),
        "decoder_norm is missing before action_head": one(last=False),
        "the MLP is missing": one(mlp=False),
        "the residual of the cross-attention is missing": one(skip=False),
        "the self-attention of the queries is missing": model.action_head(
            model.decoder_norm(skipped)
        ),
    }
    right = one()
    if not agrees(found, right, mistakes):
        raise Wrong("the actions differ; compare each line with the maths")
    leaves = {"the memory": memory, "the queries": model.queries}
    same_gradients(answer, right, leaves)


@exercise(
    "05.act",
    minutes=12,
    hints=(
        "In training z = mean + deviation * eps; the deviation is exp(logvar / 2).",
        "At run time there are no actions: z is zeros (B, Z), the prior's mean, and "
        "mean and log variance are None. w['latent_proj.weight'] is (D, Z).",
        "x, position = w.tokens(z, batch); memory = w.encoder(x, position); the "
        "decoder gets memory, and memory + position as keys.",
    ),
    praise="This is ACT: the posterior's z in training, zeros on the robot.",
)
def check_act(function: Callable) -> None:
    """`function(w, batch, eps)`: actions (B, k, A), mean and log variance (B, Z)."""
    _each_size(function, _examine_act)


def _examine_act(function: Callable, b: int, t: int, settings: dict[str, int]) -> None:
    model = fresh(seed=16, **settings)
    config = model.config
    k, z, actions = config.chunk_size, config.latent_dim, config.action_dim
    with torch.no_grad():
        for parameter in model.parameters():  # so that z and positions are seen
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = {"qpos": draw(b, config.state_dim, seed=17)}
    batch["env_state"] = draw(b, config.env_state_dim, seed=18)
    demonstrated = batch | {"action": draw(b, k, actions, seed=19)}
    demonstrated["is_pad"] = _padding(b, k)
    eps = draw(b, z, seed=20).detach()
    wanted = "actions, mean and log variance"
    answer = attempt(function, weights_of(model), dict(demonstrated), eps.clone())
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise Wrong(f"three things are wanted: {wanted}")
    if any(part is None or part is ... for part in answer):
        raise Wrong(f"the batch holds actions, so {wanted} are all wanted; one is None")
    found = tensor(answer[0], (b, k, actions), "the actions come first")
    mean, logvar = (tensor(x, (b, z), "mean and log variance") for x in answer[1:])
    right = model(demonstrated, eps)

    def of(latent: Tensor, *, key: bool = True, value: bool = False) -> Tensor:
        memory, place = model.encode(demonstrated, latent)
        return model.decode(place if value else memory, place if key else memory)

    mu, deviation = right.mu, (0.5 * right.logvar).exp()
    mistakes = {
        "z is the mean alone; in training noise is added: mean + deviation * eps": of(
            mu
        ),
        "the deviation is exp(logvar / 2): logvar is the logarithm of its square": of(
            mu + right.logvar.exp() * eps
        ),
        "logvar itself is used as the deviation": of(mu + right.logvar * eps),
        "z is mean - deviation * eps here; noise is added": of(mu - deviation * eps),
        "z is the noise alone; the posterior is not used": of(eps),
        "z is 0 although there are actions: that is for run time": of(0 * mu),
        "the decoder's keys lack the positions: memory + position": of(
            mu + deviation * eps, key=False
        ),
        "the decoder's values have positions; they are memory alone": of(
            mu + deviation * eps, value=True
        ),
        "the encoder was left out": model.decode(
            *_unencoded(model, demonstrated, mu + deviation * eps)
        ),
    }
    if not agrees(found, right.actions, mistakes):
        raise Wrong("the actions differ from the package's with the same weights")
    pair, both = (mean, logvar), (mu.detach(), right.logvar.detach())
    if not agrees(pair, both, {"mean and log variance are swapped": both[::-1]}):
        raise Wrong(
            "the actions are right; mean or log variance are not the posterior's"
        )
    assert model.cvae is not None
    leaves = {"qpos": batch["qpos"], "the CVAE's CLS": model.cvae.cls}
    same_gradients(answer, (right.actions, mu, right.logvar), leaves)

    answer = attempt(function, weights_of(model), dict(batch), None)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise Wrong(f"three things are wanted without actions, too: {wanted}")
    if answer[1] is not None or answer[2] is not None:
        raise Wrong("without actions there is no posterior: None for mean and logvar")
    found = tensor(answer[0], (b, k, actions), "without actions, too")
    if not same(found, model(batch).actions.detach(), **CLOSE):
        raise Wrong("without actions z is 0, the prior's mean; the output differs")
    try:
        _try_a_picture(function, settings, demonstrated, eps, t)
    except Wrong as mistake:
        raise Wrong(
            "right where the cube's pose is seen, but not where a picture is, and the "
            "batch has no env_state: w.tokens(z, batch) makes the tokens of what the "
            f"batch holds ({mistake})"
        ) from None


def _try_a_picture(
    function: Callable,
    settings: dict[str, int],
    demonstrated: dict[str, Tensor],
    eps: Tensor,
    columns: int,
) -> None:
    camera = {"cameras": ("top",), "image_size": (32, 32), "image_tokens": "grid"}
    camera |= {"camera_embedding": False, "env_state_dim": 0}
    w = weights_of(fresh(seed=21, **settings | camera))
    batch = {key: x for key, x in demonstrated.items() if key != "env_state"}
    b, channels = len(eps), w["cameras.tokens.proj.weight"].shape[1]
    batch["features"] = draw(b, channels, b, columns, seed=22).detach()
    answer = attempt(function, w, dict(batch), eps.clone())
    right = parts.act(w, batch, eps)[0].detach()
    found = tensor(answer[0], tuple(right.shape), "the actions come first")
    if not same(found, right, **CLOSE):
        raise Wrong("the actions differ")


def _unencoded(
    model: Any, batch: dict[str, Tensor], z: Tensor
) -> tuple[Tensor, Tensor]:
    """The tokens themselves in the place of the memory."""
    own = model.qpos_proj(batch["qpos"]), model.env_proj(batch["env_state"])
    x = torch.stack([model.latent_proj(z), *own], 1)
    return x, x + model.position
