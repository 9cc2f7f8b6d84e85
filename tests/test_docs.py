"""The documentation builds without a warning, completely, and needs no network to be read."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

from kahler_verify.cli import commands

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "index",
    "first-geodesic",
    "gallery",
    "semantic-directions",
    "commands",
    "ledger",
    "conventions",
    "real-latents",
    "architecture",
    "reference",
    "geodesics",
    "statistics",
    "peoples-decoders",
    "fields",
    "land",
    "what-autograd-gets-wrong",
    "write-your-own-derivation",
    "proved-tested-assumed",
    "mutants",
    "how-fast-and-why",
    "training-with-geometry",
    "mixture-proxy",
    "does-geometry-help",
    "claims-on-generators",
]


class _Page(HTMLParser):
    """Collects what a browser would load, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source"}:
            self.loaded.append(given.get("src") or "")
        if tag == "link" and given.get("rel") in {"stylesheet", "preconnect", "icon", "preload"}:
            self.loaded.append(given.get("href") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _parse(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("name", PAGES)
def test_page_is_built(site: Path, name: str) -> None:
    page = _parse(site / f"{name}.html")
    assert len(page.text) > 1000


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("name", PAGES)
def test_page_loads_nothing_from_elsewhere(site: Path, name: str) -> None:
    page = _parse(site / f"{name}.html")
    assert page.loaded
    remote = [address for address in page.loaded if re.match(r"(https?:)?//", address)]
    assert remote == []


@pytest.mark.xdist_group("docs")
def test_every_command_is_on_its_page_with_its_options(site: Path) -> None:
    text = _parse(site / "commands.html").text
    for command in commands.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__.replace("_", "-")
        assert f"$ kahler-verify {name} " in text
    assert "--likelihood" in text
    assert "<!-- commands -->" not in (site / "commands.html").read_text("utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    """Chromium with a window of 1300 pixels."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        pytest.skip("needs Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1300,1000"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    yield driver
    driver.quit()


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("name", PAGES)
def test_code_does_not_scroll_sideways_at_1300_pixels(
    site: Path, browser: WebDriver, name: str
) -> None:
    browser.get((site / f"{name}.html").as_uri())
    assert browser.execute_script("return innerWidth") == 1300
    wide = browser.execute_script(
        "return [...document.querySelectorAll('pre > code')]"
        ".filter(code => code.scrollWidth > code.clientWidth).map(code => code.innerText)"
    )
    assert wide == []


@pytest.mark.xdist_group("docs")
def test_scripts_are_shown_as_they_are(site: Path) -> None:
    """``ruff format`` reads Python in pages too, and once took a snippet's mark for operators."""
    gallery = "".join(_parse(site / "gallery.html").text.split())
    for path in (ROOT / "docs" / "gallery").glob("*.py"):
        if path.stem not in {"__main__", "first_picture"}:
            lines = [x for x in path.read_text("utf-8").splitlines() if "--8<--" not in x]
            assert "".join("".join(lines).split()) in gallery, path.name
    directions = _parse(site / "semantic-directions.html").text
    for part in ("class Autoencoder", "optimiser.step()", "top(4)", "def along"):
        assert part in directions
    for name in ("gallery", "semantic-directions"):
        assert "8<" not in _parse(site / f"{name}.html").text


@pytest.mark.xdist_group("docs")
def test_the_home_page_opens_with_its_picture_in_both_modes(site: Path) -> None:
    pictures = [f"assets/first_picture-{mode}.png#only-{mode}" for mode in ("light", "dark")]
    assert set(pictures) <= set(_parse(site / "index.html").loaded)


@pytest.mark.xdist_group("docs")
def test_the_reference_shows_no_roles(site: Path) -> None:
    text = _parse(site / "reference.html").text
    assert not re.findall(r":(?:class|meth|func|attr|mod):", text)


@pytest.mark.xdist_group("docs")
def test_architecture_shows_its_figure(site: Path) -> None:
    page = _parse(site / "architecture.html")
    assert "assets/architecture.svg" in page.loaded
    assert (site / "assets" / "architecture.svg").stat().st_size > 1000


def test_reference_lists_every_public_part() -> None:
    """Every subpackage or module that is neither private nor generated has its place there."""
    package = ROOT / "kahler_verify"
    public = {
        f"kahler_verify.{path.stem}"
        for path in package.iterdir()
        if not path.name.startswith("_")
        and path.stem not in {"cli", "kernels"}
        and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text("utf-8"), re.M)
    assert public <= set(listed), sorted(public - set(listed))
    assert len(listed) == len(set(listed))
