"""The job server of a Ray cluster as this program uses it: send, list, follow, stop.

Everything goes over the cluster's one HTTP port with the token in the header; this process never
joins the cluster, so a submitted job does not need it afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from cider.errors import CiderError, NothingMatchedError, UsageError
from cider_platform.submission.entry import is_waiting
from cider_platform.submission.order import ENTRYPOINT, EXCLUDED, attempt_of, code_folders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ray.job_submission import JobDetails

    from cider_platform.submission.access import Access
    from cider_platform.submission.order import JobFile, Order

GRID_KEY, PRIORITY_KEY, JOB_KEY = "cider.grid", "cider.priority", "cider.job"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STOP_SECONDS = 60.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One submission, as the cluster tells of it."""

    job: str
    grid: str
    name: str
    """Of the job file."""
    state: str
    """PENDING, WAITING (for its turn), RUNNING, SUCCEEDED, FAILED or STOPPED."""
    priority: int
    submitted: str | None
    """ISO 8601 in UTC; ``ended`` likewise."""
    ended: str | None
    exit_code: int | None
    message: str

    @property
    def has_ended(self) -> bool:
        """True once nothing more will happen to it."""
        return self.state in ENDED


class JobServer:
    """The job server of one cluster.

    Args:
        access: where it is, and the token.

    Raises:
        AccessError: if it refuses the token, or asks for one.
        CiderError: if nothing answers there.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        # Its lines about uploads are not for people who submit grids.
        logging.getLogger("ray").setLevel(logging.ERROR)
        with self._told():
            self._client = JobSubmissionClient(access.address, headers=access.headers)

    def send(self, order: Order, grid: str, name: str, job_file: JobFile | None = None) -> None:
        """Submit an order with the code; the grid's other submissions are not looked at.

        Args:
            order: what to run and when.
            grid: the grid's name, by which submissions of the same work are known.
            name: for people.
            job_file: the job file, if the command has one.
        """
        metadata = {GRID_KEY: grid, JOB_KEY: name, PRIORITY_KEY: str(order.priority)}
        modules = [str(folder) for folder in code_folders()]
        with tempfile.TemporaryDirectory(prefix="cider-submit-") as place:
            order.write(Path(place), job_file)
            what = {"working_dir": place, "py_modules": modules, "excludes": list(EXCLUDED)}
            with self._told():
                self._client.submit_job(
                    entrypoint=ENTRYPOINT,
                    submission_id=order.job,
                    metadata=metadata,
                    runtime_env=what,
                )

    def jobs(self, grid: str | None = None) -> list[Job]:
        """Return this program's submissions, the latest first; ``grid`` names one grid's alone."""
        with self._told():
            details = self._client.list_jobs()
        ours = [each for each in details if GRID_KEY in (each.metadata or {})]
        ours.sort(key=lambda each: each.start_time or 0, reverse=True)
        return [
            self._job(each)
            for each in ours
            if grid is None or (each.metadata or {})[GRID_KEY] == grid
        ]

    def find(self, prefix: str) -> Job:
        """Return the submission whose name begins with ``prefix``.

        Raises:
            NothingMatchedError: if there is none.
            UsageError: if there are several.
        """
        known = self.jobs()
        found = [each for each in known if prefix and each.job.startswith(prefix)]
        found = [each for each in found if each.job == prefix] or found
        if not found:
            raise NothingMatchedError(
                f"no job on {self._access.address} has a name that begins with {prefix!r}; "
                "cider-platform jobs list shows those there are"
            )
        if len(found) > 1:
            shown = ", ".join(each.job for each in found[:5]) + (", ..." if len(found) > 5 else "")
            raise UsageError(f"{prefix!r} begins the names of {len(found)} jobs: {shown}")
        return found[0]

    def next_attempt(self, grid: str) -> tuple[int, Job | None]:
        """Return the number of the next attempt at a grid, and the submission that is at it now."""
        known = self.jobs(grid)
        living = next((each for each in known if not each.has_ended), None)
        return 1 + max((attempt_of(each.job) for each in known), default=0), living

    def logs(self, job: str) -> str:
        """Return everything a job has printed."""
        with self._told():
            return self._client.get_job_logs(job)

    def follow(self, job: str) -> Iterator[str]:
        """Yield what a job prints, from its beginning until it ends."""
        chunks = self._client.tail_job_logs(job)
        with self._told(), asyncio.Runner() as runner:
            try:
                while (chunk := runner.run(_next(chunks))) is not None:
                    yield chunk
            finally:
                runner.run(_close(chunks))

    def wait(self, job: str, on_state: Callable[[Job], None] | None = None) -> Job:
        """Wait until a job has ended and return it.

        Args:
            job: its whole name.
            on_state: told whenever its state changes.
        """
        state = ""
        while True:
            found = self._one(job)
            if on_state is not None and found.state != state:
                on_state(found)
            state = found.state
            if found.has_ended:
                return found
            time.sleep(_POLL_SECONDS)

    def stop(self, job: str, *, seconds: float = STOP_SECONDS) -> Job:
        """Stop a job and wait until it has ended; one that has ended is left as it is.

        Args:
            job: its whole name.
            seconds: the longest wait.

        Raises:
            CiderError: if it has not ended by then.
        """
        limit = time.monotonic() + seconds
        found = self._one(job)
        while not found.has_ended:
            if time.monotonic() > limit:
                raise CiderError(
                    f"job {job} is still {found.state} {seconds:.0f} s after it was told to stop; "
                    "give the same command again"
                )
            # Asked again each time: Ray forgets the wish for a job that has not started yet.
            with self._told():
                self._client.stop_job(job)
            time.sleep(0.5)
            found = self._one(job)
        return found

    def _one(self, job: str) -> Job:
        with self._told():
            return self._job(self._client.get_job_info(job))

    def _job(self, details: JobDetails) -> Job:
        metadata = details.metadata or {}
        state = str(getattr(details.status, "value", details.status))
        name = str(details.submission_id)
        if state == "RUNNING" and is_waiting(self.logs(name)):
            state = "WAITING"
        # Of a failure it holds the end of the log, where the reason is.
        told = [line for line in (details.message or "").splitlines() if re.search(r"\w", line)]
        return Job(
            job=name,
            grid=metadata.get(GRID_KEY, ""),
            name=metadata.get(JOB_KEY, ""),
            state=state,
            priority=int(metadata.get(PRIORITY_KEY, 0)),
            submitted=_time(details.start_time),
            ended=_time(details.end_time),
            exit_code=details.driver_exit_code,
            message=told[-1 if state == "FAILED" else 0].strip() if told else "",
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what Ray raises into one sentence that holds no token."""
        address = self._access.address
        try:
            yield
        except AuthenticationError:
            raise self._access.refused() from None
        except RuntimeError as error:
            text = str(error).strip().splitlines()
            reason = self._scrub(text[-1] if text else "no reason given")
            raise CiderError(f"the job server at {address} refused: {reason}") from None
        except Exception as error:
            if not _is_of_network(error):
                raise
            raise CiderError(
                f"no Ray job server answers at {address}; start the cluster (ray up cluster.yaml), "
                "forward its port (ray dashboard cluster.yaml), or give --address HOST:PORT"
            ) from None

    def _scrub(self, text: str) -> str:
        return text.replace(self._access.token, "...") if self._access.token else text


def _is_of_network(error: Exception) -> bool:
    # Ray's client lets the errors of the two HTTP libraries it uses through; neither is ours.
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, ConnectionError) or library in ("requests", "aiohttp")


async def _next(chunks: AsyncIterator[str]) -> str | None:
    return await anext(chunks, None)


async def _close(chunks: AsyncIterator[str]) -> None:
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()


def _time(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def summary(job: Job) -> dict[str, Any]:
    """Return a job as JSON values."""
    return {
        "job": job.job,
        "grid": job.grid,
        "name": job.name,
        "state": job.state,
        "priority": job.priority,
        "submitted": job.submitted,
        "ended": job.ended,
        "exit_code": job.exit_code,
        "message": job.message or None,
    }
