"""The page in a real browser: points, lengths, drags, errors, tokens, sizes; and the still page."""

import base64
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kahler_verify.explorer.session import Session
from kahler_verify.explorer.twin import section
from tests.explorer.conftest import HOSTILE, asked, tensor

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and chromedriver"),
    pytest.mark.xdist_group("browser"),
]
WIDE, NARROW = (1280, 800), (390, 844)
DONE = "return document.body.dataset.busy !== 'yes' && document.querySelector('.latent-map')"


class Page:
    """A browser with the explorer in it."""

    def __init__(self, driver: Any):
        self.driver = driver

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, what: str | Callable[[], Any], seconds: float = 40) -> Any:
        end = time.time() + seconds
        while time.time() < end:
            found = self.js(what) if isinstance(what, str) else what()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{what} did not come true; {self.text('error')}")

    def open(self, address: str, size: tuple[int, int] = WIDE) -> None:
        width, height = size
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get("about:blank")
        self.complaints()  # of the page before, which may come late
        self.driver.get(address)

    def ready(self) -> None:
        self.until(DONE + "?.dataset.size === '81'")

    def text(self, name: str) -> str:
        return self.js("return document.getElementById(arguments[0])?.textContent ?? ''", name)

    def press(self, selector: str) -> None:
        self.js("document.querySelector(arguments[0]).click()", selector)

    def pointer(self, *steps: tuple[float, float], down: bool = True) -> None:
        """Press at the first place of the window, go through the others, and let go."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver, duration=25)
        pointer = chain.w3c_actions.pointer_action
        pointer.move_to_location(*map(round, steps[0]))
        if down:
            pointer.pointer_down()
        for step in steps[1:]:
            pointer.move_to_location(*map(round, step))
        if down:
            pointer.pointer_up()
        chain.perform()

    def at(self, u: float, v: float) -> tuple[float, float]:
        """A place of the map by its shares from the left and from the top."""
        box = self.js(
            "const b = document.querySelector('.latent-map .frame').getBoundingClientRect();"
            "return [b.left, b.top, b.width, b.height]"
        )
        return box[0] + u * box[2], box[1] + v * box[3]

    def point(self, name: str) -> tuple[float, float]:
        box = self.js(
            "const b = document.querySelector(`.point[data-name=${arguments[0]}] .dot`)"
            ".getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]",
            name,
        )
        return box[0], box[1]

    def kept(self, name: str) -> list[float]:
        """A point as the address has it."""
        return self.js(
            "return new URLSearchParams(location.hash.slice(1)).get(arguments[0])"
            ".split(',').map(Number)",
            name,
        )

    def length(self, name: str = "length") -> float:
        return float(self.text(name).replace("−", "-"))

    def whole(self) -> None:
        """Wait until a path is searched through."""
        self.until(lambda: "first guesses led here" in self.text("result"))
        self.until("return document.body.dataset.busy !== 'yes'")

    def complaints(self) -> list[str]:
        return [line["message"] for line in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield Page(driver)
    driver.quit()


@pytest.fixture(scope="module")
def opened(page: Page, address: str) -> Page:
    """With two points clicked, and what lies between them computed."""
    page.open(address)
    page.ready()
    page.press("#snap")
    page.pointer(page.at(0.3, 0.4))
    page.pointer(page.at(0.65, 0.6))
    page.whole()
    return page


def test_two_clicks_give_the_engines_lengths(opened: Page, session: Session) -> None:
    a, b = (tensor(opened.kept(name)) for name in "ab")
    known = session.subject.metric.geodesic(a, b)
    assert np.isclose(opened.length(), float(known.length), rtol=1e-6)
    line = asked(session, "path", a=a.tolist(), b=b.tolist()).outcome["line"]
    assert np.isclose(opened.length("straight"), line["length"], rtol=1e-6)
    assert opened.js("return document.querySelectorAll('#frames canvas').length") == 2
    assert opened.js("return document.querySelectorAll('.latent-map .geodesic').length") == 1
    assert "Geodesic" in opened.text("live")
    assert opened.complaints() == []


def test_names_are_text_and_never_markup(opened: Page) -> None:
    assert opened.text("name") == HOSTILE
    assert opened.js("return document.images.length") == 0
    assert opened.driver.title.startswith(HOSTILE)


def test_a_drag_is_followed(opened: Page, session: Session) -> None:
    before, (x, y) = opened.length(), opened.point("b")
    opened.js(
        "window.seen = []; new MutationObserver(() => window.seen.push("
        "Number(document.body.dataset.milliseconds))).observe(document.body, {attributes: true,"
        "attributeFilter: ['data-milliseconds']})"
    )
    opened.pointer((x, y), *[(x - 5 * k, y - 4 * k) for k in range(1, 11)])
    opened.whole()
    assert len(opened.js("return window.seen")) >= 4  # on the way, and at its end
    a, b = (tensor(opened.kept(name)) for name in "ab")
    assert opened.length() != before
    assert np.isclose(opened.length(), float(session.subject.metric.distance(a, b)), rtol=1e-6)


def test_arrow_keys_move_points(opened: Page) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    before = opened.kept("a")
    point = opened.driver.find_element(By.CSS_SELECTOR, ".point[data-name=a]")
    assert "arrow keys" in point.get_attribute("aria-label")
    point.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    after = opened.kept("a")
    assert after[0] > before[0]
    assert after[1] > before[1]
    opened.whole()


def test_the_address_brings_the_view_back(opened: Page) -> None:
    address, length = opened.driver.current_url, opened.text("length")
    opened.open(address)
    opened.ready()
    opened.whole()
    assert opened.text("length") == length
    assert opened.driver.current_url == address


def test_python_lines_are_shown(opened: Page) -> None:
    opened.press("#show-python")
    opened.until("return document.getElementById('python').open")
    assert "metric.geodesic(a, b)" in opened.text("lines")
    opened.press("#close-python")


def test_pictures_stand_alone(opened: Page) -> None:
    from io import BytesIO
    from xml.etree import ElementTree

    from matplotlib.image import imread

    opened.js(
        "window.kept = {}; const make = URL.createObjectURL; URL.createObjectURL = blob => {"
        "blob.arrayBuffer().then(b => window.kept[blob.type] = btoa("
        "Array.from(new Uint8Array(b), c => String.fromCharCode(c)).join(''))); return make(blob)}"
    )
    opened.press("#save-svg")
    opened.press("#save-png")
    opened.until("return window.kept['image/png'] && window.kept['image/svg+xml']")
    files = {kind: base64.b64decode(text) for kind, text in opened.js("return kept").items()}
    root = ElementTree.fromstring(files["image/svg+xml"])
    assert root.tag.endswith("svg")
    assert b"http" not in files["image/svg+xml"].replace(b"http://www.w3.org/", b"")
    picture = imread(BytesIO(files["image/png"]))
    assert picture.shape[0] > 800
    assert len(np.unique(picture[::7, ::7].reshape(-1, picture.shape[2]), axis=0)) > 50


@pytest.mark.parametrize("layer", ["condition", "scalar_curvature"])
def test_layers_can_be_chosen(opened: Page, layer: str) -> None:
    opened.js(
        "const s = document.getElementById('layer'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('change'))",
        layer,
    )
    opened.until(
        f"const m = document.querySelector('.latent-map'); return m.dataset.layer === '{layer}'"
        " && m.dataset.size === '81'"
    )
    opened.pointer(opened.at(0.5, 0.5), opened.at(0.52, 0.5), down=False)
    opened.until(lambda: "indicatrix of length" in opened.text("readout"))
    assert opened.js("return document.querySelectorAll('.latent-map .indicatrix').length") == 1


@pytest.mark.parametrize(
    ("tool", "words"),
    [("ball", "Geodesic ball"), ("exp", "exp of a vector"), ("transport", "Carried from norm")],
)
def test_tools_answer(opened: Page, tool: str, words: str) -> None:
    opened.press(f"[data-tool={tool}]")
    opened.until(lambda: words in opened.text("live") or opened.text("error"))
    assert words in opened.text("live"), opened.text("error")


TYPED = (
    "const i = document.querySelector('[data-point=a]'); i.value = '{}';"
    "i.dispatchEvent(new Event('change'));"
)


def test_errors_are_shown_where_they_happened(opened: Page) -> None:
    opened.press("[data-tool=path]")
    opened.js(TYPED.format("1e200, 0"))
    opened.until("return !document.getElementById('error').hidden")
    assert opened.text("error")
    opened.js(TYPED.format("nonsense"))
    assert "Expected 2 numbers" in opened.text("error")


def test_a_late_answer_does_not_hide_what_was_typed_wrongly(opened: Page) -> None:
    opened.press("[data-tool=path]")
    opened.js("{" + TYPED.format("1e200, 0") + "} {" + TYPED.format("nonsense") + "}")
    opened.until("return !document.body.dataset.busy")
    assert "Expected 2 numbers" in opened.text("error")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_nothing_scrolls_sideways(opened: Page, address: str, size: tuple[int, int]) -> None:
    opened.open(address + "#tool=path&a=-1,0.4&b=0.8,-0.3", size)
    opened.ready()
    opened.whole()
    assert opened.js("return document.documentElement.scrollWidth") <= size[0]
    small = opened.js(
        "return [...document.querySelectorAll('button:not(.zoom *), select')].filter(e =>"
        "e.offsetParent && e.getBoundingClientRect().height < 24).map(e => e.outerHTML)"
    )
    assert small == []
    unnamed = opened.js(
        "return [...document.querySelectorAll('button, input, select')].filter(e => e.offsetParent"
        " && !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


def test_without_its_token_the_page_is_refused(page: Page, address: str) -> None:
    page.driver.get(re.sub(r"[^/]+/$", "", address))
    assert "lacks this run's token" in page.driver.page_source
    assert "403" in page.complaints()[-1]


def test_the_still_page_needs_no_server(page: Page, session: Session, tmp_path: Path) -> None:
    twin = section(session.subject)
    assert "<" not in twin["data"]
    path = tmp_path / "still.html"
    path.write_text(
        f"<!doctype html><meta charset=utf-8><style>{twin['style']}</style><div id=twin></div>"
        f"<script type='application/json' id='twin-data'>{twin['data']}</script>"
        f"<script>{twin['script']}</script>",
        encoding="utf-8",
    )
    page.open(path.as_uri())
    pairs = page.js("return [...document.querySelectorAll('[data-pair]')].map(b => b.dataset.pair)")
    assert len(pairs) == 10
    page.press("[data-pair='1-3']")
    assert "Class 1 to class 3" in page.js(
        "return document.querySelector('[role=status]').textContent"
    )
    assert page.js("return document.querySelectorAll('.latent-map .geodesic').length") == 1
    assert page.js("return document.querySelectorAll('.strip canvas').length") == 2
    page.pointer(page.at(0.5, 0.5), page.at(0.52, 0.5), down=False)
    page.until("return document.querySelector('.readout').textContent.includes('log volume')")
    before = page.js("return document.querySelector('.latent-map image').getAttribute('width')")
    page.press(".zoom button")
    after = page.js("return document.querySelector('.latent-map image').getAttribute('width')")
    assert float(after) > float(before)
    assert page.complaints() == []


def test_a_third_click_lets_go_of_what_was_on_its_way(opened: Page, address: str) -> None:
    """An answer about points that are gone is not shown beside the new one."""
    opened.open(address)
    opened.ready()
    opened.press("#snap")
    for u, v in ((0.3, 0.4), (0.65, 0.6), (0.5, 0.3)):
        opened.pointer(opened.at(u, v))
    opened.until("return document.body.dataset.busy !== 'yes'")
    kept = opened.js("return location.hash")
    assert "&a=" in kept
    assert "&b=" not in kept
    assert opened.text("live") == opened.text("result") == ""
    opened.pointer(opened.at(0.6, 0.6))
    opened.whole()
    assert opened.length() > 0


def test_a_hundred_clicks_pile_nothing_up(opened: Page, address: str) -> None:
    opened.open(address + "#tool=path&a=-1,0.4&b=0.8,-0.3")
    opened.ready()
    opened.whole()
    expected = opened.text("length")
    opened.js(
        "for (let n = 0; n < 100; n++) document.querySelector("
        "`[data-tool=${['path', 'ball', 'exp', 'transport'][n % 4]}]`).click();"
        "document.querySelector('[data-tool=path]').click()"
    )
    opened.whole()
    assert opened.text("length") == expected
    assert opened.js("return document.getElementById('error').hidden")


def test_colours_of_another_plane_are_taken_away(opened: Page, address: str) -> None:
    opened.open(address)
    opened.ready()
    assert opened.js("return document.querySelector('.latent-map image').hasAttribute('href')")
    there = opened.js(
        "const s = document.getElementById('first'); s.value = '1';"
        "s.dispatchEvent(new Event('change'));"
        "return document.querySelector('.latent-map image').hasAttribute('href')"
    )
    assert not there
    opened.until(
        "return document.querySelector('.latent-map image').hasAttribute('href')"
        " && document.querySelector('.latent-map').dataset.size === '81'"
    )
