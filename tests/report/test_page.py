"""The page in a real browser: it asks for nothing, fits, says what it should, and runs nothing that it shows."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from maotune.report.drawing import COLOURS, draw_panels
from maotune.report.render import FORMATS, write_report
from tests.report.conftest import HOSTILE, Reported

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def file(hostile: Reported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = write_report(hostile.report, hostile.experiments, tmp_path_factory.mktemp("out") / "report")
    assert [path.name for path in paths] == [name for name, _ in FORMATS.values()]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    return paths[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser to look with")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: no browser to look with")
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(browser: Any, file: Path, hostile: Reported, width: int, scheme: str) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(dialog.message))
    tab.goto(file.as_uri())
    tab.wait_for_function("[...document.images].every(image => image.complete)")

    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert complaints == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    tab.evaluate("scrollTo(500, 0)")
    assert tab.evaluate("scrollX") == 0
    beyond = tab.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg') && "
        f"e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []

    assert tab.locator("h1").inner_text() == "hostile"
    assert tab.locator(".lead").inner_text() == hostile.report.answer
    assert tab.locator(".lead").is_visible()
    figure = tab.locator(".answer figure svg").first.bounding_box()
    assert figure["y"] + figure["height"] < 900, "the answer and its figure are on the first screen"
    tab.evaluate("document.querySelectorAll('.scroll').forEach(one => { one.scrollLeft = 200 })")
    first = tab.locator("#base-to-new-results tbody th.l1").first.bounding_box()
    assert width > 640 or 0 <= first["x"] < 120, "rows keep their names when a phone scrolls"
    assert tab.locator("h2").count() == len(hostile.report.sections)
    for section in hostile.report.sections:
        assert tab.locator(f"nav a[href='#{section.name}-section']").is_visible()
        assert tab.evaluate("name => document.getElementById(name) !== null", f"{section.name}-section")
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert tab.locator("svg[role=img][aria-label]").count() == tab.locator("svg").count() > 5
    assert set(tab.locator(".gallery b").all_inner_texts()) <= set(HOSTILE)
    seen = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", seen)[:3])) < 64) == (scheme == "dark")
    tab.close()


class Elements(HTMLParser):
    """Ids, and what tables are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.attributes.append((tag, given))
        self.ids += [given["id"]] if given.get("id") else []  # type: ignore[list-item]
        if tag == "table":
            self.rows.append(0)


def test_the_markup(hostile: Reported, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    found = Elements()
    found.feed(text)
    assert len(found.ids) == len(set(found.ids))
    assert found.tags.count("table") == found.tags.count("caption") >= len(hostile.report.tables)
    assert all(given.get("scope") for tag, given in found.attributes if tag == "th")
    images = [given for tag, given in found.attributes if tag == "img"]
    assert images
    assert all((given["src"] or "").startswith("data:image/webp;base64,") and given["alt"] for given in images)
    assert "script" not in found.tags
    assert not {name for _, given in found.attributes for name in given if name.startswith("on")}
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text.replace("xlink:href", "xlink"))
    assert not re.search(r"url\((?!#)", text), "styles ask for nothing"
    for reference in re.findall(r"(?:xlink:href=\"|url\()#([^\")]+)", text):
        assert reference in found.ids


def test_a_drawing_wears_the_colours_of_the_page() -> None:
    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=COLOURS["green"])

    label = 'A "drawing" of <b>'
    svg, again = (draw_panels("x", "", [(label, paint, 3.0)], {}).panels[0].svg() for _ in range(2))
    assert "var(--green)" in svg
    assert not any(value in svg for value in COLOURS.values())
    assert "<title>A &quot;drawing&quot; of &lt;b&gt;</title>" in svg
    assert svg == again
    assert set(re.findall(r' id="(\w+)-', svg)) == {"x"}
