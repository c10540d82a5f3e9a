"""Random shifts and colours of images in training, on the device, in batches."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import torch
from torch import Tensor

from act_minimal.settings import Share, Whole, check_settings

GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as in JPEG and torchvision


@dataclass(frozen=True)
class Augmentation:
    """How strongly images are varied in training; the defaults leave them alone."""

    shift_px: Whole = 0  # up to so many pixels each way; the edge is repeated
    brightness: Share = 0.0  # all values times 1 - b to 1 + b
    contrast: Share = 0.0  # distance from the mean grey times 1 - c to 1 + c
    saturation: Share = 0.0  # distance from each pixel's grey times 1 - s to 1 + s

    def __post_init__(self) -> None:
        """Refuses what would turn an image inside out."""
        check_settings(self)

    @property
    def enabled(self) -> bool:
        """Whether anything is varied."""
        return self != Augmentation()


def augment_draws(
    batch_size: int, cameras: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Random numbers for `augment`, drawn for the whole (global) batch on the CPU.

    Apart from `augment`, so that several processes draw the same numbers and each
    slices its own rows: `{k: v[rows] for k, v in draws.items()}`.

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
    """A batch with its images shifted and recoloured; everything else as it was.

    Args:
        batch: With images/<camera> (B, H, W, 3) uint8, on any device.
        draws: From `augment_draws`, B rows; camera n is the n-th image of the batch.
        settings: How strongly.

    Returns:
        The same keys; images are new uint8 tensors of the same shape and device.
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
    """Moves images by whole pixels, repeating the pixels at the edge.

    Args:
        images: (B, H, W, 3).
        shift: (B, 2) integers: how far down, how far right.
    """
    b, h, w, _ = images.shape
    device = images.device
    rows = (torch.arange(h, device=device) - shift[:, :1]).clamp(0, h - 1)  # (B, H)
    cols = (torch.arange(w, device=device) - shift[:, 1:]).clamp(0, w - 1)  # (B, W)
    sample = torch.arange(b, device=device)
    return images[sample[:, None, None], rows[:, :, None], cols[:, None, :]]


def recolour_images(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation, as one linear map of an image's colours.

    Args:
        images: (B, H, W, 3) uint8.
        factors: (B, 3) factors of brightness, contrast, saturation; 1 leaves as is.

    Returns:
        uint8, rounded and clipped once, at the end.
    """
    b, h, w, _ = images.shape
    x = images.permute(0, 3, 1, 2).reshape(b, 3, h * w).float()  # (B, 3, HW)
    matrix, offset = _colour_map(x.mean(dim=2), factors)
    x = (matrix @ x + offset).round().clamp(0, 255)  # (B, 3, HW)
    return x.to(torch.uint8).reshape(b, 3, h, w).permute(0, 2, 3, 1).contiguous()


def _colour_map(mean: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """The map of `recolour_images`: out = matrix @ x + offset for each pixel x.

    With b, c, s the factors, g a pixel's grey and m the mean grey of its image:
    out = b c (s x + (1 - s) g) + (1 - c) b m.

    Args:
        mean: (B, 3) mean colour of each image.
        factors: (B, 3).

    Returns:
        (B, 3, 3) and (B, 3, 1).
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
