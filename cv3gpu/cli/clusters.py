"""``cv3gpu segment kmeans``, ``meanshift``, ``spectral`` and ``ncut``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ._shared import (
    FILE,
    data_errors,
    device_option,
    folder_option,
    html_option,
    json_option,
    not_negative,
    number_option,
    on_device,
    print_files,
    print_json,
    print_table,
    progress,
    seed_option,
)

__all__ = ["segment_kmeans", "segment_meanshift", "segment_ncut", "segment_spectral"]


def _min_size_option(default: int) -> Callable[..., Any]:
    text = "Pixels of a segment, at least."
    return click.option("--min-size", type=click.IntRange(1), default=default, show_default=True, help=text)


def _affinity_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How pixels are connected."""
    for option in (
        number_option("--sigma-distance", 4.0, "Width of the affinity in place, pixels; not of contours."),
        number_option(
            "--sigma-intensity", 0.1, "Width of the affinity in colour, or in edge strength; black to white is 1."
        ),
        number_option("--radius", 5.0, "Pixels nearer than that are connected."),
        click.option(
            "--kind",
            type=click.Choice(["colour", "contour"]),
            default="colour",
            show_default=True,
            help="Alike pixels belong together, or those with no edge between them (intervening contours).",
        ),
    ):
        function = option(function)
    return function


def _segment_clusters(name: str, image: Path, options: dict[str, Any]) -> None:
    """Runs one of the four, writes its files, prints what it found."""
    out, html, as_json = (options.pop(name) for name in ("out", "html", "as_json"))
    put = on_device(options["device"])
    from .. import _pages, _segment, _segment_cluster, _segment_slic, viz

    viz.require()
    with data_errors():
        picture = _segment.read_image(image)
        with progress(name, 2) as begin:
            begin("segments")
            found = getattr(_segment_cluster, name)(picture, options, put)
            begin("pictures")
            files = _segment_cluster.write(out, image.name, picture, found)
            if html is not None:
                _pages.clusters(image.name, name.replace("_", " "), picture, found).save(html)
                files.append(html)
    pixels = _segment_slic.sizes(found.labels)
    if as_json:
        size = {"height": picture.shape[0], "width": picture.shape[1]}
        told = {"found": pixels.pop("count"), "pixels": pixels, **found.facts, "files": list(map(str, files))}
        print_json({"image": str(image), **size, **options, **told})
        return
    cuts = found.facts.pop("cuts", [])
    if cuts:
        cells = [(str(k + 1), f"{cut['ncut']:.4g}", " | ".join(map(str, cut["sizes"]))) for k, cut in enumerate(cuts)]
        print_table(("cut", "ncut", "sizes"), cells, right=range(2))
        click.echo()
    click.echo(f"segments: {pixels['count']}")
    click.echo(f"pixels: {pixels['least']} to {pixels['most']}, median {pixels['median']}")
    for fact, value in found.facts.items():
        shown = ", ".join(f"{v:.3g}" for v in value) if isinstance(value, list) else value
        click.echo(f"{fact}: {f'{shown:.6g}' if isinstance(shown, float) else shown}")
    print_files(files)


@click.command("kmeans", epilog="Example:  cv3gpu segment kmeans photo.jpg --clusters 8 --out kmeans-out")
@click.argument("image", type=FILE)
@click.option("--clusters", type=click.IntRange(1, 4096), default=8, show_default=True, help="How many.")
@number_option(
    "--nearness", 0.2, "Weight of a pixel's distance against a unit of Lab; 0 for colour alone.", not_negative
)
@click.option("--starts", type=click.IntRange(1, 1000), default=3, show_default=True, help="The best of so many runs.")
@seed_option
@folder_option("kmeans-out")
@html_option
@device_option
@json_option
def segment_kmeans(image: Path, **options: Any) -> None:
    """Cluster the pixels of IMAGE by colour and place.

    k-means over (L, a, b, row, column), begun by k-means++. A cluster need not be in one piece. IMAGE is taken as RGB.

    Writes labels.png, boundaries.png and mean_colours.png. Prints the inertia and the sizes.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    _segment_clusters("k_means", image, options)


@click.command("meanshift", epilog="Example:  cv3gpu segment meanshift photo.jpg --range 12 --out shifted")
@click.argument("image", type=FILE)
@number_option("--spatial", 8.0, "Bandwidth in place, pixels.")
@number_option("--range", 16.0, "Bandwidth in colour, units of Lab.")
@_min_size_option(200)
@click.option(
    "--kernel", type=click.Choice(["flat", "gaussian"]), default="flat", show_default=True, help="Weight of neighbours."
)
@number_option("--tol", 0.01, "A point has arrived when it moves less, in bandwidths.")
@folder_option("meanshift-out")
@html_option
@device_option
@json_option
def segment_meanshift(image: Path, **options: Any) -> None:
    """Segment IMAGE by mean shift, without a number of segments.

    Every pixel climbs to a mode of the density of colour and place; pixels side by side whose modes are near form a
    region (Comaniciu and Meer). IMAGE is taken as RGB.

    Writes labels.png, boundaries.png, mean_colours.png and filtered.png. Prints how many regions there are.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    _segment_clusters("mean_shift", image, options)


@click.command("spectral", epilog="Example:  cv3gpu segment spectral photo.jpg --segments 6 --out parts")
@click.argument("image", type=FILE)
@click.option("--segments", type=click.IntRange(1, 1000), help="How many; default: where eigenvalues have a gap.")
@_affinity_options
@click.option(
    "--normalization",
    type=click.Choice(["random_walk", "symmetric"]),
    default="random_walk",
    show_default=True,
    help="Shi and Malik's, or Ng, Jordan and Weiss's.",
)
@click.option(
    "--assign",
    type=click.Choice(["kmeans", "discretize", "cluster_qr"]),
    default="kmeans",
    show_default=True,
    help="How eigenvectors become labels.",
)
@seed_option
@folder_option("spectral-out")
@html_option
@device_option
@json_option
def segment_spectral(image: Path, **options: Any) -> None:
    """Segment IMAGE by spectral clustering of its pixels.

    Pixels within --radius are connected by their likeness; the first eigenvectors of the graph's Laplacian are the
    features that are clustered. The first one is the same everywhere, the second sets the two sides of the best cut
    apart. IMAGE is taken as RGB.

    Writes labels.png, boundaries.png, mean_colours.png and eigenvectors.png. Prints the eigenvalues.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    _segment_clusters("spectral", image, options)


@click.command("ncut", epilog="Example:  cv3gpu segment ncut photo.jpg --segments 8 --out ncut-out")
@click.argument("image", type=FILE)
@click.option("--segments", type=click.IntRange(1), help="The most segments; needed with --method kway.")
@click.option(
    "--max-ncut", type=click.FloatRange(0, 2), help="The greatest cut that is made; default 0.04 without --segments."
)
@_min_size_option(50)
@click.option(
    "--method",
    type=click.Choice(["recursive", "kway"]),
    default="recursive",
    show_default=True,
    help="Two parts again and again, or all at once.",
)
@click.option(
    "--superpixels", type=click.IntRange(1), help="Cut the graph of so many superpixels; --min-size then counts these."
)
@_affinity_options
@seed_option
@folder_option("ncut-out")
@html_option
@device_option
@json_option
@click.pass_context
def segment_ncut(context: click.Context, image: Path, **options: Any) -> None:
    """Segment IMAGE by normalised cuts.

    Shi and Malik's: a cut is good where little weight crosses it, measured by all the weight that its sides have.
    IMAGE is taken as RGB.

    Writes labels.png, boundaries.png and mean_colours.png, and of pixels eigenvectors.png. Prints the cuts.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    if options["method"] == "kway":
        if options["segments"] is None:
            raise click.UsageError("--method kway needs --segments.")
        if options["max_ncut"] is not None:
            raise click.UsageError("--max-ncut goes with --method recursive.")
    if options["superpixels"]:
        source = context.get_parameter_source
        for name in ("kind", "radius", "sigma_distance"):
            if source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name.replace('_', '-')} is of pixels: leave it out with --superpixels.")
        if source("min_size") is not click.core.ParameterSource.COMMANDLINE:
            options["min_size"] = 1
    _segment_clusters("normalized_cut", image, options)
