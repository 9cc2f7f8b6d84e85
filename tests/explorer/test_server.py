"""The server: who is refused, how answers arrive, that nothing piles up and nothing is markup."""

import asyncio
import json
import math
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from kahler_verify.errors import InputError
from kahler_verify.explorer import server
from kahler_verify.explorer.pages import asset
from kahler_verify.explorer.server import ASSETS, HEADERS, application, listening
from kahler_verify.explorer.session import Session
from kahler_verify.explorer.work import Job
from tests.command import run
from tests.explorer.conftest import HOSTILE, TOKEN, asked

pytestmark = pytest.mark.xdist_group("explorer")  # one worker makes what the tests share

BASE = "http://127.0.0.1:5000"


@pytest.fixture(scope="module")
def client(session: Session) -> TestClient:
    return TestClient(application(session, TOKEN, 5000), base_url=BASE)


def lines(response) -> list:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_page_and_its_files_are_served_with_a_policy(client: TestClient) -> None:
    page = client.get(f"/{TOKEN}/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ASSETS:
        got = client.get(f"/{TOKEN}/page/{name}")
        assert got.status_code == 200
        assert got.headers["content-type"].startswith(ASSETS[name])
        assert {k.lower(): v for k, v in HEADERS.items()}.items() <= dict(got.headers).items()
    assert client.get(f"/{TOKEN}/page/server.py").status_code == 404
    assert client.get(f"/{TOKEN}/page/..%2Fserver.py").status_code == 404


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for name in ["index.html", "twin.js", *ASSETS]:
        text = asset(name).replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//cdn|@import|url\((?!#)", text.replace("url(#${", "url(#"))
        assert "innerHTML" not in text
        assert "eval(" not in text


REFUSED = {
    "no token": ("/", {}),
    "another token": ("/nonsense/", {}),
    "a token's beginning": (f"/{TOKEN[:-1]}/", {}),
    "another host's name": (f"/{TOKEN}/", {"host": "evil.example:5000"}),
    "another port": (f"/{TOKEN}/", {"host": "127.0.0.1:5001"}),
    "another origin": (f"/{TOKEN}/", {"origin": "https://evil.example"}),
    "another port's page": (f"/{TOKEN}/", {"origin": "http://127.0.0.1:5001"}),
    "a page without origin": (f"/{TOKEN}/", {"origin": "null"}),
    "across sites": (f"/{TOKEN}/", {"sec-fetch-site": "cross-site"}),
    "another port of this machine": (f"/{TOKEN}/", {"sec-fetch-site": "same-site"}),
    "a file without token": ("/page/map.js", {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_is_refused(client: TestClient, case: str) -> None:
    path, headers = REFUSED[case]
    for answer in (
        client.get(path, headers=headers),
        client.post(f"{path}ask/map", headers=headers),
    ):
        assert answer.status_code == 403
        assert "refused" in answer.text
        assert TOKEN not in answer.text
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_own_page_is_not_refused(client: TestClient) -> None:
    own = {"origin": BASE, "sec-fetch-site": "same-origin"}
    assert client.get(f"/{TOKEN}/about", headers=own).json()["name"] == HOSTILE
    assert client.get(f"/{TOKEN}/", headers={"host": "localhost:5000"}).status_code == 200


def test_answers_arrive_in_lines(client: TestClient, plane: dict) -> None:
    body = {"layer": "log_volume", "plane": plane, "window": [-1, 1, -1, 1], "size": 30}
    found = lines(client.post(f"/{TOKEN}/ask/map", json=body))
    assert [list(line) for line in found] == [["news"], ["result"]]
    assert found[1]["result"]["size"] == 30


def test_errors_are_told(client: TestClient) -> None:
    found = lines(client.post(f"/{TOKEN}/ask/path", json={"a": [0], "b": [1, 1]}))
    assert found == [{"error": "a: expected 2 coordinates, got [0]"}]


def test_what_is_no_question_is_refused(client: TestClient) -> None:
    ask = f"/{TOKEN}/ask/path"
    assert client.post(ask, content="{}").status_code == 415
    headers = {"content-type": "application/json"}
    assert client.post(ask, content="{", headers=headers).status_code == 400
    assert client.post(ask, content="[1]", headers=headers).status_code == 400
    assert client.post(ask, content=b" " * 200_000, headers=headers).status_code == 413
    assert client.post(f"/{TOKEN}/ask/_point", json={}).status_code == 404
    assert client.get(ask).status_code == 405


def test_many_clicks_are_answered_once(session: Session) -> None:
    """All but the first and the last of twenty requests are never begun."""

    class Slow(Session):
        def __init__(self) -> None:
            super().__init__(session.subject)
            self.begun: list[int] = []
            self.answers = {"path": self.slowly}

        def slowly(self, asked, job):
            self.begun.append(asked["n"])
            for _ in range(30):
                time.sleep(0.01)
                if not asked.get("moving"):
                    job.check()
            return asked["n"]

    slow = Slow()
    client = TestClient(application(slow, TOKEN, 5000), base_url=BASE)
    found: dict[int, list] = {}

    def click(n: int) -> None:
        body = {"n": n, "moving": True}
        found[n] = lines(client.post(f"/{TOKEN}/ask/path", json=body))

    threads = []
    for n in range(20):
        threads.append(threading.Thread(target=click, args=(n,)))
        threads[-1].start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(20)
    assert len(slow.begun) <= 4
    assert found[slow.begun[-1]] == [{"result": slow.begun[-1]}]
    idle = [n for n in range(20) if n not in slow.begun]
    assert all(found[n] == [{"cancelled": True}] for n in idle)


def test_work_can_be_cancelled(session: Session) -> None:
    class Endless(Session):
        def __init__(self) -> None:
            super().__init__(session.subject)
            self.answers = {"cluster": self.endless}

        def endless(self, asked, job):
            while True:
                job.tell({"progress": 0.5})
                time.sleep(0.01)

    client = TestClient(application(Endless(), TOKEN, 5000), base_url=BASE)
    ends = threading.Timer(0.4, lambda: client.post(f"/{TOKEN}/cancel", json={"kind": "cluster"}))
    ends.start()
    found = lines(client.post(f"/{TOKEN}/ask/cluster", json={}))
    assert found[0] == {"news": {"progress": 0.5}}
    assert found[-1] == {"cancelled": True}


def test_a_page_that_goes_away_ends_its_work() -> None:
    class Gone:
        async def is_disconnected(self) -> bool:
            return True

    async def told() -> list[str]:
        return [line async for line in server._lines(job, Gone())]

    job = Job(lambda job: None)  # that never begins
    assert asyncio.run(told()) == []
    assert job.cancelled


def test_a_closed_connection_ends_its_work(session: Session) -> None:
    """With a real server and a real socket: what is between them may hide that a reader is gone."""
    begun, ended = threading.Event(), threading.Event()

    class Endless(Session):
        def __init__(self) -> None:
            super().__init__(session.subject)
            self.answers = {"cluster": self.endless}

        def endless(self, asked, job):
            begun.set()
            try:
                while True:
                    job.check()
                    time.sleep(0.01)
            finally:
                ended.set()

    with listening(0) as listener:
        port = listener.getsockname()[1]
        app = application(Endless(), TOKEN, port)
        running = server.uvicorn.Server(server.uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        with socket.create_connection(("127.0.0.1", port)) as page:
            page.sendall(
                f"POST /{TOKEN}/ask/cluster HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".encode()
            )
            assert begun.wait(10)
            assert not ended.wait(0.6)
        assert ended.wait(5)
        running.should_exit = True
        thread.join(5)


def test_each_run_has_a_token_of_its_own(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: None)
    tokens = set()
    for _ in range(2):
        server.serve(session, 0, lambda address: tokens.add(address.split("/")[3]))
    assert len(tokens) == 2


def test_a_port_in_use_is_one_line(checkpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("explore", str(checkpoint), "--port", str(port), "--no-browser")
        with pytest.raises(InputError, match="choose another --port"):
            listening(port)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "port: expected a number" in run("explore", str(checkpoint), "--port", "70000").stderr


def test_only_the_loopback_address_listens() -> None:
    with listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    assert server.HOST == "127.0.0.1"


def test_a_checkpoint_or_a_module() -> None:
    assert "expected a checkpoint, --module or --field, got none" in run("explore").stderr


def test_a_users_model_and_a_stored_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    import torch

    from kahler_verify.cli.explore import of_field, of_module, require_same_model, with_field
    from kahler_verify.fields import compute, grid, of_metric, plan_for
    from kahler_verify.spaces import Space

    (tmp_path / "mine_to_explore.py").write_text(
        "import torch\n"
        "def decoder():\n"
        "    torch.manual_seed(0)\n"
        "    first, last = torch.nn.Linear(2, 9), torch.nn.Linear(9, 30)\n"
        "    return torch.nn.Sequential(first, torch.nn.Tanh(), last)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    subject = of_module("mine_to_explore:decoder", "2")
    about = Session(subject).describe()
    assert about["dimension"] == 2
    assert about["decodes"]
    frames = subject.frames(torch.zeros(1, 2, dtype=torch.float64))
    assert frames is not None
    assert frames["shape"] == [30]
    source = of_metric(subject.metric, 2)
    points = grid(Space(complex=False, dimension=2), [5, 5], [-1.0, -1.0], [1.0, 1.0])
    compute(source, plan_for(source, "log_volume", lambda _: points), tmp_path / "store.zarr")
    require_same_model(tmp_path / "store.zarr", None, "mine_to_explore:decoder", "2")
    with pytest.raises(InputError, match=r"field: expected one of .*, but .* is of .*: probe"):
        require_same_model(tmp_path / "store.zarr", checkpoint, None, None)
    shown = with_field(subject, tmp_path / "store.zarr")
    known = subject.metric.log_volume(torch.tensor([[-1.0, 1.0]], dtype=torch.float64))
    assert shown.field is not None
    assert torch.isclose(shown.field.at(torch.tensor([[-0.9, 1.1]])), known)
    assert shown.field.quantity == "log_volume"

    alone = Session(of_field(tmp_path / "store.zarr"))
    about = alone.describe()
    assert list(about["layers"]) == ["field"]
    assert not about["known"]
    assert about["corners"] == [[-1.0, -1.0], [1.0, 1.0]]
    plane = {"origin": [0.0, 0.0], "axes": [[1.0, 0.0], [0.0, 1.0]]}
    found = asked(alone, "map", layer="field", plane=plane, window=[-1, 1, -1, 1], size=21).outcome
    assert found["undefined"] == 0
    assert math.isclose(found["values"][20 * 21], float(known), rel_tol=1e-4)
    refused = asked(alone, "path", a=[-0.5, 0.0], b=[0.5, 0.0]).outcome
    assert isinstance(refused, InputError)
    assert "name its model too" in str(refused)
