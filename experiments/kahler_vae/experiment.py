"""The pilot, which chooses strengths, and the cells, which are reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path

import numpy as np

from experiments.kahler_vae import declaration
from experiments.kahler_vae.declaration import (
    ARMS,
    FULL,
    PRIMARY,
    STRENGTHS,
    Cell,
    Sizes,
    Strengths,
)
from experiments.kahler_vae.models import Images, Trained, scale, trained
from experiments.store import Json, remembered
from kahler_verify.errors import InputError
from kahler_verify.models import Dataset, TrainingOptions, load_data

Say = Callable[[str], None]


@dataclass(frozen=True)
class Workshop:
    """One cell at one seed: its data, its judge, and models as they are asked for."""

    cell: Cell
    seed: int
    folder: Path
    sizes: Sizes

    @cached_property
    def data(self) -> Dataset:
        """The cell's data, split by the seed."""
        return load_data(self.cell.data, self.seed)

    @cached_property
    def images(self) -> Images:
        """The data as images, with a judge."""
        return Images.of(self.data)

    def model(self, beta: float, options: TrainingOptions) -> Trained:
        """The model, trained if it is not on disk."""
        model = trained(self.cell, self.seed, beta, options, self.data, self.folder)
        return Trained(model, self.data, self.images, self.sizes)


def score(measured: Json) -> float:
    """The harmonic mean of (1 - outliers) and coverage: the rule by which strengths are chosen."""
    clean, covered = 1 - measured["outliers"], measured["coverage"]
    return 2 * clean * covered / (clean + covered) if clean + covered else 0.0


# The pilot


def pilot(folder: Path, say: Say) -> Json:
    """Every strength that was tried, over the pilot seeds, and what the rule chooses."""
    seeds = [
        remembered(
            folder,
            f"pilot-{seed}",
            {"declared": declaration.as_json()["pilot"], "sizes": _without_chains(FULL)},
            partial(_pilot_seed, seed, folder, say),
        )
        for seed in declaration.PILOT_SEEDS
    ]
    table = {}
    for name in seeds[0]["tried"]:
        found = [seed["tried"][name] for seed in seeds]
        worked = [row for row in found if "error" not in row]
        table[name] = {
            "failed": len(found) - len(worked),
            **(
                {key: float(np.mean([row[key] for row in worked])) for key in worked[0]}
                if worked
                else {}
            ),
        }
    return {
        "seeds": list(declaration.PILOT_SEEDS),
        "table": table,
        "chosen": choose(table),
        "cpu_seconds": [seed["cpu_seconds"] for seed in seeds],
    }


def _without_chains(sizes: Sizes) -> Json:
    return {key: value for key, value in asdict(sizes).items() if not key.startswith("chain")}


def _pilot_seed(seed: int, folder: Path, say: Say) -> Json:
    workshop = Workshop(PRIMARY, seed, folder, FULL)
    found: Json = {}

    def by_training(name: str, beta: float, options: TrainingOptions) -> None:
        say(f"pilot {seed}: {name}")
        try:
            model = workshop.model(beta, options)
        except InputError as error:
            found[name] = {"error": str(error)}
            return
        z, _ = model.latents("prior", STRENGTHS, seed)
        found[name] = _scored({**model.measure(model.decode(z)), **model.measure_model(seed)})

    by_training("vanilla", 1.0, declaration.options(FULL.epochs))
    for weight in declaration.WEIGHTS:
        by_training(
            f"λ = {weight:g}", 1.0, declaration.options(FULL.epochs, "logdet-hermitian", weight)
        )
    for beta in declaration.BETAS:
        by_training(f"β = {beta:g}", beta, declaration.options(FULL.epochs))
    plain = workshop.model(1.0, declaration.options(FULL.epochs))
    for temperature in declaration.TEMPERATURES:
        z, _ = plain.latents("temperature", Strengths(temperature=temperature), seed)
        found[f"τ = {temperature:g}"] = _scored(plain.measure(plain.decode(z)))
    gammas = (*declaration.GAMMAS, 0.0, *declaration.NEGATIVE_GAMMAS)
    for gamma, mass in product(gammas, declaration.MASSES):
        z, how = plain.weighted(gamma, mass, seed)
        found[weighted_name(gamma, mass)] = _scored({**plain.measure(plain.decode(z)), **how})
    for of in declaration.MIXTURES:
        z, how = plain.latents("mixture", Strengths(mixture_of=of), seed)
        found[f"mixture of {of}"] = _scored({**plain.measure(plain.decode(z)), **how})
    return {"tried": found}


def weighted_name(gamma: float, mass: float) -> str:
    """How the pilot's table names a weighted sampler."""
    return f"γ = {gamma:g}, {mass:.0%} of the prior"


def _scored(measured: Json) -> Json:
    return {**measured, "score": score(measured)}


def choose(table: Json) -> Json:
    """The strengths of greatest score; what failed at any pilot seed is not eligible."""

    def best(options: dict[str, Json]) -> Json:
        able = {name: value for name, value in options.items() if not table[name]["failed"]}
        return able[max(able, key=lambda name: table[name]["score"])]

    weights = {f"λ = {w:g}": {"weight": w} for w in declaration.WEIGHTS}
    up = {
        weighted_name(g, m): {"gamma_up": g, "mass": m}
        for g, m in product(declaration.GAMMAS, declaration.MASSES)
    }
    volume = best(up)
    down = {
        weighted_name(g, volume["mass"]): {"gamma_down": g} for g in declaration.NEGATIVE_GAMMAS
    }
    betas = {f"β = {b:g}": {"beta": b} for b in declaration.BETAS} | {"vanilla": {"beta": 1.0}}
    temperatures = {f"τ = {t:g}": {"temperature": t} for t in declaration.TEMPERATURES}
    return {
        "weight_up": best({n: v for n, v in weights.items() if v["weight"] > 0})["weight"],
        "weight_down": best({n: v for n, v in weights.items() if v["weight"] < 0})["weight"],
        **volume,
        **best(down),
        **best(betas),
        **best(temperatures),
        **best({f"mixture of {of}": {"mixture_of": of} for of in declaration.MIXTURES}),
    }


# The cells


def run_cell(cell: Cell, folder: Path, sizes: Sizes, say: Say) -> Json:
    """Raw numbers of a cell: for every arm and measure a list over seeds."""
    rows = [
        remembered(
            folder,
            f"{cell.name}-{seed}",
            _depends_on(cell, sizes),
            partial(_run_seed, cell, seed, folder, sizes, say),
        )
        for seed in cell.seeds
    ]

    def gathered(part: str) -> Json:
        """The dictionaries of ``part``, name by name and key by key, as lists over seeds."""
        return {
            name: {key: [row[part][name].get(key) for row in rows] for key in rows[0][part][name]}
            for name in rows[0][part]
        }

    return {
        "title": cell.title,
        "seeds": list(cell.seeds),
        "cpu_seconds": [row["cpu_seconds"] for row in rows],
        "accuracy": [row["accuracy"] for row in rows],
        "failures": [failure for row in rows for failure in row["failures"]],
        "values": {
            name: {
                key: [row["arms"].get(name, {}).get(key) for row in rows]
                for key in rows[0]["arms"]["vanilla"]
            }
            for name, arm in ARMS.items()
            if arm.training in cell.trainings
        },
        "scale": gathered("scale"),
        "volume": {
            name: {
                key: [row["volume"].get(name, {}).get(key) for row in rows]
                for key in rows[0]["volume"]["plain"]
            }
            for name in cell.trainings
        },
        "samplers": _samplers(rows),
    }


def _depends_on(cell: Cell, sizes: Sizes) -> Json:
    declared = declaration.as_json(sizes)
    return {
        "cell": {
            key: value for key, value in asdict(cell).items() if key not in ("seeds", "title")
        },
        "declared": {
            key: value
            for key, value in declared.items()
            if key not in ("pilot", "chosen", "level", "arms")
        },
        "arms": [[name, arm.training, arm.sampling] for name, arm in ARMS.items()],
    }


def _samplers(rows: list[Json]) -> Json:
    """How sampling went, arm by arm; ``None`` where an arm's training failed."""
    names = sorted({name for row in rows for name in row["samplers"]})
    keys = {name: sorted({k for r in rows for k in r["samplers"].get(name, {})}) for name in names}
    return {
        name: {key: [row["samplers"].get(name, {}).get(key) for row in rows] for key in keys[name]}
        for name in names
    }


def _run_seed(cell: Cell, seed: int, folder: Path, sizes: Sizes, say: Say) -> Json:
    workshop = Workshop(cell, seed, folder, sizes)
    models, failures = {}, []
    trainings = declaration.trainings(STRENGTHS, sizes.epochs)
    for name in cell.trainings:
        beta, options = trainings[name]
        say(f"{cell.name} {seed}: {name}")
        try:
            models[name] = workshop.model(beta, options)
        except InputError as error:  # a regularised training may degenerate: that is a finding
            failures.append({"seed": seed, "training": name, "error": str(error)})
    of_models = {name: model.measure_model(seed) for name, model in models.items()}
    arms, samplers = {}, {}
    for name, arm in ARMS.items():
        if arm.training in models:
            model = models[arm.training]
            z, how = model.latents(arm.sampling, STRENGTHS, seed)
            arms[name] = {**model.measure(model.decode(z)), **of_models[arm.training]}
            if how:
                samplers[name] = how
    plain = models["plain"]
    if cell.name == PRIMARY.name and seed in sizes.chain_seeds:
        for name, exponent in (
            ("weighted+", STRENGTHS.gamma_up),
            ("weighted-", STRENGTHS.gamma_down),
        ):
            say(f"{cell.name} {seed}: chains for {name}")
            samplers[f"{name}, chains"] = plain.chains(exponent, STRENGTHS.mass, seed)
    return {
        "accuracy": workshop.images.judge.accuracy,
        "failures": failures,
        "arms": arms,
        "samplers": samplers,
        "volume": {name: model.describe_volume(seed) for name, model in models.items()},
        "scale": {
            **scale(workshop.images, sizes.samples, seed),
            "reconstructions": plain.measure(plain.decode(plain.encode(plain.held_out_x))),
            "vanilla, drawn": plain.measure(
                plain.decode_draw(plain.latents("prior", STRENGTHS, seed)[0], seed)
            ),
        },
    }
