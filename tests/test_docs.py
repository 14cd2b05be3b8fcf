"""The documentation: its code runs, it is built without a warning, its gallery holds, and it leaves no public name out."""

from __future__ import annotations

import doctest
import html.parser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BUILDERS = ("sphinx", "pydata_sphinx_theme", "numpydoc", "sphinx_gallery", "myst_parser", "skimage", "sklearn", "torch")
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if not {"_build", "auto_gallery"} & {*p.parts})]
BLOCK = re.compile(r"^```(?:(python|pycon)|\{code-block\} python)\n((?::[^\n]*\n)*)(.*?)^```", re.M | re.S)


def need_sphinx() -> None:
    """Skips the test where the documentation cannot be built."""
    missing = [name for name in BUILDERS if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; pip install 'cv3gpu[docs,test]'")


# ---- code on the pages ----------------------------------------------------------------------------------


def works(library: str) -> bool:
    """Whether a library that a page compares with can be used here."""
    if importlib.util.find_spec(library) is None:
        return False
    return library != "motmetrics" or (hasattr(np, "asfarray") and importlib.util.find_spec("xmltodict") is not None)


def blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """Line, kind and text of each block of Python that can run here."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        kind, options, code = found.groups()
        if "not run here" in options:
            continue
        if all(works(library) for library in re.findall(r"needs-(\w+)", options)):
            yield text.count("\n", 0, found.start(3)) + 1, kind or "python", code


def run_blocks(page: Path, names: dict[str, Any]) -> int:
    """Runs the blocks of a page one after the other, as a reader would; returns how many there were."""
    count = 0
    for line, kind, code in blocks(page):
        if kind == "pycon":
            test = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), line - 1)
            runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
            said: list[str] = []
            runner.run(test, out=said.append, clear_globs=False)
            names.update(test.globs)
            assert runner.failures == 0, "".join(said)
        else:
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)
        count += 1
    return count


def write_readme_data(folder: Path) -> dict[str, Any]:
    """The files that the README's examples read, and the names that its training loop has."""
    from cv3gpu import mot

    frame = np.repeat(np.arange(1, 9), 2)
    box = np.stack([np.tile([10.0, 200.0], 8) + frame, 0 * frame + 20, 0 * frame + 30, 0 * frame + 80], 1)
    ids = np.tile([1, 2], 8)
    (folder / "MOT17/train/MOT17-02/gt").mkdir(parents=True)
    truth = mot.Tracks(frame, ids, box, class_=np.ones(16, int), visibility=np.ones(16))
    pred = mot.Tracks(frame, np.where(frame < 5, ids, 3 - ids), box)
    for path in ("MOT17/train/MOT17-02/gt/gt.txt", "gt.txt"):
        mot.write(folder / path, truth)
    for tracker in ("MyTracker", "A", "B"):
        (folder / "results" / tracker).mkdir(parents=True)
        mot.write(folder / "results" / tracker / "MOT17-02.txt", pred)
    mot.write(folder / "tracker.txt", pred)
    return {"gt_ids": ids[:2], "gt_boxes": box[:2], "ids": ids[:2], "boxes": box[:2]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_of_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    for library in re.findall(
        r"^(?:>>> )?(?:import|from) (torch|sklearn|distributed|dask)\b", page.read_text(encoding="utf-8"), re.M
    ):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    if page.name == "README.md":
        names |= write_readme_data(tmp_path)
        assert run_blocks(page, names) > 15
    else:
        run_blocks(page, names)


def test_pages_have_code() -> None:
    """A page of a family, or of another library, without a block that runs would prove nothing."""
    for page in PAGES:
        if page.parent.name in ("families", "from") and page.stem != "index":
            assert list(blocks(page)), page


def test_a_wrong_output_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 2\n```\n\n```pycon\n>>> x + 1\n4\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="Expected"):
        run_blocks(page, {})


# ---- the site -------------------------------------------------------------------------------------------


class Links(html.parser.HTMLParser):
    """The targets and the anchors of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.hrefs: set[str] = set()
        self.images: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps what a link or a picture refers to, and what may be referred to."""
        values = {name: value for name, value in attrs if value}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.hrefs.add(values["href"])
        if tag == "img" and "src" in values:
            self.images.add(values["src"])


def check_links(site: Path) -> None:
    """Every link inside the site leads to a file, and to an anchor in it where it names one."""
    pages = {page: Links(page) for page in site.rglob("*.html")}
    broken = []
    for page, links in pages.items():
        for target in links.hrefs | links.images:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (page.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else page
            anchor = urllib.parse.unquote(parts.fragment)
            if not to.exists() or (anchor and to in pages and anchor not in pages[to].anchors):
                broken.append(f"{page.relative_to(site)}: {target}")
    assert not broken, "\n".join(broken)


def check_names(site: Path) -> None:
    """Every public name is documented; that none is twice, Sphinx says by a warning."""
    from cv3gpu_docs import public_names
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    documented = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    wanted = {name.path for name in public_names()}
    assert len(wanted) > 200
    assert not wanted - documented


def check_gallery(site: Path) -> None:
    """Every example has a page with a picture that this run has made."""
    examples = sorted((DOCS / "gallery").rglob("plot_*.py"))
    assert len(examples) >= 15
    for example in examples:
        page = site / "auto_gallery" / example.relative_to(DOCS / "gallery").with_suffix(".html")
        shown = [Path(image).name for image in Links(page).images]
        assert any(name.startswith(f"sphx_glr_{example.stem}_0") for name in shown), example


def check_benchmarks(site: Path) -> None:
    """Every entry of the result files stands in the tables, and what was not measured is said."""
    text = re.sub(r"<[^>]+>|\s+", "", (site / "benchmarks.html").read_text(encoding="utf-8"))
    kinds = set()
    for path in (ROOT / "bench" / "results").glob("*.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        kinds.add(data["kind"])
        for name in data["entries"]:
            assert re.sub(r"\s+", "", name) in text, name
    assert ("GPU:notmeasured" in text) == ("cuda" not in kinds)


def test_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built from a copy, so that the gallery runs anew and the checkout stays clean; one test, as it is one build."""
    need_sphinx()
    ignored = shutil.ignore_patterns("_build", "auto_gallery", "__pycache__")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=ignored)
    for name in ("README.md", "cv3gpu", "kernels", "bench", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", tmp_path / "trees", tmp_path / "docs", site],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    check_names(site)
    check_links(site)
    check_gallery(site)
    check_benchmarks(site)


def test_every_comment_of_a_page_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    need_sphinx()
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    from cv3gpu_docs import _MARK

    for page in PAGES[1:]:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!--") == len(_MARK.findall(text)), page


@pytest.mark.parametrize(
    ("part", "argument", "message"),
    [
        ("readme", "No such section", "must have a section 'No such section'"),
        ("readme table", "License", "must have a table"),
        ("example", "plot_nothing", "must have one example plot_nothing, got 0"),
        ("bench time", "nothing", "must have a timing that begins with 'nothing'"),
        ("bench time", "slic", "one timing must begin with 'slic', got 4"),
        ("bench speedup", "slic vs nobody", "must have the peer 'nobody'"),
    ],
)
def test_a_part_that_is_not_there_is_an_error(
    part: str, argument: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_sphinx()
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    from cv3gpu_docs import PARTS
    from sphinx.errors import ExtensionError

    with pytest.raises(ExtensionError, match=re.escape(message)):
        PARTS[part](argument)
