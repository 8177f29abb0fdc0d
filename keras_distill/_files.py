"""Files that are written whole or not at all."""

import os
import pathlib
import threading


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all, also where several processes or threads write it."""
    writer = f"{os.getpid()}.{threading.get_ident()}"
    partial = path.with_name(f"{path.name}.{writer}.partial")
    partial.write_text(text)
    os.replace(partial, path)
