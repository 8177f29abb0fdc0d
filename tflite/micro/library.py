"""The kit as a library for ESP-IDF, PlatformIO, Arduino and Zephyr: one folder, and its archive."""

import io
import zipfile
from collections.abc import Mapping

from keras_distill.tflite.micro import sources

#: The files that describe the library to each build system, and the templates that they are from.
_DESCRIPTIONS = {
    "README.md": "library_README.md",
    "library.json": "library.json",
    "library.properties": "library.properties",
    "idf_component.yml": "idf_component.yml",
    "CMakeLists.txt": "idf_CMakeLists.txt",
    "zephyr/module.yml": "zephyr_module.yml",
    "zephyr/CMakeLists.txt": "zephyr_CMakeLists.txt",
    "zephyr/Kconfig": "zephyr_Kconfig",
}


def files(
    name: str, compiled: Mapping[str, str], examples: Mapping[str, str], sentence: str
) -> dict[str, str | bytes]:
    """Files of the library, by path relative to the kit.

    Args:
        name: What the library is called, safe for C++.
        compiled: Sources to compile, by name.
        examples: Programs by path: sketches for Arduino, and others.
        sentence: What the library is.
    """
    values = {"NAME": name, "GUARD": name.upper(), "SENTENCE": sentence}
    folder = {path: sources.filled(template, values) for path, template in _DESCRIPTIONS.items()}
    # Arduino and PlatformIO know C++ by this ending above all.
    folder |= {f"src/{path.replace('.cc', '.cpp')}": text for path, text in compiled.items()}
    folder |= {f"examples/{path}": text for path, text in examples.items()}
    return {
        **{f"library/{name}/{path}": text for path, text in folder.items()},
        f"library/{name}.zip": _archive(name, folder),
    }


def _archive(name, folder):
    """The folder as Arduino's library manager takes it. A fixed time keeps the bytes the same."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in folder.items():
            info = zipfile.ZipInfo(f"{name}/{path}", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, text)
    return packed.getvalue()
