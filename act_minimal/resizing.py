"""Images brought to the size that a network reads: stretched, or padded.

The same function makes a training run's images and what its policy sees at run time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np

from act_minimal.errors import SettingError

ResizeMode = Literal["pad", "stretch"]
LEAST_SIDE = 16  # pixels; the small backbone turns less into a single cell
PROPORTIONS = 0.02  # share by which two ratios of height to width may differ


def check_size(name: str, size: tuple[int, int]) -> None:
    """Refuse a size of images that no network here would read.

    Raises:
        SettingError: A side is shorter than `LEAST_SIDE`.
    """
    if len(size) != 2 or min(size) < LEAST_SIDE:
        raise SettingError(
            f"{name} is {tuple(size)}, expected (height, width) of at least "
            f"{LEAST_SIDE} pixels each: a policy could not be trained on less"
        )


def resize(
    image: np.ndarray, size: tuple[int, int], mode: ResizeMode = "stretch"
) -> np.ndarray:
    """One image (H, W, 3) uint8 at another size; as it is where it has that size.

    Args:
        image: RGB.
        size: (H, W) wanted.
        mode: "stretch" changes the proportions where they differ; "pad" keeps them,
            with the image in the middle and black beside it.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    inner = tuple(size)
    if mode == "pad":
        scale = min(size[0] / height, size[1] / width)
        inner = tuple(max(1, round(n * scale)) for n in (height, width))
    shrinks = inner[0] <= height and inner[1] <= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR  # area does not enlarge
    scaled = cv2.resize(image, inner[::-1], interpolation=how)
    if inner == tuple(size):
        return scaled
    out = np.zeros((*size, 3), np.uint8)
    top, left = ((n - m) // 2 for n, m in zip(size, inner, strict=True))
    out[top : top + inner[0], left : left + inner[1]] = scaled
    return out


@dataclass(frozen=True)
class Resizing:
    """What a policy does to images before its network reads them.

    Attributes:
        mode: See `resize`.
        recorded: Camera -> (H, W) of the demonstrations' images, which are what it
            should be shown at run time, too.
    """

    mode: ResizeMode
    recorded: Mapping[str, tuple[int, int]]

    @classmethod
    def from_json(cls, content: Any, cameras: tuple[str, ...]) -> "Resizing":
        """From a checkpoint's config.json.

        Raises:
            ValueError: It is not what `to_json` wrote for these cameras.
        """
        try:
            recorded = {
                c: (int(h), int(w)) for c, (h, w) in content["recorded"].items()
            }
            mode = content["mode"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError("expected a mode, and recorded sizes by camera") from error
        if mode not in get_args(ResizeMode):
            raise ValueError(f"mode is {mode!r}, expected one of pad, stretch")
        if set(recorded) != set(cameras):
            raise ValueError(f"recorded has {[*recorded]}, expected {[*cameras]}")
        return cls(mode, recorded)

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        recorded = {camera: list(size) for camera, size in self.recorded.items()}
        return {"mode": self.mode, "recorded": recorded}

    def accepts(self, camera: str, size: tuple[int, int]) -> bool:
        """Whether images of this size have the recorded proportions."""
        (h, w), (h0, w0) = size, self.recorded[camera]
        return min(size) > 0 and abs(h * w0 - w * h0) <= PROPORTIONS * h * w0

    def __call__(self, images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Images (B, H, W, 3) uint8 of one camera at the network's size."""
        return np.stack([resize(image, size, self.mode) for image in images])
