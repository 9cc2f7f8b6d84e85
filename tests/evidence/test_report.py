"""Reports: the table, JSON, and a page that is escaped and needs nothing from outside."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.cells import cell_len
from rich.console import Console

from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import InputError
from kahler_verify.evidence.crosscheck import CrossCheck, crosscheck
from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.report.complex_plane import decoded_samples, latent_plane
from kahler_verify.evidence.report.page import save_picture, write_html, write_json
from kahler_verify.evidence.report.summary import summary
from kahler_verify.evidence.report.tables import print_table
from kahler_verify.models.checkpoint import save_checkpoint
from kahler_verify.models.vae import ComplexVAE, VAEConfig

pytestmark = pytest.mark.xdist_group("reports")  # one worker makes what the tests share

SCRIPT = "<script>alert(1)</script>"
OWN = 2  # scripts of the page itself: the still latent plane's data and its program


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> CrossCheck:
    """A cross-check of one derivation and of an untrained decoder of digits."""
    config = VAEConfig(latent_dim=2, hidden=(4,))
    model = ComplexVAE(config)
    with torch.no_grad():
        model.standardise(torch.view_as_complex(torch.randn(9, 32, 2)))
    path = tmp_path_factory.mktemp("model") / "<img src=x onerror=alert(1)>.safetensors"
    save_checkpoint(path, model, report={"test_elbo": SCRIPT})
    return crosscheck(path, derivations={"flat": shipped()["flat"]})


@pytest.fixture(scope="module")
def html(result: CrossCheck, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its page."""
    return page(result, tmp_path_factory.mktemp("page"))


def printed(result: CrossCheck, width: int = 160, **options: bool) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    print_table(console, result, **options)
    return console.export_text()


def failing(result: CrossCheck) -> CrossCheck:
    row = Finding(
        (0.5,),
        (1e-15,),
        what=f"flat.{SCRIPT}[bold]",
        route="autograd",
        where="random points",
        seconds=0.1,
        note=f"note {SCRIPT} [/nonsense]",
    )
    return replace(result, rows=(*result.rows, row))


def test_the_table_says_what_was_found(result: CrossCheck) -> None:
    text = printed(result)
    assert "flat (5)" in text
    assert "complementary part" in text
    assert "C ε cond(g) with C = 64" in text
    assert "passed" in text
    assert "✗" not in text
    assert "held-out latents" in printed(result, every=True)


def test_the_diagnosis_is_in_the_table_the_json_and_the_page(
    result: CrossCheck, html: str, tmp_path: Path
) -> None:
    assert result.diagnosis is not None
    assert result.diagnosis.points == 32
    text = printed(result)
    write_json(result, tmp_path / "verify.json")
    written = json.loads((tmp_path / "verify.json").read_text())["diagnosis"]
    for shown in (text, html):
        assert "geometry at 32 held-out latents" in shown.replace("&#39;", "'")
    for quantity in result.diagnosis.quantities:
        assert quantity.name in text
        assert f'<th scope="row">{quantity.name}</th>' in html
        median = quantity.summary()["median"]
        assert f"<td>{median:.3g}</td>" in html
        assert f"{median:.3g}" in text
        assert written["quantities"][quantity.name]["median"] == pytest.approx(median)
    assert {"closedness defect", "complementary part", "identifiability", "scalar curvature"} <= {
        q.name for q in result.diagnosis.quantities
    }


def test_without_a_diagnosis_there_is_no_such_section(result: CrossCheck, tmp_path: Path) -> None:
    without = replace(result, diagnosis=None)
    assert "geometry at" not in printed(without)
    assert "scalar curvature" not in page(without, tmp_path)
    assert without.to_dict()["diagnosis"] is None


def test_the_table_says_what_fell_short(result: CrossCheck) -> None:
    text = printed(failing(result))
    assert "FAILED" in text
    assert "✗ 5e-01" in text
    assert "[bold]" in text  # not taken for markup


def test_nothing_is_cut_off_at_80_columns(result: CrossCheck) -> None:
    every = [
        replace(
            result.rows[0],
            what="mixture_potential.metric_db",
            route=route,
            complaints=() if passed else ("it fails",),
        )
        for route in ("autograd", "mpmath", "exact", "componentwise", "torch_kl", "known")
        for passed in (True, False)
    ]
    text = printed(replace(result, rows=(*result.rows, *every)), width=80, every=True)
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= 80
    first = [line[1:12].strip() for line in text.splitlines()]
    assert "mixture_potential" in "".join(first)
    assert "mixture_potential.metric_db" in "".join(
        line[1:13].strip() for line in text.splitlines()
    )


def test_json(result: CrossCheck, tmp_path: Path) -> None:
    write_json(failing(result), tmp_path / "verify.json")
    values = json.loads((tmp_path / "verify.json").read_text())
    assert values["passed"] is False
    assert values["rows"][-1]["condition"] is None
    assert len(values["rows"]) == len(result.rows) + 1


def page(result: CrossCheck, folder: Path) -> str:
    write_html(result, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_string_on_the_page_is_escaped(result: CrossCheck, tmp_path: Path) -> None:
    assert result.model is not None
    data = replace(result.model.config, data=SCRIPT)
    model = ComplexVAE(data).double()
    assert result.diagnosis is not None
    with_meaning = replace(result.diagnosis.quantities[0], name=SCRIPT, meaning=SCRIPT)
    odd = replace(
        failing(result),
        model=model,
        notes=(SCRIPT,),
        missing=(SCRIPT,),
        diagnosis=replace(result.diagnosis, quantities=(with_meaning,)),
    )
    assert SCRIPT in printed(odd)
    html = page(odd, tmp_path)
    assert "✗ Failed" in html
    assert html.count("<script") == OWN
    assert SCRIPT not in html
    assert "<img src=x" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert "&lt;img src=x onerror=alert(1)&gt;.safetensors" in html


def test_the_page_needs_nothing_from_outside(html: str) -> None:
    html = html.replace("http://www.w3.org/2000/svg", "")  # a name, no address
    sources = re.findall(r"""<[^>]*?\s(?:src|href)="([^"]+)""", html)
    assert sources
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http:" not in html
    assert "https:" not in html
    for source in sources:
        picture = imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert picture.shape[0] > 300
        assert picture.std() > 0.05  # not blank
    assert len(re.findall(r'<img [^>]*alt="[^"]{20,}"', html)) == len(sources) == 3
    assert "✓ Passed" in html
    assert "✗ Failed" not in html


def test_a_page_without_a_checkpoint(result: CrossCheck, tmp_path: Path) -> None:
    bare = replace(result, model=None, held_out=None, checkpoint=None, report={})
    html = page(bare, tmp_path)
    assert "latent plane" not in html
    with pytest.raises(InputError, match="expected a cross-check of a checkpoint"):
        save_picture(bare, tmp_path / "maps.png")


def test_the_maps(result: CrossCheck, tmp_path: Path) -> None:
    assert result.model is not None
    plane = latent_plane(result.model, result.held_out)
    assert np.isfinite(plane.log_volume).all()
    assert (plane.defect >= 0).all()
    constant = ComplexVAE(replace(result.model.config, covariance="constant")).double()
    assert latent_plane(constant, None).defect.max() < 1e-12  # holomorphic mean, constant Σ: Kähler
    save_picture(result, tmp_path / "maps.png")
    assert imread(tmp_path / "maps.png").std() > 0.05


def test_only_images_are_shown_as_images(result: CrossCheck) -> None:
    assert result.model is not None
    plane = latent_plane(result.model, None)
    assert decoded_samples(result.model, plane) is not None
    other = ComplexVAE(replace(result.model.config, data="signals.npy")).double()
    assert decoded_samples(other, plane) is None


def test_the_summary_shows_the_worst_of_each_route(result: CrossCheck) -> None:
    (line,) = [line for line in summary(failing(result).rows) if line.subject == "flat"]
    assert not line.cells["autograd"].passed
    assert line.cells["autograd"].text == "5e-01"
    assert line.cells["exact"].text == "equal"
