"""The page in a real browser: nothing goes wrong, nothing is loaded, and it works by keyboard, on a phone, in the dark and on paper."""

import re
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

DESK, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
CONTROLS = "a[href], summary, [tabindex='0'], button, input"
WALK = """controls => [...document.querySelectorAll(controls)].filter(e => e.checkVisibility()).map((e, i) => {
  e.dataset.stop = i;
  return i;
})"""
FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e);
  const visible = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return e === document.body || !e.dataset.stop ? null : [Number(e.dataset.stop), visible];
}"""
SIZES = "() => [...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])"
TOO_WIDE = """width => [...document.querySelectorAll("h1, h2, h3, p, figure, li, .scroll")]
  .filter(e => e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML.slice(0, 80))"""
OPEN_ALL = "() => document.querySelectorAll('details').forEach(e => { e.open = true; })"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests: it takes seconds to start."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory, full_report: Any, full_run_factory: Callable[[], Any]) -> dict[str, Path]:
    """Files to open: a whole run, one that failed and was not finished, and both side by side."""
    folder = tmp_path_factory.mktemp("pages")
    poor = full_run_factory()
    poor.artifacts["export"]["metrics"]["parity"].update(verdict="failed", reason="412 of 5,000 decisions flipped", flipped=412)
    poor.artifacts["profile"]["metrics"]["conditions"].update(verdict="invalid", reasons=["the processor throttled 3 times"])
    del poor.artifacts["baseline"], poor.histories["baseline"]
    runs = [read_run(run.write(folder / name)) for name, run in (("whole", full_run_factory()), ("poor", poor))]
    shown = {"run": full_report, "failed": render_report(runs[1]), "comparison": render_comparison(runs)}
    for name, rendered in shown.items():
        (folder / f"{name}.html").write_text(rendered.html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in shown}


@pytest.fixture(params=["run", "failed", "comparison"])
def opened(request: pytest.FixtureRequest, browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Opens one of the pages in a window of its own."""
    contexts = []

    def opener(viewport: dict[str, int] = DESK, color_scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport=viewport, color_scheme=color_scheme))
        page = contexts[-1].new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda asked: page.asked.append(asked.url))
        page.goto(pages[request.param].as_uri())
        return page

    yield opener
    for context in contexts:
        context.close()


def test_nothing_is_complained_of_and_nothing_is_loaded(opened: Callable[..., Any]) -> None:
    page = opened()
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [page.url]
    assert page.evaluate("() => [...document.images].filter(e => !e.complete || !e.naturalWidth).length") == 0
    drawn = page.evaluate(SIZES)
    assert drawn and all(width > 150 and height > 60 for width, height in drawn)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_nothing(opened: Callable[..., Any], color_scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(color_scheme=color_scheme)
    page.evaluate(OPEN_ALL)
    found = Axe().run(page).response["violations"]
    told = [(one["id"], one["impact"], [node["html"][:120] for node in one["nodes"]][:3]) for one in found]
    assert told == []


def test_the_tab_key_reaches_every_control_in_order_and_shows_where_it_is(opened: Callable[..., Any]) -> None:
    page = opened()
    wanted = page.evaluate(WALK, CONTROLS)
    stops = []
    for _ in range(len(wanted) + 1):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is None:
            break
        stops.append(stop)
    assert [number for number, _ in stops] == wanted and len(wanted) > 10
    assert all(visible for _, visible in stops)


def test_the_first_stop_skips_to_the_content_and_a_folded_table_opens_by_keyboard(opened: Callable[..., Any]) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MAIN"
    folded = page.locator("summary")
    assert folded.count() or "comparison" in page.url
    for index in range(min(folded.count(), 2)):
        folded.nth(index).focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.parentElement.open") is True


def test_a_phone_need_not_scroll_sideways(opened: Callable[..., Any]) -> None:
    page = opened(viewport=PHONE)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(TOO_WIDE, PHONE["width"]) == []


def test_paper_is_white_and_holds_every_section(opened: Callable[..., Any]) -> None:
    page = opened(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("() => [...document.querySelectorAll('section > h2')].every(e => e.checkVisibility())")
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", paper)) >= 3
