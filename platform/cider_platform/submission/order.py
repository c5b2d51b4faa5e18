"""What a submission sends: both packages, the job file, and the arguments as data in a file.

Ray hands a job's entry point to a shell. Ours is the same constant text for every job; names,
paths and arguments travel in ``order.json`` and are never part of a command line that a shell
reads.
"""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cider
import cider_platform
from cider.errors import CiderError, UsageError
from cider_platform.layout import check_name, read_json, write_bytes_atomic, write_json_atomic

SCHEMA = 1
ORDER_FILE = "order.json"
ENTRYPOINT = shlex.join(["python", "-m", "cider_platform.submission.entry"])
LARGEST_CODE_BYTES = 20_000_000
LARGEST_JOB_BYTES = 1_000_000
COMMANDS = ("run", "evaluate-runs")
"""What an order may ask a cluster for."""
PRIORITIES = range(-1000, 1001)

# Not sent: caches, and what version control leaves.
EXCLUDED = ("__pycache__", "*.pyc", ".git", ".DS_Store")


@dataclass(frozen=True, slots=True)
class JobFile:
    """A job file that travels with an order.

    Raises:
        UsageError: if it is larger than ``LARGEST_JOB_BYTES``, or its name is no plain name.
    """

    name: str
    """The job's name."""
    content: bytes

    def __post_init__(self) -> None:
        check_name("job", self.name)
        if len(self.content) > LARGEST_JOB_BYTES:
            raise UsageError(
                f"a job file has at most {LARGEST_JOB_BYTES:,} bytes, this one has "
                f"{len(self.content):,}; data belongs into the feature store"
            )

    @property
    def file(self) -> str:
        """Its name in the job's working folder."""
        return f"{self.name}.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One submission: which command runs on the cluster, and when its turn comes."""

    job: str
    """Name of this submission; ``<grid>-<attempt>``."""
    arguments: tuple[str, ...]
    """Words of the command line after ``cider-platform``."""
    priority: int = 0
    """Higher is sooner, -1000 to 1000."""
    most: int = 4
    """Start only while fewer submissions run on the cluster."""
    submitted: float = 0.0
    """Seconds since 1970."""

    def __post_init__(self) -> None:
        check_name("job", self.job)
        if self.arguments[:1] not in [(each,) for each in COMMANDS]:
            raise UsageError(
                f"a cluster is asked for {' or '.join(COMMANDS)}, got {' '.join(self.arguments)!r}"
            )
        if self.priority not in PRIORITIES:
            raise UsageError(
                f"--priority must be {PRIORITIES.start} to {PRIORITIES.stop - 1}, got "
                f"{self.priority}"
            )
        if self.most < 1:
            raise UsageError(f"--max-concurrent must be at least 1, got {self.most}")

    def write(self, folder: Path, job_file: JobFile | None = None) -> None:
        """Fill the folder that becomes the job's working folder on the cluster.

        Args:
            folder: empty.
            job_file: the job file, if the command has one.
        """
        if job_file is not None:
            write_bytes_atomic(folder / job_file.file, job_file.content)
        values = {"schema": SCHEMA, **asdict(self)}
        write_json_atomic(folder / ORDER_FILE, values)

    @classmethod
    def read(cls, folder: Path) -> Order:
        """Read what ``write`` wrote.

        Raises:
            CiderError: if it is not there, or not of this version.
        """
        try:
            values: dict[str, Any] = read_json(folder / ORDER_FILE)
            schema = values.pop("schema")
            if schema != SCHEMA:
                raise ValueError(f"schema {schema!r}, not {SCHEMA}")
            return cls(**{**values, "arguments": tuple(values["arguments"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CiderError(
                f"{ORDER_FILE} is not an order of this program: {error}; submit again"
            ) from None


def new_order(grid: str, attempt: int, arguments: list[str], **options: Any) -> Order:  # noqa: ANN401
    """Return the order of one attempt at a grid, submitted now.

    Args:
        grid: the grid's name.
        attempt: 1 for the first.
        arguments: words of the command.
        **options: ``priority`` and ``most``.
    """
    return Order(
        job=f"{check_name('grid', grid)}-{attempt}",
        arguments=tuple(arguments),
        submitted=time.time(),
        **options,
    )


def attempt_of(job: str) -> int:
    """Return the attempt that a job's name ends with, 0 if with none."""
    found = re.search(r"-(\d{1,6})\Z", job)
    return int(found[1]) if found else 0


def code_folders() -> list[Path]:
    """Return the folders of both packages, to be sent along.

    Raises:
        CiderError: if they hold more than ``LARGEST_CODE_BYTES``: something that is not code lies
            in them.
    """
    folders = [Path(module.__path__[0]).resolve() for module in (cider, cider_platform)]
    sizes = {
        path: path.stat().st_size
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not any(path.match(each) for each in EXCLUDED)
        if not set(path.parts) & set(EXCLUDED)
    }
    if sum(sizes.values()) > LARGEST_CODE_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise CiderError(
            f"the program's folders hold {sum(sizes.values()):,} bytes and only code of at most "
            f"{LARGEST_CODE_BYTES:,} is sent; the largest file is {largest}"
        )
    return folders
