"""Files compiled ahead of time for the NPUs of phones, where a vendor's SDK is installed."""

import importlib
import pathlib
import tempfile
from typing import TYPE_CHECKING

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
    from ai_edge_litert.aot import aot_compile

    if artifact.target != "android":
        raise ValueError(
            'Only artifacts for "android" can be compiled for the NPU of a phone. '
            f"Received one for {artifact.target!r}."
        )
    if vendor not in _VENDORS:
        raise ValueError(f"`vendor` must be one of {list(_VENDORS)}. Received: vendor={vendor!r}")
    module = importlib.import_module(f"ai_edge_litert.aot.vendors.{vendor}.target")
    chips = {chip.value: chip for chip in module.SocModel}
    if soc not in chips:
        raise ValueError(f"`soc` must be one of {sorted(chips)}. Received: soc={soc!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "student.tflite")
        path.write_bytes(artifact.tflite)
        result = aot_compile.aot_compile(
            str(path), output_dir=folder, target=[module.Target(chips[soc])], keep_going=True
        )
        if result.failed_backends or not result.models_with_backend:
            reasons = "; ".join(str(reason) for _, reason in result.failed_backends)
            raise ValueError(
                f"The file was not compiled for {soc}: {reasons or 'no result'}. The vendor's SDK "
                f"must be installed: `pip install {_VENDORS[vendor]}`."
            )
        [(_, compiled)] = result.models_with_backend
        return bytes(compiled.model_bytes)
