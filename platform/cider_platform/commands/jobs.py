"""``jobs``: what was submitted to a cluster: list it, look at it, read its log, stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.submission.client import Job, JobServer

app = typer.Typer(
    help="List what was submitted to a cluster, look at it, read its log, stop it.",
    no_args_is_help=True,
)

Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Dashboard of the Ray cluster; default: RAY_API_SERVER_ADDRESS, else this machine's. "
        "Elsewhere it needs a token: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.",
        show_default=False,
    ),
]
JobId = Annotated[
    str, typer.Argument(metavar="ID", help="A submission's name, or the beginning of it.")
]


def _server(address: str | None) -> JobServer:
    from cider_platform.submission.access import find_access

    access = find_access(address)
    from cider_platform.submission.client import JobServer

    return JobServer(access)


@app.command("list")
def list_jobs(
    address: Address = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Only PENDING, WAITING, RUNNING, SUCCEEDED, FAILED or STOPPED.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List submissions, the latest first. WAITING: its turn has not come yet."""
    from cider.errors import NothingMatchedError
    from cider_platform.output import emit_json, emit_table, say
    from cider_platform.submission.client import summary

    found = _server(address).jobs()
    if state is not None:
        found = [each for each in found if each.state == state.upper()]
        if not found:
            raise NothingMatchedError(f"no submission is {state.upper()}")
    if json:
        emit_json("jobs", [summary(each) for each in found])
        return
    if not found:
        say("nothing was submitted yet; cider-platform submit JOB does")
        return
    emit_table(
        ["job", "state", "priority", "submitted", "ended", "message"],
        [
            [each.job, each.state, each.priority, each.submitted, each.ended, each.message]
            for each in found
        ],
        right=["priority"],
    )


@app.command("status")
def job_status(job: JobId, address: Address = None, json: Json = False) -> None:
    """Show one submission."""
    from cider_platform.output import emit_json, emit_table
    from cider_platform.submission.client import summary

    found = _server(address).find(job)
    if json:
        emit_json("job", summary(found))
    else:
        emit_table(["", ""], [[name, value] for name, value in summary(found).items()])


@app.command("logs")
def job_logs(
    job: JobId,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the job ends; Ctrl-C only looks away."),
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="Only so many of the last lines; 0: all.")
    ] = 0,
    address: Address = None,
) -> None:
    """Print what a submission has printed."""
    import sys

    from cider_platform.output import say

    server = _server(address)
    found = server.find(job)
    if follow:
        try:
            for chunk in server.follow(found.job):
                sys.stdout.write(chunk)
                sys.stdout.flush()
        except KeyboardInterrupt:
            say(f"{found.job} goes on")
            raise typer.Exit(130) from None
        return
    text = server.logs(found.job)
    sys.stdout.write("".join(text.splitlines(keepends=True)[-lines:]))


@app.command("stop")
def stop_job(job: JobId, address: Address = None, json: Json = False) -> None:
    """Stop a submission, running or waiting; nothing that is done is lost.

    The same submit command goes on from the checkpoints.
    """
    from cider_platform.output import emit_json, say
    from cider_platform.submission.client import summary

    server = _server(address)
    before = server.find(job)
    found = server.stop(before.job)
    if json:
        emit_json("job", summary(found))
    elif before.has_ended:
        say(f"{found.job} had ended already: {found.state}")
    else:
        say(f"{found.job} has ended: {found.state}")


def finish(server: JobServer, job: str, *, attached: bool, wait: bool, as_json: bool) -> None:
    """Say what was submitted, wait for its end if that is wanted, and exit as it did.

    Args:
        server: where it was submitted.
        job: its whole name.
        attached: True if it had been submitted before and is still at it.
        wait: True waits.
        as_json: True prints one document on stdout.
    """
    from cider_platform.output import emit_json, say
    from cider_platform.submission.client import summary

    say(f"{job} is being run already" if attached else f"{job} is submitted")
    if wait:
        try:
            found = server.wait(job, lambda each: say(f"{each.job}: {each.state}"))
        except KeyboardInterrupt:
            say(f"{job} goes on; cider-platform jobs stop {job} would end it")
            raise typer.Exit(130) from None
    else:
        found = server.find(job)
        say(f"follow it with: cider-platform jobs logs {job} -f")
    if as_json:
        emit_json("submit", {**summary(found), "attached": attached})
    if wait:
        _exit_as(found)


def _exit_as(job: Job) -> None:
    from cider_platform.output import fail

    if job.state == "SUCCEEDED":
        return
    fail(f"{job.job} {job.state}: {job.message or 'no message'}")
    code = job.exit_code
    raise typer.Exit(code if code is not None and 0 < code < 126 else 1)
