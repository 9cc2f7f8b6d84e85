"""The ledger of all that is asked for: claims by id, derivation files, or all that is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from kahler_verify.codegen.registry import KERNELS, load_file, shipped
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.cache import Cache
from kahler_verify.evidence.ledger.claims import judge
from kahler_verify.evidence.ledger.dependencies import Reads, watched
from kahler_verify.evidence.ledger.items import Item, Judgement, Ledger
from kahler_verify.evidence.ledger.kernels import (
    kernel_items,
    method_items,
    property_items,
    variant_items,
)
from kahler_verify.evidence.ledger.parts import SIZES
from kahler_verify.evidence.working import Work, done


def prove(
    what: Sequence[str] = (),
    *,
    profile: str = "default",
    use_cache: bool = True,
    console: Console | None = None,
    processes: int = 1,
) -> Ledger:
    """Judge claims by id, the claims and kernels of derivation files, or all that is shipped.

    Verdicts are cached by the fingerprint of derivations with all files that they load, generator,
    evidence and dependencies.  All that is shipped may be judged by several ``processes``, which
    start a script anew and so need its ``if __name__ == "__main__":``.

    Raises:
        EvidenceError: an id is unknown, or evidence could not be had.
    """
    with watched() as reads:
        return _prove(what, profile, use_cache, console, 1 if what else processes, reads)


def judge_shipped(kind: str, name: str, profile: str) -> Judgement | list[Item]:
    """A piece of what is shipped, by its name: derivations do not travel between processes."""
    known = shipped()
    if kind == "claim":
        claim, home = next((c, d) for d in known.values() for c in d.claims if c.id == name)
        return judge(claim, home, profile)
    if kind == "kernels":
        return kernel_items(known[name], (), profile, KERNELS / f"{name}.py")
    return variant_items() if kind == "variants" else method_items()


def _prove(
    what: Sequence[str],
    profile: str,
    use_cache: bool,
    console: Console | None,
    processes: int,
    reads: Reads,
) -> Ledger:
    if profile not in SIZES:
        raise EvidenceError(f"profile: expected one of {', '.join(SIZES)}, got {profile!r}")
    files = [w for w in what if w.endswith(".py")]
    ids = [w for w in what if w not in files]
    known = list(shipped().values())
    claims = {c.id: (c, d) for d in known for c in d.claims}
    unknown = [i for i in ids if i not in claims]
    if unknown:
        raise EvidenceError(f"claims: expected ids among {', '.join(claims)}, got {unknown}")
    chosen: list[tuple[str, Work]] = [
        (f"{claims[i][1].name}: {i}", partial(judge_shipped, "claim", i, profile))
        for i in (ids if what else claims)
    ]
    users = [(f, d) for f in files for d in load_file(f)]
    chosen += [
        (f"{f}{d.name}: {c.id}", partial(judge, c, d, profile)) for f, d in users for c in d.claims
    ]
    own = [(f, d) for f, d in users if d.kernels]
    chosen += [(f"{f}properties of {d.name}", partial(property_items, d)) for f, d in own]
    chosen += [
        (
            f"{f}kernels of {d.name}",
            partial(kernel_items, d, (), profile, Path(f).with_name(f"{d.name}_kernels.py")),
        )
        for f, d in own
    ]
    if not what:
        chosen += [
            (f"kernels of {d.name}", partial(judge_shipped, "kernels", d.name, profile))
            for d in known
            if d.kernels
        ]
        chosen += [
            (name, partial(judge_shipped, kind, "", profile))
            for name, kind in (("variants", "variants"), ("public methods", "methods"))
        ]
    cache = Cache(profile, files, reads) if use_cache and reads.certain else None
    found = {n: cache.get(name) if cache else None for n, (name, _) in enumerate(chosen)}
    due = [n for n, result in found.items() if result is None]
    columns = (TextColumn("proving {task.description}"), TimeElapsedColumn())
    shown = console or Console(stderr=True)
    silent = not shown.is_terminal  # else a blank line is left in a log
    with Progress(*columns, console=shown, transient=True, disable=silent) as progress:
        task = progress.add_task("", total=len(chosen), completed=len(chosen) - len(due))
        for place, result in done([chosen[n][1] for n in due], processes):
            name = chosen[due[place]][0]
            progress.update(task, description=name)
            if result is not None:
                found[due[place]] = result
                if cache:
                    cache.put(name, result)
                progress.advance(task)
    results = [found[n] for n in range(len(chosen))]
    judged = [r for r in results if isinstance(r, Judgement)]
    kernels = [item for r in results if isinstance(r, list) for item in r]
    if cache and cache.failure:
        where = f"the cache {cache.folder.parent} cannot be written ({cache.failure.strerror})"
        shown.print(
            f"{where}: verdicts are not kept for the next time",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return Ledger(judged, kernels)
