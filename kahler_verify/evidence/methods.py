"""Which kernels stand behind each public method of each metric, as seen while the method runs.

Nothing here is written by hand but how to call a method.  Python reports every function that a call
enters; those in the folder of generated kernels are the ones that it really executes, whoever
called them and on whatever layout.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, MultivariateNormal

from kahler_verify.codegen.registry import KERNELS
from kahler_verify.distributions import ComplexNormal
from kahler_verify.evidence.laws.variants.compared import numbers
from kahler_verify.evidence.laws.variants.decoders import fisher_metric, seeded, settings
from kahler_verify.evidence.laws.variants.mixtures import mixture_metric
from kahler_verify.geometry.base import Metric
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.mixture import MixtureMetric
from kahler_verify.geometry.potential import PotentialMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.networks.decoder import Decoder

__all__ = ["WITHOUT_NUMBERS", "Behind", "behind_methods", "kernels_run"]

# Public names that return no number made from a point, and what they do instead.
WITHOUT_NUMBERS = {
    "to": "makes the same metric elsewhere",
    "double": "as to",
    "float": "as to",
    "half": "as to",
    "from_file": "makes a metric",
    "from_function": "makes a metric",
    "riemannian": "makes the same metric on real coordinates",
    "operator": "makes an operator at one point",
    "plan": "tells how a call is computed",
    "forget_heads": "drops what was kept",
}


@dataclass
class Behind:
    """A public method, and the kernels that its calls ran.

    Attributes:
        metric: name of the class.
        method: name of the method.
        kernels: ``module.kernel`` of all that some call ran.
        calls: how many calls were watched.
        without: settings in which a call ran no kernel: a fault.
    """

    metric: str
    method: str
    kernels: set[str] = field(default_factory=set)
    calls: int = 0
    without: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether calls were watched, and each ran a kernel."""
        return self.calls > 0 and not self.without

    @property
    def by_module(self) -> str:
        """``module: kernel, kernel; module: …``."""
        modules: dict[str, list[str]] = {}
        for name in sorted(self.kernels):
            module, kernel = name.split(".")
            modules.setdefault(module, []).append(kernel)
        return "; ".join(f"{m}: {', '.join(names)}" for m, names in modules.items())


def kernels_run(call: Callable[[], Any]) -> set[str]:
    """``module.kernel`` of every generated function that a call enters."""
    found: set[str] = set()
    folder = str(KERNELS)

    def see(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(folder) and code.co_name[0] != "<":
            found.add(f"{Path(code.co_filename).stem}.{code.co_name}")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found


def behind_methods() -> list[Behind]:
    """Every public method of the kinds of metrics, on every kind of subject."""
    rows: dict[tuple[str, str], Behind] = {}
    subjects: dict[type[Metric], Callable[[], Iterator[Subject]]] = {
        FisherMetric: _decoders,
        FisherRaoMetric: _real_decoders,
        PotentialMetric: _potentials,
        MixtureMetric: _mixtures,
    }
    with seeded():
        for kind, of_kind in subjects.items():
            for name in _public(kind):
                rows[kind.__name__, name] = Behind(kind.__name__, name)
            for setting, metric, z in of_kind():
                for name in _public(kind):
                    row = rows[kind.__name__, name]
                    _watch(row, setting, metric, z)
    return list(rows.values())


def _public(kind: type[Metric]) -> list[str]:
    """Names of methods on z's space: FisherMetric answers real z by FisherRaoMetric, see there."""
    kinds: list[type] = [HermitianMetric, RiemannianMetric]
    own, other = kinds if issubclass(kind, HermitianMetric) else reversed(kinds)
    names = [n for n, _ in inspect.getmembers(kind, callable) if not n.startswith("_")]
    return [
        n for n in names if n not in WITHOUT_NUMBERS and (hasattr(own, n) or not hasattr(other, n))
    ]


def _watch(row: Behind, setting: str, metric: Any, z: Tensor) -> None:
    method = getattr(metric, row.method)
    vectors = [numbers(*z.shape, seed=seed) for seed in (11, 12, 13)]
    u, v, w = vectors if z.is_complex() else [x.real for x in vectors]
    near = z + 0.05 * v
    points = {"z": z, "u": u, "v": v, "w": w, "order": 2, "a": z, "b": near, "x": z, "y": near}
    points |= {"exp": {"v": 0.05 * v}, "log": {"w": near}}.get(row.method, {})
    if row.method == "transport":
        points["path"] = metric.geodesic(z, near)
    named = [name for name in inspect.signature(method).parameters if name != "options"]
    given = [points[name] for name in named]
    found = kernels_run(lambda: method(*given))
    row.calls += 1
    row.kernels |= found
    if not found:
        row.without.append(setting)


Subject = tuple[str, Metric, Tensor]


def _decoders() -> Iterator[Subject]:
    """With folded heads, recorded ones and full ones, and decoders that only autograd knows."""
    z = 0.5 * numbers(1, 3, seed=6)
    for setting in settings():
        *_, fold, recorded = setting
        decoder, metric = fisher_metric(setting)
        if (fold, recorded) in (("always", False), ("never", True)):
            yield " ".join(map(str, setting)), metric, z
        if setting[0] == "split_tanh" and (fold, recorded) == ("auto", False):
            yield f"{setting} by autograd", FisherMetric(partial(_opaque, decoder), check=False), z
    full = partial(_full_covariance, numbers(3, 5, 3, seed=8))  # drawn here, not under vmap
    yield "full Σ by autograd", FisherMetric(full, check=False), z


def _real_decoders() -> Iterator[Subject]:
    """A decoder for every layout of a Gaussian, and for another family."""
    z = 0.5 * numbers(2, 3, seed=6).real
    root, other = numbers(2, 5, 3, seed=9).real

    def mean(z: Tensor) -> Tensor:
        return torch.tanh(z @ root.mT)

    def spread(z: Tensor) -> Tensor:
        return torch.exp(0.3 * torch.tanh(z @ other.mT))

    laws: dict[str, Callable[[Tensor], Any]] = {
        "unit variance": mean,
        "scalar Σ": lambda z: (mean(z), spread(z).log().sum(-1)),
        "diagonal Σ": lambda z: (mean(z), spread(z).log()),
        "full Σ": lambda z: MultivariateNormal(mean(z), scale_tril=torch.diag_embed(spread(z))),
        "Bernoulli": lambda z: Bernoulli(logits=mean(z)),
    }
    for name, law in laws.items():
        yield name, FisherRaoMetric(law), z


def _opaque(decoder: Decoder, z: Tensor) -> ComplexNormal:
    """A decoder as a plain function, whose layers nobody sees."""
    out: ComplexNormal = decoder(z)
    return out


def _full_covariance(maps: Tensor, z: Tensor) -> ComplexNormal:
    a, b, c = maps
    mean = z @ a.mT + 0.3 * z.conj() @ b.mT
    deviation = (0.3 * (z @ c.mT).real).exp().to(z.dtype)
    below = torch.tril(mean.unsqueeze(-1) * mean.conj().unsqueeze(-2), -1)
    factor = torch.diag_embed(deviation) + 0.1 * below
    return ComplexNormal(mean, scale_tril=factor, validate_args=False)


def _potentials() -> Iterator[Subject]:
    z = 0.2 * numbers(2, 3, seed=6)
    root = numbers(3, 3, seed=7)
    parameters: Mapping[str, Mapping[str, Tensor]] = {
        "flat": {},
        "fubini_study": {},
        "complex_ball": {},
        "quadratic_form": {
            "centre": numbers(3, seed=8),
            "precision": root @ root.mH + torch.eye(3),
        },
    }
    for name, given in parameters.items():
        yield name, PotentialMetric(name, **given), z  # type: ignore[arg-type]


def _mixtures() -> Iterator[Subject]:
    z = 0.3 * numbers(2, 3, seed=4)
    for kind in ("potential", "density"):
        for diagonal in (False, True):
            for budget in (2**29, 1):
                metric = mixture_metric(5, 3, kind, diagonal, budget)
                yield f"{kind}, diagonal {diagonal}, budget {budget}", metric, z
