"""Images brought to the size that a network reads: stretched, or padded.

The same code makes a training run's images and what its policy sees at run time.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

import cv2
import numpy as np

from act_minimal.settings import ResizeMode

PROPORTIONS = 0.02  # share by which two ratios of height to width may differ


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
    """What is done to the images of all cameras before a network reads them.

    Attributes:
        size: (H, W) that the network reads.
        mode: See `resize`.
        recorded: Camera -> (H, W) of the demonstrations' images, which are what a
            policy should be shown at run time, too.
    """

    size: tuple[int, int]
    mode: ResizeMode = "pad"
    recorded: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Any, cameras: tuple[str, ...]) -> "Resizing | None":
        """From a checkpoint's config.json; None stays None.

        Raises:
            ValueError: It is not what `to_json` wrote for these cameras.
        """
        if content is None:
            return None
        try:
            height, width = content["size"]
            recorded = {
                c: (int(h), int(w)) for c, (h, w) in content["recorded"].items()
            }
            made = cls((int(height), int(width)), content["mode"], recorded)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "resizing is not a size, a mode, and recorded sizes by camera"
            ) from error
        if made.mode not in get_args(ResizeMode) or set(recorded) != set(cameras):
            raise ValueError(
                f"resizing has the mode {made.mode!r} and the cameras {[*recorded]}, "
                f"expected one of {[*get_args(ResizeMode)]}, and {[*cameras]}"
            )
        return made

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return asdict(self)

    def seen(self, images: Mapping[str, np.ndarray]) -> "Resizing":
        """The same, with the sizes of some images (T, H, W, 3) as those recorded."""
        sizes = {camera: (x.shape[1], x.shape[2]) for camera, x in images.items()}
        return replace(self, recorded=sizes)

    @property
    def tag(self) -> str:
        """A few letters for names of files."""
        return f"@{self.size[0]}x{self.size[1]}-{self.mode}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images (T, H, W, 3) uint8 at `size`."""
        return np.stack([resize(image, self.size, self.mode) for image in images])

    def accepts(self, camera: str, size: tuple[int, int]) -> bool:
        """Whether images of this size have the recorded proportions."""
        (h, w), (h0, w0) = size, self.recorded[camera]
        return min(size) > 0 and abs(h * w0 - w * h0) <= PROPORTIONS * h * w0

    def bring(self, camera: str, images: np.ndarray) -> np.ndarray:
        """Images (T, H, W, 3) at `size` if they may be so; others as they are."""
        fits = images.ndim == 4 and images.dtype == np.uint8
        fits = fits and images.shape[1:3] != self.size
        return (
            self(images) if fits and self.accepts(camera, images.shape[1:3]) else images
        )
