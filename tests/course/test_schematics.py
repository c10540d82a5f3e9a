"""The schematics: readable on light and dark pages, described, and true."""

import io
import itertools
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from act_minimal.execution import ensemble_offline
from act_minimal.model import ACT
from act_minimal.settings import ACTConfig
from course.toolkit import schematics, sketch
from hardware.so100.protocol import Parser, checksum

pytestmark = pytest.mark.quick

NAMES = (
    "walk",
    "window_and_padding",
    "horizon_against_ensembling",
    "cvae",
    "act_shapes",
    "servo_packet",
    "two_buses",
)


def drawn(name):
    """The figure that a drawing shows, and its words."""
    figure = getattr(schematics, name).__wrapped__()
    words = [t for t in figure.findobj(Text) if t.get_text().strip()]
    figure.draw_without_rendering()
    return figure, words


def luminance(colour):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_is_a_transparent_picture_with_a_description(name):
    picture = getattr(schematics, name)()
    image = Image.open(io.BytesIO(picture.png))
    alpha = np.asarray(image)[..., 3]
    assert image.mode == "RGBA"
    assert (alpha == 0).mean() > 0.2  # the page shows through
    assert (alpha == 255).mean() > 0.01  # and something is drawn
    assert len(picture.alt.split()) >= 20
    assert f'alt="{picture.alt[:20]}' in picture.html()


@pytest.mark.parametrize("name", NAMES)
def test_words_stay_in_their_boxes_and_off_each_other(name):
    figure, words = drawn(name)
    renderer = figure._get_renderer()
    extents = {t: t.get_window_extent(renderer) for t in words}
    boxes = {
        patch.get_gid(): patch.get_window_extent(renderer)
        for patch in figure.axes[0].patches
        if str(patch.get_gid()).startswith("box")
    }
    for text, extent in extents.items():
        whole = figure.bbox
        assert (whole.min <= extent.min).all(), text
        assert (extent.max <= whole.max).all(), text
        own = str(text.get_gid() or "").removeprefix("in ")
        if own:
            box = boxes[own]
            assert (box.min < extent.min).all(), text
            assert (extent.max < box.max).all(), text
        for gid, box in boxes.items():
            assert gid == own or not extent.overlaps(box), (text, gid)
    for one, other in itertools.combinations(words, 2):
        assert not extents[one].overlaps(extents[other]), (one, other)


@pytest.mark.parametrize("name", NAMES)
def test_words_are_large_enough_and_read_on_white_and_on_black(name):
    figure, words = drawn(name)
    assert words
    for text in words:
        # 96 dots are an inch of a page: a point of the figure is a point there.
        assert text.get_fontsize() * figure.dpi / 96 >= 9
        inside = str(text.get_gid() or "").startswith("in ")
        papers = list(sketch.TINTS.values()) if inside else ["white", "#111111"]
        if text.get_color() == sketch.GREY:
            papers = ["white", "#111111"]  # dashed boxes are not filled
        assert all(contrast(text.get_color(), paper) > 4 for paper in papers), text


def test_the_shapes_are_those_of_the_model():
    sizes = {"B": 3, "k": 7, "A": 5, "S": 6, "E": 2, "D": 20, "Z": 11, "N": 2}
    height, width = 32, 48
    config = ACTConfig(
        state_dim=sizes["S"],
        action_dim=sizes["A"],
        env_state_dim=sizes["E"],
        cameras=("top", "wrist"),
        image_size=(height, width),
        chunk_size=sizes["k"],
        width=sizes["D"],
        latent_dim=sizes["Z"],
        image_tokens="grid",
    )
    model = ACT(config)
    assert model.cvae
    assert model.cameras
    found = {}

    def keep(name, of_input=False):
        def hook(module, inputs, output):
            value = inputs[0] if of_input else output
            found[name] = (value[0] if isinstance(value, tuple) else value).shape

        return hook

    model.cvae.encoder.register_forward_hook(keep("cvae tokens", True))
    model.latent_proj.register_forward_hook(keep("z", True))
    model.cameras.register_forward_hook(keep("image tokens"))
    model.cameras.backbone.register_forward_hook(keep("features"))
    model.encoder.register_forward_hook(keep("tokens", True))
    model.encoder.register_forward_hook(keep("memory"))
    model.decoder_norm.register_forward_hook(keep("decoder"))
    b, k = sizes["B"], sizes["k"]
    batch = {
        "qpos": torch.zeros(b, sizes["S"]),
        "env_state": torch.zeros(b, sizes["E"]),
        "images": torch.zeros(b, 2, 3, height, width),
        "action": torch.zeros(b, k, sizes["A"]),
        "is_pad": torch.zeros(b, k, dtype=torch.bool),
    }
    output = model.train()(batch, torch.zeros(b, sizes["Z"]))
    assert output.mu is not None
    assert output.logvar is not None
    for name in ("qpos", "env_state", "images", "action"):
        found[name] = batch[name].shape
    found |= {"mu": output.mu.shape, "logvar": output.logvar.shape}
    found |= {"output": output.actions.shape, "queries": model.queries.shape}

    _, channels, h, w = found["features"]
    sizes |= {"H": height, "W": width, "C": channels, "h": h, "w": w, "t": h * w}
    for name, shape in schematics.SHAPES.items():
        product = re.sub(r"(?<=\w) (?=\w)", "*", shape)
        assert eval(product, sizes) == tuple(found[name]), name
    assert set(found) == set(schematics.SHAPES)

    text = "\n".join(t.get_text() for t in drawn("act_shapes")[1])
    printed = re.findall(r"\([^()]*, [^()]*\)", text.replace("[CLS, qpos, action]", ""))
    assert set(printed) == set(schematics.SHAPES.values())


def test_the_packets_are_whole_and_drawn_byte_by_byte():
    command, answer = schematics.packet_bytes()
    data = command.encode() + answer.encode()
    assert list(Parser().feed(data)) == [command, answer]
    words = [t.get_text() for t in drawn("servo_packet")[1]]
    shown = [int(w, 16) for w in words if re.fullmatch("[0-9A-F]{2}", w)]
    assert bytes(shown) == data
    assert f"= {checksum(data[2:8]):02X}" in " ".join(words)
    assert " ".join(f"{b:02X}" for b in command.encode()) in (
        schematics.servo_packet().alt
    )


def test_the_weights_are_those_of_the_ensemble():
    k, m = 6, 0.3
    chunks = np.random.default_rng(0).normal(size=(k, 1, k, 1))
    expected = ensemble_offline(chunks, m)[-1, 0, 0]
    predictions = [chunks[i, 0, k - 1 - i, 0] for i in range(k)]
    weights = schematics.ensemble_weights(k, m)
    assert weights @ predictions == pytest.approx(expected)
    shown = [t.get_text() for t in drawn("horizon_against_ensembling")[1]]
    assert [f"{w:.2f}" for w in weights] == [x for x in shown if x.startswith("0.")]
