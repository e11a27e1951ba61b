"""The pages of a task in a real browser: axe finds nothing, nothing is loaded, and a narrow window need not be scrolled sideways."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import read_run, render_comparison, render_report

pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
OPEN_ALL = "() => document.querySelectorAll('details').forEach(e => { e.open = true; })"
PLACES = "() => [...document.querySelectorAll('.panels')].map(e => [...e.querySelectorAll('img')].map(i => i.getBoundingClientRect().top))"


@pytest.fixture(scope="module")
def pages(dense_run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A segmenter of many classes, a detector, and two detectors side by side."""
    folder = tmp_path_factory.mktemp("dense_pages")
    pixels = read_run(dense_run("segmentation", 24).write(folder / "pixels"))
    objects = [read_run(dense_run("detection").write(folder / name)) for name in ("one", "two")]
    shown = {
        "segmentation": render_report(pixels),
        "detection": render_report(objects[0]),
        "comparison": render_comparison(objects, ["/runs/one", "/runs/two"]),
    }
    return {name: rendered.html for name, rendered in shown.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, pages: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page in a window of its own, with everything unfolded."""
    contexts = []

    def opener(name: str, width: int = 1200, color_scheme: str = "light") -> Any:
        (tmp_path / f"{name}.html").write_text(pages[name], encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=color_scheme))
        page = contexts[-1].new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("request", lambda asked: page.asked.append(asked.url))
        page.goto((tmp_path / f"{name}.html").as_uri())
        page.evaluate(OPEN_ALL)
        return page

    yield opener
    for context in contexts:
        context.close()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["segmentation", "detection", "comparison"])
def test_axe_finds_nothing_and_nothing_is_loaded(name: str, color_scheme: str, opened: Callable[..., Any]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(name, color_scheme=color_scheme)
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in found] == []
    assert page.said == [] and [url for url in page.asked if not url.startswith("data:")] == [page.url]
    assert page.evaluate("() => [...document.images].filter(e => !e.complete || !e.naturalWidth).length") == 0


@pytest.mark.parametrize("width", [500, 390])
@pytest.mark.parametrize("name", ["segmentation", "detection", "comparison"])
def test_a_narrow_window_need_not_be_scrolled_sideways(name: str, width: int, opened: Callable[..., Any]) -> None:
    page = opened(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_pictures_of_an_image_stand_in_one_row_and_on_a_phone_two_abreast(opened: Callable[..., Any]) -> None:
    wide, narrow = opened("detection").evaluate(PLACES), opened("detection", 390).evaluate(PLACES)
    assert [len(row) for row in wide] == [5, 5] and all(len(set(row)) == 1 for row in wide)
    assert [len(set(row)) for row in narrow] == [3, 3]
