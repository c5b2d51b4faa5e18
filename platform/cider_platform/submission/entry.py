"""What runs on the cluster for one submission: wait for the turn, then become the command.

``python -m cider_platform.submission.entry``, in the folder that the submission sent. The lines it
prints while it waits are how ``jobs list`` tells a job that waits from one that works.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from cider.errors import CiderError
from cider_platform.submission.order import Order
from cider_platform.submission.turns import Place, Ticket, queue_folder, wait_for_turn

WAITING = "cider-platform: waiting for its turn"
STARTED = "cider-platform: its turn has come"


def is_waiting(log: str) -> bool:
    """Return whether a log is that of a job that waits for its turn."""
    return WAITING in log and STARTED not in log


def run(folder: Path) -> NoReturn:
    """Wait for the turn of the order in ``folder``, then replace this process by its command."""
    order = Order.read(folder)
    ticket = Ticket(job=order.job, priority=order.priority, submitted=order.submitted)
    queue = queue_folder(os.environ.get("RAY_ADDRESS", ""))
    wait_for_turn(queue, ticket, most=order.most, on_wait=_tell)
    print(STARTED, flush=True)
    # Not a child: whoever kills the job's driver kills this very process, and its turn ends.
    os.execv(sys.executable, [sys.executable, "-m", "cider_platform", *order.arguments])


def _tell(place: Place) -> None:
    print(
        f"{WAITING}: {place.ahead} ahead, {place.running} running, at most {place.most} at a time",
        flush=True,
    )


if __name__ == "__main__":
    try:
        run(Path.cwd())
    except CiderError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
