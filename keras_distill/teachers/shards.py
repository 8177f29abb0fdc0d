"""The shards of a folder of stored answers: which there are, which are missing, what is in them."""

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_distill.teachers.coding import SIGNATURE
from keras_distill.teachers.records import (
    Records,
    check_shard,
    entry_path,
    manifest_path,
    read_json,
    read_manifest,
    shard_name,
    tidy_up,
    write_json,
)
from keras_distill.teachers.views import resemble, signatures


class Shards:
    """The shards of a folder.

    Args:
        path: The folder.
        settings: What the manifest holds beside the list of shards.
        record: The dtype of a record.
    """

    def __init__(self, path: pathlib.Path, settings: dict, record: np.dtype):
        self.path = path
        # As it reads once it was written.
        self.settings = json.loads(json.dumps(settings))
        self.record = record
        self.examples_per_shard = settings["examples_per_shard"]
        self.count = -(-settings["examples"] // self.examples_per_shard)

    def begin(self) -> None:
        """Writes the manifest, or makes sure that the one there has the same settings.

        Raises:
            ValueError: If it has others, or a shard that is there is truncated or missing.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not manifest_path(self.path).exists():
            write_json(manifest_path(self.path), {**self.settings, "shards": None})
            return
        manifest = read_manifest(self.path)
        for name, value in self.settings.items():
            if name == "teacher":
                self._check_teacher(manifest[name], value)
            elif manifest[name] != value:
                raise ValueError(
                    f"The answers at {self.path} were written {_difference(name)}: "
                    f"{name}={manifest[name]!r}. Received: {name}={value!r}. Write these to "
                    "another folder."
                )
        for entry in self.entries().values():
            check_shard(self.path, entry, self.record, checksum=False)

    def _check_teacher(self, stored, teacher):
        if stored["fingerprint"] != teacher["fingerprint"]:
            raise ValueError(
                f"The answers at {self.path} are of another teacher: of {stored['name']!r}, with "
                f"the fingerprint {stored['fingerprint'][:12]}. Received: {teacher['name']!r}, "
                f"{teacher['fingerprint'][:12]}. Write these to another folder."
            )

    def rows(self, number: int) -> range:
        """The rows (views of examples) of a shard."""
        size = self.examples_per_shard * self.settings["views"]
        return range(number * size, min((number + 1) * size, self.total))

    @property
    def total(self) -> int:
        """The number of rows of all shards."""
        return self.settings["examples"] * self.settings["views"]

    def entries(self) -> dict:
        """What is known of the shards that are there, by number."""
        files = [self.path / shard_name(number) for number in range(self.count)]
        entries = [_entry(file) for file in files]
        # Read after them: what the chief removes is in the manifest before.
        known = read_manifest(self.path)["shards"] or [None] * self.count
        return {
            number: entry or known[number]
            for number, (file, entry) in enumerate(zip(files, entries, strict=True))
            if (entry or known[number]) and file.exists()
        }

    def missing(self) -> list[int]:
        """The numbers of the shards that are still to be written."""
        entries = self.entries()
        return [number for number in range(self.count) if number not in entries]

    def check_first(self, rows: Any, records_of: Callable) -> None:
        """Makes sure that the first shard holds this teacher's answers to these rows.

        Teachers may differ in what no fingerprint shows, such as their `preprocess`.

        Args:
            rows: The first batch, `Keyed`.
            records_of: Function from a batch to the teacher's records of it.

        Raises:
            ValueError: If it holds other rows, or other answers to them.
        """
        records = records_of(rows)
        per_shard = self.examples_per_shard * self.settings["views"]
        file = self.path / shard_name(0)
        stored = Records([file], self.record, per_shard).read(np.arange(len(records)))
        signature, tolerance = signatures(rows.inputs)
        alike = resemble(stored[SIGNATURE], signature.numpy(), tolerance.numpy())
        if not alike.all():
            raise ValueError(
                f"The answers at {self.path} were written from another dataset, in another "
                "order, or with another augmentation: the example with the key "
                f"{int(rows.keys[np.argmin(alike), 0])} is another one. Write these to another "
                "folder."
            )
        for name in self.record.names or ():
            field, ours = (np.asarray(x[name], "float64") for x in (stored, records))
            difference = np.abs(field - ours).max()
            # Another machine may round otherwise, but not by so much.
            if not name.endswith("/classes") and difference > 0.02 * np.abs(ours).max():
                raise ValueError(
                    f"The answers at {self.path} are of another teacher, or of one whose inputs "
                    f"are prepared in another way: its {name} differs by {difference:.3g}. Write "
                    "these to another folder."
                )

    def complete(self, is_chief: bool, on_wait: Callable) -> None:
        """Writes the manifest of all shards, after those of other workers.

        Args:
            is_chief: Whether this worker writes it; others wait until it is there.
            on_wait: Called with the number of shards that other workers have still to write, if
                there are any.
        """
        missing = self.missing()
        if missing:
            on_wait(len(missing))
        while self.missing():
            time.sleep(0.2)
        if is_chief:
            entries = self.entries()
            shards = [entries[number] for number in range(self.count)]
            write_json(manifest_path(self.path), {**self.settings, "shards": shards})
            tidy_up(self.path)
        while read_manifest(self.path)["shards"] is None:
            time.sleep(0.2)


def _entry(file):
    try:
        return read_json(entry_path(file))
    except FileNotFoundError:
        return None


def _difference(name):
    """What differs where a setting does, for messages."""
    if name in ("examples", "inputs"):
        return "from another dataset"
    if name in ("layout", "output_names"):
        return "by a teacher with other outputs"
    return "with other settings"
