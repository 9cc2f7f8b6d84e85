"""Old names of what has moved: they work for one release, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MODULES", "PACKAGES", "Moved", "moved_names"]

PACKAGES = {"decoders": ("models", "networks", "jets"), "sampling": ("statistics",)}
MODULES = {
    "products": "linear_algebra.products",
    "pairs": "linear_algebra.planes",
    "geometry.cholesky": "linear_algebra.cholesky",
    "decoders.heads": "linear_algebra.kept",
    "geometry.kernel_set": "running.kernel_set",
    "geometry.parameters": "running.parameters",
    "geometry.unrolled_kernels": "running.variants",
    "codegen.unrolled": "running.unrolling",
    "decoders.activations": "networks.activations",
    "decoders.models": "models.vae",
    "decoders.real_vae": "models.real_vae",
    "decoders.training": "models.training",
    "decoders.progress": "models.progress",
    "decoders.data": "models.data",
    "decoders.arrays": "models.arrays",
    "decoders.checkpoint": "models.checkpoint",
    "decoders.propagation": "jets.layers",
    "decoders.tangents": "jets.tangents",
    "decoders.jets": "jets.fields",
    "decoders.outputs": "jets.gaussian_outputs",
    "decoders.checks": "jets.checks",
    "decoders.differentiation": "jets.differentiation",
    "decoders.recognition": "jets.recognition",
    "decoders.severed": "jets.severed",
    "decoders.smoothness": "jets.smoothness",
    "decoders.written_out": "jets.written_out",
    "sampling.target": "statistics.volume",
    "sampling.chains": "statistics.chains",
    "sampling.importance": "statistics.importance",
    "geometry.proxy": "statistics.proxy",
    "evidence.arithmetic": "evidence.numbers.arithmetic",
    "evidence.series": "evidence.numbers.series",
    "evidence.samples": "evidence.numbers.samples",
    "evidence.trees": "evidence.numbers.trees",
    "evidence.nilpotent": "evidence.numbers.nilpotent",
    "evidence.functions": "evidence.numbers.functions",
    "evidence.points": "evidence.numbers.points",
    "evidence.domains": "evidence.numbers.domains",
    "evidence.autograd": "evidence.routes.autograd",
    "evidence.componentwise": "evidence.routes.componentwise",
    "evidence.known_answers": "evidence.routes.known_answers",
    "evidence.decoder_routes": "evidence.routes.complex_decoders",
    "evidence.real_decoders": "evidence.routes.real_decoders",
    "evidence.autograd_faults": "evidence.routes.torch_faults.self_test",
    "evidence.heads": "evidence.routes.heads",
    "evidence.laws_of_kernels": "evidence.laws.kernels",
    "evidence.laws_of_metrics": "evidence.laws.metrics",
    "evidence.readings": "evidence.laws.readings",
    "evidence.properties": "evidence.laws.register",
    "evidence.unrolled_variants": "evidence.laws.variants.unrolled",
    "evidence.variants": "evidence.laws.variants.groups",
    "evidence.schwartz_zippel": "evidence.proofs.schwartz_zippel",
    "evidence.certificates": "evidence.proofs.certificates",
    "evidence.regions": "evidence.proofs.regions",
    "evidence.witnesses": "evidence.proofs.witnesses",
    "evidence.measurements": "evidence.ledger.measurements",
    "evidence.region_claims": "evidence.ledger.region_claims",
    "evidence.dependencies": "evidence.ledger.dependencies",
    "evidence.real_report": "evidence.report.real_plane",
    "evidence.planted": "evidence.mutants.planted",
    "evidence.faults": "evidence.mutants.faults",
    "evidence.reading_faults": "evidence.mutants.reading_faults",
    "evidence.head_faults": "evidence.mutants.head_faults",
    "evidence.geometry_faults": "evidence.mutants.geometry_faults",
}
_ROOT = "kahler_verify."


def _warn(old: str, new: str) -> None:
    message = f"{old} has moved to {new}; the old name goes with the next release"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def moved_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__`` for names that have moved to other packages.

    Args:
        package: the ``__name__`` of the package that had them.
        homes: for each name, the subpackage that has it now.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name}", f"{_ROOT}{homes[name]}")
        return getattr(import_module(_ROOT + homes[name]), name)

    return find


class Moved(MetaPathFinder, Loader):
    """Imports modules and packages by their old names, as the very objects of the new ones."""

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """A spec for the old names, and for no others."""
        old = fullname.removeprefix(_ROOT)
        if old == fullname or old not in {*MODULES, *PACKAGES}:
            return None
        return ModuleSpec(fullname, self, is_package=old in PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        """Put the new module in the old one's place; or let the old package look names up."""
        name = module.__name__
        old = name.removeprefix(_ROOT)
        if old in MODULES:
            _warn(name, _ROOT + MODULES[old])
            sys.modules[name] = import_module(_ROOT + MODULES[old])
            return
        homes = {
            public: home
            for home in reversed(PACKAGES[old])
            for public in import_module(_ROOT + home).__all__
        }
        module.__getattr__ = moved_names(name, homes)  # type: ignore[method-assign]
