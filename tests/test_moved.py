"""Old names of modules and packages: the same objects, and a word about where they are now."""

import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest

from kahler_verify.moved import MODULES, PACKAGES

ROOT = "kahler_verify."


@pytest.fixture(autouse=True)
def _forgotten():
    """Old names are said to have moved when they are first imported."""
    for old in (*MODULES, *PACKAGES):
        sys.modules.pop(ROOT + old, None)


@pytest.mark.parametrize("old", MODULES)
def test_an_old_module_is_the_new_one(old: str) -> None:
    new = ROOT + MODULES[old]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old package on the way
        parent = (ROOT + old).rpartition(".")[0]
        import_module(parent)
    with pytest.warns(DeprecationWarning, match=f"{ROOT}{old} has moved to {new}"):
        found = import_module(ROOT + old)
    assert found is import_module(new)


@pytest.mark.parametrize("old", PACKAGES)
def test_an_old_package_has_the_public_names_of_its_heirs(old: str) -> None:
    package = import_module(ROOT + old)
    for home in PACKAGES[old]:
        for name in import_module(ROOT + home).__all__:
            with pytest.warns(DeprecationWarning, match=f"{ROOT}{old}.{name} has moved"):
                found = getattr(package, name)
            assert any(
                found is getattr(import_module(ROOT + each), name, None) for each in PACKAGES[old]
            )
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018


def test_names_that_left_a_package_are_found() -> None:
    from kahler_verify.geometry import mixture, potential
    from kahler_verify.statistics import fit_mixture

    with pytest.warns(DeprecationWarning, match="kahler_verify.statistics"):
        assert import_module("kahler_verify.geometry").fit_mixture is fit_mixture
    with pytest.warns(DeprecationWarning, match="kahler_verify.geometry.mixture"):
        assert potential.MixtureMetric is mixture.MixtureMetric


def test_no_old_name_stands_in_the_way_of_a_new_one() -> None:
    for old in (*MODULES, *PACKAGES):
        assert old not in MODULES.values()
        assert find_spec(ROOT + (MODULES.get(old) or PACKAGES[old][0])) is not None


def test_importing_the_package_warns_of_nothing() -> None:
    code = (
        "import warnings; warnings.simplefilter('error', DeprecationWarning); import kahler_verify;"
        "from kahler_verify import geometry, jets, models, networks, statistics, curves, moved"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
