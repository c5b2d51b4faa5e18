"""Open the record batches of an Arrow IPC file by memory mapping: nothing is read or copied yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from cider.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path


def open_batches(path: Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Return the record batches of a file, each a view of the mapped file.

    Args:
        path: an Arrow IPC file.
        schema: the columns it must have.

    Raises:
        StoreError: if the file is absent, damaged or has other columns.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        if reader.schema != schema:
            raise StoreError(
                f"{path} has columns {', '.join(reader.schema.names)} of other names or types than "
                f"{', '.join(schema.names)}; import the corpus again"
            )
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate()  # Lengths and buffer sizes only: no array is read.
        return batches
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; import the corpus again") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{path} is damaged ({error}); import the corpus again with --overwrite"
        ) from error
