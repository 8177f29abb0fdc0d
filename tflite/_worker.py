"""The child process for what can bring its process down: converters, and files not yet run.

Started by path, so that nothing is imported but what a request needs. Each line of standard input
names a folder with `request.json`; the answer is one line, and `model.tflite` or `error.txt` beside
the request.
"""

import json
import os
import pathlib
import sys
import traceback


def convert_saved_model(folder, request):
    """TensorFlow's converter, with its own post-training quantization."""
    import numpy as np
    import tensorflow as tf

    quantization = request["quantization"]
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "saved_model"), signature_keys=["serving_default"]
    )
    builtins = tf.lite.OpsSet.TFLITE_BUILTINS
    if quantization != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":
        builtins = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
    if quantization == "int16x8":
        builtins = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [builtins]
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
    return converter.convert()


def quantize_file(folder, request):
    """ai-edge-quantizer on a float32 file, with given ranges of activations."""
    import numpy as np
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    recipe = recipe_manager.RecipeManager()
    names = qtyping.TFLOperationName
    for pattern, operator, weights, activations in request["recipe"]:
        operators = [names(operator)] if operator else [names.ALL_SUPPORTED]
        for name in operators:
            if weights is None:
                recipe.add_quantization_config(pattern, name, algorithm_key="no_quantize")
            else:
                recipe.add_static_config(
                    pattern, name, weight_num_bits=weights, activation_num_bits=activations
                )
    with np.load(folder / "ranges.npz") as stored:
        ranges = {name: {"min": stored[name][0], "max": stored[name][1]} for name in stored.files}
    tool = quantizer.Quantizer(str(folder / "float32.tflite"), recipe.get_quantization_recipe())
    return bytes(tool.quantize(ranges, enable_progress_report=False).quantized_model)


def run_file(folder, request):
    """One inference on zeros. Gives nothing: that it ends is the answer."""
    import numpy as np

    tflite = (folder / "file.tflite").read_bytes()
    if request["runtime"] == "micro":
        from tflite_micro.python.tflite_micro import runtime

        interpreter = runtime.Interpreter.from_bytes(tflite, arena_size=request["arena"])
    else:
        from ai_edge_litert import interpreter as litert

        kinds = litert.OpResolverType
        kind = kinds.BUILTIN_REF if request["runtime"] == "litert-reference" else kinds.AUTO
        interpreter = litert.Interpreter(model_content=tflite, experimental_op_resolver_type=kind)
        interpreter.allocate_tensors()
        for port in interpreter.get_input_details():
            interpreter.set_tensor(port["index"], np.zeros(port["shape"], port["dtype"]))
    interpreter.invoke()
    return b""


WORK = {"convert": convert_saved_model, "quantize": quantize_file, "run": run_file}


def main():
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
