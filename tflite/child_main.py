"""The child process for what can bring its process down: converters, and files not yet run.

Started by path, so that nothing is imported but what a request needs. Each line of standard input
names a folder with `request.json`; the answer is one line, and `model.tflite` or `error.txt` in
the same folder.
"""

import functools
import gc
import importlib.util
import json
import os
import pathlib
import sys
import traceback
from typing import Any


def _module(name: str) -> Any:
    """A module next to this file, without the package around it, which imports TensorFlow."""
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_litert = _module("_litert")


@functools.cache
def _tensorflow() -> Any:
    """TensorFlow, imported as fast as possible."""
    # TensorFlow would import them, which takes nearly as long as all else that it imports.
    sys.modules.update({"jax": None, "keras": None, "sklearn": None})  # type: ignore[dict-item]
    import tensorflow

    # The converter looks for garbage each time: what was imported is none.
    gc.freeze()
    return tensorflow


def convert_saved_model(folder: pathlib.Path, request: dict) -> bytes:
    """TensorFlow's converter, with its own post-training quantization."""
    tf = _tensorflow()
    with _litert.loading_once(), _litert.calibrated_files() as calibrated:
        tflite = _converter(tf, folder, request).convert()
    for file in calibrated:
        (folder / "calibrated.tflite").write_bytes(file)
    return tflite


def _converter(tf: Any, folder: pathlib.Path, request: dict) -> Any:
    """TensorFlow's converter, set up for a request."""
    import numpy as np

    quantization = request["quantization"]
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "saved_model"), signature_keys=["serving_default"]
    )
    if quantization != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    converter.target_spec.supported_ops = [_litert.operator_set(quantization)]
    if request.get("dense_per_tensor"):
        _litert.quantize_dense_per_tensor(converter)
    if (folder / "calibration.npz").exists():
        with np.load(folder / "calibration.npz") as stored:
            arrays = {name: stored[name] for name in stored.files}
        batch = request["batch_size"] or 1
        count = len(next(iter(arrays.values()))) // batch

        def representative_dataset():
            for i in range(count):
                yield {n: a[i * batch : (i + 1) * batch] for n, a in arrays.items()}

        converter.representative_dataset = representative_dataset
    if quantization in ("int8", "int16x8"):
        converter.inference_input_type = tf.dtypes.as_dtype(request["io"][0])
        converter.inference_output_type = tf.dtypes.as_dtype(request["io"][1])
    return converter


def quantize_file(folder: pathlib.Path, request: dict) -> bytes:
    """ai-edge-quantizer on a float32 file, with given ranges of activations."""
    import numpy as np
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    recipe = recipe_manager.RecipeManager()
    names = qtyping.TFLOperationName
    for pattern, operator, weights, activations, one_scale in request["recipe"]:
        name = names(operator) if operator else names.ALL_SUPPORTED
        if weights is None:
            recipe.add_quantization_config(pattern, name, algorithm_key="no_quantize")
        else:
            scales = qtyping.QuantGranularity
            recipe.add_static_config(
                pattern,
                name,
                weight_num_bits=weights,
                activation_num_bits=activations,
                weight_granularity=scales.TENSORWISE if one_scale else scales.CHANNELWISE,
            )
    with np.load(folder / "ranges.npz") as stored:
        ranges = {name: {"min": stored[name][0], "max": stored[name][1]} for name in stored.files}
    tool = quantizer.Quantizer(str(folder / "float32.tflite"), recipe.get_quantization_recipe())
    return bytes(tool.quantize(ranges, enable_progress_report=False).quantized_model)


def run_file(folder: pathlib.Path, request: dict) -> bytes:
    """One inference on zeros. Returns nothing: the answer is that it ends."""
    tflite = (folder / "file.tflite").read_bytes()
    _litert.run_on_zeros(tflite, request["runtime"], request.get("arena", 0))
    return b""


WORK = {"convert": convert_saved_model, "quantize": quantize_file, "run": run_file}


def main() -> None:
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        folder = pathlib.Path(line.rstrip("\n"))
        try:
            request = json.loads((folder / "request.json").read_text())
            (folder / "model.tflite").write_bytes(WORK[request["work"]](folder, request))
        except Exception as error:
            message = "".join(traceback.format_exception_only(error))
            (folder / "error.txt").write_text(message)
        answers.write("done\n")
        answers.flush()


if __name__ == "__main__":
    main()
