"""A dask cluster: one that runs somewhere, by its scheduler's address, or processes here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from kahler_verify.errors import FieldError, InputError
from kahler_verify.fields.work import Engine, Job, Outcome, Waiting, perform, require_picklable
from kahler_verify.processes import cores

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 10  # seconds in which a scheduler answers
AHEAD = 2  # tasks for each thread of the cluster that the scheduler knows of


class Dask(Engine):
    """Tasks as futures of dask.distributed, a few at a time: a scheduler never holds many.

    Args:
        scheduler: its address, such as ``tcp://10.0.0.1:8786``; None for processes here.
        workers: how many processes here; one for each core where it is not said.
    """

    name = "dask"

    def __init__(self, scheduler: str | None = None, workers: int | None = None):
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise InputError(
                "engine: dask needs distributed: pip install 'kahler-verify[cluster]'"
            ) from error
        self.scheduler = scheduler
        self.workers = workers or cores()

    @contextmanager
    def _client(self) -> Iterator[Client]:
        from distributed import Client, LocalCluster
        from distributed.comm.addressing import get_address_host

        with ExitStack() as stack:
            stack.enter_context(_quiet())
            if self.scheduler is None:
                cluster = LocalCluster(
                    n_workers=self.workers, threads_per_worker=1, dashboard_address=None
                )
                address: Any = stack.enter_context(cluster)
            else:
                address = self.scheduler
            try:
                if self.scheduler is not None:
                    get_address_host(self.scheduler)  # a client of no address never closes
                client = Client(address, timeout=PATIENCE, set_as_default=False)
            except (OSError, ValueError, TypeError) as error:
                raise InputError(
                    f"scheduler: cannot reach {self.scheduler} within {PATIENCE} s: "
                    f"{' '.join(str(error).split())}"
                ) from error
            yield stack.enter_context(client)

    def require(self) -> None:
        """Reach the scheduler, where there is one.

        Raises:
            InputError: it cannot be reached.
        """
        if self.scheduler is not None:
            with self._client():
                pass

    def run(self, job: Job, waiting: Waiting) -> Iterator[Outcome]:
        """See :class:`Engine`."""
        require_picklable(job)
        from distributed import KilledWorker, as_completed

        with self._client() as client:
            client.wait_for_workers(1)
            running: dict[Any, tuple[int, int]] = {}
            coming = as_completed(loop=client.loop)

            def submit() -> None:
                self.workers = max(1, sum(client.nthreads().values()))
                while waiting and len(running) < AHEAD * self.workers:
                    task, attempt = waiting.popleft()
                    future = client.submit(
                        perform, job, task, attempt, pure=False, key=f"{id(job)}-{task}-{attempt}"
                    )
                    running[future] = (task, attempt)
                    coming.add(future)

            try:
                submit()
                for future in coming:
                    task, attempt = running.pop(future)
                    if future.status in ("cancelled", "lost"):
                        raise ConnectionError(future.status)
                    try:
                        outcome = future.result()
                    except KilledWorker:
                        outcome = Outcome(task, attempt, died=True)
                    future.release()
                    submit()
                    yield outcome
                    submit()  # what was put back
            except (OSError, TimeoutError) as error:
                where = self.scheduler or "of the local cluster"
                raise FieldError(
                    f"the scheduler {where} was lost; what is done is kept, and the same command "
                    "goes on from it"
                ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """What dask says of lost connections, at length, is said here in a line."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
