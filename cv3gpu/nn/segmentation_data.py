"""Images with a class for each pixel, from a folder or a zip file: read, decoded once, augmented.

The layout is that of CamVid: folders ``train``, ``val`` and ``test`` of images, and beside them ``trainannot``,
``valannot`` and ``testannot`` with, for each image, a label picture of the same name, whose values are the classes.
"""

from __future__ import annotations

import importlib
import io
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .. import _check, _files, _pictures, _threads
from .._pictures import MOST_PIXELS
from ..errors import BackendUnavailableError, DataFormatError
from ..mot._bytes import is_link, refuse_twins

__all__ = [
    "Augmentation",
    "Folder",
    "Split",
    "TrainingSet",
    "augmented",
    "batches",
    "colour_statistics",
    "median_frequency_weights",
    "n_classes_of",
    "normalised",
    "opened",
    "order",
    "read_split",
]

Array = np.ndarray[Any, Any]

SPLITS = ("train", "val", "test")
LABELS = "annot"  # what the name of a folder of labels ends with
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff", ".webp")
MOST_BYTES = 1 << 27  # of one picture's file
MOST_DECODED = 1 << 36  # bytes of all pictures of a split together


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise BackendUnavailableError(
            f"segmentation_data: images need Pillow ({error}); pip install 'cv3gpu[viz]'"
        ) from error


# ---- files ----------------------------------------------------------------------------------------------


class Folder:
    """A data set in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self, folder: str) -> list[str]:
        """The files in one of its folders, in order."""
        where = self.path / folder
        return sorted(entry.name for entry in os.scandir(where) if entry.is_file()) if where.is_dir() else []

    def read(self, folder: str, name: str) -> bytes:
        """One file."""
        with open(self.path / folder / name, "rb") as file:
            return _limited(file.read(MOST_BYTES + 1), self.where(folder, name))

    def where(self, folder: str, name: str) -> str:
        """The file's name in an error."""
        return str(self.path / folder / name)


class Zip:
    """A data set in a zip file, at its root or in the one folder that it holds; nothing is extracted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.archive = zipfile.ZipFile(path)
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # a damaged file raises whatever its damage leads to
            raise DataFormatError(f"{path}: must be a folder or a zip file, got {error}") from error
        refuse_twins(path, self.archive.infolist())
        self.entries: dict[str, dict[str, zipfile.ZipInfo]] = {}
        roots = set()
        for entry in self.archive.infolist():
            if entry.is_dir() or entry.filename.startswith("__MACOSX/"):
                continue
            self._refuse_hostile(entry)
            folder, _, name = entry.filename.rpartition("/")
            root, _, last = folder.rpartition("/")
            self.entries.setdefault(folder, {})[name] = entry
            if last == SPLITS[0]:
                roots.add(root)
        if len(roots) > 1:
            raise DataFormatError(f"{path}: must hold one folder train, got {len(roots)}")
        root = roots.pop() if roots else ""
        self.root = f"{root}/" if root else ""

    def _refuse_hostile(self, entry: zipfile.ZipInfo) -> None:
        where, parts = f"{self.path}/{entry.filename}", PurePosixPath(entry.filename).parts
        if "\\" in entry.filename or entry.filename.startswith("/") or ".." in parts or not parts or ":" in parts[0]:
            raise DataFormatError(f"{where}: name must lead to a file inside the archive")
        if entry.flag_bits & 1:
            raise DataFormatError(f"{where}: must not be encrypted")
        if is_link(entry):
            raise DataFormatError(f"{where}: must be a regular file, got a symbolic link")
        if entry.file_size > MOST_BYTES:
            raise DataFormatError(f"{where}: must have at most {MOST_BYTES} bytes, got {entry.file_size}")

    def names(self, folder: str) -> list[str]:
        """The files in one of its folders, in order."""
        return sorted(self.entries.get(f"{self.root}{folder}", ()))

    def read(self, folder: str, name: str) -> bytes:
        """One file; what the archive says of its size is not trusted."""
        entry = self.entries[f"{self.root}{folder}"][name]
        try:
            with self.archive.open(entry) as file:
                return _limited(file.read(MOST_BYTES + 1), self.where(folder, name))
        except DataFormatError:
            raise
        except Exception as error:  # as above
            raise DataFormatError(f"{self.where(folder, name)}: must be readable, got {error}") from error

    def where(self, folder: str, name: str) -> str:
        """The file's name in an error."""
        return f"{self.path}/{self.root}{folder}/{name}"


def _limited(data: bytes, where: str) -> bytes:
    if len(data) > MOST_BYTES:
        raise DataFormatError(f"{where}: must have at most {MOST_BYTES} bytes, got more")
    return data


def opened(path: str | os.PathLike[str]) -> Folder | Zip:
    """The data set at a path, a folder or a zip file."""
    _files.path("opened", "path", path)
    where = Path(path)
    if not where.exists():
        raise FileNotFoundError(2, "No such file or folder", str(where))
    return Folder(where) if where.is_dir() else Zip(where)


def _picture(data: bytes, where: str, is_label: bool) -> Any:
    """A picture by Pillow, decoded; its size is looked at before."""
    picture = _pictures.begun(_pillow(), io.BytesIO(data), where, MOST_PIXELS)
    if is_label and picture.mode not in ("L", "P", "1"):
        raise DataFormatError(f"{where}: must be a grey or indexed picture of 8 bits, got Pillow's mode {picture.mode}")
    if not is_label and (picture.mode in ("I", "F") or picture.mode.startswith("I;")):
        raise DataFormatError(f"{where}: must have 8 bits a channel, got Pillow's mode {picture.mode}")
    return _pictures.decoded(picture, where)


class Split(NamedTuple):
    """Images and labels of a part of a data set, decoded."""

    names: tuple[str, ...]
    images: tuple[Array, ...]  # [h, w, 3], uint8, RGB
    labels: tuple[Array, ...]  # uint8
    palette: list[list[int]] | None  # RGB of each class, where the label pictures have colours

    def __len__(self) -> int:
        return len(self.names)


def read_split(source: Folder | Zip, split: str, size: tuple[int, int], *, own_labels: bool = False) -> Split:
    """Reads and decodes a part of a data set.

    Parameters
    ----------
    source : Folder or Zip
        What `opened` gives.
    split : {"train", "val", "test"}
    size : (rows, columns)
        Images, and labels unless ``own_labels``, are resized to it: images bilinearly with antialiasing, labels by
        the nearest pixel.
    own_labels : bool
        Labels stay at the size of their files, as an evaluation wants them.

    Raises
    ------
    DataFormatError
        A file is damaged, too large or of another kind, an image lacks its label picture, their sizes differ, or there
        is no image.
    """
    _check.choice("read_split", "split", split, SPLITS)
    height, width = _check.pair("read_split", "size", size, 1)
    images = [name for name in source.names(split) if name.lower().endswith(SUFFIXES)]
    labels = {PurePosixPath(name).stem: name for name in source.names(split + LABELS)}
    if not images:
        raise DataFormatError(f"{source.path}: must hold images in a folder {split}, got none")
    if missing := [name for name in images if PurePosixPath(name).stem not in labels]:
        raise DataFormatError(f"{source.where(split, missing[0])}: must have a label picture in {split}{LABELS}")
    if len(images) * height * width * 4 > MOST_DECODED:
        raise DataFormatError(f"{source.path}: {split} must fit in {MOST_DECODED} bytes, decoded at {height}x{width}")
    module = _pillow()

    def one(name: str) -> tuple[Array, Array, Any]:
        label_name = labels[PurePosixPath(name).stem]
        image = _picture(source.read(split, name), source.where(split, name), False)
        label = _picture(source.read(split + LABELS, label_name), source.where(split + LABELS, label_name), True)
        if image.size != label.size:
            wanted, got = (" x ".join(map(str, p.size)) for p in (image, label))
            raise DataFormatError(f"{source.where(split + LABELS, label_name)}: must be {wanted} pixels, got {got}")
        rgb = _pictures.converted(image, "RGB", source.where(split, name))
        small = rgb.resize((width, height), module.Resampling.BILINEAR)
        colours = label.getpalette() if label.mode == "P" else None
        kept = label if own_labels else label.resize((width, height), module.Resampling.NEAREST)
        return np.array(small), np.array(kept).astype(np.uint8), colours

    work = [(name,) for name in images]
    # an archive is one file with one position: only a folder's pictures can be read side by side
    found = _threads.each(one, work) if isinstance(source, Folder) else [one(*args) for args in work]
    colours = found[0][2]
    palette = None if colours is None else [list(colours[k : k + 3]) for k in range(0, len(colours), 3)]
    return Split(tuple(images), tuple(f[0] for f in found), tuple(f[1] for f in found), palette)


# ---- figures of a data set ------------------------------------------------------------------------------


def _counts(label: Array) -> Array:
    return np.bincount(label.ravel(), minlength=256)


def n_classes_of(split: Split, ignore_index: int, wanted: int | None = None) -> int:
    """How many classes the labels have; those of an image that are not below ``wanted`` are refused by name."""
    seen = 0
    for name, label in zip(split.names, split.labels, strict=True):
        counts = _counts(label)
        if 0 <= ignore_index < 256:
            counts[ignore_index] = 0
        highest = int(np.flatnonzero(counts).max(initial=-1))
        if wanted is not None and highest >= wanted:
            raise DataFormatError(
                f"{name}: labels must be from 0 to {wanted - 1} or the ignored {ignore_index}, got {highest}"
            )
        seen = max(seen, highest + 1)
    if seen == 0:
        raise DataFormatError(f"{split.names[0]}: some label must not be the ignored {ignore_index}")
    return seen if wanted is None else wanted


def median_frequency_weights(split: Split, n_classes: int) -> list[float]:
    """Weights that give rare classes their due: median frequency over frequency, 1 for a class that is never there.

    The frequency of a class is its share of the pixels of the images that hold it.

    References
    ----------
    D. Eigen and R. Fergus, "Predicting depth, surface normals and semantic labels with a common multi-scale
    convolutional architecture", ICCV 2015, section 6.3.
    """
    of_class, of_images = np.zeros(n_classes), np.zeros(n_classes)
    for label in split.labels:
        counts = _counts(label)[:n_classes]
        of_class += counts
        of_images += np.where(counts > 0, counts.sum(), 0)
    there = of_class > 0
    frequency = np.divide(of_class, of_images, out=np.ones(n_classes), where=there)
    return [float(np.median(frequency[there]) / f) if t else 1.0 for f, t in zip(frequency, there, strict=True)]


def colour_statistics(split: Split) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in units of 0-1."""
    count = sum(image.shape[0] * image.shape[1] for image in split.images)
    total, squares = np.zeros(3), np.zeros(3)
    for image in split.images:
        flat = image.reshape(-1, 3)
        total += flat.sum(0, dtype=np.float64)
        squares += np.square(flat, dtype=np.float64).sum(0)
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean * mean, 1.0))  # one grey level at least: no division by zero
    return [float(v) for v in mean / 255], [float(v) for v in spread / 255]


def normalised(image: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """What a network is given: (image / 255 - mean) / std, float32, of an image [H, W, 3], 0 to 255."""
    factor = np.float32(1 / 255) / np.asarray(std, np.float32)
    return image * factor - np.asarray(mean, np.float32) / np.asarray(std, np.float32)


# ---- augmentation ---------------------------------------------------------------------------------------


class Augmentation(NamedTuple):
    """How an image is changed at random before it is shown again; ``Augmentation.none()`` leaves it as it is."""

    scale: tuple[float, float] = (0.75, 1.5)  # least and greatest enlargement; what goes beyond the image is cut off
    flip: bool = True  # left and right, every other time
    brightness: float = 0.2  # a factor from 1 - b to 1 + b; the next two likewise
    contrast: float = 0.2  # about the mean
    saturation: float = 0.2  # about grey

    @classmethod
    def none(cls) -> Augmentation:
        """No change."""
        return cls((1.0, 1.0), False, 0.0, 0.0, 0.0)

    def check(self, op: str) -> Augmentation:
        """Itself, of numbers that make sense."""
        if len(self.scale) != 2:
            _check.fail(op, "scale", "be a pair (least, greatest)", repr(self.scale))
        least, greatest = (_check.real(op, "scale", v, positive=True) for v in self.scale)
        if least > greatest or greatest > 16 or least < 1 / 16:
            _check.fail(op, "scale", "be (least, greatest) from 1/16 to 16", repr(self.scale))
        flip = _check.flag(op, "flip", self.flip)
        factors = {name: _check.real(op, name, getattr(self, name)) for name in self._fields[2:]}
        for name, value in factors.items():
            if not 0 <= value < 1:
                _check.fail(op, name, "be from 0 to less than 1", value)
        return Augmentation((least, greatest), flip, **factors)


GREY = np.array([0.299, 0.587, 0.114], np.float32)


def augmented(
    image: Array, label: Array, how: Augmentation, rng: np.random.Generator, fill: Sequence[float], ignore_index: int
) -> tuple[Array, Array]:
    """An image [H, W, 3], float32, 0 to 255, and its labels, changed at random; both keep their size.

    Enlarged, a part of the image is shown; reduced, the image lies somewhere on ``fill`` (RGB, 0-1), whose label is
    ``ignore_index``.
    """
    scale = float(np.exp(rng.uniform(*np.log(how.scale))))
    at, flip = rng.random(2), how.flip and rng.random() < 0.5
    factors = rng.uniform(-1, 1, 3)
    if scale != 1:
        image, label = _zoomed(image, label, scale, at, fill, ignore_index)
    if flip:
        image, label = image[:, ::-1], label[:, ::-1]
    x: Array = image.astype(np.float32)
    brightness, contrast, saturation = 1 + factors * (how.brightness, how.contrast, how.saturation)
    if how.saturation:
        grey = (x @ GREY)[..., None]
        x = grey + np.float32(saturation) * (x - grey)
    if how.contrast or how.brightness:
        middle = x.mean(dtype=np.float64) * (1 - contrast)
        x = x * np.float32(brightness * contrast) + np.float32(brightness * middle)
    np.clip(x, 0, 255, out=x)
    return x, np.array(label)


def _zoomed(
    image: Array, label: Array, scale: float, at: Array, fill: Sequence[float], ignore_index: int
) -> tuple[Array, Array]:
    module = _pillow()
    bilinear, nearest = module.Resampling.BILINEAR, module.Resampling.NEAREST
    height, width = label.shape
    pictures = (module.fromarray(image), bilinear), (module.fromarray(label), nearest)
    if scale > 1:
        y, x = at[0] * height * (1 - 1 / scale), at[1] * width * (1 - 1 / scale)
        box = x, y, min(x + width / scale, width), min(y + height / scale, height)
        return tuple(np.asarray(p.resize((width, height), how, box=box)) for p, how in pictures)  # type: ignore
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = int(at[0] * (height - rows + 1)), int(at[1] * (width - columns + 1))
    small = [np.asarray(p.resize((columns, rows), how)) for p, how in pictures]
    canvas = np.empty_like(image)
    canvas[:] = np.round(np.asarray(fill) * 255)
    labels = np.full_like(label, ignore_index)
    canvas[top : top + rows, left : left + columns] = small[0]
    labels[top : top + rows, left : left + columns] = small[1]
    return canvas, labels


class TrainingSet(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Augmented images [H, W, 3], float32, normalised, and labels [H, W], uint8, by (epoch, number).

    What is random depends on (seed, epoch, number) alone: neither on the worker, nor on the process, nor on what was
    asked for before.
    """

    def __init__(self, split: Split, how: Augmentation, config: Mapping[str, Any], seed: int) -> None:
        self.split, self.how, self.seed = split, how, seed
        self.mean, self.std, self.ignore_index = config["mean"], config["std"], config["ignore_index"]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """One image of one epoch."""
        epoch, number = key
        rng = np.random.default_rng([self.seed, epoch, number])
        image, label = self.split.images[number], self.split.labels[number]
        image, label = augmented(image, label, self.how, rng, self.mean, self.ignore_index)
        return torch.from_numpy(normalised(image, self.mean, self.std)), torch.from_numpy(label)


def order(n: int, seed: int, epoch: int) -> list[int]:
    """The images of an epoch, shuffled."""
    return np.random.default_rng([seed, epoch]).permutation(n).tolist()


def batches(data: TrainingSet, keys: Sequence[Sequence[tuple[int, int]]], workers: int) -> Iterator[Any]:
    """Batches (images [N, 3, H, W] in channels-last memory, labels [N, H, W]) of the keys, in their order."""
    own = torch.Generator()  # the loader draws a number: not from the generator that dropout uses
    loader = DataLoader(data, batch_sampler=keys, num_workers=workers, generator=own)  # type: ignore[arg-type]
    for images, labels in loader:
        yield images.permute(0, 3, 1, 2), labels
