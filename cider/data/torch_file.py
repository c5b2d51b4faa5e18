"""The two forms of a ``torch.save`` file: a zip archive, and a stream before torch 1.6."""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from cider.data.file_bytes import CHUNK_BYTES, open_bytes
from cider.data.pickle_globals import printable
from cider.data.pickle_machine import PickleMachine
from cider.data.pickle_source import PickleSource
from cider.data.pickle_values import Global, Refused, shown
from cider.data.torch_globals import Storage, StorageType, TorchGlobals
from cider.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_PROGRAM = re.compile(r"[^/]+/data\.pkl")
# What zipfile raises for damaged archives, over and above OSError.
_ZIP_DAMAGE = (zipfile.BadZipFile, EOFError, LookupError, RuntimeError, ValueError)


def load_torch_object(path: Path, size: int) -> object:
    """Return the object in a torch file, its classes as inert records.

    Args:
        path: a file written by ``torch.save``.
        size: its size in bytes.

    Raises:
        UnsafePickleError: if it asks for anything but tensors, containers and plain instances.
        StoreError: if it is damaged or not a torch file.
    """
    with io.BufferedReader(open_bytes(path), CHUNK_BYTES) as file:
        if file.peek(2)[:2] != b"PK":
            return _StreamReader(PickleSource(file, path, size), size).load()
    try:
        with zipfile.ZipFile(path) as archive:
            return _ArchiveReader(archive, path, size).load()
    except (*_ZIP_DAMAGE, OSError) as error:
        raise StoreError(
            f"{path} is a damaged zip archive ({type(error).__name__}); copy or download it again"
        ) from error


class _ArchiveReader:
    """A zip archive whose members are a pickle and the bytes of each storage, uncompressed."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, size: int) -> None:
        self._archive = archive
        self._path = path
        self._size = size
        self._storages: dict[str, torch.Tensor] = {}
        self._folder = ""

    def load(self) -> object:
        self._check_members()
        data = self._archive.read(f"{self._folder}/data.pkl")
        source = PickleSource(io.BytesIO(data), self._path, len(data))
        return PickleMachine(source, TorchGlobals(self._size).resolve, self._storage).load()

    def _check_members(self) -> None:
        members = self._archive.infolist()
        # torch never compresses, so the members cannot be larger than the file.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members) or (
            sum(member.file_size for member in members) > self._size
        ):
            raise StoreError(
                f"{self._path} has members larger than itself or compressed, and torch.save writes "
                "neither; save it again with torch.save"
            )
        programs = [m.filename for m in members if _PROGRAM.fullmatch(m.filename)]
        if len(programs) != 1 or any("/code/" in member.filename for member in members):
            raise StoreError(
                f"{self._path} is a zip archive but not one that torch.save writes (TorchScript "
                "and .npz files are not); give a file made by torch.save"
            )
        self._folder = programs[0].split("/")[0]
        order = f"{self._folder}/byteorder"
        if order in self._archive.namelist() and self._archive.read(order) != b"little":
            raise StoreError(
                f"{self._path} holds big-endian tensors; save it again on a little-endian machine"
            )

    def _storage(self, identity: object) -> Storage:
        kind, key, count = _storage_identity(identity)
        if key not in self._storages:
            self._storages[key] = self._read_storage(f"{self._folder}/data/{key}")
        return _checked_storage(kind, key, count, self._storages[key])

    def _read_storage(self, name: str) -> torch.Tensor:
        try:
            size = self._archive.getinfo(name).file_size
        except KeyError:
            raise Refused(f"names a storage {shown(name)} that it does not hold") from None
        bytes_N = torch.empty(size, dtype=torch.uint8)
        target = bytes_N.numpy().data
        done = 0
        with self._archive.open(name) as member:
            while chunk := member.read(CHUNK_BYTES):
                target[done : done + len(chunk)] = chunk
                done += len(chunk)
        if done != size:
            raise EOFError(name)
        return bytes_N


class _StreamReader:
    """Pickles one after another, then the bytes of the storages that the main one named.

    The bytes come last, so the tensors are built over memory that is filled afterwards.
    """

    def __init__(self, source: PickleSource, size: int) -> None:
        self._source = source
        self._size = size
        self._storages: dict[str, Storage] = {}
        self._total_bytes = 0

    def load(self) -> object:
        self._check_header()
        value = PickleMachine(
            self._source, TorchGlobals(self._size).resolve, self._persistent
        ).load()
        keys = PickleMachine(self._source, _resolve_nothing).load()
        if type(keys) is not list or keys != sorted(self._storages):
            raise StoreError(
                f"{self._source.path} lists other storages than its tensors use; download it again"
            )
        for key in keys:
            self._fill(self._storages[key])
        return value

    def _check_header(self) -> None:
        magic = PickleMachine(self._source, _resolve_nothing).load()
        if magic != _LEGACY_MAGIC:
            raise StoreError(
                f"{self._source.path} is a pickle but not a torch file; give a file made by "
                "torch.save"
            )
        protocol = PickleMachine(self._source, _resolve_nothing).load()
        system = PickleMachine(self._source, _resolve_nothing).load()
        little = isinstance(system, dict) and system.get("little_endian")
        if protocol != _LEGACY_PROTOCOL or little is not True:
            raise StoreError(
                f"{self._source.path} is a torch file of another protocol or byte order; save it "
                "again with torch 1.6 or later"
            )

    def _persistent(self, identity: object) -> object:
        # Classes of modules come with their source text, which nobody reads here.
        if type(identity) is tuple and identity[:1] == ("module",) and len(identity) == 4:
            if type(identity[1]) is not Global:
                raise Refused("names a module's class by something else")
            return identity[1]
        if type(identity) is tuple and len(identity) == 6 and identity[5] is not None:
            raise Refused("uses views of storages, as torch before 0.4 did")
        kind, key, count = _storage_identity(identity)
        if key not in self._storages:
            needed = count * kind.dtype.itemsize
            self._total_bytes += needed
            self._source.require(self._total_bytes)
            self._storages[key] = Storage(kind.dtype, torch.empty(needed, dtype=torch.uint8))
        return _checked_storage(kind, key, count, self._storages[key].bytes_N)

    def _fill(self, storage: Storage) -> None:
        count = int.from_bytes(self._source.take(8), "little")
        if count * storage.dtype.itemsize != len(storage.bytes_N):
            raise StoreError(
                f"{self._source.path} is damaged: at byte {self._source.position} a storage has "
                "another size than announced; copy or download it again"
            )
        self._source.fill(storage.bytes_N.numpy().data)


def _storage_identity(identity: Any) -> tuple[StorageType, str, int]:  # noqa: ANN401 - checked here
    """Return type, key and element count out of a storage's persistent id."""
    if type(identity) is not tuple or identity[:1] != ("storage",) or len(identity) not in (5, 6):
        raise Refused("uses a persistent id that is not a storage")
    kind, key, _location, count = identity[1:5]
    if type(kind) is not StorageType or type(key) is not str or type(count) is not int or count < 0:
        raise Refused("describes a storage by something other than type, key, place and size")
    return kind, key, count


def _checked_storage(kind: StorageType, key: str, count: int, bytes_N: torch.Tensor) -> Storage:
    if count * kind.dtype.itemsize > len(bytes_N):
        raise Refused(f"claims {count} elements for storage {shown(key)} of {len(bytes_N)} bytes")
    return Storage(kind.dtype, bytes_N)


def _resolve_nothing(module: str, name: str) -> object:
    raise Refused(f"asks for {printable(module, name)} in the header of a torch file")
