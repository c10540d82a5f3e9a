"""Images on their way to the network: resized, kept in one file, varied in training."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .episodes import load_episode
from .settings import Augmentation, ResizeMode
from .support.errors import UserError
from .support.files import atomic_file, discard, read_json, tidy, write_json
from .support.hdf5_files import EpisodeError

# ---------------------------------------------------------------- size

PROPORTIONS = 0.02  # share by which two ratios of height to width may differ


def resize(
    image: np.ndarray, size: tuple[int, int], mode: ResizeMode = "stretch"
) -> np.ndarray:
    """One image (H, W, 3) uint8 RGB at `size` (H, W).

    "stretch" changes the proportions where they differ; "pad" keeps them, with the
    image in the middle and black beside it.
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
        """From a config.json (None stays None); ValueError if it is damaged."""
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


# ---------------------------------------------------------------- cache

LISTING = "files.json"  # of a cache: names, sizes and times of what it was made of


def cached_images(
    paths: Sequence[Path],
    cameras: Sequence[str],
    lengths: np.ndarray,
    cache: Path,
    *,
    resizing: Resizing | None = None,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """The images of some cameras, from the cache, which is made where it is missing.

    One folder per content (names, sizes and times of the files), and in it one .npy
    file per camera. A cache of more episodes serves their first few too. Several
    processes may do this at once: each writes its own file, the last one stays.

    Args:
        paths: The episode files, all in one folder.
        lengths: (episodes,) frames of each.
        cache: Where the cache is, for this folder of episodes alone.
        resizing: Of the images, before they are kept.

    Returns:
        camera -> (M, H, W, 3) uint8, memory-mapped, read-only; M is the sum of lengths.

    Raises:
        EpisodeError: An episode lacks a camera, or its images have another size and
            are not resized.
        UserError: No room for the cache.
    """
    files = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths]
    frames = int(lengths.sum())
    images: dict[str, np.ndarray] = {}
    tag = resizing.tag if resizing else ""
    for home, known in _fresh_caches(cache, paths[0].parent):
        for camera in cameras:
            whole = home / f"{camera}{tag}.npy"
            if known[: len(files)] == files and whole.is_file():
                images.setdefault(camera, np.load(whole, mmap_mode="r")[:frames])
    missing = [camera for camera in cameras if camera not in images]
    if missing:
        digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
        home = cache / f"images-{digest}"
        write_json(home / LISTING, files)
        for camera in missing:
            target = home / f"{camera}{tag}.npy"
            _write_cache(paths, camera, lengths, target, resizing, progress)
            images[camera] = np.load(target, mmap_mode="r")
    return {camera: np.asarray(images[camera]) for camera in cameras}


def _fresh_caches(cache: Path, folder: Path) -> list[tuple[Path, list]]:
    """Caches and what they were made of; those of files that changed are removed."""
    fresh = []
    tidy(cache)
    for listing in sorted(cache.glob(f"images-*/{LISTING}")):
        home = listing.parent
        tidy(home)
        try:
            known = read_json(listing)
            now = [(folder / name).stat() for name, _, _ in known]
            same = [[s.st_size, s.st_mtime_ns] for s in now] == [f[1:] for f in known]
        except (OSError, UserError, ValueError, TypeError):  # one is gone, or damaged
            same = False
        if same:
            fresh.append((home, known))
        elif re.fullmatch(r"images-[0-9a-f]{16}", home.name) and all(
            path.name == LISTING or path.suffix == ".npy" for path in home.iterdir()
        ):  # it is ours, and nothing else is in it
            discard(home)
    return fresh


def _write_cache(
    paths: Sequence[Path],
    camera: str,
    lengths: np.ndarray,
    target: Path,
    resizing: Resizing | None,
    progress: bool,
) -> None:
    shape = None
    with atomic_file(target) as temporary, open(temporary, "wb") as file:
        bar = tqdm(paths, desc=f"images of {camera}", disable=not progress)
        for path, length in zip(bar, lengths, strict=True):
            images = load_episode(path, cameras=[camera]).images[camera]
            images = resizing(images) if resizing else images
            if shape is None:
                shape = images.shape[1:]
                size = int(lengths.sum()) * int(np.prod(shape))
                free = shutil.disk_usage(target.parent).free
                if size > free:
                    raise UserError(
                        f"the image cache of {camera!r} needs {size / 1e9:.1f} GB in "
                        f"{target.parent}, which has {free / 1e9:.1f} GB left"
                    )
                header = {"descr": "|u1", "fortran_order": False}
                header["shape"] = (int(lengths.sum()), *shape)
                np.lib.format.write_array_header_1_0(file, header)
            if images.shape != (length, *shape):
                raise EpisodeError(
                    f"{path}: images of camera {camera!r} have shape "
                    f"{images.shape[1:]}, {shape} in {paths[0].name}; the setting "
                    f"resize brings all to one size, as in: --resize 96 128"
                )
            # Plain writes: through a memory map, a full disk would be a bus error.
            file.write(np.ascontiguousarray(images).data)


# ---------------------------------------------------------------- variation

GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as in JPEG and torchvision


def augment_draws(
    batch_size: int, cameras: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Random numbers for `augment`, drawn for the whole (global) batch on the CPU.

    Apart from `augment`, so that each of several processes slices its rows of the same.

    Returns:
        "shift" (B, N, 2) in [0, 1), down and right; "colour" (B, N, 3) in [-1, 1),
        brightness, contrast, saturation. Each camera of each sample has its own.
    """
    shape = (batch_size, cameras)
    return {
        "shift": torch.rand(*shape, 2, generator=generator),
        "colour": torch.rand(*shape, 3, generator=generator) * 2 - 1,
    }


def augment(
    batch: Mapping[str, Tensor], draws: Mapping[str, Tensor], settings: Augmentation
) -> dict[str, Tensor]:
    """A batch with its images/<camera> (B, H, W, 3) uint8 shifted and recoloured.

    Row n of `draws` (from `augment_draws`, B rows) is for the n-th camera of the batch.
    """
    out = dict(batch)
    if not settings.enabled:
        return out
    span = 2 * settings.shift_px + 1  # a pixel count from -shift_px to shift_px
    strength = torch.tensor(
        [settings.brightness, settings.contrast, settings.saturation]
    )
    for n, key in enumerate(k for k in batch if k.startswith("images/")):
        shift = (draws["shift"][:, n] * span).long() - settings.shift_px  # (B, 2)
        factors = 1 + draws["colour"][:, n] * strength  # (B, 3)
        if batch[key].device.type == "cpu":
            out[key] = _augment_with_cv2(batch[key], shift, factors)
        else:
            device = batch[key].device
            shifted = shift_images(batch[key], shift.to(device))
            out[key] = recolour_images(shifted, factors.to(device))
    return out


def shift_images(images: Tensor, shift: Tensor) -> Tensor:
    """Images (B, H, W, 3) moved down and right by pixels (B, 2); edges are repeated."""
    b, h, w, _ = images.shape
    device = images.device
    rows = (torch.arange(h, device=device) - shift[:, :1]).clamp(0, h - 1)  # (B, H)
    cols = (torch.arange(w, device=device) - shift[:, 1:]).clamp(0, w - 1)  # (B, W)
    sample = torch.arange(b, device=device)
    return images[sample[:, None, None], rows[:, :, None], cols[:, None, :]]


def recolour_images(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation, as one linear map of an image's colours.

    Images (B, H, W, 3) uint8; `factors` (B, 3), where 1 leaves as is. Rounded and
    clipped once, at the end.
    """
    b, h, w, _ = images.shape
    x = images.permute(0, 3, 1, 2).reshape(b, 3, h * w).float()  # (B, 3, HW)
    matrix, offset = _colour_map(x.mean(dim=2), factors)
    x = (matrix @ x + offset).round().clamp(0, 255)  # (B, 3, HW)
    return x.to(torch.uint8).reshape(b, 3, h, w).permute(0, 2, 3, 1).contiguous()


def _colour_map(mean: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """The map of `recolour_images`: out = matrix @ x + offset for each pixel x.

    With b, c, s the factors, g a pixel's grey and m the mean grey of its image:
    out = b c (s x + (1 - s) g) + (1 - c) b m. From mean colours (B, 3) and factors
    (B, 3) to (B, 3, 3) and (B, 3, 1).
    """
    grey = torch.tensor(GREY, device=mean.device)
    b, c, s = factors[:, :, None].split(1, dim=1)  # (B, 1, 1) each
    eye = torch.eye(3, device=mean.device)
    matrix = b * c * (s * eye + (1 - s) * grey)  # each row of the second is the grey
    offset = (1 - c) * b * (mean @ grey)[:, None, None]  # (B, 1, 1)
    return matrix, offset.expand(-1, 3, 1)


def _augment_with_cv2(images: Tensor, shift: Tensor, factors: Tensor) -> Tensor:
    """The same on a CPU, image by image in integers: about ten times faster there."""
    images = images.contiguous()
    out = torch.empty_like(images)
    _, h, w, _ = images.shape
    p = int(shift.abs().max())
    sources = []
    for image, (down, right) in zip(images.numpy(), shift.tolist(), strict=True):
        if p:
            image = cv2.copyMakeBorder(image, p, p, p, p, cv2.BORDER_REPLICATE)
            image = image[p - down : p - down + h, p - right : p - right + w]
        sources.append(image)
    if bool((factors == 1).all()):
        for source, target in zip(sources, out.numpy(), strict=True):
            target[:] = source
        return out
    mean = torch.tensor([cv2.mean(source)[:3] for source in sources])  # (B, 3)
    maps = torch.cat(_colour_map(mean, factors), dim=2).numpy()  # (B, 3, 4)
    for source, colours, target in zip(sources, maps, out.numpy(), strict=True):
        cv2.transform(source, colours, dst=target)
    return out
