"""The images of many episodes in one memory-mapped file per camera, made once.

Reading a frame from it is copying bytes that the system keeps in spare memory, and
gives back when something else needs the room: 3.7 GB of images train on a machine
with 2 GB free, only slower.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from act_minimal.episodes import EpisodeError, load_episode
from act_minimal.errors import UserError
from act_minimal.files import atomic_file, read_json, tidy, write_json
from act_minimal.resizing import Resizing

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
        cameras: Which cameras.
        lengths: (episodes,) frames of each.
        cache: Where the cache is, for this folder of episodes alone.
        resizing: Of the images, before they are kept.
        progress: Shows a bar while it is made.

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
            shutil.rmtree(home, ignore_errors=True)
    return fresh


def _write_cache(
    paths: Sequence[Path],
    camera: str,
    lengths: np.ndarray,
    target: Path,
    resizing: Resizing | None,
    progress: bool,
) -> None:
    """Writes one camera's images of all episodes into one .npy file."""
    shape = None
    with atomic_file(target) as temporary, open(temporary, "wb") as file:
        bar = paths
        if progress:
            from tqdm.auto import tqdm  # on standard error, which --json leaves free

            bar = tqdm(paths, desc=f"images of {camera}")
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
