"""The page served on the loopback address, to whoever knows its token, and to nobody else."""

from __future__ import annotations

import json
import secrets
import socket
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable
from typing import Any

from kahler_verify.errors import InputError, KahlerVerifyError
from kahler_verify.explorer.pages import asset
from kahler_verify.explorer.session import Session
from kahler_verify.explorer.work import Cancelled, Desk, Job

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise InputError(
        f"explore: expected starlette and uvicorn to be installed, but there is no {error.name}; "
        "pip install 'kahler-verify[explore]'"
    ) from error

HOST = "127.0.0.1"
ASSETS = {
    "map.css": "text/css",
    "explorer.css": "text/css",
    "map.js": "text/javascript",
    "numbers.js": "text/javascript",
    "frames.js": "text/javascript",
    "explorer.js": "text/javascript",
}
LARGEST = 100_000  # bytes of a request
POLL = 0.25  # seconds, between looks at whether the page still listens
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def application(session: Session, token: str, port: int) -> Starlette:
    """Routes, all of them below the token.

    Args:
        session: that answers.
        token: without which everything is refused.
        port: that requests must be meant for.
    """
    desk = Desk()
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    def page(request: Request) -> Response:  # noqa: ARG001 - as starlette calls it
        return Response(asset("index.html"), media_type="text/html")

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            raise HTTPException(404)
        return Response(asset(name), media_type=ASSETS[name])

    async def about(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse(await to_thread(session.describe))

    async def ask(request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in session.answers:
            raise HTTPException(404)
        asked = await _body(request)
        answer = session.answers[kind]
        patient = bool(asked.get("moving"))  # what follows a pointer is short: let it end
        job = desk.submit(kind, lambda job: answer(asked, job), patient=patient)
        return StreamingResponse(_lines(job, request), media_type="application/x-ndjson")

    async def cancel(request: Request) -> Response:
        asked = await _body(request)
        desk.cancel(asked.get("kind"))
        return JSONResponse({"cancelled": asked.get("kind")})

    below = f"/{token}"
    app = Starlette(
        routes=[
            Route(f"{below}/", page),
            Route(f"{below}/about", about),
            Route(f"{below}/page/{{name}}", static),
            Route(f"{below}/ask/{{kind}}", ask, methods=["POST"]),
            Route(f"{below}/cancel", cancel, methods=["POST"]),
        ],
        middleware=[Middleware(_Guard, token=token, hosts=hosts)],
    )
    app.state.desk = desk
    return app


class _Guard:
    """Refuses whoever lacks the token, and sends ``HEADERS`` with every answer.

    It hands the connection on as it is: starlette's own class for this hides from an answer that
    its reader has gone.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: set[str]):
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = _refusal(Request(scope), self.token, self.hosts)
        answer = self.app if refused is None else PlainTextResponse(refused, 403)
        await answer(scope, receive, send_with_headers)


def _refusal(request: Request, token: str, hosts: set[str]) -> str | None:
    """Why a request is refused, if it is: another host's name, another page, no token."""
    if request.headers.get("host") not in hosts:
        return "refused: this page answers on the loopback address alone"
    origin = request.headers.get("origin")
    if origin is not None and origin not in {f"http://{host}" for host in hosts}:
        return "refused: the request comes from another page"
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "refused: the request comes from another page"
    given = request.url.path.split("/")[1]
    if not secrets.compare_digest(given.encode(), token.encode()):
        return "refused: the address lacks this run's token; take it from the terminal"
    return None


async def _body(request: Request) -> dict[str, Any]:
    """A request's JSON object."""
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise HTTPException(415, "expected JSON")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            raise HTTPException(413, f"expected at most {LARGEST} bytes")
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise HTTPException(400, "expected JSON") from error
    if not isinstance(asked, dict):
        raise HTTPException(400, "expected a JSON object")
    return asked


async def _lines(job: Job, request: Request) -> AsyncIterator[str]:
    """What a job tells, a line each, and its outcome; a page that goes away cancels it."""
    seen = 0
    try:
        while not (job.done or job.cancelled):
            await to_thread(job.wait, seen, POLL)
            for news in job.news[seen:]:
                seen += 1
                yield _line({"news": news})
            if await request.is_disconnected():
                return
        yield _line(_ended(job))
    finally:
        if not job.done:
            job.cancel()


def _ended(job: Job) -> dict[str, Any]:
    """A job's outcome as the page takes it; only errors of this package are told in full."""
    if job.cancelled or isinstance(job.outcome, Cancelled):
        return {"cancelled": True}
    if isinstance(job.outcome, KahlerVerifyError):
        return {"error": str(job.outcome)}
    if isinstance(job.outcome, BaseException):
        return {"error": f"{type(job.outcome).__name__}: {job.outcome}"}
    return {"result": job.outcome}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, allow_nan=False) + "\n"


def listening(port: int) -> socket.socket:
    """A socket on the loopback address.

    Raises:
        InputError: the port is taken, or is no port.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"port: expected a number from 0 to 65535, got {port}")
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise InputError(
            f"port: cannot listen on {HOST}:{port} ({error.strerror}); another program may be "
            "using it: choose another --port"
        ) from error


def serve(session: Session, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Args:
        session: that answers.
        port: 0 for any that is free.
        ready: told the page's address, once it listens.
    """
    with listening(port) as listener:
        own = listener.getsockname()[1]
        token = secrets.token_urlsafe(24)
        app = application(session, token, own)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        )
        ready(f"http://{HOST}:{own}/{token}/")
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            pass
        finally:
            app.state.desk.cancel()
