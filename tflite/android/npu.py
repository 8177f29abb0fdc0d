"""Files compiled ahead of time for the NPUs of phones, where a vendor's SDK is installed."""

import importlib
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_distill.tflite import names
from keras_distill.tflite.android import npu_modules

from keras_distill import _files

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact


#: Vendors that LiteRT compiles for, with the package of their SDK.
_VENDORS = {
    "qualcomm": "ai-edge-litert-sdk-qualcomm",
    "mediatek": "ai-edge-litert-sdk-mediatek",
    "google_tensor": "ai-edge-litert-sdk-google-tensor",
    "samsung": "ai-edge-litert-sdk-samsung-nightly",
    "intel_openvino": "ai-edge-litert-sdk-intel",
}

_GRADLE = """\
plugins {
    id("com.android.ai-pack")
}

aiPack {
    packName = "@NAME@"
    dynamicDelivery {
        deliveryType = "fast-follow"
    }
}
"""


def compile_for_npu(artifact: "Artifact", vendor: str, soc: str) -> bytes:
    """Compiles an artifact for a phone's NPU.

    Args:
        artifact: An `Artifact` for `"android"`, int8 or int16x8.
        vendor: `"qualcomm"`, `"mediatek"`, `"google_tensor"`, `"samsung"` or `"intel_openvino"`.
        soc: Name of the chip, such as `"SM8750"`.

    Returns:
        The compiled file.

    Raises:
        ValueError: Unknown vendor or chip, or the SDK isn't installed or refused the file.
    """
    [(_, compiled)] = _compiled(artifact, {vendor: [soc]}).models_with_backend
    return bytes(compiled.model_bytes)


def save_ai_pack(
    artifact: "Artifact",
    chips: Mapping[str, Sequence[str]],
    folder: str | os.PathLike,
    name: str = "student",
) -> pathlib.Path:
    """Compiles an artifact for the NPUs of several chips, as an AI pack.

    Google Play gives each phone the file for its chip, and phones with other chips the artifact's
    own. Not run on a phone: the layout is that of LiteRT's own exporter.

    Args:
        artifact: An `Artifact` for `"android"`, int8 or int16x8.
        chips: Names of phones' chips by vendor, as `compile_for_npu` takes them.
        folder: Folder to write to; made where it doesn't exist.
        name: Name of the pack and of the files in it; made safe for them.

    Returns:
        Path of the folder: `device_targeting_configuration.xml`, which tells chips apart, the
        Gradle module `<name>/` with a file for each chip, a feature module `npu_<vendor>/` with
        LiteRT's plugins for each vendor, and a README with the lines that the app's own Gradle
        files need.

    Raises:
        ValueError: Unknown vendor or chip, an SDK isn't installed or refused the file, or the
            folder can't be written. Nothing is left half-written.

    Example:

    >>> android.save_ai_pack(artifact, {"qualcomm": ["SM8650", "SM8750"]}, "ai_packs", "digits")
    """
    from ai_edge_litert.aot.ai_pack import export_lib
    from ai_edge_litert.aot.core import aot_types
    from ai_edge_litert.aot.vendors import fallback_backend

    _files.check_folder(folder)
    name = names.cpp_identifier(name)
    compiled = _compiled(artifact, chips)
    other = fallback_backend.FallbackBackend({"backend_id": "fallback"})
    compiled.models_with_backend.append((other, aot_types.Model.create_from_bytes(artifact.tflite)))
    with tempfile.TemporaryDirectory() as made:
        export_lib.export(compiled, made, name, name)
        root = pathlib.Path(made)
        targeting = (root / "device_targeting_configuration.xml").read_text("utf-8")
        files: dict[str, str | bytes] = {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }
    held = sum(path.endswith(".tflite") for path in files)
    if held != len(compiled.models_with_backend) or "intel_openvino" in chips:
        raise ValueError(
            "AI packs are for the chips of phones, not those of cars, tablets and PCs. "
            f"Leave these out. Received: chips={chips!r}"
        )
    files[f"{name}/build.gradle.kts"] = _GRADLE.replace("@NAME@", name)
    modules = npu_modules.files(targeting)
    files |= modules
    text = (pathlib.Path(__file__).parent / "templates" / "ai_pack_README.md").read_text("utf-8")
    for key, value in {"NAME": name, **npu_modules.lines(modules, "ai_packs")}.items():
        text = text.replace(f"@{key}@", value)
    files["README.md"] = text
    return _files.write_folder(folder, files)


def _compiled(artifact: "Artifact", chips: Mapping[str, Sequence[str]]) -> Any:
    """What LiteRT's compiler makes of an artifact, for every chip, in memory."""
    from ai_edge_litert.aot import aot_compile

    if artifact.target != "android":
        raise ValueError(
            'Only artifacts for "android" can be compiled for the NPU of a phone. '
            f"Received one for {artifact.target!r}."
        )
    if not isinstance(chips, Mapping) or any(isinstance(named, str) for named in chips.values()):
        raise ValueError(
            '`chips` must be lists of chips by vendor, such as {"qualcomm": ["SM8750"]}. '
            f"Received: chips={chips!r}"
        )
    targets = [_target(vendor, soc) for vendor, named in chips.items() for soc in named]
    if not targets:
        raise ValueError(f"`chips` must name at least one chip. Received: chips={chips!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "student.tflite")
        path.write_bytes(artifact.tflite)
        result = aot_compile.aot_compile(
            str(path), output_dir=folder, target=targets, keep_going=True
        )
        if result.failed_backends or len(result.models_with_backend) != len(targets):
            reasons = "; ".join(str(reason).rstrip(".") for _, reason in result.failed_backends)
            wanted = ", ".join(soc for named in chips.values() for soc in named)
            packages = " ".join(_VENDORS[vendor] for vendor in chips)
            raise ValueError(
                f"The file was not compiled for {wanted}: {reasons or 'no result'}. The vendor's "
                f"SDK must be installed: `pip install {packages}`."
            )
        for _, model in result.models_with_backend:
            if not model.in_memory:
                model.load()
        return result


def _target(vendor, soc):
    """A chip, as LiteRT's compiler knows it."""
    if vendor not in _VENDORS:
        raise ValueError(f"`vendor` must be one of {list(_VENDORS)}. Received: vendor={vendor!r}")
    module = importlib.import_module(f"ai_edge_litert.aot.vendors.{vendor}.target")
    chips = {chip.value: chip for chip in module.SocModel}
    if soc not in chips:
        raise ValueError(f"`soc` must be one of {sorted(chips)}. Received: soc={soc!r}")
    return module.Target(chips[soc])
