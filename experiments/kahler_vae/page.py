"""The results page, from the report."""

from __future__ import annotations

from pathlib import Path

from experiments import page
from experiments.kahler_vae import declaration
from experiments.kahler_vae.declaration import ARMS, FURTHER, HEADLINE, MEASURES, OF_MODELS, PRIMARY
from experiments.kahler_vae.statistics import direction, find, mean_of, with_interval
from experiments.store import Json

TRAININGS = {
    "plain": "vanilla",
    "logdet_up": "λ > 0, log det g",
    "logdet_down": "λ < 0, log det g",
    "volume_up": "λ > 0, log volume",
    "logdet_stronger": "λ > 0, stronger",
    "beta": "tuned β",
}
IN_SECONDARY = (
    "regularised+",
    "regularised-",
    "weighted+",
    "weighted-",
    "regularised+weighted+",
    "temperature",
    "beta",
    "mixture",
)


def rewrite(path: Path, report: Json) -> None:
    """Rewrite every block of the page; see :func:`experiments.page.rewrite`."""
    page.rewrite(path, "kahler_vae", blocks(report))


def blocks(report: Json) -> dict[str, str]:
    """Markdown for each block."""
    primary = report["cells"][PRIMARY.name]
    return {
        "finding": report["claims"]["G8"]["finding"],
        "declared": declared(report),
        "headline": headline(primary, [name for name in ARMS if name != "vanilla"]),
        "means": means(primary),
        "differences": all_differences(primary),
        "further": further(primary),
        "samplers": samplers(primary, report["declaration"]["sizes"]),
        "volume": volume(primary),
        "pilot": pilot(report["pilot"]) if report["pilot"] else "None in this run.",
        "secondary": secondary(report),
        "machine": machine(report),
    }


def declared(report: Json) -> str:
    """The frozen declaration, and whether the pilot's rule chooses what it says."""
    s, c = declaration.STRENGTHS, declaration.CHOSEN
    pilot_seeds = ", ".join(str(seed) for seed in declaration.PILOT_SEEDS)
    chosen = report["pilot"]["chosen"] if report["pilot"] else None
    verdict = {
        True: "the pilot chooses these",
        False: f"the pilot of this run would choose {chosen}",
    }[chosen == report["declaration"]["chosen"]]
    sizes = report["declaration"]["sizes"]
    seeds = report["cells"][PRIMARY.name]["seeds"]
    of = {"means": "posterior means", "draws": "posterior draws"}[s.mixture_of]
    components = ", ".join(str(k) for k in declaration.MIXTURE_COMPONENTS)
    return f"""\
- Primary cell: {PRIMARY.title}; seeds {seeds[0]} to {seeds[-1]}, {sizes["epochs"]} epochs, the
  package's defaults otherwise
- Regularizer `logdet-hermitian` (arm *log volume*: `log-volume`), λ = {s.weight_up:g} and
  λ = {s.weight_down:g}, at {declaration.REGULARIZER_BATCH} latents of each batch of 64
- Weighted sampling: prior × (true volume)^γ, γ = {s.gamma_up:g} and γ = {s.gamma_down:g}, in the
  ball |z| < R that has {s.mass:.0%} of the prior; {sizes["samples"]} samples from
  {sizes["proposals"]} proposals
- Baselines: β = {s.beta:g}; prior CN(0, τ² I) with τ = {s.temperature:g}; a Gaussian mixture of
  {of}, full covariances, components by BIC among {components}
- Amended after the first reported seed's training had failed at the λ = {c.weight_up:g} that the
  pilot chose: λ = {s.weight_up:g}, the next best on the pilot, took its place everywhere. The arm
  *stronger* keeps λ = {c.weight_up:g}, over the seeds at which it can be trained
- All other strengths come from the pilot seeds {pilot_seeds}; by the rule, {verdict}"""


def headline(cell: Json, arms: list[str]) -> str:
    """Differences to vanilla in the claim's three measures; * marks a clear change."""
    lines = ["| arm | " + " | ".join(MEASURES[m][0] for m in HEADLINE) + " |"]
    lines.append("|---|" + "---|" * len(HEADLINE))
    vanilla = [mean_of(cell["values"]["vanilla"][m]) for m in HEADLINE]
    lines.append("| *vanilla itself* | " + " | ".join(f"*{v:.3f}*" for v in vanilla) + " |")
    for name in arms:
        entries = [_entry(find(cell, name, measure)) for measure in HEADLINE]
        lines.append(f"| {ARMS[name].label} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _entry(row: Json) -> str:
    clear = direction(row) != "no clear change"
    text = f"**{with_interval(row)}**" if clear else with_interval(row)
    return text if not row["failed"] else f"{text}, {row['seeds']} seeds"


def means(cell: Json) -> str:
    """Means over seeds, arm by arm, and the scale: real digits and noise."""
    lines = ["| | " + " | ".join(title for title, _, _ in MEASURES.values()) + " |"]
    lines.append("|---|" + "---|" * len(MEASURES))
    rows = {ARMS[name].label: values for name, values in cell["values"].items()}
    rows |= {f"*{name}*": values for name, values in _scale(cell).items()}
    for label, values in rows.items():
        entries = []
        for measure, (_, digits, _) in MEASURES.items():
            there = measure in values and any(v is not None for v in values[measure])
            entries.append(f"{mean_of(values[measure]):.{digits}f}" if there else "")
        lines.append(f"| {label} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _scale(cell: Json) -> Json:
    titles = {
        "real": "real held-out digits",
        "reconstructions": "their reconstructions",
        "vanilla, drawn": "vanilla, drawn pixels",
        "noise": "noise",
    }
    return {title: cell["scale"][name] for name, title in titles.items()}


def all_differences(cell: Json) -> str:
    """Every difference to vanilla: mean, half-width, and whether it survives Holm's adjustment."""
    lines = ["| arm | " + " | ".join(title for title, _, _ in MEASURES.values()) + " |"]
    lines.append("|---|" + "---|" * len(MEASURES))
    for name in cell["values"]:
        if name == "vanilla":
            continue
        arm, entries = ARMS[name], []
        for measure, (_, digits, _) in MEASURES.items():
            if measure in OF_MODELS and arm.training == "plain":
                entries.append("same model")
                continue
            row = find(cell, name, measure)
            if row["low"] is None:
                entries.append("–")
                continue
            half = (row["high"] - row["low"]) / 2
            text = f"{row['difference']:+.{digits}f} ± {half:.{digits}f}"
            entries.append(f"**{text}**" if direction(row) != "no clear change" else text)
        lines.append(f"| {arm.label} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def further(cell: Json) -> str:
    """The comparisons that are not with vanilla."""
    lines = ["| difference | " + " | ".join(MEASURES[m][0] for m in HEADLINE) + " |"]
    lines.append("|---|" + "---|" * len(HEADLINE))
    for arm, against in FURTHER:
        entries = [_entry(find(cell, arm, measure, against)) for measure in HEADLINE]
        name = f"({ARMS[arm].label}) − ({ARMS[against].label})"
        lines.append(f"| {name} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def samplers(cell: Json, sizes: Json) -> str:
    """Effective sample sizes and R-hat."""
    lines = ["| arm | sampler | effective sample size | other |", "|---|---|---|---|"]
    for name, how in cell["samplers"].items():
        arm = name.removesuffix(", chains")
        label = ARMS[arm].label
        if "components" in how:
            counts = ", ".join(str(k) for k in how["components"])
            lines.append(f"| {label} | mixture | | components by seed: {counts} |")
            continue
        effective = [v for v in how["effective_sample_size"] if v is not None]
        size = f"{min(effective):.0f} to {max(effective):.0f}"
        if "r_hat" in how:
            apart = [v for v in how["difference_in_standard_errors"] if v is not None]
            other = (
                f"R-hat at most {max(v for v in how['r_hat'] if v is not None):.3f}, acceptance "
                f"{mean_of(how['acceptance']):.2f}; mean log volume differs from the importance "
                f"sampler's by {', '.join(f'{v:+.1f}' for v in apart)} standard errors"
            )
            lines.append(f"| {label} | {sizes['chains']} NUTS chains | {size} | {other} |")
        else:
            lines.append(
                f"| {label} | importance | {size} of {sizes['proposals']} | "
                f"{mean_of(how['distinct']):.0%} of the samples are distinct |"
            )
    return "\n".join(lines)


def volume(cell: Json) -> str:
    """Where the volume is large, model by model."""
    columns = (
        "training",
        "log volume at codes",
        "at prior samples",
        "log det g at codes",
        "rank correlation of log volume with \\|z\\|², prior samples",
        "mean \\|z\\|² of codes",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, found in cell["volume"].items():
        at_codes, at_prior, log_det, correlation, square = (mean_of(v) for v in found.values())
        lines.append(
            f"| {TRAININGS[name]} | {at_codes:.1f} | {at_prior:.1f} | {log_det:.1f} | "
            f"{correlation:.2f} | {square:.1f} |"
        )
    return "\n".join(lines)


def pilot(report: Json) -> str:
    """All strengths that were tried."""
    columns = ("score", *HEADLINE, "reconstruction", "elbo")
    titles = ["score", *(MEASURES[m][0] for m in columns[1:]), "effective sample size"]
    lines = ["| tried | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    for name, row in report["table"].items():
        if "score" not in row:
            lines.append(f"| {name} | training failed at every pilot seed" + " |" * len(titles))
            continue
        entries = [f"{row[m]:.3f}" if m in row else "" for m in columns]
        size = row.get("effective_sample_size")
        entries.append("" if size is None else f"{size:.0f}")
        note = f" (failed at {row['failed']} seeds)" if row["failed"] else ""
        lines.append(f"| {name}{note} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def secondary(report: Json) -> str:
    """The headline table for each secondary cell."""
    parts = []
    for name, cell in report["cells"].items():
        if name == PRIMARY.name:
            continue
        title = f"**{cell['title'][0].upper()}{cell['title'][1:]}** ({len(cell['seeds'])} seeds)"
        failures = "".join(
            f"\n\n{TRAININGS[failure['training']]}, seed {failure['seed']}, failed: "
            f"{failure['error'].split(': ')[1]}."
            for failure in cell["failures"]
        )
        found = cell["volume"]["plain"]
        where = (
            f"Vanilla's log volume is {mean_of(found['log_volume_at_codes']):.1f} at codes and "
            f"{mean_of(found['log_volume_at_prior']):.1f} at prior samples; its rank correlation "
            f"with \\|z\\|² is {mean_of(found['rank_correlation_with_radius']):.2f}."
        )
        parts.append(f"{title}\n\n{headline(cell, list(IN_SECONDARY))}\n\n{where}{failures}")
    return "\n\n".join(parts) or "None in this run."


def machine(report: Json) -> str:
    """Where and when."""
    m, cell = report["machine"], report["cells"][PRIMARY.name]
    low, high = min(cell["accuracy"]), max(cell["accuracy"])
    return (
        f"Run on {m['processor']} with {m['threads']} thread, torch {m['torch']}, "
        f"{m['minutes']:.0f} minutes of CPU time without the pilot. The classifier's "
        f"accuracy on real held-out digits: {low:.1%} to {high:.1%} over seeds."
    )
