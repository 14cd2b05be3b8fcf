"""Pages for the browser: what a file holds, and in a headless Chromium that mouse and keyboard move what is shown."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import time
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu import _bench, _pages, _segment, _segment_cluster, cli, demo, mot, viz
from cv3gpu.cluster import mean_shift_filter
from cv3gpu.nn import postprocess
from cv3gpu.viz import html
from tests import browser

pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'cv3gpu[viz]')")
Image = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'cv3gpu[viz]')")

RED, GREEN, BLUE = (220, 20, 20), (20, 160, 20), (20, 20, 220)
NASTY = "<script>window.hacked = 1</script>\" onload='alert(1)' & </style><img src=x onerror=window.hacked=1>"


def plain(colour: tuple[int, int, int], width: int = 400, height: int = 300) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


class Seen(HTMLParser):
    """Elements with their attributes, and the text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.raw: dict[str, str] = {}
        self.inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.inside = tag if tag in ("style", "script") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside] = self.raw.get(self.inside, "") + data
        else:
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def decoded(image: dict[str, str]) -> np.ndarray:
    kind, data = image["src"].split(";base64,")
    assert kind.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


# ---- the file -------------------------------------------------------------------------------------------


def everything(word: str = "a word") -> viz.Page:
    """A page with each part, which shows a text wherever there may be one."""
    steps = {f"{word} {k}": plain(colour) for k, colour in enumerate((RED, GREEN, BLUE))}
    parts: dict[str, Any] = {"title": word, "note": word}
    return (
        viz.Page(word, note=word)
        .text(word, title=word)
        .figure(plain(RED), **parts)
        .slider(steps, start=0, **parts)
        .swipe(plain(RED), plain(BLUE), names=(word, word), **parts)
        .scrubber(steps.items(), **parts)
        .montage(steps, **parts)
        .table([word, "n"], [[word, 1], [word, 2.5]], foot=[[word, None]], **parts)
    )


def test_texts_are_shown_as_they_are_and_nothing_else_runs_or_loads() -> None:
    seen = Seen(everything(NASTY).html())
    tags = {tag for tag, _ in seen.tags}
    assert (
        len(seen.of("script")) == 1
        and len(seen.of("style")) == 1
        and not tags & {"link", "iframe", "base", "a", "object"}
    )
    for tag, attributes in seen.tags:
        assert not any(name.startswith("on") or name in ("style", "href", "srcset") for name in attributes), tag
        assert attributes.get("src", "data:image/").startswith("data:image/"), tag
    places = {"page": 3, "text": 2, "figure": 2, "slider": 5, "swipe": 4, "scrubber": 5, "montage": 5, "table": 6}
    assert "".join(seen.text).count(NASTY) == sum(places.values())
    assert {image["alt"] for image in seen.of("img")} == {NASTY, "", *(f"{NASTY} {k}" for k in range(3))}
    for source in seen.raw.values():
        assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|import\(", source)
    (policy,) = (meta["content"] for meta in seen.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(seen.raw[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.floats(), st.integers())
def test_any_text_comes_back(word: str, real: float, whole: int) -> None:
    page = viz.Page(word).table([word, "n", "m"], [[word, real, whole]]).text(word)
    seen = Seen(page.html())
    assert "".join(seen.text).count(word) >= 5 and len(seen.of("script")) == 1
    cells = seen.of("td")
    assert ("data-value" in cells[1]) == np.isfinite(real)
    assert not np.isfinite(real) or float(cells[1]["data-value"]) == real
    assert float(cells[2]["data-value"]) == float(whole)


def test_names_that_are_no_text_in_utf_8(tmp_path: Path) -> None:
    viz.Page(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).save(tmp_path / "page.html")
    assert rb"caf\udce9.jpg" in (tmp_path / "page.html").read_bytes()


def test_the_same_bytes_on_every_run() -> None:
    figures = [viz.Page("x").figure(viz.curves_figure([{"epoch": 1, "a": 2.0}], {"a": ["a"]})) for _ in range(2)]
    assert figures[0].html() == figures[1].html()
    assert everything().html() == everything().html()


def test_few_colours_are_exact_and_photographs_are_near() -> None:
    rng = np.random.default_rng(0)
    labels = viz.label_colours(9)[rng.integers(0, 9, (200, 300))]
    grey = rng.integers(0, 256, (200, 300), np.uint8)
    tiny = rng.integers(0, 256, (7, 9, 3), np.uint8)
    y, x = np.indices((300, 400)) / 400
    photograph = np.stack([y, x, (x + y) / 2], 2)
    page = viz.Page("x")
    for picture in (labels, tiny, photograph, np.full((200, 300), 0.2), grey):
        page.figure(picture)
    images = Seen(page.html()).of("img")
    np.testing.assert_array_equal(decoded(images[0]), labels)
    np.testing.assert_array_equal(decoded(images[1]), tiny)
    assert (images[1]["width"], images[1]["height"], images[1]["class"]) == ("360", "280", "pixels")
    assert images[2]["src"].startswith("data:image/jpeg") and len(images[2]["src"]) < 60_000
    assert abs(decoded(images[2]) - 255 * photograph).max() < 12
    assert (decoded(images[3]) == 51).all()
    assert abs(decoded(images[4])[..., 0].astype(int) - grey).mean() < 4


def test_large_pictures_are_made_smaller_and_the_page_says_so() -> None:
    large = np.zeros((600, 3000), np.uint8)
    large[:, 1500:] = 200
    page = viz.Page("x").figure(large).figure(large, longest=300)
    seen = Seen(page.html())
    text = "".join(seen.text)
    assert "Shown at 1024 x 205 of 3000 x 600 pixels." in text and "Shown at 300 x 60 of 3000 x 600 pixels." in text
    small = decoded(seen.of("img")[1])
    assert small.shape == (60, 300, 3) and (small[:, :149] < 4).all() and (small[:, 151:] > 196).all()


@pytest.mark.parametrize("lazy", [False, True])
def test_films_are_limited_and_the_page_says_so(lazy: bool) -> None:
    made = []

    def frames() -> Iterator[tuple[str, np.ndarray]]:
        for k in range(10):
            made.append(k)
            yield f"frame {k}", plain((25 * k, 0, 0))

    given_frames: Any = frames() if lazy else dict(frames())
    page = viz.Page("x").scrubber(given_frames, most=4, fps=30, count=10 if lazy else None)
    seen = Seen(page.html())
    assert "Every 3rd of 10 frames is shown." in "".join(seen.text)
    assert [decoded(image)[0, 0, 0] for image in seen.of("img")] == [0, 75, 150, 225]
    (section,) = seen.of("section")
    assert section["data-fps"] == "10" and made == list(range(10))
    assert "is shown" not in "".join(Seen(viz.Page("x").scrubber(frames()).html()).text)


def test_files_stand_in_a_page_as_they_are(tmp_path: Path) -> None:
    tracks = mot.Tracks([1, 2], [1, 1], [[0, 0, 30, 80], [9, 0, 30, 80]])
    viz.tracks_gif(tmp_path / "a.gif", tracks, size=(160, 120))
    viz.save_image(plain(RED, 40, 30), tmp_path / "b.png")
    page = viz.Page("x").figure(tmp_path / "a.gif").figure(str(tmp_path / "b.png"))
    gif, png = Seen(page.html()).of("img")
    assert base64.b64decode(gif["src"].removeprefix("data:image/gif;base64,")) == (tmp_path / "a.gif").read_bytes()
    assert base64.b64decode(png["src"].removeprefix("data:image/png;base64,")) == (tmp_path / "b.png").read_bytes()


def test_a_page_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.html"
    file.write_text("before")
    monkeypatch.setattr(html, "MOST_BYTES", 1 << 20)
    large = viz.Page("x").figure(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"Page.save: page must be at most 1 MiB, got 2\.\d MiB; show fewer or smaller"
    ):
        large.save(file)
    with pytest.raises(TypeError, match=r"Page.save: path must be a path, got int"):
        viz.Page("x").save(3)  # type: ignore[arg-type]
    assert file.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["page.html"]
    viz.Page("x").save(file)
    assert file.read_text().startswith("<!doctype html>")


GREY = np.zeros((4, 5))
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "no title": (lambda p: viz.Page(None), TypeError, "Page: title must be text, got None"),
    "a number as text": (lambda p: p.text(3), TypeError, "Page.text: words must be text, got int"),
    "a list as picture": (lambda p: p.figure([[1]]), TypeError, "Page.figure: picture must be a NumPy array, a matplotlib figure or a path, got list"),
    "integers": (lambda p: p.figure(GREY.astype(int)), TypeError, "Page.figure: picture must have dtype uint8 or float, got int64"),
    "four channels": (lambda p: p.figure(np.zeros((4, 5, 4))), ValueError, r"picture must have shape \[H, W\] or \[H, W, 3\] with a pixel, got \(4, 5, 4\)"),
    "no pixel": (lambda p: p.figure(GREY[:0]), ValueError, r"with a pixel, got \(0, 5\)"),
    "NaN": (lambda p: p.figure(GREY + np.nan), ValueError, "picture must be finite, got nan"),
    "no picture file": (lambda p: p.figure(__file__), ValueError, "picture must be a PNG, JPEG or GIF file, got"),
    "a title of bytes": (lambda p: p.figure(GREY, title=b"x"), TypeError, "Page.figure: title must be text, got bytes"),
    "a small limit": (lambda p: p.figure(GREY, longest=8), ValueError, "longest must be from 16 to 4096, got 8"),
    "steps in a list": (lambda p: p.slider([GREY]), TypeError, "Page.slider: steps must be a mapping, got list"),
    "no steps": (lambda p: p.slider({}), ValueError, "Page.slider: steps must have an entry, got none"),
    "numbered steps": (lambda p: p.slider({1: GREY}), TypeError, "steps must have text as labels, got int"),
    "steps of two sizes": (lambda p: p.slider({"a": GREY, "b": GREY.T}), ValueError, "steps must be of one size, got .* after"),
    "a late start": (lambda p: p.slider({"a": GREY}, start=1), ValueError, "start must be from -1 to 0, got 1"),
    "frames": (lambda p: p.scrubber(3), TypeError, "Page.scrubber: frames must be a mapping or pairs, got int"),
    "frames without labels": (lambda p: p.scrubber([GREY, GREY]), ValueError, "frames must have 2 entries, label and picture, got 4"),
    "frames alike": (lambda p: p.scrubber([("a", GREY), ("a", GREY)]), ValueError, "frames must have different labels, got 'a' twice"),
    "no frames": (lambda p: p.scrubber([]), ValueError, "frames must have an entry, got none"),
    "more frames": (lambda p: p.scrubber(((str(k), GREY) for k in range(9)), count=3, most=3), ValueError, "frames must be 3 as count says, got more"),
    "too fast": (lambda p: p.scrubber({"a": GREY}, fps=61), ValueError, "fps must be at most 60, got 61"),
    "standing still": (lambda p: p.scrubber({"a": GREY}, fps=0), ValueError, "fps must be finite and positive, got 0"),
    "three names": (lambda p: p.swipe(GREY, GREY, names=("a", "b", "c")), ValueError, "Page.swipe: names must have 2 entries, got 3"),
    "sides of two sizes": (lambda p: p.swipe(GREY, GREY.T), ValueError, "Page.swipe: after must be of one size"),
    "no montage": (lambda p: p.montage({}), ValueError, "Page.montage: pictures must have an entry"),
    "a short row": (lambda p: p.table(["a", "b"], [[1]]), ValueError, "Page.table: rows must have 2 entries, one for each column, got 1"),
    "an array in a cell": (lambda p: p.table(["a"], [[GREY]]), TypeError, "rows must hold text, numbers or None, got ndarray"),
    "too many rows": (lambda p: p.table(["a"], [[1]] * 5001), ValueError, "rows must be at most 5000, got 5001"),
    "no header": (lambda p: p.table([], []), ValueError, "Page.table: header must have an entry, got none"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case: str) -> None:
    call, kind, words = BAD[case]
    page = viz.Page("x")
    with pytest.raises(kind, match=words):
        call(page)
    assert page.html() == viz.Page("x").html()  # nothing half-made is left


# ---- in a browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    program = browser.found()
    if program is None:
        pytest.skip("needs a headless browser (apt-get install chromium)")
    one = browser.Browser(program, tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


class Opened(NamedTuple):
    """A page in the browser."""

    browser: browser.Browser
    file: Path

    def colour(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[int, ...]:
        """Of the pixel that is seen at a place of an element."""
        at = self.browser.place(selector, x, y)
        picture = Image.open(io.BytesIO(self.browser.picture())).convert("RGB")
        return tuple(picture.getpixel(tuple(map(int, at))))

    def until(self, condition: str, seconds: float = 20.0) -> None:
        """Waits for what a script does a little later."""
        end = time.monotonic() + seconds
        while not self.browser.run(condition):
            assert time.monotonic() < end, condition

    def said(self, selector: str) -> str:
        return str(self.browser.run(f"document.querySelector('{selector}').textContent"))


@pytest.fixture
def page(chromium: browser.Browser, tmp_path: Path) -> Iterator[Any]:
    def opened(made: viz.Page | Path, **how: Any) -> Opened:
        file = tmp_path / "page.html" if isinstance(made, viz.Page) else made
        if isinstance(made, viz.Page):
            made.save(file)
        chromium.open(file, **how)
        return Opened(chromium, file)

    yield opened
    assert chromium.complaints() == []


def near(colour: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 6 for a, b in zip(colour, wanted, strict=True))


COURSE = {"first": plain(RED), "second": plain(GREEN), "third": plain(BLUE)}


def test_a_slider_shows_one_step(page: Any) -> None:
    one = page(viz.Page("x").slider(COURSE, start=0))
    assert near(one.colour(".sheet"), RED) and one.said("output") == "first"
    assert one.browser.run("[...document.querySelectorAll('.steps img')].filter(e => e.offsetHeight).length") == 1
    one.browser.click("input", 0.5)  # the middle of the track
    assert near(one.colour(".sheet"), GREEN) and one.said("output") == "second"
    one.browser.drag("input", (0.5, 0.5), (0.99, 0.5))
    assert near(one.colour(".sheet"), BLUE) and one.said("output") == "third"
    for key, colour in (("ArrowLeft", GREEN), ("Home", RED), ("End", BLUE)):
        one.browser.press(key)  # the slider has the focus
        assert near(one.colour(".sheet"), colour)
    assert one.browser.run("document.querySelector('input').getAttribute('aria-valuetext')") == "third"


def test_a_scrubber_plays_and_stops(page: Any) -> None:
    frames = {f"frame {k}": plain((25 * k, 0, 0)) for k in range(10)}
    one = page(viz.Page("x").scrubber(frames, fps=20))
    assert one.said("output") == "frame 0" and one.said("button") == "Play"
    one.browser.click("button")
    assert one.said("button") == "Pause"
    end, heard = time.monotonic() + 20, {"frame 0"}
    while len(heard) < 4 and time.monotonic() < end:
        heard.add(one.said("output"))
    assert len(heard) >= 4
    one.browser.press(" ")  # the button has the focus
    at = one.said("output")
    assert one.said("button") == "Play"
    time.sleep(0.2)
    assert one.said("output") == at and near(one.colour(".sheet"), (25 * int(at.split()[1]), 0, 0))
    one.browser.click("button")
    one.browser.click("input", 0.001)  # taking the slider stops it
    assert one.said("button") == "Play" and one.said("output") == "frame 0"


def test_a_swipe_follows_the_pointer_and_the_keys(page: Any) -> None:
    one = page(viz.Page("x").swipe(plain(RED), plain(BLUE), names=("image", "labels")))
    assert near(one.colour(".sheet", 0.4), RED) and near(one.colour(".sheet", 0.6), BLUE)
    one.browser.drag(".sheet", (0.5, 0.5), (0.8, 0.5))
    assert near(one.colour(".sheet", 0.75), RED) and near(one.colour(".sheet", 0.85), BLUE)
    one.browser.click(".sheet", 0.2)
    assert near(one.colour(".sheet", 0.15), RED) and near(one.colour(".sheet", 0.25), BLUE)
    one.browser.click("input", 0.5)
    one.browser.press("End")
    assert near(one.colour(".sheet", 0.95), RED)
    assert (
        one.browser.run("document.querySelector('input').getAttribute('aria-valuetext')") == "100 % image, 0 % labels"
    )


def test_a_table_is_sorted(page: Any) -> None:
    rows = [["b", 2.5, None], ["a", -3, "x"], [NASTY, float("nan"), "y"], ["item 10", 100, "z"], ["item 9", 0, "w"]]
    one = page(viz.Page("x").table(["name", "number", "remark"], rows, foot=[["all", 99.5, None]]))

    def column(k: int) -> list[str]:
        found = one.browser.run(f"[...document.querySelectorAll('tbody tr')].map(r => r.cells[{k}].textContent)")
        return list(found)

    assert column(0) == ["b", "a", NASTY, "item 10", "item 9"]
    one.browser.click("th:nth-child(2) button")
    assert column(1) == ["100", "2.5", "0", "-3", "nan"]
    one.browser.press("Enter")  # the heading has the focus
    assert column(1) == ["-3", "0", "2.5", "100", "nan"]
    one.browser.click("th:nth-child(1) button")
    assert column(0)[1:] == ["a", "b", "item 9", "item 10"]
    states = "[...document.querySelectorAll('th')].map(h => h.getAttribute('aria-sort'))"
    assert one.browser.run(states) == ["ascending", "none", "none"]
    assert one.said("tfoot") == "all99.5\n"
    assert one.browser.run("window.hacked === undefined && document.scripts.length === 1")


def test_a_click_enlarges(page: Any) -> None:
    one = page(viz.Page("x").montage(COURSE))
    assert one.browser.run("document.querySelector('dialog').open") is False
    one.browser.click(".montage button:nth-child(2)")
    assert one.said("dialog p") == "second" and near(one.colour("dialog img"), GREEN)
    assert one.browser.run("document.querySelector('dialog img').width > document.querySelector('.montage img').width")
    one.browser.press("ArrowRight")
    assert one.said("dialog p") == "third" and near(one.colour("dialog img"), BLUE)
    one.browser.click("dialog button:nth-child(2)")
    assert one.said("dialog p") == "first"
    one.browser.press("ArrowLeft")
    one.browser.press("Escape")
    assert one.browser.run("document.querySelector('dialog').open") is False
    one.until("document.activeElement.textContent === 'third'")  # the focus is at the picture that was seen last


def test_all_parts_together(page: Any) -> None:
    """Whatever the texts are, nothing runs; all of it is reached by the keyboard; light, dark, narrow, printed, plain."""
    made = everything(NASTY)
    one = page(made)
    assert one.browser.run("window.hacked === undefined && document.scripts.length === 1")
    assert one.browser.run("document.title").startswith("<script>")
    reached = 0
    for _ in range(40):
        one.browser.press("Tab")
        if one.browser.run("document.activeElement === document.body"):
            break
        reached += 1
    assert reached == 1 + 1 + 2 + 3 + 2  # sliders, swipe, player with its button, montage, headings
    contrast = """(() => { const light = (c) => { const p = c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * p[0] + .7152 * p[1] + .0722 * p[2]; };
        const ground = light(getComputedStyle(document.body).backgroundColor);
        return ['h1', '.note', 'td', 'output'].map((s) => light(getComputedStyle(document.querySelector(s)).color))
        .map((ink) => (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05)); })()"""
    assert min(one.browser.run(contrast)) > 4.5 and near(one.colour("h1", 0.99, 0.01), (255, 255, 255))
    seen = "[...document.querySelectorAll('.steps:not(.many) figure')].filter(e => e.offsetHeight).length"
    assert one.browser.run(seen) == 1
    one.browser.call("Emulation.setEmulatedMedia", media="print")
    assert one.browser.run(seen) == 3
    assert one.browser.run("[...document.querySelectorAll('.controls')].every(e => !e.offsetHeight)")
    assert one.browser.print().startswith(b"%PDF")
    one = page(made, dark=True, width=360)
    assert min(one.browser.run(contrast)) > 4.5 and max(one.colour("h1", 0.99, 0.01)) < 60
    assert one.browser.run("document.documentElement.scrollWidth <= innerWidth")
    one = page(made, scripts=False)
    assert (
        one.browser.run("[...document.querySelectorAll('section img')].filter(e => e.src && !e.offsetHeight).length")
        == 0
    )


# ---- the commands ---------------------------------------------------------------------------------------


def invoke(*arguments: Any) -> Any:
    result = CliRunner().invoke(cli.main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """Four quarters of different colours, 40 x 48, and their labels, a few of them wrong."""
    y, x = np.indices((40, 48))
    labels = (2 * (y >= 20) + (x >= 24)).astype(np.uint8)
    rng = np.random.default_rng(0)
    image = viz.label_colours(5)[1 + labels] + rng.integers(-9, 10, (40, 48, 1))
    viz.save_image(np.clip(image, 0, 255).astype(np.uint8), tmp_path / "photo.png")
    viz.save_labels(np.where(rng.random(labels.shape) < 0.1, 0, labels), tmp_path / "labels.png")
    return tmp_path / "photo.png"


SEGMENT: dict[str, tuple[list[str], list[str], int]] = {
    "crf": (["--labels", "labels.png", "--iterations", "4"], ["iteration by iteration", "What the appearance kernel does"], 16),
    "graphcut": (["--grabcut", "--rect", "2,2,20,17"], ["Image and cut", "GrabCut, iteration by iteration"], 3),
    "slic": (["--segments", "20"], ["Image and boundaries"], 4),
    "kmeans": (["--clusters", "4"], ["Image and boundaries", "k-means, iteration by iteration", "The first of 3 runs"], 6),
    "meanshift": (["--min-size", "20"], ["Each pixel in the colour of its mode", "Mean shift, step by step"], 9),
    "spectral": (["--segments", "4"], ["Eigenvectors"], 9),
    "ncut": (["--segments", "4"], ["Cut by cut", "Eigenvectors", "Cuts"], 19),
}  # fmt: skip


@pytest.mark.parametrize("command", SEGMENT)
def test_segment_writes_a_page(page: Any, tmp_path: Path, photograph: Path, command: str) -> None:
    options, headings, images = SEGMENT[command]
    options = [str(tmp_path / word) if word.endswith(".png") else word for word in options]
    file = tmp_path / "page.html"
    result = invoke("segment", command, photograph, *options, "--out", tmp_path / "out", "--html", file)
    assert result.stdout.rstrip().endswith(str(file))
    one = page(file)
    text = one.said("body")
    assert "photo.png" in text and all(heading in text for heading in headings)
    assert one.browser.run("[...document.querySelectorAll('section img[src]')].filter(e => e.src).length") >= images
    one.browser.drag(".swipe .sheet", (0.5, 0.5), (0.9, 0.5))
    assert one.browser.run("document.querySelector('.swipe input').value") == "90"


def test_the_course_of_k_means_is_that_of_one_run(photograph: Path) -> None:
    image = _segment.read_image(photograph)
    options = {"clusters": 5, "nearness": 0.2, "starts": 3, "seed": 4}
    found = _segment_cluster.k_means(image, options, lambda x: x)
    assert found.course is not None
    course = _segment_cluster.pictures(found.course)
    y, x = np.indices(image.shape[:2]) * 0.2
    points = np.concatenate([_segment_cluster.lab(image), y[..., None], x[..., None]], 2).reshape(-1, 5)
    whole = cv3gpu.kmeans(points, 5, seed=4)
    ends = [int(name.split()[1]) for name in course]
    assert ends[0] == 1 and ends[-1] == whole.n_iter > 2 and ends == sorted(set(ends))
    for k in ends:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cv3gpu.ConvergenceWarning)
            labels = cv3gpu.kmeans(points, 5, seed=4, max_iter=k).labels.reshape(image.shape[:2])
        np.testing.assert_array_equal(course[f"iteration {k}"], viz.mean_colours(image, labels))


def test_the_course_of_mean_shift_ends_at_the_modes(photograph: Path) -> None:
    image = _segment.read_image(photograph)
    options = {"spatial": 8.0, "range": 16.0, "min_size": 20, "kernel": "flat", "tol": 0.01}
    found = _segment_cluster.mean_shift(image, options, lambda x: x)
    assert found.course is not None
    course = _segment_cluster.pictures(found.course)
    np.testing.assert_array_equal(course["start"], image)
    modes = mean_shift_filter(_segment_cluster.lab(image), 8.0, 16.0, tol=0.01)
    np.testing.assert_array_equal(course[f"step {found.facts['iterations']}"], _segment_cluster.rgb(modes))


@pytest.mark.filterwarnings("ignore::cv3gpu.errors.ConvergenceWarning")  # the quarters hardly hang together
def test_stages_of_cuts_are_those_of_the_recursion(photograph: Path) -> None:
    image = _segment.read_image(photograph)
    options = {"kind": "colour", "radius": 5.0, "sigma_intensity": 0.1, "sigma_distance": 4.0, "superpixels": None}
    options |= {"method": "recursive", "max_ncut": None, "min_size": 50, "segments": 4, "seed": 0}
    found = _segment_cluster.normalized_cut(image, options, lambda x: x)
    stages = _segment_cluster.stages(found)
    splits = found.cuts[0]
    assert len(stages) == len(splits) + 1 == 4 and not stages[0].any()
    for k, split in enumerate(splits, 1):
        before, after = stages[k - 1], stages[k]
        pairs = np.unique(np.stack([before.ravel(), after.ravel()]), axis=1)
        assert (
            len(np.unique(after)) == k + 1 == pairs.shape[1]
        )  # one of the parts became two, of the sizes that it says
        parted = np.flatnonzero(np.bincount(pairs[0]) == 2)[0]
        sizes = [(after == part).sum() for part in pairs[1][pairs[0] == parted]]
        assert sorted(sizes) == sorted(split.sizes)
    both = np.unique(np.stack([stages[-1].ravel(), found.labels.ravel()]), axis=1)
    assert both.shape[1] == 4


def walkers(tmp_path: Path) -> tuple[Path, Path]:
    """Ground truth of two sequences, and tracks with a switch of identities in each."""
    for name, frames in (("one", 12), ("two", 9)):
        frame, who = (x.reshape(-1) for x in np.meshgrid(np.arange(1, frames + 1), [1, 2, 3], indexing="ij"))
        box = np.stack([10.0 * frame, 90.0 * who, 0 * frame + 30, 0 * frame + 70], 1)
        late = frame > frames // 2
        given_ids = np.where(late & (who < 3), 3 - who, who)
        for folder, ids in (("gt", who), ("pred", given_ids), ("det", 0 * who - 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            mot.write(tmp_path / folder / f"{name}.txt", mot.Tracks(frame, ids, box))
    return tmp_path / "gt", tmp_path / "pred"


def test_an_evaluation_writes_a_page(page: Any, tmp_path: Path) -> None:
    gt, pred = walkers(tmp_path)
    assert str(tmp_path / "e.html") in invoke("mot", "eval", gt, pred, "--html", tmp_path / "e.html").stdout
    one = page(tmp_path / "e.html")
    text = one.said("body")
    for heading in ("Figures", "HOTA over the threshold", "Who followed whom", "Identity switches", "COMBINED"):
        assert heading in text
    order = "[...document.querySelectorAll('tbody')[0].rows].map(r => r.cells[0].textContent)"
    assert one.browser.run(order) == ["one", "two"]
    report = mot.evaluate(gt, pred)
    best = sorted(report.sequences, key=lambda name: -report.sequences[name]["all"]["HOTA"])
    one.browser.click("th:nth-child(2) button")
    assert one.browser.run(order) == best
    assert f"{100 * report.combined['all']['HOTA']:.2f}" in one.said("tfoot")
    assert len(one.browser.run("[...document.querySelectorAll('tbody')[1].rows].map(r => r.textContent)")) == 4
    invoke("mot", "compare", gt, pred, gt, "--html", tmp_path / "c.html")
    one = page(tmp_path / "c.html")
    assert "2 trackers" in one.said("body") and one.browser.run("document.querySelector('tbody').rows.length") == 2


def test_trackers_write_a_film(page: Any, tmp_path: Path) -> None:
    walkers(tmp_path)
    result = invoke(
        "track",
        tmp_path / "det",
        "--method",
        "sort",
        "--out",
        tmp_path / "out",
        "--html",
        tmp_path / "t.html",
        "--json",
    )
    assert f'"html": "{tmp_path / "t.html"}"' in result.stdout
    one = page(tmp_path / "t.html")
    assert one.said("output") == "frame 1" and one.browser.run("document.querySelectorAll('.steps').length") == 2
    before = one.browser.run("document.querySelector('figure.shown img').src")
    one.browser.click("input", 0.99)
    assert (
        one.said("output") == "frame 12" and one.browser.run("document.querySelector('figure.shown img').src") != before
    )
    (tmp_path / "none.txt").write_text("")
    invoke(
        "track", tmp_path / "none.txt", "--method", "sort", "--out", tmp_path / "o.txt", "--html", tmp_path / "t.html"
    )
    assert "There is no track." in page(tmp_path / "t.html").said("body")


def test_a_network_has_a_page(page: Any, photograph: Path) -> None:
    image = _segment.read_image(photograph)
    p = np.random.default_rng(0).dirichlet(np.ones(3), image.shape[:2]).transpose(2, 0, 1).astype(np.float32)
    found = postprocess.Labelled(p.argmax(0), np.zeros(image.shape[:2], int), p)
    config = {"model": "unet", "num_classes": 3, "palette": None, "names": ["a", NASTY, "c"]}
    rows = [(name, int((found.refined == k).sum()), 0.5, None) for k, name in enumerate(config["names"])]
    from cv3gpu._segment_net import Share

    one = page(_pages.net("photo.png", image, found, config, [Share(*row) for row in rows]))
    text = one.said("body")
    assert "What the CRF does" in text and NASTY in text and one.browser.run("window.hacked === undefined")


def test_demo_and_bench_have_pages(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    viz.save_image(plain(RED), tmp_path / "red.png")
    rows = [demo.Row("conv2d", "astronaut", "cpu", 1.5, "max error 1e-7", 1e-7, 1e-6, True)]
    monkeypatch.setattr(demo, "run", lambda out, entries, begin: demo.Result(rows, [tmp_path / "red.png"]))
    result = invoke("demo", "--html", tmp_path / "d.html")
    assert str(tmp_path / "d.html") in result.stdout
    one = page(tmp_path / "d.html")
    one.browser.click(".montage button")
    assert one.said("dialog p") == "red" and "1 of 1 agree" in one.said("body")
    one.browser.press("Escape")
    assert "transposed 3×3" in one.said(".swipe figcaption") and "Checkerboards" in one.said("body")
    measured = [
        _bench.Measured("sort", "[9]", "ok", {"ours": 0.001, "SciPy": 0.003}, {"lapx": "not installed"}),
        _bench.Measured("wrong", "[9]", "wrong", {}, {"ours": "wrong by 1"}),
    ]
    one = page(_pages.bench(measured, "cpu"))
    cells = one.browser.run("[...document.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert cells == [
        ["sort", "ours", "1", "1", ""], ["sort", "SciPy", "3", "3", ""], ["sort", "lapx", "", "", "not installed"],
        ["wrong", "ours", "", "", "wrong by 1"],
    ]  # fmt: skip


COMMANDS = [*(f"segment {name}" for name in (*SEGMENT, "net")), "track", "mot eval", "mot compare", "demo", "bench"]


def test_commands_say_the_same_of_their_pages(tmp_path: Path) -> None:
    words = "Write a page for the browser as well: one file with sliders, pictures and tables, in a folder that exists."
    for command in COMMANDS:
        said = " ".join(invoke(*command.split(), "--help").stdout.split())
        assert words in said, command
    there = str(tmp_path)
    result = CliRunner().invoke(cli.main, ["mot", "eval", there, there, "--html", str(tmp_path / "nowhere" / "x.html")])
    assert result.exit_code == 2 and "the folder of" in result.stderr
