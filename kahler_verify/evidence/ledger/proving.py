"""The ledger of all that is asked for: claims by id, derivation files, or all that is shipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def prove(
    what: Sequence[str] = (),
    *,
    profile: str = "default",
    use_cache: bool = True,
    console: Console | None = None,
) -> Ledger:
    """Judge claims by id, the claims and kernels of derivation files, or all that is shipped.

    Verdicts are cached by the fingerprint of derivations with all files that they load, generator,
    evidence and dependencies.

    Raises:
        EvidenceError: an id is unknown, or evidence could not be had.
    """
    with watched() as reads:
        return _prove(what, profile, use_cache, console, reads)


def _prove(
    what: Sequence[str], profile: str, use_cache: bool, console: Console | None, reads: Reads
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
    chosen: list[tuple[str, Callable[[], Judgement | list[Item]]]] = []
    users = [(f, d) for f in files for d in load_file(f)]
    judged_claims = [("", *claims[i]) for i in (ids if what else claims)]
    judged_claims += [(f, claim, d) for f, d in users for claim in d.claims]
    chosen += [(f"{f}{d.name}: {c.id}", partial(judge, c, d, profile)) for f, c, d in judged_claims]
    own = [(f, d) for f, d in users if d.kernels]
    chosen += [(f"{f}properties of {d.name}", partial(property_items, d)) for f, d in own]
    compared = [(f, d, Path(f).with_name(f"{d.name}_kernels.py")) for f, d in own]
    if not what:
        compared = [("", d, KERNELS / f"{d.name}.py") for d in known if d.kernels]
    chosen += [
        (f"{f}kernels of {d.name}", partial(kernel_items, d, (), profile, path))
        for f, d, path in compared
    ]
    if not what:
        chosen += [("variants", variant_items), ("public methods", method_items)]
    cache = Cache(profile, files, reads) if use_cache and reads.certain else None
    judged: list[Judgement] = []
    kernels: list[Item] = []
    columns = (TextColumn("proving {task.description}"), TimeElapsedColumn())
    shown = console or Console(stderr=True)
    silent = not shown.is_terminal  # else a blank line is left in a log
    with Progress(*columns, console=shown, transient=True, disable=silent) as progress:
        task = progress.add_task("", total=len(chosen))
        for name, work in chosen:
            progress.update(task, description=name)
            result = cache.get(name) if cache else None
            if result is None:
                result = work()
                if cache:
                    cache.put(name, result)
            if isinstance(result, Judgement):
                judged.append(result)
            else:
                kernels += result
            progress.advance(task)
    if cache and cache.failure:
        where = f"the cache {cache.folder.parent} cannot be written ({cache.failure.strerror})"
        shown.print(
            f"{where}: verdicts are not kept for the next time",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return Ledger(judged, kernels)
