"""Cameras: one batched pass, frozen batch norm, positions, and who is who."""

import copy
import math
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from act_minimal.backbones import (
    Cameras,
    FrozenNorm,
    Keypoints,
    NormedConv,
    resnet,
    sinusoid_2d,
)
from act_minimal.model import ACT
from act_minimal.settings import ACTConfig
from act_minimal.support.errors import UserError


def config_of(**changes: Any) -> ACTConfig:
    settings = {"state_dim": 2, "action_dim": 2, "chunk_size": 4, "heads": 2}
    settings |= {"width": 16, "feedforward": 16}
    settings |= {"cameras": ("top", "wrist"), "image_size": (32, 48)}
    return ACTConfig(**{**settings, **changes})


def close(actual: Tensor, expected: Tensor, atol=1e-5, rtol=1e-5) -> None:
    """torch.testing.assert_close, whose first call takes seconds of imports."""
    np.testing.assert_allclose(actual.detach(), expected.detach(), rtol, atol)


def pictures(n: int = 2, rows: int = 3, size: tuple[int, int] = (32, 48)):
    g = torch.Generator().manual_seed(0)
    shape = (rows, n, 3, *size)
    return torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)


@pytest.mark.quick
def test_sinusoid_2d_is_the_formula():
    height, width, channels = 3, 5, 8
    table = sinusoid_2d(height, width, channels)
    assert table.shape == (15, 8)
    for row in range(height):
        for column in range(width):
            for i in range(channels):
                place, n = (row, height) if i < 4 else (column, width)
                scaled = (place + 1) / (n + 1e-6) * 2 * math.pi
                angle = scaled / 10000 ** (2 * ((i % 4) // 2) / 4)
                expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
                found = float(table[row * width + column, i])
                assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize("image_tokens", ["keypoints", "grid"])
def test_one_batched_pass_equals_camera_by_camera(image_tokens):
    torch.manual_seed(0)
    cameras = Cameras(config_of(image_tokens=image_tokens)).eval()
    images = pictures()
    tokens, position = cameras(images)
    t = tokens.shape[1] // 2
    assert position.shape == tokens.shape[1:]
    for i in range(2):
        scaled = images[:, i].float() / 255  # (B, 3, H, W)
        scaled = (scaled - cameras.mean[i]) / cameras.std[i]
        places = [Keypoints.cell_positions(4, 6)] if image_tokens == "keypoints" else []
        alone = cameras.tokens(cameras.backbone(scaled), *places)  # (B, t, D)
        close(tokens[:, i * t : (i + 1) * t], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.quick
def test_bytes_floats_and_views_are_the_same_picture():
    torch.manual_seed(0)
    cameras = Cameras(config_of())
    images = pictures()
    expected = cameras(images)[0]
    close(cameras(images.float() / 255)[0], expected)
    view = images.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    close(cameras(view)[0], expected)
    with pytest.raises(ValueError, match=r"images have shape .* expected \(B, N, 3"):
        cameras(images[:, :1])


@pytest.mark.quick
def test_statistics_are_imagenets_and_travel_with_the_weights():
    cameras = Cameras(config_of())
    mean = pytest.approx([0.485, 0.456, 0.406])
    assert cameras.mean[:, :, 0, 0].tolist() == [mean] * 2
    assert {"mean", "std"} <= set(cameras.state_dict())


@pytest.mark.quick
@pytest.mark.parametrize("image_tokens", ["keypoints", "grid"])
def test_two_equal_cameras_can_be_swapped_only_without_embedding(image_tokens):
    images = pictures()
    for embedding in (False, True):
        torch.manual_seed(0)
        model = ACT(config_of(camera_embedding=embedding, image_tokens=image_tokens))
        qpos = torch.randn(3, 2)
        seen = model({"qpos": qpos, "images": images}).actions
        swapped = model({"qpos": qpos, "images": images.flip(1)}).actions
        assert torch.allclose(seen, swapped, atol=1e-5) is not embedding


@pytest.mark.quick
def test_keypoints_are_where_the_channel_is_bright():
    keypoints = Keypoints(channels=1, width=2, tokens=1)
    nn.init.zeros_(keypoints.proj.bias)
    keypoints.proj.weight.data = torch.eye(2)
    features = torch.full((1, 1, 5, 9), -50.0)
    features[0, 0, 1, 8] = 50.0
    expected = torch.tensor([[[-0.5, 1.0]]])  # (row, column) in [-1, 1]
    close(keypoints(features, Keypoints.cell_positions(5, 9)), expected)


@pytest.mark.quick
def test_image_pool_halves_the_picture():
    torch.manual_seed(0)
    pooled = Cameras(config_of(image_pool=2))
    small = Cameras(config_of(image_size=(16, 24)))
    small.load_state_dict(pooled.state_dict())
    images = pictures().float() / 255
    halves = nn.functional.avg_pool2d(images.flatten(0, 1), 2).unflatten(0, (3, 2))
    close(pooled(images)[0], small(halves)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)]
)
def test_resnets_are_torchvisions_with_frozen_batch_norm(name, channels):
    import torchvision

    torch.manual_seed(0)
    ours = resnet(name, pretrained=False)
    if name == "resnet18":  # test_model.py builds upon this number
        assert sum(p.numel() for p in ours.parameters()) == 11_166_912
    theirs = torchvision.models.get_model(name).eval()
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert all(
        key.startswith("fc.") or key.endswith("num_batches_tracked")
        for key in missing.missing_keys
    )
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    features = ours.double().train()(x)
    theirs.double()
    assert features.shape == (2, channels, 2, 3)
    layers = ["conv1", "bn1", "relu", "maxpool", *(f"layer{i}" for i in (1, 2, 3, 4))]
    for layer in layers:
        x = getattr(theirs, layer)(x)
    close(features, x, atol=1e-8, rtol=1e-8)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ours.modules())
    assert [name for name, _ in ours.named_children()][2:4] == ["maxpool", "relu"]
    # Every norm has found the convolution that does its work.
    norms = [m for m in ours.modules() if isinstance(m, FrozenNorm)]
    served = [m.norm[0] for m in ours.modules() if isinstance(m, NormedConv)]
    assert norms
    assert list(map(id, norms)) == list(map(id, served))


def test_batch_norm_stays_frozen_while_training():
    torch.manual_seed(0)
    config = config_of(backbone="resnet18", image_tokens="grid")
    model = ACT(config).train()
    norms = {k: v.clone() for k, v in model.state_dict().items() if ".bn" in k}
    assert norms
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    batch = {"qpos": torch.randn(3, 2), "images": pictures()}
    model(batch).actions.square().sum().backward()
    assert model.cameras is not None
    conv = model.cameras.backbone.get_submodule("conv1")
    before = conv.weight.detach().clone()
    optimizer.step()
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in norms.items())
    assert not torch.equal(before, conv.weight)  # the convolutions do learn


def test_imagenet_weights_that_cannot_be_had_are_one_sentence(monkeypatch):
    import torchvision

    def fail(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    config = config_of(backbone="resnet18", pretrained="imagenet")
    with pytest.raises(UserError, match=r"resnet18-.*\.pth.*no network.*'none'"):
        ACT(config)
    ACT(config, pretrained_weights=False)  # a checkpoint will bring them


def picture_and_resnet() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    net = resnet("resnet18", pretrained=False).eval()
    for module in net.modules():
        if isinstance(module, FrozenNorm):
            for name, buffer in module.named_buffers():
                buffer.uniform_(0.5, 1.5)
                if name in ("bias", "running_mean"):
                    buffer.sub_(1)
    return net, torch.randn(1, 3, 64, 96)


def test_the_folded_norm_is_the_norm_with_its_gradient():
    net, x = picture_and_resnet()
    conv, norm = net.get_submodule("conv1"), net.get_submodule("bn1")
    assert isinstance(conv, NormedConv)
    assert isinstance(norm, FrozenNorm)
    expected = nn.functional.batch_norm(
        nn.functional.conv2d(x, conv.weight, None, 2, 3),
        norm.get_buffer("running_mean"),
        norm.get_buffer("running_var"),
        norm.get_buffer("weight"),
        norm.get_buffer("bias"),
    )
    close(norm(conv(x)), expected, atol=1e-4)
    wanted = torch.randn_like(expected)
    [a] = torch.autograd.grad((conv(x) * wanted).sum(), conv.weight)
    [b] = torch.autograd.grad((expected * wanted).sum(), conv.weight)
    close(a, b, atol=1e-2, rtol=1e-4)
    assert not any(x.requires_grad for x in norm.buffers())


def test_a_copy_goes_its_own_way():
    net, x = picture_and_resnet()
    other = copy.deepcopy(net)
    convs = [m for m in other.modules() if isinstance(m, NormedConv)]
    norms = [m for m in other.modules() if isinstance(m, FrozenNorm)]
    assert [id(c.norm[0]) for c in convs] == [id(n) for n in norms]
    with torch.inference_mode():
        first = net(x)
        other.load_state_dict({k: 1.1 * v for k, v in other.state_dict().items()})
        close(net(x), first, atol=0, rtol=0)
        assert not torch.equal(other(x), first)


@pytest.mark.quick
@pytest.mark.parametrize("backbone", ["small", "resnet18"])
@pytest.mark.parametrize("image_tokens", ["keypoints", "grid"])
def test_cameras_of_different_sizes_equal_each_camera_alone(image_tokens, backbone):
    sizes = ((40, 56), (32, 48), (40, 56))
    settings: dict[str, Any] = {"image_tokens": image_tokens, "backbone": backbone}
    torch.manual_seed(0)
    names = ("left", "top", "right")
    both = Cameras(config_of(cameras=names, image_size=sizes, **settings)).eval()
    assert both.groups == [[0, 2], [1]]
    images = [pictures(1, size=size)[:, 0] for size in sizes]
    tokens, position = both(images)
    assert position.shape == tokens.shape[1:]
    begin = 0
    for i, size in enumerate(sizes):
        alone = Cameras(config_of(cameras=names[:1], image_size=size, **settings))
        state = both.state_dict() | {
            key: both.state_dict()[key][i : i + 1]
            for key in ("embedding", "mean", "std")
        }
        alone.load_state_dict(state)
        expected, place = alone.eval()(images[i][:, None])
        end = begin + expected.shape[1]
        close(tokens[:, begin:end], expected, atol=1e-5, rtol=1e-4)
        close(position[begin:end], place)
        begin = end
    assert begin == tokens.shape[1]
    with pytest.raises(ValueError, match=r"images have shape .* \(3, 40, 56\)"):
        both(images[::-1][1:] + images[:1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [(32, 48), ((32, 48), (40, 48))])
@pytest.mark.parametrize("backbone", ["small", "resnet18"])
def test_nothing_makes_a_gpu_wait_and_a_graph_can_be_recorded(size, backbone):
    config = config_of(image_size=size, backbone=backbone)
    model = ACT(config).cuda().eval()
    sizes = config.camera_sizes.values()
    views = [torch.full((2, 3, *s), 9, dtype=torch.uint8, device="cuda") for s in sizes]
    same = isinstance(size[0], int)
    images = torch.stack(views, 1) if same else views
    batch = {"qpos": torch.ones(2, 2, device="cuda"), "images": images}
    with torch.inference_mode():
        expected = model(batch).actions.cpu()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        aside = torch.cuda.Stream()
        with torch.cuda.stream(aside):
            for _ in range(3):
                model(batch)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            actions = model(batch).actions
        graph.replay()
        close(actions.cpu(), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.quick
@pytest.mark.parametrize("image_tokens", ["keypoints", "grid"])
def test_an_image_of_any_size_is_filled_up_with_the_mean_colour(image_tokens):
    torch.manual_seed(0)
    odd = Cameras(config_of(image_size=(35, 50), image_tokens=image_tokens))
    even = Cameras(config_of(image_size=(40, 56), image_tokens=image_tokens))
    even.load_state_dict(odd.state_dict())
    images = pictures(size=(35, 50)).float() / 255
    filled = odd.mean.expand(3, -1, -1, 40, 56).clone()
    filled[..., :35, :50] = images
    for found, expected in zip(odd(images), even(filled), strict=True):
        close(found, expected)


@pytest.mark.quick
def test_pooling_averages_what_is_left_at_the_edge():
    torch.manual_seed(0)
    pooled = Cameras(config_of(image_size=(49, 50), image_pool=3))
    small = Cameras(config_of(image_size=(17, 17)))
    small.load_state_dict(pooled.state_dict())
    images = pictures(size=(49, 50)).float() / 255
    rows, columns = range(0, 49, 3), range(0, 50, 3)
    means = [
        [images[..., r : r + 3, c : c + 3].mean((-2, -1)) for c in columns]
        for r in rows
    ]
    by_hand = torch.stack([torch.stack(row, -1) for row in means], -2)
    close(pooled(images)[0], small(by_hand)[0], atol=1e-5, rtol=1e-4)
