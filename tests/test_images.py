"""Images brought to a network's size: which pixels, and what is refused."""

import json

import numpy as np
import pytest

from act_minimal.images import Resizing, resize

pytestmark = pytest.mark.quick


def picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_shrinking_takes_the_mean_of_an_area():
    image = picture(48, 64)
    small = resize(image, (24, 16))
    means = image.reshape(24, 2, 16, 4, 3).mean((1, 3))
    assert np.abs(small - means).max() <= 0.5
    assert resize(image, (48, 64)) is image


def test_padding_keeps_the_proportions_and_fills_up_with_black():
    wide = np.full((30, 80, 3), 200, np.uint8)
    out = resize(wide, (40, 40), "pad")  # 15 x 40, in the middle
    assert (out[12:27] == 200).all()
    assert (np.delete(out, range(12, 27), axis=0) == 0).all()
    tall = resize(wide.transpose(1, 0, 2), (40, 40), "pad")
    assert np.array_equal(tall, out.transpose(1, 0, 2))
    assert (resize(wide, (40, 40), "stretch") == 200).all()
    line = np.full((16, 4000, 3), 9, np.uint8)
    assert resize(line, (16, 16), "pad").any(axis=(1, 2)).sum() == 1  # never nothing


def test_enlarging_is_smooth():
    step = np.zeros((16, 16, 3), np.uint8)
    step[:, 8:] = 240
    large = resize(step, (16, 64))[0, :, 0].astype(int)
    assert len(np.unique(large)) > 3  # not the same two values as blocks
    assert (np.diff(large) >= 0).all()


def test_only_images_of_the_recorded_proportions_are_brought_to_size():
    resizing = Resizing((24, 32), "pad", {"top": (480, 640)})
    for size in ((480, 640), (240, 320), (960, 1280), (100, 133)):
        assert resizing.accepts("top", size)
        assert resizing.bring("top", picture(*size)[None]).shape == (1, 24, 32, 3)
    for size in ((640, 480), (480, 480), (720, 1280)):
        assert not resizing.accepts("top", size)
        assert resizing.bring("top", picture(*size)[None]).shape == (1, *size, 3)
    assert not resizing.accepts("top", (0, 0))
    floats = np.zeros((1, 480, 640, 3), np.float32)  # refused later, by their type
    assert resizing.bring("top", floats) is floats
    small = picture(24, 32)[None]
    assert resizing.bring("top", small) is small


def test_there_and_back_as_json():
    images = {"top": np.zeros((2, 480, 640, 3)), "wrist": np.zeros((2, 240, 320, 3))}
    resizing = Resizing((96, 128), "stretch").seen(images)
    assert resizing.recorded == {"top": (480, 640), "wrist": (240, 320)}
    content = json.loads(json.dumps(resizing.to_json()))
    assert Resizing.from_json(content, ("wrist", "top")) == resizing
    assert Resizing.from_json(None, ("top",)) is None
    odd = r"resizing has the mode .* and the cameras .*, expected one of \['pad', 'str"
    shape = "resizing is not a size, a mode, and recorded sizes"
    for change, words in (
        ({"mode": "crop"}, odd),
        ({"recorded": {"top": [480, 640]}}, odd),
        ({"recorded": [480, 640]}, shape),
        ({"recorded": {"top": [480]}}, shape),
        ({"size": 96}, shape),
    ):
        with pytest.raises(ValueError, match=words):
            Resizing.from_json(content | change, ("top", "wrist"))
    with pytest.raises(ValueError, match=shape):
        Resizing.from_json("pad", ("top",))
