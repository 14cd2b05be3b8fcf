"""What follows a network: a dense CRF after it or as its last layer, clusters of its features, labels of an image."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import _check, _weights
from .._array import check_device
from ..cluster import kmeans
from ..crf import dense_crf
from ..errors import DataFormatError
from ..resize import interpolate
from ..spectral import spectral_clustering
from . import models
from .layers import at_least_float32, check_floats
from .models._blocks import Network

__all__ = ["Labelled", "WithCRF", "cluster_features", "cuda_is_there", "load_network", "predict", "refine"]

Array = np.ndarray[Any, Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, where a file of weights says nothing
CLUSTERINGS = ("kmeans", "spectral")

# ---- a CRF after the network ----------------------------------------------------------------------------


def refine(logits: Tensor, image: Tensor, *, align_corners: bool = False, **options: Any) -> Tensor:
    """Probabilities of classes at an image's size, refined by a dense CRF.

    Logits of a network, at its own resolution or the image's, are enlarged bilinearly and serve as unary energies of
    :func:`cv3gpu.dense_crf`. For a CRF that is trained with the network see :class:`WithCRF`.

    Parameters
    ----------
    logits : Tensor, [N, L, h, w], floats
    image : Tensor, [N, C, H, W], uint8 or floats
        In the units of ``theta_beta``: 0 to 255 for the default.
    align_corners : bool
        Of the enlargement: what the network was trained with.
    **options
        Of :func:`cv3gpu.dense_crf`: ``theta_alpha``, ``compat_bilateral``, ``n_iter``, ``method`` …

    Returns
    -------
    Tensor, [N, L, H, W], float32, or float64 for such logits
        Q; its argmax over dimension 1 are the labels.

    Raises
    ------
    TypeError, ValueError
        An argument is no tensor of such a shape, or :func:`cv3gpu.dense_crf` refuses it.

    Notes
    -----
    16-bit logits are computed in float32. Cost: that of the CRF; the enlarged logits are held once. Gradients flow to
    the logits and the parameters.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> image = torch.zeros(1, 3, 8, 12)
    >>> image[..., 6:] = 200                                    # two areas
    >>> logits = torch.zeros(1, 2, 4, 6)
    >>> logits[0, 0, 0, 0] = logits[0, 1, 0, 5] = 4.0           # a hint in each
    >>> cv3gpu.nn.refine(logits, image, n_iter=5).argmax(1)[0, 4]
    tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    """
    op = "refine"
    _check_maps(op, "logits", logits, "[N, L, h, w]")
    _check_image(op, image, logits)
    energies = -_enlarged(
        at_least_float32(logits), (image.shape[2], image.shape[3]), _check.flag(op, "align_corners", align_corners)
    )
    q: Tensor = dense_crf(energies, at_least_float32(image).movedim(1, -1), **options)
    return q


class WithCRF(nn.Module):
    """A segmentation network with a dense CRF as its last layer, for use and for training end to end.

    Parameters
    ----------
    network : torch.nn.Module
        Gives logits [N, L, h, w] of images [N, C, H, W]: a network of `cv3gpu.nn.models`, or one of torchvision,
        whose ``"out"`` counts. What it gives besides, for an auxiliary loss, is left out.
    crf : DenseCRF
        Of L classes.
    mean, std : sequence of numbers, one for each channel, optional
        What the network's input was normalised with, in units of 0–1: the CRF sees ``255 * (x * std + mean)``. Without
        them it sees the input as it is, and the widths of its colours must suit that.

    Notes
    -----
    The ``state_dict`` holds ``network.*`` and ``crf.*``. Weights of the network alone load by
    ``layer.network.load_state_dict``. Logits come at the input's size, as log-probabilities unless the CRF gives
    probabilities. Gradients reach the network through all iterations, and the CRF's parameters; as the CRF's are on
    another scale, give them a learning rate of their own.

    References
    ----------
    S. Zheng et al., Conditional random fields as recurrent neural networks, ICCV 2015, section 5.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> network = torch.nn.Conv2d(3, 2, 3, stride=2, padding=1)
    >>> layer = cv3gpu.nn.WithCRF(network, cv3gpu.nn.DenseCRF(2, n_iter=2), mean=(0.5,) * 3, std=(0.2,) * 3)
    >>> layer(torch.zeros(1, 3, 8, 10)).shape
    torch.Size([1, 2, 8, 10])
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, network: nn.Module, crf: nn.Module, *, mean: Any = None, std: Any = None) -> None:
        super().__init__()
        op = "WithCRF"
        for name, module in (("network", network), ("crf", crf)):
            if not isinstance(module, nn.Module):
                _check.fail(op, name, "be a torch.nn.Module", _check.kind(module), error=TypeError)
        if (mean is None) != (std is None):
            _check.fail(op, "std" if std is None else "mean", "be given where the other is", None)
        self.network, self.crf = network, crf
        values = (
            (None, None) if mean is None else (_channels(op, "mean", mean), _channels(op, "std", std, positive=True))
        )
        for name, value in zip(("mean", "std"), values, strict=True):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Refined logits [N, L, H, W] of images ``x`` [N, C, H, W]."""
        logits, corners = _scores(self.network, x)
        image = x
        if self.mean is not None and self.std is not None:
            _check.shape("WithCRF", "x", x, ["N", len(self.mean), "H", "W"])
            image = 255 * (x * self.std[:, None, None] + self.mean[:, None, None])
        refined: Tensor = self.crf(_enlarged(at_least_float32(logits), (x.shape[2], x.shape[3]), corners), image)
        return refined


def _channels(op: str, argument: str, values: Any, *, positive: bool = False) -> Tensor:
    if not isinstance(values, Sequence | Tensor | np.ndarray) or isinstance(values, str) or not len(values):
        _check.fail(op, argument, "be a number for each channel", repr(values), error=TypeError)
    numbers = np.asarray(values).tolist()
    return torch.tensor([_check.real(op, argument, number, positive=positive) for number in numbers])


def _scores(network: nn.Module, x: Tensor) -> tuple[Tensor, bool]:
    """A network's logits, at its own resolution where it can, and the corners of their enlargement."""
    if isinstance(network, Network):
        found, corners = network(x, upsample=False), network.align_corners
    else:
        found, corners = network(x), False
    if isinstance(found, Mapping):
        found = found["out"]
    logits = found[0] if isinstance(found, tuple | list) else found
    _check_maps("network", "result", logits, "[N, L, h, w]")
    return logits, corners


def _enlarged(logits: Tensor, size: tuple[int, int], corners: bool) -> Tensor:
    if (logits.shape[2], logits.shape[3]) == size:
        return logits
    found: Tensor = interpolate(logits, size, mode="bilinear", align_corners=corners)
    return found


def _check_maps(op: str, argument: str, x: Any, layout: str) -> None:
    check_floats(op, argument, x)
    _check.ndim(op, argument, x, 4, layout)
    if 0 in x.shape[1:]:
        _check.fail(op, argument, "have channels, rows and columns", tuple(x.shape))


def _check_image(op: str, image: Any, logits: Tensor) -> None:
    check_floats(op, "image", image, "uint8")
    _check.shape(op, "image", image, [logits.shape[0], "C", "H", "W"])
    if 0 in image.shape[2:]:
        _check.fail(op, "image", "have rows and columns", tuple(image.shape))


# ---- clusters of features -------------------------------------------------------------------------------


def cluster_features(
    features: Tensor,
    n_clusters: int,
    *,
    method: str = "kmeans",
    together: bool = False,
    normalize: bool = True,
    size: Any = None,
    n_neighbors: int = 10,
    seed: int = 0,
) -> Tensor:
    """Segments images by clustering what a network says of each place.

    Parameters
    ----------
    features : Tensor, [N, C, h, w], floats
        Of any layer; taken without their gradient history.
    n_clusters : int
    method : {"kmeans", "spectral"}
        :func:`cv3gpu.kmeans`, or :func:`cv3gpu.spectral_clustering` on the graph of nearest neighbours.
    together : bool
        Clusters the places of all images at once, so that a label means the same in each; else image by image.
    normalize : bool
        Scales the features of each place to length 1, so that the angle between them counts (zeros stay).
    size : int or pair (rows, columns), optional
        Of the labels, each that of the nearest place; (h, w) unless given.
    n_neighbors : int
        Of ``"spectral"``; at most the number of places.
    seed : int
        Of random starts.

    Returns
    -------
    Tensor, [N, h, w] or of ``size``, int64
        Labels from 0 to n_clusters - 1.

    Raises
    ------
    TypeError, ValueError
        An argument is not of such a type, shape or value; there are fewer places than clusters.

    Notes
    -----
    Cost: that of the clustering of h w points of C numbers, k-means by the best of 3 starts. The same seed gives the
    same labels. No gradient. No images give no labels.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> features = torch.zeros(1, 2, 2, 4)
    >>> features[:, 0, :, :2] = features[:, 1, :, 2:] = 1.0
    >>> labels = cv3gpu.nn.cluster_features(features, 2)
    >>> labels[0, 0].tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    True
    """
    op = "cluster_features"
    _check_maps(op, "features", features, "[N, C, h, w]")
    check_device(op, "features", features)
    if not bool(features.isfinite().all()):
        _check.fail(op, "features", "be finite", "NaN or infinity")
    _check.choice(op, "method", method, CLUSTERINGS)
    count = _check.integer(op, "n_clusters", n_clusters, 1)
    neighbors = _check.integer(op, "n_neighbors", n_neighbors, 1)
    _check.integer(op, "seed", seed, 0)
    n, c, h, w = features.shape
    wanted = None if size is None else _check.pair(op, "size", size, 1)
    groups = 1 if _check.flag(op, "together", together) else n
    places = n * h * w // groups if groups else 0
    points = at_least_float32(features.detach()).permute(0, 2, 3, 1).reshape(groups, places, c)
    if n and places < count:
        _check.fail(op, "n_clusters", f"be at most the number of places, {places}", count)
    if _check.flag(op, "normalize", normalize):
        points = functional.normalize(points, dim=2, eps=1e-12)
    found = []
    for each in points:
        if method == "kmeans":
            found.append(kmeans(each, count, n_init=3, seed=seed).labels)
        else:
            found.append(spectral_clustering(each, count, n_neighbors=min(neighbors, places), seed=seed))
    labels = torch.stack(found) if n else torch.zeros((n, h * w), dtype=torch.int64, device=features.device)
    labels = labels.reshape(n, h, w)
    if wanted is None or wanted == (h, w):
        return labels
    rows, cols = (torch.arange(m, device=labels.device) * k // m for m, k in zip(wanted, (h, w), strict=True))
    return labels[:, rows[:, None], cols]


# ---- files of weights, and labels of an image -----------------------------------------------------------


def cuda_is_there() -> bool:
    """Whether torch finds a GPU."""
    return torch.cuda.is_available()


def load_network(
    path: str | os.PathLike[str], model: str | None = None, names: Sequence[str] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The network that a file of weights holds, in eval mode, and the file's config, checked and filled in.

    Parameters
    ----------
    path : path
        Safetensors, as ``cv3gpu train seg`` writes it.
    model : str, optional
        The network's name in `cv3gpu.nn.models`, where the file does not say it.
    names : sequence of str, optional
        The classes' names, where the file does not say them.

    Returns
    -------
    network : torch.nn.Module
    config : dict
        ``model``, ``num_classes``, ``arguments``, ``mean``, ``std``, ``names``, and ``palette`` and ``size`` or None.

    Raises
    ------
    DataFormatError
        The file is of another kind, its config makes no sense, or its arrays do not fit the network.
    """
    arrays, given = _weights.read(path)
    where = os.fspath(path)
    config = _config(where, given, model, names)
    make, arguments = getattr(models, config["model"]), (config["num_classes"],)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        with torch.device("meta"):  # shapes are compared before any memory is taken
            network: nn.Module = make(*arguments, **config["arguments"])
        network.load_state_dict(state, assign=True)
        if any(x.is_meta for x in (*network.parameters(), *network.buffers())):
            network = make(*arguments, **config["arguments"])
            network.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError) as error:
        said = textwrap.shorten(str(error), 300, placeholder=" …")  # torch names every array, a line each
        raise DataFormatError(f"{where}: must hold a network and its weights, got {said}") from error
    return network.eval().float(), config


def _config(where: str, given: Mapping[str, Any], model: str | None, names: Sequence[str] | None) -> dict[str, Any]:
    """A config with all its keys, of the right kinds."""

    def fail(key: str, requirement: str) -> Any:
        raise DataFormatError(f"{where}: {key} must {requirement}, got {given.get(key)!r}")

    known = [name for name in models.__all__ if not name.startswith("mpn")]
    config: dict[str, Any] = dict.fromkeys(("palette", "size"), None) | dict(given)
    if model is not None and given.get("model", model) != model:
        fail("model", f"be {model}")
    config["model"] = given.get("model", model)
    if config["model"] not in known:
        fail("model", f"be said, one of {', '.join(known)}")
    count: Any = config.setdefault("num_classes", len(names) if names else None)
    if type(count) is not int or not 1 <= count <= 4096:
        fail("num_classes", "be said, from 1 to 4096")
    words = list(names) if names else given.get("names") or [str(k) for k in range(count)]
    if not isinstance(words, list) or len(words) != count or not all(isinstance(word, str) for word in words):
        fail("names", f"be {count} words")
    config["names"] = words
    if not isinstance(config.setdefault("arguments", {}), dict):
        fail("arguments", "be an object")
    for key, default in (("mean", MEAN), ("std", STD)):
        values = config.setdefault(key, list(default))
        if not _are_numbers(values, 3) or (key == "std" and min(values) <= 0):
            fail(key, "be three numbers" + (" above 0" if key == "std" else ""))
    if config["size"] is not None and (not _are_numbers(config["size"], 2) or min(config["size"]) < 1):
        fail("size", "be two numbers of pixels")
    palette = config["palette"]
    if palette is not None and not (isinstance(palette, list) and all(_are_colours(colour) for colour in palette)):
        fail("palette", "be colours of three numbers from 0 to 255")
    return config


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(type(v) in (int, float) and math.isfinite(v) for v in values)


def _are_colours(colour: Any) -> bool:
    return isinstance(colour, list) and len(colour) == 3 and all(type(v) is int and 0 <= v <= 255 for v in colour)


class Labelled(NamedTuple):
    """What a network says of an image."""

    labels: Array  # [H, W], of the network
    refined: Array | None  # [H, W], of the CRF after it
    probabilities: Array  # [L, H, W], float32; the CRF's where there is one


def predict(
    network: nn.Module,
    image: Array,
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    size: tuple[int, int] | None = None,
    crf: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Labelled:
    """Labels an image: normalised, shown at a size, probabilities enlarged to the image's own size, a CRF.

    Parameters
    ----------
    network : torch.nn.Module
        In the mode in which it is; it is moved to the device.
    image : array, [H, W, 3], uint8
    mean, std : sequence of numbers, units of 0–1
    size : (rows, columns), optional
        At which the network sees the image, resized with antialiasing; its own unless given.
    crf : mapping, optional
        Options of :func:`refine`, which is used where they are given.
    device : str
        torch's.
    """
    height, width = image.shape[:2]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(device).float()
    shown = pixels
    if size is not None and tuple(size) != (height, width):
        shown = interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    middle, spread = (torch.tensor(x, device=device, dtype=torch.float32)[:, None, None] for x in (mean, std))
    with torch.inference_mode():
        logits, corners = _scores(network.to(device), (shown / 255 - middle) / spread)
        whole = _enlarged(logits.float(), (height, width), corners)
        labels = whole.argmax(1)[0].cpu().numpy()
        if crf is None:
            return Labelled(labels, None, whole.softmax(1)[0].cpu().numpy())
        q = refine(whole, pixels, **crf)
        return Labelled(labels, q.argmax(1)[0].cpu().numpy(), q[0].cpu().numpy())
