"""A program that works on a job: ``python -m tests.fields.runner PATH WORKERS SECONDS``."""

import resource
import sys
from pathlib import Path

from kahler_verify.errors import FieldError
from kahler_verify.fields.engines import Array, Processes
from kahler_verify.fields.log import Log
from kahler_verify.fields.work import carry_out
from tests.fields.jobs import Squares


def main() -> int:
    path, workers, seconds = sys.argv[1:4]
    job = Squares(Path(path), seconds=float(seconds)).create()
    if len(sys.argv) > 4:  # bytes of a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
    engine = Processes(int(workers)) if int(workers) else Array()
    try:
        summary = carry_out(job, engine, Log(job.path, lambda text: print(text, flush=True)))
    except FieldError as error:
        print(error)
        return 2
    print(f"done {len(summary.done)} kept {summary.kept} stopped {summary.stopped}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
