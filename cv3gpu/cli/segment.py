"""``cv3gpu segment crf``, ``graphcut``, ``slic`` and ``net``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ._shared import (
    FILE,
    NO_GPU,
    Size,
    data_errors,
    device_option,
    folder_option,
    html_option,
    json_option,
    not_negative,
    on_device,
    positive,
    print_files,
    print_json,
    print_table,
    progress,
)

__all__ = [
    "ASKED",
    "ASKED_OF_CUT",
    "KERNELS",
    "METHODS",
    "NORMALIZATIONS",
    "OF_CUT",
    "OF_GRABCUT",
    "OF_LABELS",
    "OF_UNARY",
    "REGIONS",
    "SHARES",
    "Numbers",
    "Rectangle",
    "segment_crf",
    "segment_graphcut",
    "segment_group",
    "segment_net",
    "segment_slic",
]

METHODS = ("lattice", "lattice_fine", "exact")
NORMALIZATIONS = ("none", "before", "after", "symmetric")
SHARES = 8  # labels whose shares are printed; the JSON has all
OF_UNARY, OF_LABELS = ("array", "layout", "kind"), ("confidence", "unsure")
KERNELS = ("theta_gamma", "compat_smooth", "theta_alpha", "theta_beta", "compat_bilateral")
ASKED = ("method", "normalization", "device", *KERNELS)  # what the JSON repeats
REGIONS = ("none", "histogram", "gmm")
OF_GRABCUT, OF_CUT = ("gamma", "components", "iterations"), ("lam", "sigma", "region")
ASKED_OF_CUT = (*OF_CUT, "connectivity", "rect", "grabcut", "gamma", "components", "device")  # what the JSON repeats


@click.group("segment", epilog="Example:  cv3gpu segment slic photo.jpg --out slic-out")
def segment_group() -> None:
    """Segment an image."""


# ---- crf ------------------------------------------------------------------------------------------------


class Numbers(click.ParamType):
    """A positive number, or several between commas."""

    name = "numbers"

    def __init__(self, count: int) -> None:
        self.count = count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a tuple of them."""
        if not isinstance(value, str):
            return value
        try:
            numbers = tuple(map(float, value.split(",")))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, self.count) or not all(0 < x < math.inf for x in numbers):
            self.fail(f"{value!r} is neither a positive number nor {self.count} of them between commas.", param, ctx)
        return numbers[0] if len(numbers) == 1 else numbers


def _finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not finite.")
    return value


def _inside(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not 0 < value < 1:
        raise click.BadParameter(f"{value} is not between 0 and 1.")
    return value


def _kernel_options(gamma: float, smooth: float, alpha: float, beta: float, bilateral: float) -> Callable[..., Any]:
    """The kernels of a dense CRF, with these defaults."""

    def width(name: str, default: float, count: int, form: str, text: str) -> Callable[..., Any]:
        return click.option(name, type=Numbers(count), default=default, show_default=True, metavar=form, help=text)

    def weight(name: str, default: float, text: str) -> Callable[..., Any]:
        return click.option(name, type=float, callback=_finite, default=default, show_default=True, help=text)

    options = (
        width("--theta-gamma", gamma, 2, "N|X,Y", "Width of the smoothness kernel, pixels."),
        weight("--compat-smooth", smooth, "Potts weight of smoothness."),
        width("--theta-alpha", alpha, 2, "N|X,Y", "Width of the appearance kernel, pixels."),
        width("--theta-beta", beta, 3, "N|R,G,B", "Width of the appearance kernel in colour, 0 to 255."),
        weight("--compat-bilateral", bilateral, "Potts weight of appearance."),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@segment_group.command("crf", epilog="Example:  cv3gpu segment crf photo.jpg --unary softmax.npy --out crf-out")
@click.argument("image", type=FILE)
@click.option("--unary", type=FILE, help="What a classifier says of each pixel: an .npy or .npz file.")
@click.option("--array", metavar="NAME", help="Which array of --unary FILE.npz; needed where it has several.")
@click.option("--layout", type=click.Choice(["lhw", "hwl"]), default="lhw", show_default=True, help="Axes of --unary.")
@click.option(
    "--kind",
    type=click.Choice(["probability", "energy", "logits"]),
    default="probability",
    show_default=True,
    help="Numbers in --unary; an energy is -log p.",
)
@click.option("--labels", type=FILE, help="Instead of --unary: a map of labels, an indexed or grey PNG file.")
@click.option(
    "--confidence",
    type=float,
    callback=_inside,
    default=0.7,
    show_default=True,
    help="Probability that a label of --labels is right.",
)
@click.option(
    "--unsure",
    type=click.IntRange(0, 65535),
    metavar="VALUE",
    help="Value in --labels that means any label, such as 255.",
)
@click.option("--iterations", type=click.IntRange(0), default=10, show_default=True, help="Of mean field.")
@click.option(
    "--method", type=click.Choice(METHODS), default="lattice", show_default=True, help="How kernels are applied."
)
@click.option(
    "--normalization",
    type=click.Choice(NORMALIZATIONS),
    default="symmetric",
    show_default=True,
    help="How kernels are normalised.",
)
@_kernel_options(3.0, 3.0, 80.0, 13.0, 10.0)
@click.option("--names", metavar="A,B,...", help="Names of the labels, between commas, for the pictures.")
@folder_option("crf-out")
@html_option
@click.option("--marginals", is_flag=True, help="Write marginals.npy as well: Q [L, H, W], float32.")
@device_option
@json_option
@click.pass_context
def segment_crf(context: click.Context, image: Path, unary: Path | None, labels: Path | None, **options: Any) -> None:
    """Refine the labels of IMAGE with a dense CRF.

    Unary potentials come from a classifier (--unary) or from labels (--labels). The CRF is that of Kraehenbuehl and
    Koltun, its defaults those of pydensecrf's example. IMAGE is taken as RGB.

    Writes labels.png (indexed; the values of --labels, or the places in --unary), overlay.png, iterations.png (the
    labels as mean field goes on) and triptych.png (unaries, smoothness only, dense CRF). Prints for each iteration
    the objective, the energy of the best labels, the largest change of Q, and the pixels with another label.

    Exit code 3 if a file is malformed or does not fit the image, 4 if --device cuda finds no GPU.
    """
    if (unary is None) == (labels is None):
        raise click.UsageError("Give either --unary or --labels.")
    for name in OF_LABELS if labels is None else OF_UNARY:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} needs {'--labels' if labels is None else '--unary'}.")
    put = on_device(options["device"])
    from .. import _pages, _segment, viz

    viz.require()
    with data_errors():
        picture = _segment.read_image(image)
        if unary is not None:
            energies = _segment.read_unary(unary, picture.shape[:2], *(options[name] for name in OF_UNARY))
            values = list(range(len(energies)))
        else:
            assert labels is not None
            energies, values = _segment.read_labels(labels, picture.shape[:2], *(options[name] for name in OF_LABELS))
        names = _label_names(options["names"], values)
        with progress("crf", options["iterations"] + 3) as begin:
            kept = _pages.MOST_PICTURES if options["html"] else 0
            run = _segment.dense_crf(picture, energies, options, put, begin, kept)
            begin("pictures")
            where = options["out"], image.name
            files = _segment.write_crf(*where, picture, run, values, names, options["marginals"])
            if options["html"]:
                _pages.crf(image.name, picture, run, names).save(options["html"])
                files.append(options["html"])
    share = {name: float((run.labels == k).mean()) for k, name in enumerate(names)}
    if options["as_json"]:
        asked = {name: value for name, value in options.items() if name in ASKED}
        size = {"height": picture.shape[0], "width": picture.shape[1]}
        rows = [row._asdict() for row in run.rows]
        found = {"iterations": rows, "share": share, "files": list(map(str, files))}
        print_json({"image": str(image), **size, **asked, **found})
    else:
        _print_crf(run.rows, share, files)


def _print_crf(rows: Sequence[Any], share: dict[str, float], files: Sequence[Path]) -> None:
    cells = [
        (
            str(row.iteration),
            f"{row.objective:.1f}",
            f"{row.energy:.1f}",
            "" if row.change is None else f"{row.change:.1e}",
            "" if row.relabelled is None else f"{row.relabelled:.2%}",
        )
        for row in rows
    ]
    print_table(("iteration", "objective", "energy", "largest change", "relabelled"), cells, right=range(5))
    largest = sorted(share.items(), key=lambda item: -item[1])
    said = [f"{name} {part:.1%}" for name, part in largest[:SHARES]]
    said += [f"and {len(largest) - SHARES} more"] if len(largest) > SHARES else []
    click.echo(f"\nlabels: {', '.join(said)}")
    print_files(files)


def _label_names(given: str | None, values: Sequence[int]) -> list[str]:
    """The labels' names, by default their numbers."""
    names = given.split(",") if given else list(map(str, values))
    if len(names) != len(values) or len(set(names)) < len(names):
        raise click.UsageError(f"--names must be {len(values)} different names, got {given!r}.")
    return names


# ---- graphcut -------------------------------------------------------------------------------------------


class Rectangle(click.ParamType):
    """A rectangle of pixels, x,y,width,height."""

    name = "rectangle"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The four numbers."""
        try:
            numbers = tuple(map(int, value.split(",")))
        except ValueError:
            numbers = ()
        if len(numbers) != 4 or min(numbers[:2]) < 0 or min(numbers[2:]) < 1:
            self.fail(f"{value!r} is not a rectangle: four whole numbers x,y,width,height.", param, ctx)
        return numbers


@segment_group.command(
    "graphcut",
    epilog="Example:  cv3gpu segment graphcut photo.jpg --fg object.png --bg rest.png --out graphcut-out\n\n"
    "Example:  cv3gpu segment graphcut photo.jpg --grabcut --rect 40,30,200,150",
)
@click.argument("image", type=FILE)
@click.option("--fg", type=FILE, help="Seeds of the foreground: an indexed or grey image that is not 0 there.")
@click.option("--bg", type=FILE, help="Seeds of the background, likewise.")
@click.option("--scribbles", type=FILE, help="Both: a PNG file with pure red on the foreground, pure blue behind it.")
@click.option("--rect", type=Rectangle(), metavar="X,Y,W,H", help="Rectangle around the object, pixels.")
@click.option("--lam", type=float, callback=not_negative, default=50.0, show_default=True, help="Weight of edges.")
@click.option(
    "--sigma",
    type=float,
    callback=positive,
    help="Difference of neighbours inside a region, 0 to 1; default: estimated from the image.",
)
@click.option(
    "--region", type=click.Choice(REGIONS), default="none", show_default=True, help="Model of the seeds' colours."
)
@click.option("--connectivity", type=click.Choice(["4", "8"]), default="8", show_default=True, help="Neighbours.")
@click.option("--grabcut", is_flag=True, help="Cut again and again, with colour models of both regions (GrabCut).")
@click.option(
    "--gamma", type=float, callback=not_negative, default=50.0, show_default=True, help="Weight of edges in GrabCut."
)
@click.option(
    "--components", type=click.IntRange(1, 64), default=5, show_default=True, help="Gaussians of each model in GrabCut."
)
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True, help="Of GrabCut, at most.")
@folder_option("graphcut-out")
@html_option
@device_option
@json_option
@click.pass_context
def segment_graphcut(context: click.Context, image: Path, **options: Any) -> None:
    """Cut an object out of IMAGE.

    Seeds are masks (--fg, --bg) or a picture of scribbles; what is outside of --rect is background as well. The cut
    is that of Boykov and Jolly, the best of all segmentations that agree with the seeds. With --grabcut it is followed
    by those of GrabCut, which needs nothing but --rect, and starts with that where it is given. IMAGE is taken as RGB.

    Writes mask.png (255 on the object) and overlay.png (the rest dark, seeds in orange and blue). Prints the energy,
    which is the flow, and areas; with --grabcut the energy of each iteration.

    Exit code 3 if a file is malformed or does not fit the image, 4 if --device cuda finds no GPU.
    """
    grabcut, rect = options["grabcut"], options["rect"]
    if not (options["scribbles"] or (options["fg"] and (options["bg"] or rect)) or (grabcut and rect)):
        raise click.UsageError("Give seeds: --fg and --bg, or --scribbles; --rect is enough with --grabcut.")
    for name in OF_GRABCUT if not grabcut else OF_CUT if rect else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            why = "needs --grabcut" if not grabcut else "has no effect with --grabcut and --rect"
            raise click.UsageError(f"--{name} {why}.")
    options["connectivity"] = int(options["connectivity"])
    put = on_device(options["device"])
    from .. import _pages, _segment, _segment_cut, viz

    viz.require()
    with data_errors():
        picture = _segment.read_image(image)
        height, width = picture.shape[:2]
        if rect and (rect[0] + rect[2] > width or rect[1] + rect[3] > height):
            asked = ",".join(map(str, rect))
            raise click.UsageError(f"--rect must lie in the image of {width} x {height} pixels, got {asked}.")
        known = _segment_cut.read_seeds((height, width), *(options[name] for name in ("fg", "bg", "scribbles", "rect")))
        with progress("graphcut", 2 + grabcut * options["iterations"]) as begin:
            run = _segment_cut.graph_cut(picture, known, options, put, begin)
            begin("pictures")
            files = _segment_cut.write_cut(options["out"], picture, known, run)
            if options["html"]:
                _pages.cut(image.name, picture, known, run).save(options["html"])
                files.append(options["html"])
    object_size, pixels = int(run.labels.sum()), height * width
    converged = not (run.rows and run.rows[-1].changed)
    if options["as_json"]:
        print_json(
            {
                "image": str(image),
                "height": height,
                "width": width,
                **{name: options[name] for name in ASKED_OF_CUT},
                "seeds": {"foreground": int(known.foreground.sum()), "background": int(known.background.sum())},
                "iterations": [row._asdict() for row in run.rows],
                "converged": converged,
                "energy": run.energy,
                "area": {"foreground": object_size, "background": pixels - object_size},
                "files": list(map(str, files)),
            }
        )
        return
    if run.rows:
        cells = [(str(r.iteration), f"{r.energy:.1f}", f"{r.foreground:.2%}", str(r.changed)) for r in run.rows]
        print_table(("iteration", "energy", "foreground", "changed"), cells, right=range(4))
        click.echo("" if converged else f"not converged after {len(run.rows)} iterations\n")
    click.echo(f"energy (flow): {run.energy:.6g}")
    click.echo(f"foreground: {object_size} of {pixels} pixels ({object_size / pixels:.1%})")
    print_files(files)


# ---- slic -----------------------------------------------------------------------------------------------


@segment_group.command("slic", epilog="Example:  cv3gpu segment slic photo.jpg --segments 400 --out slic-out")
@click.argument("image", type=FILE)
@click.option("--segments", type=click.IntRange(1), default=400, show_default=True, help="How many, about.")
@click.option(
    "--compactness",
    type=float,
    callback=positive,
    default=10.0,
    show_default=True,
    help="Weight of nearness against colour.",
)
@click.option("--zero", is_flag=True, help="Adapt the compactness to each segment (SLIC-zero).")
@click.option(
    "--sigma",
    type=float,
    callback=not_negative,
    default=0.0,
    show_default=True,
    help="Width of a Gaussian that smooths IMAGE first, pixels.",
)
@click.option("--iterations", type=click.IntRange(1), default=10, show_default=True, help="Of assignment and update.")
@folder_option("slic-out")
@html_option
@device_option
@json_option
def segment_slic(image: Path, out: Path, html: Path | None, device: str, as_json: bool, **options: Any) -> None:
    """Divide IMAGE into superpixels.

    They are SLIC's: pixels of like colour (in Lab) and place, each segment in one piece. IMAGE is taken as RGB.

    Writes labels.png (16 bits, 8 for up to 256 segments; labels.npy above 65536), boundaries.png and
    mean_colours.png. Prints how many there are and their sizes.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    put = on_device(device)
    import cv3gpu

    from .. import _array, _pages, _segment, _segment_slic, viz

    viz.require()
    with data_errors():
        picture = _segment.read_image(image)
        with progress("slic", 2) as begin:
            begin("superpixels")
            sizes = (options[name] for name in ("segments", "compactness", "iterations"))
            labels = _array.to_host(cv3gpu.slic(put(picture), *sizes, zero=options["zero"], sigma=options["sigma"]))
            begin("pictures")
            files = _segment_slic.write_superpixels(out, picture, labels)
            if html is not None:
                _pages.superpixels(image.name, picture, labels).save(html)
                files.append(html)
    pixels = _segment_slic.sizes(labels)
    if as_json:
        size = {"height": picture.shape[0], "width": picture.shape[1]}
        told = {"found": pixels.pop("count"), "pixels": pixels, "files": list(map(str, files))}
        print_json({"image": str(image), **size, **options, "device": device, **told})
        return
    click.echo(f"segments: {pixels['count']}")
    click.echo(f"pixels: {pixels['least']} to {pixels['most']}, median {pixels['median']}")
    print_files(files)


# ---- net ------------------------------------------------------------------------------------------------


@segment_group.command("net", epilog="Example:  cv3gpu segment net photo.jpg --weights best.safetensors --crf")
@click.argument("image", type=FILE)
@click.option("--weights", type=FILE, required=True, help="Weights of a network, as 'cv3gpu train seg' writes them.")
@click.option("--model", metavar="NAME", help="The network, where --weights does not say it: unet, deeplabv3, ...")
@click.option("--classes", metavar="A,B,...", help="Names of the classes, where --weights does not say them.")
@click.option("--size", type=Size(), metavar="HxW", help="What the network sees; default: as in training.")
@click.option("--crf", is_flag=True, help="Refine by a dense CRF, whose kernels the next options say.")
@click.option("--iterations", type=click.IntRange(0), default=10, show_default=True, help="Of mean field.")
@_kernel_options(1.0, 3.0, 67.0, 3.0, 4.0)  # usual after DeepLab's networks
@click.option("--probabilities", is_flag=True, help="Write probabilities.npy as well: [L, H, W], float32.")
@folder_option("net-out")
@html_option
@device_option
@json_option
@click.pass_context
def segment_net(context: click.Context, image: Path, weights: Path, out: Path, **options: Any) -> None:
    """Label IMAGE by a trained network.

    IMAGE is taken as RGB. The probabilities of the classes are enlarged to its size; --crf refines them there.

    Writes labels.png (indexed; the values are the classes), overlay.png and legend.png. Prints for each class its share
    of the pixels, and how probable it is on average where it was chosen.

    Exit code 3 if a file is malformed or the weights do not fit the network, 4 if --device cuda finds no GPU.
    """
    for name in ("iterations", *KERNELS) if not options["crf"] else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --crf.")
    names = options["classes"].split(",") if options["classes"] else None
    if names and len(set(names)) < len(names):
        raise click.UsageError(f"--classes must be different names, got {options['classes']!r}.")
    from .. import _pages, _segment, _segment_net, viz

    viz.require()
    nets = _segment_net.postprocess()
    if options["device"] == "cuda" and not nets.cuda_is_there():
        click.echo("cv3gpu segment net: --device cuda needs a GPU and a torch for it; see cv3gpu doctor", err=True)
        raise click.exceptions.Exit(NO_GPU)
    with data_errors(), progress("net", 3) as begin:
        begin("weights")
        picture = _segment.read_image(image)
        network, config = nets.load_network(weights, options["model"], names)
        begin("labels")
        size = options["size"] or _segment_net.shown_size(picture.shape[:2], config["size"])
        how = {"size": size, "mean": config["mean"], "std": config["std"], "device": options["device"]}
        kernels = {"n_iter": options["iterations"], **{name: options[name] for name in KERNELS}}
        found = nets.predict(network, picture, **how, crf=kernels if options["crf"] else None)
        begin("pictures")
        files = _segment_net.write(out, image.name, picture, found, config, options["probabilities"])
        labels = found.labels if found.refined is None else found.refined
        rows = _segment_net.shares(labels, found.probabilities, config["names"])
        if options["html"]:
            _pages.net(image.name, picture, found, config, rows).save(options["html"])
            files.append(options["html"])
    if options["as_json"]:
        used = ("device", "crf", "iterations", *KERNELS) if options["crf"] else ("device", "crf")
        told = {name: options[name] for name in used}
        size_of = {"height": picture.shape[0], "width": picture.shape[1], "shown": list(size)}
        classes = [row._asdict() for row in rows]
        print_json(
            {"image": str(image), "weights": str(weights), "model": config["model"], **size_of, **told,
             "classes": classes, "files": list(map(str, files))}
        )  # fmt: skip
        return
    cells = [
        (row.name, str(row.pixels), f"{row.share:.1%}", "" if row.confidence is None else f"{row.confidence:.2f}")
        for row in sorted(rows, key=lambda row: -row.pixels)
    ]
    print_table(("class", "pixels", "share", "mean probability"), cells, right=range(1, 4))
    click.echo()
    print_files(files)
