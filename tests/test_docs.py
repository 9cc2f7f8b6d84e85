"""The documentation builds without a warning, completely, and needs no network to be read."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "index",
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
