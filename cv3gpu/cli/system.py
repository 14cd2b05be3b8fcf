"""``cv3gpu demo``, ``doctor``, ``kernels`` and ``bench``."""

from __future__ import annotations

from pathlib import Path

import click

from ._shared import (
    FAILURE,
    NO_GPU,
    html_option,
    json_option,
    on_device,
    print_files,
    print_json,
    print_table,
    progress,
)

__all__ = ["bench", "demo", "doctor", "kernels_compile", "kernels_group", "kernels_list"]


# ---- demo -----------------------------------------------------------------------------------------------


@click.command(epilog="Example:  cv3gpu demo --out demo-out")
@click.option(
    "--out",
    default="demo-out",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the pictures.",
)
@click.option("--only", multiple=True, metavar="FAMILY", help="Run this family only; may be given several times.")
@html_option
@json_option
def demo(out: Path, only: tuple[str, ...], html: Path | None, as_json: bool) -> None:
    """Run the operators on real input and check them.

    Every operator runs on a photograph or on real tracks and is compared with an independent reference.
    Prints operator, input, device, time and agreement, and writes pictures. Needs scikit-image, motmetrics
    and matplotlib (pip install 'cv3gpu[demo]'). Exit code 1 if anything disagrees.
    """
    from .. import demo as demos

    families = sorted({entry.family for entry in demos.ENTRIES})
    if unknown := set(only) - set(families):
        raise click.UsageError(f"--only must be one of {', '.join(families)}, got {', '.join(sorted(unknown))}")
    chosen = [entry for entry in demos.ENTRIES if not only or entry.family in only]
    with progress("demo", len(chosen)) as begin:
        result = demos.run(out, chosen, begin)
    rows = result.rows
    if html is not None:
        from .. import _pages

        _pages.demo(result).save(html)
    if as_json:
        print_json(
            {
                "ok": result.ok,
                "rows": [row._asdict() for row in rows],
                "pictures": list(map(str, result.pictures)),
                **({"html": str(html)} if html else {}),
            }
        )
    else:
        cells = [
            (r.operator, r.input, r.device, f"{r.milliseconds:.2f}", r.agreement, "ok" if r.ok else "FAILED")
            for r in rows
        ]
        print_table(("operator", "input", "device", "ms", "agreement", ""), cells, right=(3,))
        click.echo(f"\n{sum(r.ok for r in rows)} of {len(rows)} agree")
        print_files([*result.pictures, *([html] if html else [])])
    if not result.ok:
        raise click.exceptions.Exit(FAILURE)


# ---- doctor ---------------------------------------------------------------------------------------------


@click.command(epilog="Example:  cv3gpu doctor --require-gpu")
@click.option("--require-gpu", is_flag=True, help="Exit with 4 where there is no GPU.")
@json_option
def doctor(require_gpu: bool, as_json: bool) -> None:
    """Check the installation, and say what mends it.

    Looks at the driver, the GPUs, CuPy, NVRTC, torch, numba and the kernel cache, and runs one kernel of each
    kind. Exit code 1 if there is a problem.
    """
    from .. import doctor as doctors

    report = doctors.examine()
    if as_json:
        findings = [finding._asdict() for finding in report.findings]
        print_json({"ok": report.ok, "gpu": report.gpu, "findings": findings})
    else:
        for finding in report.findings:
            colour = {"ok": "green", "note": "yellow", "problem": "red"}[finding.status]
            click.echo(str(finding).replace(finding.status, click.style(finding.status, fg=colour), 1))
    if require_gpu and not report.gpu:
        click.echo("cv3gpu doctor: a GPU is required, and there is none", err=True)
        raise click.exceptions.Exit(NO_GPU)
    if not report.ok:
        raise click.exceptions.Exit(FAILURE)


# ---- kernels --------------------------------------------------------------------------------------------


@click.group("kernels", epilog="Example:  cv3gpu kernels list")
def kernels_group() -> None:
    """List the GPU kernels, or compile them without a GPU."""


@kernels_group.command("list", epilog="Example:  cv3gpu kernels list")
@json_option
def kernels_list(as_json: bool) -> None:
    """List the kernel files: kernels, variants, architectures, formula."""
    from .. import _kernel, kernels

    found = []
    for file in kernels.files():
        if file.endswith(".cuh"):
            continue
        cuda = file.endswith(".cu")
        header = kernels.header(file) if cuda else {}
        found.append(
            {
                "file": file,
                "kind": "CUDA C++" if cuda else "numba.cuda",
                "kernels": list(_kernel.kernel_names(file)) if cuda else [],
                "variants": len(kernels.variants(file)) if cuda else 1,
                "arch": header.get("arch", "").split(),
                "formula": header.get("formula", ""),
            }
        )
    if as_json:
        print_json(found)
        return
    cells = [(f["file"], f["kind"], str(f["variants"]), " ".join(f["arch"]), " ".join(f["kernels"])) for f in found]
    print_table(("file", "kind", "variants", "architectures", "kernels"), cells, right=(2,))


@kernels_group.command("compile", epilog="Example:  cv3gpu kernels compile --arch 90 resize.cu")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--arch", multiple=True, metavar="ARCH", help="Compute capability, such as 90; default: all declared.")
@json_option
def kernels_compile(files: tuple[str, ...], arch: tuple[str, ...], as_json: bool) -> None:
    """Compile CUDA C++ kernels, and show registers and spills.

    Every variant of every FILE (default: all) is compiled. Needs NVRTC (pip install 'cv3gpu[cuda13]'), but
    neither a GPU nor a driver. Exit code 1 if anything does not compile.
    """
    from .. import _report, kernels

    known = [file for file in kernels.files() if file.endswith(".cu")]
    if unknown := set(files) - set(known):
        raise click.UsageError(f"FILE must be one of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    parts = [(file, a) for file in files or known for a in kernels.header(file).get("arch", "").split()]
    declared = {a for _, a in parts}
    if missing := set(arch) - declared:
        wanted = ", ".join(sorted(declared, key=lambda a: (len(a), a)))
        raise click.UsageError(f"--arch must be one of {wanted}, got {', '.join(sorted(missing))}")
    parts = [(file, a) for file, a in parts if not arch or a in arch]
    rows = []
    with progress("compile", len(parts)) as begin:
        for file, a in parts:
            begin(f"{file} sm_{a}")
            rows += _report.compile_report([file], [a])
    failed = [row for row in rows if row.error]
    if as_json:
        print_json({"ok": not failed, "kernels": [row._asdict() for row in rows]})
    else:
        cells = [
            (
                r.file,
                r.variant,
                f"sm_{r.arch}",
                r.kernel,
                str(r.registers),
                str(r.spill_stores + r.spill_loads),
                str(r.shared),
            )
            for r in rows
            if not r.error
        ]
        print_table(
            ("file", "variant", "arch", "kernel", "registers", "spilled bytes", "shared bytes"),
            cells,
            right=(4, 5, 6),
        )
        for row in failed:
            click.echo(f"\n{row.file} {row.variant} sm_{row.arch}: {row.error}", err=True)
        click.echo(f"\n{len(cells)} kernels compiled, {len(failed)} files failed")
    if failed:
        raise click.exceptions.Exit(FAILURE)


# ---- bench ----------------------------------------------------------------------------------------------


@click.command("bench", epilog="Example:  cv3gpu bench box_iou")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where the operators run."
)
@click.option("--list", "listed", is_flag=True, help="Print the names of the measurements, and measure nothing.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    help="For how long each is repeated; default: about 2 on a CPU, 0.3 on a GPU.",
)
@html_option
@json_option
def bench(
    words: tuple[str, ...], device: str, listed: bool, seconds: float | None, html: Path | None, as_json: bool
) -> None:
    """Measure operators against other libraries, in a source checkout.

    Each WORD picks the measurements whose names hold it; default: those of the README's table, which takes minutes.
    Every result is compared with a float64 reference before it is timed. Prints medians, and how many times as long
    each of the others takes. Exit code 1 if a result is off, 4 if --device cuda finds no GPU.
    """
    from .. import _bench

    chosen = _bench.entries(device, words)
    if not chosen:
        raise click.UsageError(f"WORD must be in the name of a measurement, got {', '.join(words)}; see --list.")
    if listed:
        rows = [{"name": entry.name, "shape": entry.shape, "family": entry.family} for entry in chosen]
        if as_json:
            print_json(rows)
        else:
            print_table(("measurement", "what"), [(row["name"], row["shape"]) for row in rows])
        return
    if device == "cuda":
        on_device(device, "bench")
    with progress("bench", len(chosen)) as begin:
        found = _bench.measure(chosen, seconds, begin)
    if html is not None:
        from .. import _pages

        _pages.bench(found, device).save(html)
    if as_json:
        print_json([measured._asdict() for measured in found])
    else:
        cells = []
        for name, _, status, times, why in found:
            ours = times.pop("ours", None)
            said = [f"{peer} {_bench.duration(t)} ({t / ours:.2f}x)" for peer, t in times.items() if ours]
            said += [f"{peer}: {reason}" for peer, reason in why.items()]
            cells.append((name, _bench.duration(ours) if ours else status, "; ".join(said)))
        print_table(("measurement", "ours", "others"), cells, right=(1,))
    if any(measured.status != "ok" for measured in found):
        raise click.exceptions.Exit(FAILURE)
