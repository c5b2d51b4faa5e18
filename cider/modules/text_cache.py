"""What a frozen text encoder says of texts that are read again and again.

A frozen encoder's states depend on the token ids alone. The complete view of a training utterance
is the same in every epoch, and so are the texts of a validation under fixed masks. Their states are
kept by their token ids, up to a limit of memory: when it is reached nothing more is kept, and
nothing is thrown out, so that which texts are known does not depend on the order of epochs.

Shapes: R texts of a group, T their steps, F width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import BoolTensor, Tensor

DEFAULT_MIB = 512
"""Memory for states unless said otherwise: 10,000 texts of 17 tokens at BERT-base's width."""


class TextCache:
    """States of texts by their token ids.

    Args:
        limit_mib: most memory that states may take, in MiB; 0 keeps nothing.
    """

    def __init__(self, limit_mib: int = DEFAULT_MIB) -> None:
        self.limit_mib = limit_mib
        self._states: dict[bytes, Tensor] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    @property
    def num_bytes(self) -> int:
        """Memory that the states take."""
        return self._bytes

    def clear(self) -> None:
        """Forget everything; for when the encoder is no longer what it was."""
        self._states = {}
        self._bytes = 0

    def states(
        self,
        encode: Callable[[Sequence[Tensor], Sequence[BoolTensor]], list[Tensor]],
        token_ids: Sequence[Tensor],
        valid: Sequence[BoolTensor],
    ) -> list[Tensor]:
        """Return the states (R, T, F) of every group, zero at padding; known texts are not read.

        Args:
            encode: the frozen encoder, from groups of texts to their states.
            token_ids: int64 (R, T) per group.
            valid: bool (R, T) per group, True at tokens, which come first.
        """
        keys = [_keys(*group) for group in zip(token_ids, valid, strict=True)]
        new: dict[bytes, tuple[int, int]] = {}
        for group, keys_R in enumerate(keys):
            for row, key in enumerate(keys_R):
                if key not in self._states:
                    new.setdefault(key, (group, row))
        found = self._read(encode, token_ids, valid, new) if new else {}
        some_TF = next(iter((found or self._states).values()))
        results = []
        for keys_R, ids_RT in zip(keys, token_ids, strict=True):
            states_RTF = some_TF.new_zeros(*ids_RT.shape, some_TF.shape[1])
            for state_TF, key in zip(states_RTF, keys_R, strict=True):
                known_TF = found[key] if key in found else self._states[key]
                state_TF[: len(known_TF)] = known_TF
            results.append(states_RTF)
        self._keep(found)
        return results

    def _read(
        self,
        encode: Callable[[Sequence[Tensor], Sequence[BoolTensor]], list[Tensor]],
        token_ids: Sequence[Tensor],
        valid: Sequence[BoolTensor],
        new: dict[bytes, tuple[int, int]],
    ) -> dict[bytes, Tensor]:
        """Return the states (T, F) of texts that are not known, given by group and row."""
        rows: dict[int, list[int]] = {}
        for group, row in new.values():
            rows.setdefault(group, []).append(row)
        states = encode(
            [token_ids[group][rows_R] for group, rows_R in rows.items()],
            [valid[group][rows_R] for group, rows_R in rows.items()],  # type: ignore[misc]
        )
        every = [state_TF for states_RTF in states for state_TF in states_RTF]
        # Groups and rows were met in order, so the states stand in the order of the keys.
        return {key: state_TF[: len(key) // 8] for key, state_TF in zip(new, every, strict=True)}

    def _keep(self, found: dict[bytes, Tensor]) -> None:
        """Keep the states of one call: all of them, or none where they pass the limit."""
        # A text that is read with others anew has them beside it in every epoch: how sums are
        # rounded depends on how many are read together.
        size = sum(state_TF.numel() * state_TF.element_size() for state_TF in found.values())
        if self._bytes + size > self.limit_mib * 2**20:
            return
        self._bytes += size
        self._states |= {key: state_TF.detach().clone() for key, state_TF in found.items()}


def _keys(ids_RT: Tensor, valid_RT: BoolTensor) -> list[bytes]:
    """Return the token ids of every text as bytes, eight for each."""
    table_RT = ids_RT.to(torch.int64).cpu().numpy()
    lengths = valid_RT.sum(dim=1).tolist()
    return [ids_T[:length].tobytes() for ids_T, length in zip(table_RT, lengths, strict=True)]
