"""A process that may take no more memory computes in smaller pieces, the same numbers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify import fields
from kahler_verify.geometry import PulledBackMetric

WIDE = 400
PROGRAM = """
import resource, sys
from kahler_verify import fields
from tests.fields.test_memory import made

source, out = made(), sys.argv[1]
engine, much = fields.Array(), 8 * 2**30
def plan(count):
    place = lambda chunk: fields.prior(source.space, count, seed=0, chunk=chunk)
    return fields.plan_for(source, "scalar_curvature", place, chunk=20000, memory=much)
whole = plan(20000)
fields.compute(source, plan(5), out + "/first.zarr", engine=engine)  # libraries take their own
size = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
limit = int(size.split()[1]) * 1024 + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
fields.compute(source, whole, out + "/small.zarr", engine=engine, memory=much, say=print)
"""


def made() -> fields.Source:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(2, 20), torch.nn.Tanh(), torch.nn.Linear(20, WIDE))
    return fields.of_metric(PulledBackMetric(layers.double().requires_grad_(False)), 2)


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_memory_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "task 0: memory was refused; now 5000 points at a time" in done.stdout
    found = fields.open_field(tmp_path / "small.zarr")
    few = torch.from_numpy(found.rows(4_950, 5_050))
    wanted = made().metric().scalar_curvature(few).numpy()
    assert np.allclose(found.values[4_950:5_050], wanted, rtol=1e-9)
    assert np.isfinite(found.values).all()
