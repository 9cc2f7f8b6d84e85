"""The re-checker stands alone, is short, and notices every change of a number."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from kahler_verify.calculus.claims import Vanishing
from kahler_verify.codegen.registry import shipped
from kahler_verify.evidence import recheck
from kahler_verify.evidence.proofs.certificates import certify
from kahler_verify.evidence.proofs.potentials import Mixture
from kahler_verify.evidence.proofs.regions import prove_plurisubharmonic
from kahler_verify.evidence.proofs.witnesses import evaluate_witness

SOURCE = Path(recheck.__file__)
HALF = Fraction(1, 2)
FAILURES = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)


def fisher() -> dict[str, Any]:
    torch.manual_seed(0)
    inputs = {"Sigma_factor": torch.tensor([[2.0, 0], [0.5, 1]]).to(torch.complex128)}
    inputs["Sigma_d"] = torch.randn(2, 2, 2, dtype=torch.complex128)
    inputs |= {n: torch.randn(2, 2, dtype=torch.complex128) for n in ("mu_b", "mu_d")}
    return certify("gaussian_kl.fisher_metric_full", inputs).to_json()


def mixture() -> dict[str, Any]:
    torch.manual_seed(0)
    q = torch.randn(3, 2, dtype=torch.complex128)
    inputs = {"q_d": q, "q_db": torch.eye(2, dtype=q.dtype) + q[:, :, None] * q[:, None].conj()}
    inputs["w"] = torch.softmax(torch.randn(3, dtype=torch.float64), 0).to(q.dtype)
    return certify("mixture_potential.metric", inputs).to_json()


def proved() -> dict[str, Any]:
    components = Mixture("density", (HALF, HALF), [["3/10"], ["-3/10"]], [[[1]], [[2]]])
    return prove_plurisubharmonic(components).to_json()


def refuted() -> dict[str, Any]:
    p = [[2, (0, 1)], [(0, -1), "7/3"]]
    components = Mixture("density", ("1/3", "2/3"), [[1, "1/2"], [-1, "-1/2"]], [p, p])
    return prove_plurisubharmonic(components).to_json()


def witness() -> dict[str, Any]:
    """∂_1∂_1̄ of |z1|⁴ is 4|z1|² = 5 at z1 = 1 + i/2."""
    item = {
        "kind": "witness", "title": "|z1|⁴", "bits": 64, "hermitian": [], "value": ["5", "0"],
        "terms": [[["1", "0"], ["*", "z:0", "z:0", "z:0~", "z:0~"], [[0, 0], [0, 1]]]],
        "inputs": {"z": [["1", "1/2"]], "z_d": [[["1", "0"]]]},
    }  # fmt: skip
    return {**item, "digest": recheck.digest(item)}


ITEMS = {f.__name__: f for f in (fisher, mixture, proved, refuted, witness)}


def leaves(data: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """All numbers of a document with their places."""
    if isinstance(data, dict | list):
        pairs = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in pairs:
            yield from leaves(value, (*path, key))
    elif isinstance(data, int) or (isinstance(data, str) and is_number(data)):
        yield path, data


def is_number(text: str) -> bool:
    try:
        Fraction(text)
    except ValueError:
        return False
    return True


def changed(item: dict[str, Any], path: tuple, value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(item))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


def mutated(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return str(Fraction(value) + Fraction(1, 3))


def holds(item: dict[str, Any]) -> bool:
    try:
        recheck.check(item)
    except FAILURES:
        return False
    return True


def test_it_is_short_and_imports_flint_and_the_standard_library_alone() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {a.name.split(".")[0] for a in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - {"flint", "__future__"} <= sys.stdlib_module_names


@pytest.mark.parametrize("name", ITEMS)
def test_every_change_of_a_number_is_noticed(name: str) -> None:
    item = ITEMS[name]()
    assert holds(item)
    places = list(leaves(item))
    assert len(places) > 5
    for path, value in places:
        assert not holds(changed(item, path, mutated(value))), path


def relevant(item: dict[str, Any], name: str, path: tuple) -> bool:
    """Could a claim still be true with this number changed and the file sealed anew?

    The precision may; another mixture may be plurisubharmonic on the same leaves; a counterexample
    refutes every box that it is in; of a precision matrix only the Hermitian part is read; μ(z_0)
    is shifted to zero, so that terms with it vanish from g and k.
    """
    if path[0] == "definition":
        term = json.dumps(item["definition"][path[1]])
        return not ("mu" in term and "!" in term)
    if "precisions" in path and path[-3] == path[-2] and path[-1] == 1:
        return False
    still_true = {("proved", "potential"), ("refuted", "box")}
    return path[0] != "bits" and (name, path[0]) not in still_true


def test_a_counterexample_outside_its_box_fails() -> None:
    item = {**refuted(), "box": [["5", "6"]] * 4}
    assert not holds({**item, "digest": recheck.digest(item)})


@pytest.mark.parametrize("name", ITEMS)
def test_the_seal_is_not_what_notices_it(name: str) -> None:
    item = ITEMS[name]()
    places = [(p, v) for p, v in leaves(item) if relevant(item, name, p)]
    for path, value in places:
        forged = changed(item, path, mutated(value))
        forged["digest"] = recheck.digest(forged)
        assert not holds(forged), path


@pytest.mark.parametrize("factor", [Fraction(1, 2), Fraction(2)])
def test_a_bound_that_is_too_small_or_too_generous_fails(factor: Fraction) -> None:
    item = fisher()
    for path, value in leaves(item):
        if path[-1] in ("bound", "lambda_min", "lambda_max"):
            forged = changed(item, path, str(Fraction(value) * factor))
            forged["digest"] = recheck.digest(forged)
            assert not holds(forged), path


def test_verdicts_cannot_be_exchanged() -> None:
    wrong = {"proved": refuted, "refuted": proved, "undecided": fisher}
    for verdict, item in ((verdict, make()) for verdict, make in wrong.items()):
        forged = {**item, "verdict": verdict}
        assert not holds({**forged, "digest": recheck.digest(forged)})


def test_it_runs_as_a_plain_file_and_exits_by_the_verdict(tmp_path: Path) -> None:
    copy = tmp_path / "recheck.py"
    copy.write_text(SOURCE.read_text(encoding="utf-8"), encoding="utf-8")
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"format": 1, "items": [fisher(), proved(), refuted(), witness()]}))
    bad.write_text(json.dumps({"format": 1, "items": [{**witness(), "value": ["6", "0"]}]}))

    def run(*paths: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(copy), *map(str, paths)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    passed = run(good)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert passed.stdout.count("ok ") == 4
    failed = run(good, bad)
    assert failed.returncode == 1
    assert "FAIL  witness" in failed.stdout
    assert recheck.main([]) == 1  # nothing checked is no success


def test_witnesses_of_the_claims_are_evaluated_again_from_their_jets() -> None:
    checked = 0
    for claim in (
        c for d in shipped().values() for c in d.claims if c.id in ("G3", "G3b", "PB1-cubic")
    ):
        for each in claim.witnesses:
            part = claim.parts[each.part]
            assert isinstance(part, Vanishing)
            found = evaluate_witness(part, each)
            item = found["recheck"]
            assert holds(item)
            item["value"] = ["0", "0"]
            assert not holds({**item, "digest": recheck.digest(item)})
            checked += 1
    assert checked >= 5
