"""Everything the README, the guides and the notebooks show is run, and prints what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient
from nbformat import NotebookNode

from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.registry import load_file, shipped
from kahler_verify.errors import KahlerVerifyError
from kahler_verify.evidence.ledger.claims import judge

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text("utf-8")
LEDGER = (DOCS / "ledger.md").read_text("utf-8")
GUIDE = (DOCS / "write-your-own-derivation.md").read_text("utf-8")
REAL = (DOCS / "real-latents.md").read_text("utf-8")
EVIDENCE = (DOCS / "proved-tested-assumed.md").read_text("utf-8")
NOTEBOOKS = DOCS / "notebooks"
QUICK_CLAIMS = ("G3b", "O9", "L5", "P1", "PB1-cubic")  # refuted ones; G1 and G5 take a minute

WRONG = """
from sympy import Abs, Symbol, conjugate, gamma, log

from kahler_verify.calculus import coordinates, dimension, explicit_coordinates
from kahler_verify.calculus import parameter, potential

d, n = dimension("d"), dimension("n")
z = coordinates("z", d)
z1, z2 = explicit_coordinates("z1 z2")
c = Symbol("c")
mine = """


def write_files(page: str, folder: Path) -> None:
    """Write each block of Python whose first line names a file."""
    for block, name in re.findall(r"```python\n(# (\S+\.py)\n.*?)```", page, re.DOTALL):
        (folder / name).write_text(block, encoding="utf-8")


def shown(page: str, beginning: str) -> str:
    """The block of output that begins like this."""
    (found,) = re.findall(rf"```text\n({re.escape(beginning)}.*?)\n```", page, re.DOTALL)
    return found


def run(*arguments: str, cwd: Path, columns: int = 100, expected: int = 0) -> str:
    """What a program prints; matplotlib draws into files."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": str(columns), "MPLBACKEND": "Agg", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout


def command(*arguments: str, cwd: Path, columns: int = 100, expected: int = 0) -> str:
    return run("-m", "kahler_verify", *arguments, cwd=cwd, columns=columns, expected=expected)


def table_of(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its header."""
    lines = page[page.index(f"\n## {heading}\n") :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


# ---------------------------------------------------------------- README


@pytest.mark.parametrize(("name", "begins"), [("ordinary", "tensor(3."), ("example", "torch.Size")])
def test_readme_examples_print_what_they_say(name: str, begins: str, tmp_path: Path) -> None:
    write_files(README, tmp_path)
    assert run(f"{name}.py", cwd=tmp_path).rstrip() == shown(README, begins)
    assert name == "example" or (tmp_path / "path.png").stat().st_size > 1000


def test_readme_runs_every_block_of_python() -> None:
    assert re.findall(r"```python\n(.*)\n", README) == ["# ordinary.py", "# example.py"]


def test_guide_potential_from_zero_to_plot(tmp_path: Path) -> None:
    write_files(GUIDE, tmp_path)
    command("generate", "cubic.py", cwd=tmp_path)
    assert "def metric_db(" in (tmp_path / "cubic_kernels.py").read_text("utf-8")
    assert "failed" not in command("prove", "cubic.py", cwd=tmp_path)
    run("plot.py", cwd=tmp_path)
    drawn, committed = (imread(p / "cubic.png") for p in (tmp_path, DOCS / "assets"))
    assert drawn.shape == committed.shape
    assert np.abs(drawn - committed).mean() < 0.01  # other fonts move letters by a pixel


def test_readme_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)|(?:src|srcset)=\"([^\"]+)", README)
    targets = [a or b for a, b in targets]
    assert len(targets) > 10
    missing = [t for t in targets if not t.startswith("https://") and not (ROOT / t).exists()]
    assert missing == []


def test_ledger_names_the_claims_that_are_judged() -> None:
    judged = {c.id for d in shipped().values() for c in d.claims if not c.waits_for}
    assert {row[0] for row in table_of(LEDGER, "What the ledger found")} == judged


def test_readme_counts_the_verdicts() -> None:
    rows = table_of(LEDGER, "What the ledger found")
    verdicts = [re.match(r"\*\*([\w ]+)\*\*", row[3])[1] for row in rows]
    text = " ".join(README.split())
    assert f"Of {len(rows)} statements {verdicts.count('holds')} hold and " in text
    assert f"and {verdicts.count('holds under A')} hold under an assumption" in text
    numbers = verdicts.count("refuted"), verdicts.count("measured")
    assert "{} are refuted, {} measured".format(*numbers) in text


@pytest.mark.parametrize("claim_id", QUICK_CLAIMS)
def test_ledger_verdicts_are_what_the_software_finds(claim_id: str) -> None:
    row = next(r for r in table_of(LEDGER, "What the ledger found") if r[0] == claim_id)
    claim, derivation = next(
        (c, d) for d in shipped().values() for c in d.claims if c.id == claim_id
    )
    judgement = judge(claim, derivation)
    assert row[3].startswith(f"**{judgement.verdict}**")
    witness = next(i for i in judgement.evidence if i.route == "exact witness")
    assert f"{witness.what}: {witness.outcome}".replace("|", r"\|") in row[4]


# ---------------------------------------------------------------- guides


def test_guide_from_ten_lines_to_kernels(tmp_path: Path) -> None:
    write_files(GUIDE, tmp_path)
    assert shown(GUIDE, "metric: g[ab]") in command("derive", "weighted.py", cwd=tmp_path)
    command("generate", "weighted.py", cwd=tmp_path)
    assert run("use.py", cwd=tmp_path).startswith("tensor(6.")
    kernels = tmp_path / "weighted_kernels.py"
    text = kernels.read_text("utf-8")
    kernels.write_text(text.replace("g_0 = p0 - ", "g_0 = p0 + "), encoding="utf-8")
    out = command("generate", "--check", "weighted.py", cwd=tmp_path, expected=1)
    assert out.strip() == shown(GUIDE, "weighted: kernels differ").strip()


def test_guide_shows_what_prove_prints(tmp_path: Path) -> None:
    write_files(GUIDE, tmp_path)
    lines = command("prove", "weighted.py", cwd=tmp_path).splitlines()

    def plain(line: str) -> str:  # rounding is another processor's own
        return re.sub(r"to \S+ in float64 *", "", line).rstrip()

    assert [plain(x) for x in lines[1:]] == [
        plain(x) for x in shown(GUIDE, "┏━━━━━━━━━━━━━━━━━━━━").splitlines()
    ]


def test_guide_in_explicit_coordinates(tmp_path: Path) -> None:
    write_files(GUIDE, tmp_path)
    out = tmp_path / "egg.json"
    command("prove", "egg.py", "--json", str(out), cwd=tmp_path)
    ledger = json.loads(out.read_text("utf-8"))
    assert ledger["passed"]
    assert "egg.metric_db" in {item["what"] for item in ledger["kernels"]}


def test_guide_claims_are_judged_as_shown(tmp_path: Path) -> None:
    write_files(GUIDE, tmp_path)
    out = command("prove", "claims.py", cwd=tmp_path, columns=90)
    assert shown(GUIDE, "┏━━━━━━━┳") in out


@pytest.mark.parametrize("row", table_of(GUIDE, "What errors look like"), ids=lambda row: row[0])
def test_guide_errors_are_real(row: list[str], tmp_path: Path) -> None:
    wrong, message = row
    path = tmp_path / "mine.py"
    path.write_text(WRONG + wrong.strip("`") + "\n", encoding="utf-8")
    with pytest.raises(KahlerVerifyError) as caught:
        [generate_module(derivation) for derivation in load_file(path)]
    found = str(caught.value).replace(str(path), "mine.py")
    assert re.sub(r", line \d+:", ", line 9:", found) == message


def test_certificate_is_made_and_rechecked_as_shown(tmp_path: Path) -> None:
    write_files(EVIDENCE, tmp_path)
    printed = run("certificate.py", cwd=tmp_path).rstrip()
    assert re.sub(r"within \S+", "", printed) == re.sub(
        r"within \S+", "", shown(EVIDENCE, "fubini_study.metric")
    )
    checker = ROOT / "kahler_verify" / "evidence" / "recheck.py"
    assert run(str(checker), "certificate.json", cwd=tmp_path).startswith("ok ")


def test_the_first_geodesic_from_nothing(tmp_path: Path) -> None:
    page = (DOCS / "first-geodesic.md").read_text("utf-8").replace("range(1200)", "range(300)")
    assert "range(300)" in page
    write_files(page, tmp_path)
    out = run("picture.py", cwd=tmp_path)
    assert "torch.Size([3, 2, 2])" in out
    assert re.search(r"length \d+\.\d+ by [1-4] of [1-4]", out)
    drawn, committed = (imread(p / "first_geodesic.png") for p in (tmp_path, DOCS / "assets"))
    assert drawn.shape == committed.shape


# ---------------------------------------------------------------- the notebooks


def _printed(notebook: NotebookNode) -> list[str]:
    """What each cell prints, in one piece."""
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    return ["".join(o.text for o in c.outputs if o.output_type == "stream") for c in cells]


@pytest.mark.parametrize(
    ("name", "shows", "size"),
    [
        ("tour", {"text/latex", "image/png"}, 100_000),
        *(
            pytest.param(n, {"text/plain", "image/png"}, 250_000, marks=pytest.mark.thorough)
            for n in ("ordinary-vae", "geodesics")
        ),
    ],
)
def test_notebook_runs_and_prints_what_is_committed(
    name: str, shows: set[str], size: int, tmp_path: Path
) -> None:
    """What training decides to the last digit is displayed, not printed: it is the processor's."""
    notebook = NOTEBOOKS / f"{name}.ipynb"
    committed, executed = (nbformat.read(notebook, as_version=4) for _ in range(2))
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(executed, timeout=60, kernel_name="python3", resources=where).execute()
    assert _printed(executed) == _printed(committed)
    shown_as = {
        kind for c in executed.cells for o in c.get("outputs", ()) for kind in o.get("data", ())
    }
    assert shows <= shown_as
    assert notebook.stat().st_size < size


def test_curves_and_learners(tmp_path: Path) -> None:
    for page in ("geodesics.md", "statistics.md"):
        write_files((DOCS / page).read_text("utf-8"), tmp_path)
    assert "tensor([4, 4, 4, 4, 4])" in run("curves.py", cwd=tmp_path)
    out = run("learners.py", cwd=tmp_path)
    assert "[1 1 1 1 1 1 1 1 1 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0]" in out
    assert "torch.Size([24, 11, 2])" in out


def test_the_decoder_at_real_latents(tmp_path: Path) -> None:
    write_files(REAL, tmp_path)
    out = run("real.py", cwd=tmp_path)
    assert "torch.Size([2, 2, 2]) torch.Size([2, 2, 2, 2])" in out
    assert run("draw.py", cwd=tmp_path).startswith("torch.Size([100, 2])")
