"""Files and folders that are written completely or not at all."""

import os
import pathlib
import tempfile
import threading
from collections.abc import Iterable, Mapping


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file completely or not at all, even if several processes or threads write it."""
    writer = f"{os.getpid()}.{threading.get_ident()}"
    partial = path.with_name(f"{path.name}.{writer}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def check_folder(folder: str | os.PathLike) -> pathlib.Path:
    """The path of a folder, which may not exist yet.

    Raises:
        ValueError: If the folder can't be created or written to.
    """
    folder = pathlib.Path(folder)
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise ValueError(f"`folder` can't be written: {folder}. {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"`folder` can't be written: {folder}. No permission to write to {existing}."
        )
    return folder


def write_folder(
    folder: str | os.PathLike, files: Mapping[str, str | bytes], stale: Iterable[str] = ()
) -> pathlib.Path:
    """Writes files into a folder, which is created if it doesn't exist: all of them or none.

    Args:
        folder: Path of the folder.
        files: Contents by path relative to the folder.
        stale: Files that an earlier call may have left there, which are removed.

    Returns:
        Path of the folder.

    Raises:
        ValueError: If the folder or one of the files can't be written.
    """
    folder = check_folder(folder)
    for name in files:
        check_folder((folder / name).parent)
        if (folder / name).is_dir():
            raise ValueError(f"`folder` can't be written: {folder}. {folder / name} is a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    # Inside the folder, which may be a mount point or have a read-only parent.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished.") as staging:
        for name, content in files.items():
            path = pathlib.Path(staging, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        for name in files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(pathlib.Path(staging, name), path)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
    return folder
