"""What the documentation takes from the package, the README and the result files, so that nothing is said twice.

In Markdown a comment ``<!-- kind: arguments -->`` is replaced before the page is read: ``readme: Decisions`` by that
section of the README, ``bench: crf graphcut`` by the timings of these families, ``bench time: slic 512x512`` and
``bench speedup: slic 512x512 vs scikit-image`` by one figure of them, ``csv: camvid.csv name mean_iou`` by columns of a
result file, ``kernels: conv.cu boxes.py`` by what the kernels' headers say, ``figure: plot_x 2`` by a
picture of the gallery; `PARTS` has all kinds. In reStructuredText ``.. api:: cv3gpu.conv`` documents all public names
that are defined there.
"""

from __future__ import annotations

import ast
import collections
import csv
import functools
import html
import importlib
import inspect
import re
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import cv3gpu

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
RESULTS = ROOT / "bench" / "results"


# ---- public names ---------------------------------------------------------------------------------------


class Name(NamedTuple):
    """A public name where a user should take it from, what it names, and the module that defines it."""

    path: str
    value: Any
    home: str

    @property
    def kind(self) -> str:
        """The directive of autodoc."""
        if isinstance(self.value, types.ModuleType):
            return "module"
        if inspect.isclass(self.value):
            return "class"
        return "function" if callable(self.value) else "data"


@functools.cache
def public_names() -> tuple[Name, ...]:
    """All names of ``cv3gpu.__all__`` and of the ``__all__`` of modules named there, each object once."""
    found: dict[Any, Name] = {}
    waiting: collections.deque[tuple[str, Any]] = collections.deque([("cv3gpu", cv3gpu)])
    while waiting:
        prefix, module = waiting.popleft()
        exported = getattr(module, "__all__", ())
        for name in exported:
            path, value = f"{prefix}.{name}", getattr(module, name)
            is_module = isinstance(value, types.ModuleType)
            key = id(value) if is_module or callable(value) else path
            if key in found:
                continue
            home = path if is_module else getattr(value, "__module__", None) if callable(value) else prefix
            found[key] = Name(path, value, home or prefix)
            if is_module:
                waiting.append((path, value))
    return tuple(found.values())


def names_under(modules: Sequence[str]) -> list[Name]:
    """The public names that one of the modules, or a module inside it, defines: functions, classes, then data."""
    order = ("module", "function", "class", "data")
    ours = [
        n for n in public_names() if any(f"{place}.".startswith(f"{m}.") for m in modules for place in (n.home, n.path))
    ]
    return sorted(ours, key=lambda n: (order.index(n.kind), n.path))


class Api(SphinxDirective):
    """``.. api:: module ...``: everything public of these modules; with ``:except:``, but for these modules."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"except": str.split}

    def run(self) -> list[nodes.Node]:
        """The nodes of autodoc's directives, one for each name."""
        left_out = {n.path for n in names_under(self.options.get("except", []))}
        chosen = [n for n in names_under(self.arguments[0].split()) if n.path not in left_out]
        if not chosen:
            raise self.error(f"api: {self.arguments[0]} defines no public name")
        lines = []
        for name in chosen:
            lines += [f".. auto{name.kind}:: {name.path}"]
            if name.kind == "class":
                lines += ["   :members:"]
            lines += ["   :no-value:"] if name.kind == "data" else []
            lines += [""]
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, self.arguments[0]), self.content_offset, node)
        return node.children


def skip_member(app: Sphinx, kind: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out the fields and methods that NamedTuple and Enum make, whose texts say nothing."""
    text = getattr(value, "__doc__", None) or ""
    return True if text.startswith("Alias for field number") else None


def keep_initials(app: Sphinx, kind: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Keeps "Y. Boykov" at the head of a line from being read as the item Y of a list."""
    lines[:] = [re.sub(r"^(\s*)([A-Z])\. ", r"\1\2\\. ", line) for line in lines]


def find_missing(app: Sphinx, env: Any, node: Any, content: nodes.Element) -> nodes.Element | None:
    """Resolves ``:func:`dense_crf``` in the text of a module whose names are documented elsewhere."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    objects = env.get_domain("py").objects
    for parts in (target.split(".")[-2:], target.split(".")[-1:]):
        tail = "." + ".".join(parts)
        matches = [path for path in objects if path.endswith(tail)]
        same = [path for path in matches if path.startswith(f"{node.get('py:module')}.")] or matches
        if len(same) == 1 or (same and len(parts) == 1 and f"cv3gpu{tail}" in same):
            path = same[0] if len(same) == 1 else f"cv3gpu{tail}"
            entry = objects[path]
            uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
            return nodes.reference("", "", content, internal=True, refuri=f"{uri}#{entry.node_id}", reftitle=path)
    return None


# ---- parts of a page ------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def _relinked(text: str, folder: str) -> str:
    """Text of a file in ``folder`` of the checkout, its links seen from the folder of the pages."""
    moved = re.sub(r"\]\((?!https?:|#)", f"](/../{folder}", text).strip()
    return moved.replace("(/../tests/hostrun/README.md)", "(/hostrun.md)")  # a page of its own, by `whole_file`


def readme_section(heading: str) -> str:
    """The text under a heading of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not found:
        raise ExtensionError(f"docs: README.md must have a section {heading!r}")
    return _relinked(found[1], "")


def readme_table(heading: str) -> str:
    """The first table under a heading of the README."""
    found = re.search(r"(?:^\|.*\n?)+", readme_section(heading), re.M)
    if not found:
        raise ExtensionError(f"docs: the section {heading!r} of README.md must have a table")
    return found[0]


def whole_file(name: str) -> str:
    """A Markdown file of the checkout."""
    folder, _, _ = name.rpartition("/")
    return _relinked((ROOT / name).read_text(encoding="utf-8"), f"{folder}/" if folder else "")


def _results() -> list[dict[str, Any]]:
    from bench import table

    return table.load(RESULTS)


def bench_tables(families: str) -> str:
    """The timings of these families of entries, of every device with a result file, as ``bench.table`` writes them."""
    from bench import table

    wanted, parts, measured = set(families.split()), [], set()
    for data in _results():
        entries = {name: entry for name, entry in data["entries"].items() if entry["family"] in wanted}
        if not entries:
            continue
        kind = data["kind"]
        measured.add(kind)
        made = table.make([data], {k: sorted(entries) if k == kind else [] for k in table.KINDS})
        rows = made.split(table.HEAD)[1].split("\n\n")[0].strip()
        commits = sorted({f"{entry['commit']} of {entry['date'][:10]}" for entry in entries.values()})
        parts += [
            f"*{data['device']} ({table.KINDS[kind]}); commit {', '.join(commits)}; "
            f"`python -m pytest bench --device {kind}`.*",
            _folded(f"{len(entries)} entries", f"{table.HEAD}\n{rows}"),
        ]
    parts += [f"*{said}: {table.NOT_MEASURED}.*" for kind, said in table.KINDS.items() if kind not in measured]
    return "\n\n".join(parts)


def _timed(beginning: str) -> list[dict[str, Any]]:
    """The entries of the result files on a CPU whose names begin so, all of which were timed."""
    found = [
        entry
        for data in _results()
        for name, entry in data["entries"].items()
        if data["kind"] == "cpu" and name.startswith(beginning) and entry["status"] == "ok"
    ]
    if not found:
        raise ExtensionError(f"docs: a result file must have a timing that begins with {beginning!r}")
    return found


def bench_time(beginning: str) -> str:
    """What an entry takes on a CPU; its name may be cut short, but must be that of one entry."""
    from bench import table

    found = _timed(beginning)
    if len(found) > 1:
        raise ExtensionError(f"docs: one timing must begin with {beginning!r}, got {len(found)}")
    return table.duration(found[0]["times"]["ours"]["median"])


def bench_speedup(arguments: str) -> str:
    """How many times as long a peer takes, ``entry vs peer``; the least and the most of all entries that begin so."""
    beginning, _, peer = arguments.partition(" vs ")
    times = [{name: figures["median"] for name, figures in entry["times"].items()} for entry in _timed(beginning)]
    ratios = [of[peer] / of["ours"] for of in times if peer in of]
    if not ratios:
        raise ExtensionError(f"docs: a timing that begins with {beginning!r} must have the peer {peer!r}")
    said = dict.fromkeys(f"{ratio:.2g}" for ratio in (min(ratios), max(ratios)))
    return f"{' to '.join(said)} times"


def bench_devices(_: str) -> str:
    """What the figures were measured on: a line for each result file."""
    from bench import table

    lines = []
    for data in _results():
        limits = ", ".join(
            f"{name} {value / 1e9:,.0f} G{'B' if name == 'copy' else 'FLOP'}/s"
            for name, value in data["ceilings"].items()
        )
        software = ", ".join(f"{name} {version}" for name, version in data["versions"].items() if version)
        lines.append(f"* **{data['device']}** ({table.KINDS[data['kind']]}). Ceilings: {limits}. {software}.")
    kinds = {data["kind"] for data in _results()}
    lines += [f"* **{said}: {table.NOT_MEASURED}.**" for kind, said in table.KINDS.items() if kind not in kinds]
    return "\n".join(lines)


def _csv(name: str) -> tuple[str, list[dict[str, str]]]:
    """A result file: its comment, if it opens with one, and its rows."""
    lines = (RESULTS / name).read_text(encoding="utf-8").splitlines()
    comment = lines.pop(0).lstrip("# ") if lines[0].startswith("#") else ""
    return comment, list(csv.DictReader(lines))


def csv_table(arguments: str) -> str:
    """Columns of a result file of ``bench/results``; all of them if none is named."""
    name, *columns = arguments.split()
    if not (RESULTS / name).is_file():
        return f"*{name}: not measured.*"
    comment, rows = _csv(name)
    chosen = columns or list(rows[0])
    table = _table(chosen, [[row[column] for column in chosen] for row in rows])
    return f"{comment}\n\n{table}" if comment else table


def register_table(_: str) -> str:
    """The compiler's figures of each kernel on one architecture: the largest over all variants."""
    comment, rows = _csv("registers.csv")
    arch = "90"
    of_kernel: dict[tuple[str, str], list[dict[str, str]]] = collections.defaultdict(list)
    for row in rows:
        if row["arch"].rstrip("a") == arch:
            of_kernel[row["file"], row["kernel"]].append(row)
    figures = ("registers", "spill_stores", "spill_loads", "shared")
    body = [
        [f"`{file}`", f"`{kernel}`", str(len(found)), *(str(max(int(row[f] or 0) for row in found)) for f in figures)]
        for (file, kernel), found in sorted(of_kernel.items())
    ]
    head = ["file", "kernel", "variants", "registers", "spill stores, B", "spill loads, B", "static shared memory, B"]
    said = f"*{comment}; sm_{arch}, the largest figure of all variants.*"
    return f"{said}\n\n{_folded(f'{len(body)} kernels', _table(head, body))}"


def _kernel_header(name: str) -> dict[str, str]:
    """The fields of a kernel file, and ``what``: the line that they stand under."""
    from cv3gpu import kernels

    text = kernels.text(name)
    if not name.endswith(".py"):
        first = re.match(r"/\*\s*(.*?)\n", text)
        assert first is not None, name
        return {"what": first[1].partition(": ")[2], **kernels.header(name)}
    document = text.split('"""')[1]
    fields = {
        field: " ".join(value.split()) for field, value in re.findall(r"^(\w+)\n((?:    .*\n?)+)", document, re.M)
    }
    return {"what": document.split("\n")[0], **fields}


def kernel_notes(files: str) -> str:
    """What the headers of kernel files say of cost, order of sums and measurements, folded away."""
    parts = []
    for name in files.split():
        fields = _kernel_header(name)
        said = [
            f"**{field}**\n: {_plain(fields[field])}" for field in ("formula", "cost", "order", "measured", "source")
        ]
        parts.append(_folded(name, "\n\n".join([_plain(fields["what"]), *said])))
    return "\n\n".join(parts)


def _folded(title: str, text: str) -> str:
    return f":::{{fold}} {title}\n{text}\n:::"


def _plain(text: str) -> str:
    """Text of a comment, in which no character means anything to Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|$~])", r"\\\1", text.replace("\n", " "))


class Fold(SphinxDirective):
    """``:::{fold} title``: content that unfolds under its title."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The parsed content between the tags of a ``details`` element."""
        inside = nodes.container(classes=["folded"])
        self.state.nested_parse(self.content, self.content_offset, inside)
        opening = f"<details><summary>{html.escape(self.arguments[0])}</summary>"
        return [nodes.raw("", opening, format="html"), inside, nodes.raw("", "</details>", format="html")]


class Example(NamedTuple):
    """An example of the gallery: its title, its page, and its pictures, if it has been run."""

    title: str
    page: str
    images: list[Path]


def _example(name: str) -> Example:
    found = list((DOCS / "gallery").rglob(f"{name}.py"))
    if len(found) != 1:
        raise ExtensionError(f"docs: the gallery must have one example {name}, got {len(found)}")
    folder = found[0].parent.relative_to(DOCS / "gallery")
    title = ast.get_docstring(ast.parse(found[0].read_text(encoding="utf-8")))
    made = DOCS / "auto_gallery" / folder / "images"
    images = sorted(made.glob(f"sphx_glr_{name}_[0-9]*"))
    return Example((title or name).split("\n")[0].strip(), f"/auto_gallery/{(folder / name).as_posix()}.rst", images)


def example(name: str) -> str:
    """A link to a gallery example."""
    found = _example(name)
    return f"[{_plain(found.title)}]({found.page})"


def picture(name: str) -> str:
    """A small picture of a gallery example over a link to it; only the link where it has not been run."""
    found = _example(name)
    thumbnail = (found.images or [DOCS])[0].parent / "thumb" / f"sphx_glr_{name}_thumb.png"
    if not found.images or not thumbnail.is_file():
        return example(name)
    return f"[![{_plain(found.title)}](/{thumbnail.relative_to(DOCS).as_posix()})]({found.page}) {example(name)}"


def figure(arguments: str) -> str:
    """A picture of a gallery example over a link to it, ``name number``; only the link where none has been run."""
    name, _, number = arguments.partition(" ")
    found, which = _example(name), int(number or 1)
    if not found.images:
        return f"Example: {example(name)}"
    if which > len(found.images):
        raise ExtensionError(f"docs: figure must be one of the {len(found.images)} pictures of {name}, got {which}")
    image = found.images[which - 1].relative_to(DOCS).as_posix()
    return f"```{{figure}} /{image}\n:alt: {found.title}\n:class: example\n\n{example(name)}\n```"


def determinism(names: str) -> str:
    """What operators promise about the bits of their results, by label."""
    from cv3gpu import _determinism

    by_label: dict[str, list[str]] = collections.defaultdict(list)
    for name in names.split():
        by_label[_determinism.determinism(name)].append(f"`{name}`")
    parts = [f"*{label.replace('_', ' ')}* ({', '.join(found)})" for label, found in sorted(by_label.items())]
    return f"* Determinism: {'; '.join(parts)}."


def torch_operators(_: str) -> str:
    """The schemas that are registered with torch."""
    import torch

    importlib.import_module("cv3gpu.nn")  # registers them
    schemas = sorted(str(schema) for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("cv3gpu::"))
    return "```text\n" + "\n".join(schemas) + "\n```"


PARTS: dict[str, Callable[[str], str]] = {
    "readme": readme_section,
    "readme table": readme_table,
    "file": whole_file,
    "hero": lambda _: '<img class="hero" src="_static/hero.png" alt="Segmentations of a photograph without training">',
    "bench": bench_tables,
    "bench devices": bench_devices,
    "bench time": bench_time,
    "bench speedup": bench_speedup,
    "csv": csv_table,
    "registers": register_table,
    "kernels": kernel_notes,
    "figure": figure,
    "example": example,
    "picture": picture,
    "determinism": determinism,
    "torch operators": torch_operators,
}
_MARK = re.compile(rf"<!-- ({'|'.join(sorted(PARTS, key=len, reverse=True))})(?:: (.+?))? -->")


def fill_in(app: Sphinx, document: str, source: list[str]) -> None:
    """Replaces the comments of a Markdown page by the parts they ask for."""
    source[0] = _MARK.sub(lambda mark: PARTS[mark[1]](mark[2] or ""), source[0])


def draw_hero(app: Sphinx) -> None:
    """Draws the picture of the first page, by the operators, into a folder of static files beside the pages."""
    from skimage import data

    from cv3gpu import viz

    image = data.coffee()[::2, ::2]
    segments = cv3gpu.slic(image, n_segments=250)
    regions = cv3gpu.mean_shift_segmentation(image / 2.55, 10, 12, 60)
    parts = cv3gpu.normalized_cut(image / 255.0, superpixels=segments, n_segments=10)
    rect = (20, 5, 235, 180)
    panels = {
        "slic": viz.boundaries(image, segments),
        "mean_shift_segmentation": viz.mean_colours(image, regions.labels),
        "normalized_cut": viz.overlay(image, parts.labels, border=True),
        "grab_cut": viz.cutout(image, cv3gpu.grab_cut(image, rect=rect).labels, rect=rect),
    }
    folder = Path(app.outdir) / "_drawn"
    folder.mkdir(parents=True, exist_ok=True)
    shown = [panel / 255.0 for panel in panels.values()]
    viz.save(viz.image_grid([shown], columns=list(panels), size=3.0), folder / "hero.png")
    app.config.html_static_path.append(str(folder))


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers all of it with Sphinx."""
    app.add_directive("api", Api)
    app.add_directive("fold", Fold)
    app.connect("builder-inited", draw_hero)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", keep_initials, priority=100)
    app.connect("missing-reference", find_missing)
    app.connect("source-read", fill_in)
    return {"version": cv3gpu.__version__, "parallel_read_safe": True, "parallel_write_safe": True}
