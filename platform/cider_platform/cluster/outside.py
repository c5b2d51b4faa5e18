"""Examine a cluster from outside: its head does, as a Ray job, and its answer is fetched."""

from __future__ import annotations

import json
import os
import shlex
import time
from typing import TYPE_CHECKING, Any

from cider.errors import CiderError
from cider_platform import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

_START = '"schema": "cider.doctor/1"'
_JOB_SECONDS = 300.0


def ask_head(address: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the data of ``doctor --json`` as the head of a cluster gives it.

    Args:
        address: ``http://HOST:PORT`` of the dashboard.
        arguments: options of the command.

    Raises:
        UsageError: if the cluster needs a token and there is none, or it is unsafe.
        CiderError: if nobody answers, the token is refused, or the job fails.
    """
    os.environ.update(tokens.client_environment(address))
    from ray.exceptions import AuthenticationError  # noqa: PLC0415 - after the environment
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415

    words = ["python", "-m", "cider_platform", "doctor", "--address", "auto", "--json", *arguments]
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(entrypoint=shlex.join(words), metadata={"cider": "doctor"})
        text = _finished(client, job)
    except AuthenticationError as error:
        raise CiderError(
            f"{address} refuses the token; copy the cluster's own into ~/.ray/auth_token (mode 600)"
        ) from error
    except (ConnectionError, OSError, RuntimeError) as error:
        reason = tokens.mask(str(error).strip().splitlines()[0])
        raise CiderError(
            f"{address} does not answer: {reason}; forward its port (ray dashboard CLUSTER.yaml)"
        ) from error
    return _document(text)


def _finished(client: Any, job: str) -> str:  # noqa: ANN401 - a JobSubmissionClient
    until = time.monotonic() + _JOB_SECONDS
    while not client.get_job_status(job).is_terminal():
        if time.monotonic() > until:
            client.stop_job(job)
            raise CiderError(
                f"the head did not examine its nodes within {_JOB_SECONDS:.0f} s; look at job {job}"
            )
        time.sleep(0.5)
    return str(client.get_job_logs(job))


def _document(text: str) -> dict[str, Any]:
    at = text.find(_START)
    start = text.rfind("{", 0, at) if at >= 0 else -1
    try:
        document, _ = json.JSONDecoder().raw_decode(text[start:]) if start >= 0 else ({}, 0)
    except ValueError:
        document = {}
    if "data" not in document:
        last = tokens.mask(" ".join(text.strip().splitlines()[-1:]))
        raise CiderError(
            f"the head could not examine its nodes: {last or 'it said nothing'}; is cider-platform "
            "installed there?"
        )
    found: dict[str, Any] = document["data"]
    return found
