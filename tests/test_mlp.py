"""The perceptron that ACT is compared with."""

import math

import numpy as np
import pytest
import torch

from act_minimal.model import MLP
from act_minimal.settings import MLPConfig
from act_minimal.support.errors import SettingError

pytestmark = pytest.mark.quick


def batch(config, rows=3):
    g = torch.Generator().manual_seed(0)
    shape = (rows, len(config.cameras), 3, *config.image_size)
    return {
        "images": torch.rand(shape, generator=g),
        "qpos": torch.randn(rows, config.state_dim, generator=g),
        "env_state": torch.randn(rows, config.env_state_dim, generator=g),
    }


@pytest.mark.parametrize("cameras", [(), ("top", "wrist")])
@pytest.mark.parametrize("chunk_size", [1, 7])
def test_shapes(cameras, chunk_size):
    config = MLPConfig(6, 5, 7, cameras, image_size=(48, 64), chunk_size=chunk_size)
    output = MLP(config)(batch(config))
    assert output.actions.shape == (3, chunk_size, 5)
    assert output.mu is None
    assert output.logvar is None


def test_is_the_textbook_perceptron():
    config = MLPConfig(4, 2, hidden=8, depth=2, chunk_size=3)
    network = MLP(config).eval()
    rows = batch(config)
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    x = rows["qpos"].numpy().astype(np.float64)
    for i, layer in enumerate(layers):
        weight, bias = (p.detach().double().numpy() for p in layer.parameters())
        x = x @ weight.T + bias
        if i < len(layers) - 1:
            x = x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
    expected = x.reshape(3, 3, 2)
    np.testing.assert_allclose(network(rows).actions.detach(), expected, atol=1e-5)


def test_every_input_matters():
    config = MLPConfig(6, 5, 7, ("top",), image_size=(48, 64))
    network = MLP(config).eval()
    rows = batch(config)
    before = network(rows).actions
    for key in ("qpos", "env_state", "images"):
        changed = rows | {key: rows[key].flip(-1)}
        assert not torch.allclose(network(changed).actions, before), key


@pytest.mark.parametrize(("field", "value"), [("hidden", 0), ("depth", 0)])
def test_bad_settings_are_named(field, value):
    with pytest.raises(SettingError, match=f"{field} is {value}, expected"):
        MLPConfig(6, 5, **{field: value})
