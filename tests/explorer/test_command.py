"""The command as a user runs it: its address, its end by Ctrl-C, and what has to be installed."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "kahler_verify", "explore", *arguments, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_it_serves_until_ctrl_c(checkpoint: Path) -> None:
    running = start(str(checkpoint))
    assert running.stdout is not None
    address = re.search(r"http://127\.0\.0\.1:\d+/([\w-]{32})/", running.stdout.readline())
    assert address is not None
    assert running.stdout.readline() == "Ctrl-C ends it\n"
    for _ in range(100):
        try:
            page = urllib.request.urlopen(address[0], timeout=5).read().decode()
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    assert "kahler_verify explorer" in page
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address[0].replace(address[1], "x" * 32), timeout=5)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 0
    assert err == ""
    assert out == ""


@pytest.mark.thorough
def test_what_has_to_be_installed_is_said(checkpoint: Path) -> None:
    without = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from kahler_verify.cli import app\n"
        f"sys.argv = ['kahler-verify', 'explore', {str(checkpoint)!r}]\n"
        "app()"
    )
    done = subprocess.run(
        [sys.executable, "-c", without], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert "pip install 'kahler-verify[explore]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
