"""The folder of derivations: its rooms, how files import one another, and what papers may hold."""

import shutil
import sys
from pathlib import Path

import pytest

from kahler_verify import derivations
from kahler_verify.calculus import Derivation
from kahler_verify.codegen.registry import declared, load_file, shipped, shipped_file, shipped_files
from kahler_verify.errors import DerivationError
from kahler_verify.evidence.ledger import cache
from kahler_verify.evidence.ledger.cache import Cache

ROOMS = {"functions", "geometry", "likelihoods", "papers", "potentials"}
PAPERS = [path for path in shipped_files() if path.parent.name == "papers"]


def test_every_file_is_in_a_room_under_a_name_of_its_own() -> None:
    files = shipped_files()
    assert {path.parent.name for path in files} == ROOMS
    assert len({path.stem for path in files}) == len(files)


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_a_paper_holds_claims_alone(path: Path) -> None:
    """What it imports from a file of derivations is not declared a second time."""
    (paper,) = declared(path)
    assert isinstance(paper, Derivation)
    assert paper.name == path.stem
    assert paper.claims
    assert not paper.kernels


def test_claims_have_one_place() -> None:
    ids = [c.id for d in shipped().values() for c in d.claims]
    assert len(set(ids)) == len(ids)


def test_kernels_that_a_paper_judges_are_of_a_shipped_derivation() -> None:
    known = shipped()
    claims = [c for d in known.values() for c in d.claims if c.of is not None]
    assert claims
    for claim in claims:
        assert claim.kernels, claim.id
        assert set(claim.kernels) <= {k.name for k in known[claim.of.name].kernels}


def test_a_users_file_imports_shipped_derivations(tmp_path: Path) -> None:
    """By Python's own import, and what it imports is not its own."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from kahler_verify.calculus import potential\n"
        "from kahler_verify.derivations.potentials.model_potentials import flat, radius2\n"
        "mine = potential('mine', 2 * radius2)\n"
    )
    assert [d.name for d in load_file(path)] == ["mine"]
    assert not [m for m in sys.modules if m.startswith("kahler_verify.derivations.")]
    path.write_text("from kahler_verify.derivations.potentials.model_potentials import flat\n")
    with pytest.raises(DerivationError, match="declares no Derivation"):
        load_file(path)


def test_an_imported_derivation_is_loaded_as_it_then_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(derivations.shipped_folder(), tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(derivations, "__path__", [str(tmp_path)])
    paper = tmp_path / "papers" / "points_to_spheres.py"
    before = load_file(paper)[0].claims[0].parts[0]
    subject = tmp_path / "geometry" / "reparametrisation.py"
    text = subject.read_text("utf-8")
    assert text.count("loss = scalars(") == 1
    subject.write_text(text.replace("loss = scalars(", "loss = scalars(2 * "), "utf-8")
    assert load_file(paper)[0].claims[0].parts[0] != before


def test_a_verdict_is_kept_only_while_every_file_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in rooms count, not only those at the top of the folder."""
    shutil.copytree(derivations.shipped_folder(), tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(cache, "shipped_folder", lambda: tmp_path)
    before = Cache("default", []).folder
    assert Cache("default", []).folder == before
    subject = tmp_path / "likelihoods" / "gaussian_kl.py"
    subject.write_text(subject.read_text("utf-8") + "\n# edited\n", "utf-8")
    assert Cache("default", []).folder != before


def test_a_file_is_found_by_its_name() -> None:
    found = shipped_file("gaussian_kl")
    assert found is not None
    assert found.parent.name == "likelihoods"
    assert shipped_file("no_such_file") is None
