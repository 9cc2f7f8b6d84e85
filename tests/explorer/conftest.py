"""A small trained model to look at, its session, and a server that answers about it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kahler_verify.cli.explore import of_checkpoint
from kahler_verify.explorer.server import application, listening
from kahler_verify.explorer.session import Session
from kahler_verify.explorer.work import Job
from tests.command import run

HOSTILE = "<img src=x onerror=document.title='hacked'>.safetensors"
TOKEN = "a-token-of-tests"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary VAE of digits with a latent plane, whose name is markup."""
    path = tmp_path_factory.mktemp("explored") / HOSTILE
    model = ("--latent", "real", "--likelihood", "gaussian", "--latent-dim", "2")
    small = ("--hidden", "12", "--epochs", "30", "--covariance", "constant")
    done = run("train", *model, *small, "--data", "digits-images", "--out", str(path))
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def session(checkpoint: Path) -> Session:
    """What can be asked of it, its table made."""
    session = Session(of_checkpoint(checkpoint, None))
    session.prepare()
    return session


@pytest.fixture(scope="session")
def address(session: Session) -> Iterator[str]:
    """A server's, with its token."""
    import uvicorn

    with listening(0) as listener:
        port = listener.getsockname()[1]
        app = application(session, TOKEN, port)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/{TOKEN}/"
        server.should_exit = True
        thread.join(5)


@pytest.fixture
def plane() -> dict[str, list]:
    return {"origin": [0.0, 0.0], "axes": [[1.0, 0.0], [0.0, 1.0]]}


def asked(session: Session, kind: str, /, **body: object) -> Job:
    """A question's job, done."""
    job = Job(lambda job: session.answers[kind](body, job))
    job.run()
    return job


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
