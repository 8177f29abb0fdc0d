"""Stored answers on disk: records of one size in TFRecord files, and a manifest.

A record holds the teacher's answer to one view of one example, as a packed little-endian
structure (`numpy.dtype`, written down in the manifest). All records are of one size, so that the
record of a key is found by arithmetic, and the files are still TFRecord files that
`tf.data.TFRecordDataset` reads in order.
"""

import hashlib
import json
import mmap
import os
import pathlib
import threading
from typing import Any

import numpy as np
import tensorflow as tf

from keras_distill._files import write_text

FORMAT = "keras_distill.answers"
VERSION = 2
# Ends the names of shards that are being written.
_TEMPORARY = ".tmp"
# Bytes of files that may be mapped before they are let go, so that memory stays flat.
_MAPPED = 64 * 2**20


def shard_name(number: int) -> str:
    return f"answers-{number:05d}.tfrecord"


def entry_path(shard: pathlib.Path) -> pathlib.Path:
    """The file beside a shard that marks it as complete, until the manifest lists it."""
    return shard.with_name(f"{shard.name}.json")


def framed(record: np.dtype) -> np.dtype:
    """The dtype of a record as a TFRecord file frames it."""
    return np.dtype(
        [("length", "<u8"), ("length_crc", "<u4"), ("record", record), ("record_crc", "<u4")]
    )


def manifest_path(path: pathlib.Path) -> pathlib.Path:
    return path / "manifest.json"


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a file completely or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_manifest(path: pathlib.Path) -> dict:
    """The manifest of a folder of answers.

    Raises:
        ValueError: If there is none, or it isn't one that this version reads.
    """
    file = manifest_path(path)
    if not file.is_file():
        raise ValueError(f"There are no stored answers at {path}: no {file.name}.")
    manifest = read_json(file)
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise ValueError(
            f"{file} isn't of the format {FORMAT!r}, version {VERSION}. "
            f"Received: {manifest.get('format')!r}, version {manifest.get('version')!r}"
        )
    return manifest


def sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_shard(path: pathlib.Path, entry: dict, record: np.dtype, checksum: bool = True) -> None:
    """Raises if a shard isn't as it was written.

    Args:
        path: The folder.
        entry: What is known of the shard: its file, the number of records, and its checksum.
        record: The dtype of a record.
        checksum: Whether to read it all, rather than to look at its size alone.

    Raises:
        ValueError: Names the file and what is wrong with it.
    """
    file = path / entry["file"]
    size = entry["records"] * framed(record).itemsize
    fix = "Delete it and call `store` again, which writes it anew."
    if not file.is_file():
        raise ValueError(f"The shard {file} is missing. Call `store` again, which writes it anew.")
    if file.stat().st_size != size:
        raise ValueError(
            f"The shard {file} is truncated or altered: it has {file.stat().st_size} bytes and "
            f"should have {size}. {fix}"
        )
    if checksum and sha256(file) != entry["sha256"]:
        raise ValueError(f"The shard {file} is altered: its checksum differs. {fix}")


class ShardWriter:
    """Writes one shard completely or not at all, even if several processes or threads do."""

    def __init__(self, path: pathlib.Path, number: int):
        self.file = path / shard_name(number)
        self.records = 0
        writer = f"{os.getpid()}.{threading.get_ident()}"
        self._temporary = self.file.with_suffix(f".{writer}{_TEMPORARY}")
        self._writer = tf.io.TFRecordWriter(str(self._temporary))

    def write(self, records: np.ndarray) -> None:
        data, size = records.tobytes(), records.dtype.itemsize
        for start in range(0, len(data), size):
            self._writer.write(data[start : start + size])
        self.records += len(records)

    def discard(self) -> None:
        """Removes what was written."""
        self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def finish(self) -> None:
        """Closes the shard and marks it as complete."""
        self._writer.close()
        try:
            with self._temporary.open("rb+") as file:
                os.fsync(file.fileno())
            entry = {
                "file": self.file.name,
                "records": self.records,
                "sha256": sha256(self._temporary),
            }
            os.replace(self._temporary, self.file)
        except FileNotFoundError:
            return  # Another process wrote all shards meanwhile, and tidied up.
        write_json(entry_path(self.file), entry)


def tidy_up(path: pathlib.Path) -> None:
    """Removes files that the manifest of all shards makes needless, also of killed processes."""
    for pattern in (f"*{_TEMPORARY}", entry_path(path / "*.tfrecord").name):
        for file in path.glob(pattern):
            file.unlink(missing_ok=True)


class Records:
    """Random access to the records of all shards.

    Args:
        files: The shards, in order.
        record: The dtype of a record.
        per_shard: Number of records in each shard but the last.
    """

    def __init__(self, files: list[pathlib.Path], record: np.dtype, per_shard: int):
        self.record = record
        self._per_shard = per_shard
        self._maps, self._frames = [], []
        for path in files:
            with open(path, "rb") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._frames.append(np.frombuffer(self._maps[-1], framed(record))["record"])
        self._mapped = 0

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The records at `rows`, integers from 0, in their order."""
        records = np.empty(len(rows), self.record)
        shards = rows // self._per_shard
        for shard in np.unique(shards):
            here = shards == shard
            records[here] = self._frames[shard][rows[here] - shard * self._per_shard]
        self._let_go(len(rows))
        return records

    def _let_go(self, rows):
        """Lets go of mapped pages now and then; the system keeps them cached."""
        # Reading a page maps its neighbors as well, 64 KiB in all.
        self._mapped += rows * (2**16 + self.record.itemsize)
        if self._mapped > _MAPPED and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped = 0
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)
