"""Look through an HDF5 file before the program trusts it. Run by `guard` in a process of its own, never imported.

A damaged file can make the HDF5 library loop for ever, ask for terabytes or crash; here that costs nothing but this
process. It prints one line of JSON: `{"sizes": {...}}` (bytes in memory by path), `{"fault": "..."}` or, for a filter
that is not installed, `{"lacks": "..."}`.

Everything is walked: groups, links, attributes, and of every dataset its type, shape and the index of its chunks. Small
datasets are read whole, large ones at six places from the first chunk to the last.
"""

import contextlib
import importlib
import json
import math
import sys
from math import prod
from typing import Any

NO_H5PY = 3  # exit code: this Python has no h5py, so nothing was looked at
READ_WHOLE = 32 * 2**20  # bytes of a dataset that is read whole
READ_IN_ALL = 64 * 2**20  # bytes read whole, all datasets together
MAY_BE_SPARSE = 2**26  # bytes a dataset may declare without having written them
PLACES, READ_AT_A_PLACE = 6, 4 * 2**20  # of a large dataset
TEXT_BYTES = 256  # what a text costs, in bytes of numbers
LARGEST_CHUNK = 2**28  # bytes; what lies in larger chunks is left to the program that has more memory
MOST_OBJECTS, DEEPEST = 100_000, 64


class FaultError(Exception):
    """What is wrong with the file."""


class LackError(Exception):
    """The filter that the file needs and this installation lacks."""


def main(path: str, memory: int, seconds: int) -> int:
    """Walk the file under limits of memory (bytes) and processor time; 0 whatever was found."""
    try:
        import h5py
    except ImportError:
        return NO_H5PY
    limit(memory, seconds)
    try:
        with h5py.File(path, "r") as file:
            found: dict[str, Any] = {"sizes": walk(file, h5py)}
    except FaultError as fault:
        found = {"fault": str(fault)}
    except LackError as lack:
        found = {"lacks": str(lack)}
    except Exception as error:  # whatever the library raises on a damaged file is the answer
        found = {"fault": " ".join(str(error).split())[:400] or type(error).__name__}
    print(json.dumps(found))
    return 0


def limit(memory: int, seconds: int) -> None:
    """Ask the system to stop this process beyond its share; systems that cannot leave it to the parent's clock."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        seconds += math.ceil(usage.ru_utime + usage.ru_stime)  # what the imports took is not the file's
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def walk(file: Any, h5py: Any) -> dict[str, int]:
    """Every object once: {path of a dataset: bytes it takes in memory}."""
    sizes: dict[str, int] = {}
    waiting: list[tuple[Any, int]] = [(file["/"], 0)]
    seen, left = {h5py.h5o.get_info(file["/"].id).addr}, READ_IN_ALL
    while waiting:
        here, depth = waiting.pop()
        for key in here.attrs:
            with contextlib.suppress(TypeError):  # of a type that Python has no word for: nobody reads it
                here.attrs[key]
        if isinstance(here, h5py.Dataset):
            sizes[here.name], read = look(here, h5py, left)
            left -= read
            continue
        if not isinstance(here, h5py.Group):
            continue  # a named type
        for key in here:
            link = here.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise FaultError(f"{here.name}/{key} points into another file")
            child = here[key]
            address = h5py.h5o.get_info(child.id).addr
            if address not in seen:
                seen.add(address)
                waiting.append((child, depth + 1))
        if len(seen) > MOST_OBJECTS or depth > DEEPEST:
            raise FaultError(f"it holds more than {MOST_OBJECTS:,} objects or {DEEPEST} levels of groups")
    return sizes


def look(dataset: Any, h5py: Any, left: int) -> tuple[int, int]:
    """Check one dataset; (bytes it takes in memory, what reading it whole cost)."""
    if dataset.external or dataset.is_virtual:
        raise FaultError(f"{dataset.name} keeps its values in another file")
    if dataset.shape is None:
        return 0, 0
    check_filters(dataset, h5py)
    size = dataset.dtype.itemsize * prod(dataset.shape)
    if size > MAY_BE_SPARSE:
        check_written(dataset, size)
    if dataset.chunks is not None and size > READ_WHOLE:
        check_chunks(dataset)
    effort = size if dataset.dtype.kind != "O" else size // dataset.dtype.itemsize * TEXT_BYTES
    if effort <= min(READ_WHOLE, left) or not dataset.shape or not size:
        dataset[()]
        return size, effort
    if dataset.chunks is not None and prod(dataset.chunks) * dataset.dtype.itemsize > LARGEST_CHUNK:
        return size, 0
    rows = max(int(dataset.chunks[0]) if dataset.chunks else 1, 1)
    rows = max(min(rows, READ_AT_A_PLACE // max(effort // dataset.shape[0], 1)), 1)
    for place in range(PLACES):
        start = (dataset.shape[0] - rows) * place // (PLACES - 1)
        dataset[max(start, 0) : max(start, 0) + rows]
    return size, 0


def check_written(dataset: Any, size: int) -> None:
    """A large dataset must have been written: a wrong shape would otherwise ask for any amount of memory."""
    if dataset.chunks is None:
        written, declared = int(dataset.id.get_storage_size()), size
    else:
        declared = prod(-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        written = int(dataset.id.get_num_chunks())
    if 2 * written < declared:
        shape = " x ".join(f"{length:,}" for length in dataset.shape)
        raise FaultError(f"{dataset.name} declares {shape} values, most of which were never written")


def check_filters(dataset: Any, h5py: Any) -> None:
    """A dataset packed by a filter that HDF5 does not bring along: hdf5plugin may know it."""
    packing = dataset.id.get_create_plist()
    for i in range(packing.get_nfilters()):
        number, _, _, name = packing.get_filter(i)
        if not h5py.h5z.filter_avail(number):
            try:
                importlib.import_module("hdf5plugin")
            except ImportError:
                words = name.decode(errors="replace").split(";")[0] or f"filter {number}"
                raise LackError(words) from None
            if not h5py.h5z.filter_avail(number):
                raise FaultError(f"{dataset.name} is packed with the unknown filter {number}")


def check_chunks(dataset: Any) -> None:
    """Follow the whole index of a dataset's chunks; each must lie inside the file."""
    end = dataset.file.id.get_filesize()
    outside = []

    def check(chunk: Any) -> Any:
        if chunk.byte_offset is not None and chunk.byte_offset + chunk.size > end:
            outside.append(chunk)
            return True
        return None

    if hasattr(dataset.id, "chunk_iter"):
        dataset.id.chunk_iter(check)
    if outside:
        raise FaultError(f"a part of {dataset.name} lies beyond the end of the file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
