"""Several processes that train one run together, each on its part of every batch.

The update of several workers is the update of one on the same batch: loss terms are divided by
counts of the whole batch, so that the workers' losses, and their gradients, add up to the whole
batch's. All workers then take the same step from the same weights. Sums are rounded in another
order than by one process, and every worker draws its own dropout; nothing else differs.

Why gradients are added here, in one buffer per step, and not by ``DistributedDataParallel``: it
averages over workers, which is wrong where their parts count unequally many utterances or dropped
positions; parameters that a behaviour or an ablation leaves without a gradient stop it, or cost it
a search of the graph in each step; and step 2 of ``released`` adds its gradient to the sum that
step 1 ended with. What is given up is that gradients travel while others are still computed.

Shapes: N utterances, R of them here, C classes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

from cider.errors import TrainingError, WorkerLostError
from cider.seeding import worker_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from torch import Tensor, nn
    from torch.distributed import Store  # type: ignore[attr-defined]

PATIENCE = timedelta(minutes=10)
"""How long a worker waits for the others in one exchange before it takes one for lost."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a run and this process's place among them; alone, it exchanges nothing.

    With more than one, torch's default process group must join them (``joined``, or Ray Train).
    """

    rank: int = 0
    """This worker's number, from 0."""
    count: int = 1
    """How many there are."""
    device: str = "cpu"
    """Where tensors lie when they are exchanged: a GPU's for NCCL."""

    @property
    def is_first(self) -> bool:
        """True for the one that writes the run's files."""
        return self.rank == 0

    @property
    def place(self) -> tuple[int, int]:
        """Rank and count: which part of the work is this worker's."""
        return self.rank, self.count

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Make sure that all workers begin alike: from one epoch, with the first one's weights.

        Args:
            model: built from the same spec by every worker.
            epoch: after which this worker would go on.

        Raises:
            TrainingError: if workers would go on after different epochs.
            WorkerLostError: if one is gone.
        """
        if self.count == 1:
            return
        ends = self._sum(torch.tensor([epoch, -epoch], dtype=torch.float64), largest=True)
        most, least = int(ends[0]), -int(ends[1])
        if most != least:
            raise TrainingError(
                f"workers of one run found checkpoints of different epochs, {least} and {most}; "
                "all of them must see the same results folder: put it on storage that their "
                "machines share"
            )
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                with self._exchange():
                    distributed.broadcast(tensor.data, 0)

    def seed(self, seed: int, epoch: int) -> None:
        """Give this worker's generator the state it has in an epoch, whatever came before.

        Dropout of several workers so depends on seed, epoch, rank and count alone, and a checkpoint
        need not hold the generators of all. One worker goes on with the generator it has.
        """
        if self.count > 1:
            torch.manual_seed(worker_seed(seed, epoch, self.rank))

    def backward(
        self,
        parts: Iterable[dict[str, Tensor]],
        loss: str,
        parameters: Sequence[nn.Parameter],
        counts: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Add the gradient of the whole batch's loss to ``grad``, and return the batch's values.

        Args:
            parts: numbers of parts of this worker's batch, scalars that add up over parts and
                workers; a part's graph is freed before the next part is asked for.
            loss: which of them is differentiated.
            parameters: in the same order on every worker.
            counts: further numbers of this worker that add up over workers.

        Returns:
            The sums of all of them over parts and workers, without gradient.

        Raises:
            WorkerLostError: if another worker is gone.
        """
        if self.count == 1:
            return {**_backward(parts, loss), **counts}
        before = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            # What stands there is of the whole batch already: adding it up would count it again.
            parameter.grad = None
        values = {**_backward(parts, loss), **counts}
        here = [parameter.grad for parameter in parameters]
        sizes = [parameter.numel() for parameter in parameters]
        buffer = torch.zeros(
            sum(sizes) + len(sizes) + len(values),
            dtype=parameters[0].dtype,
            device=self.device,
        )
        *gradients, present, numbers = torch.split(buffer, [*sizes, len(sizes), len(values)])
        for part, gradient in zip(gradients, here, strict=True):
            if gradient is not None:
                part.copy_(gradient.reshape(-1))
        present.copy_(torch.tensor([gradient is not None for gradient in here]))
        numbers.copy_(torch.stack([value.to(buffer) for value in values.values()]))
        self._sum(buffer)
        for parameter, old, part, count in zip(
            parameters, before, gradients, present.tolist(), strict=True
        ):
            # An optimiser leaves a parameter without a gradient alone, but not one with zeros.
            if count:
                new = part.view_as(parameter)
                parameter.grad = new if old is None else old.add_(new)
            else:
                parameter.grad = old
        return dict(zip(values, numbers.unbind(), strict=True))

    def gather(self, rows: list[Tensor], index_R: Sequence[np.ndarray], num_rows: int) -> Tensor:
        """Return all workers' rows in their order, (N, C) float64 on the CPU.

        Args:
            rows: tables (*, C) float64 of this worker; none if it has no row.
            index_R: for each table, which rows of the result it is.
            num_rows: N; every row is one worker's.

        Raises:
            WorkerLostError: if another worker is gone.
        """
        if self.count == 1:
            return torch.cat(rows).cpu()
        width = torch.tensor([rows[0].shape[1] if rows else 0], dtype=torch.float64)
        table_NC = torch.zeros(
            num_rows, int(self._sum(width, largest=True)), dtype=torch.float64, device=self.device
        )
        for part, index in zip(rows, index_R, strict=True):
            table_NC[torch.from_numpy(index).to(self.device)] = part.to(table_NC)
        # Every row is zero but on one worker: the sum is that worker's row, to the last bit.
        return self._sum(table_NC).cpu()

    def _sum(self, tensor: Tensor, *, largest: bool = False) -> Tensor:
        """Return the sum, or the largest, over workers; a tensor on ``device`` is overwritten."""
        tensor = tensor.to(self.device)
        operation = distributed.ReduceOp.MAX if largest else distributed.ReduceOp.SUM
        with self._exchange():
            distributed.all_reduce(tensor, operation)
        return tensor

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch has no closer class for a peer that is gone
            raise WorkerLostError(
                f"worker {self.rank} of {self.count} lost another one ({_first_line(error)}); the "
                "run goes on from its last checkpoint when it is started again"
            ) from error


ALONE = Workers()
"""One process trains the run."""


@contextmanager
def joined(
    store: Store, rank: int, count: int, *, device: str = "cpu", backend: str = "gloo"
) -> Iterator[Workers]:
    """Join this process to the others while the context lasts.

    Args:
        store: where the processes find each other, e.g. ``FileStore`` or ``TCPStore``.
        rank: this one's number, from 0.
        count: how many there are; all of them must come.
        device: ``cpu``, ``cuda`` or ``cuda:N``, where the model lies.
        backend: ``gloo``, or ``nccl`` where every worker has a GPU of its own.

    Raises:
        WorkerLostError: if they do not all come.
    """
    try:
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=count, timeout=PATIENCE
        )
    except RuntimeError as error:
        raise WorkerLostError(
            f"worker {rank} of {count} could not join the others ({_first_line(error)})"
        ) from error
    try:
        yield Workers(rank, count, device)
    finally:
        # Closes the connections, so that others who wait for this one learn that it is gone.
        distributed.destroy_process_group()


def _backward(parts: Iterable[dict[str, Tensor]], loss: str) -> dict[str, Tensor]:
    """Differentiate a loss part by part; return the sums of all numbers over parts."""
    sums: dict[str, Tensor] = {}
    for values in parts:
        values[loss].backward()  # type: ignore[no-untyped-call]
        for name, value in values.items():
            number = value.detach()
            sums[name] = sums[name] + number if name in sums else number
    return sums


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
