"""A student to a TFLite file for a target."""

import importlib.metadata
import importlib.util
import pathlib
import tempfile

import keras
from keras_distill.tflite import artifact, flatbuffer, graph, runtimes, samples, targets, worker
from keras_distill.tflite.inspect import inspect

_FLOAT = ("float32", "float16", "dynamic")


def convert(
    student,
    target="android",
    quantization="float32",
    *,
    io=None,
    calibration=None,
    calibration_samples=500,
    preprocessing=None,
    postprocessing=None,
    labels=None,
    batch_size=1,
    input_signature=None,
):
    """Converts a student to a TFLite file for a target.

    The converter runs in a child process. The file is then run once in the target's own runtime
    on this host; `Artifact.verify` proves its outputs.

    Args:
        student: A built Keras model; one made for quantization-aware training keeps the ranges
            and weights that it was trained with.
        target: `"android"`, `"micro"` or an Ethos-U such as `"ethos-u55-128"`.
        quantization: `"float32"`, `"float16"` (weights stored in half), `"dynamic"` (int8 weights,
            float activations), `"int8"`, `"int16x8"` (int16 activations, int8 weights) or
            `"int4"` (int4 weights, int8 activations).
        io: Type of the file's inputs and outputs, or a pair (inputs, outputs): `"float32"`,
            `"int8"`, `"uint8"`, `"int16"`. Defaults to that of the activations for
            microcontrollers and to `"float32"` for phones. Integer inputs of the student, such as
            token ids, and integer outputs keep their type.
        calibration: Inputs like those the file will meet, by which the ranges of activations are
            set: arrays, a `tf.data.Dataset` or an iterable. Needed for int8, int16x8 and int4.
        calibration_samples: How many of them to use at most.
        preprocessing: Keras layer or function from the file's input to the student's, to be part
            of the file, such as `keras.layers.Rescaling(1 / 255)`. Calibration data and all other
            inputs of the artefact are then those of the file.
        postprocessing: `"softmax"`, `"sigmoid"`, `"argmax"`, or a Keras layer or function on
            every output, to be part of the file.
        labels: Names of the classes.
        batch_size: Static batch size, or `None` for a dynamic one (phones only).
        input_signature: `keras.InputSpec`s with a batch axis, for models whose inputs aren't
            known or not fixed in size.

    Returns:
        An `Artifact`.

    Raises:
        TypeError: `student` is not a Keras model.
        ValueError: An argument is wrong, or the target can't run what is asked for.
        ConverterError: The converter refused the model, or crashed.

    Example:

    >>> artifact = keras_distill.tflite.convert(
    ...     student, target="micro", quantization="int8", calibration=x_train[:200])
    >>> artifact.verify(x_test, y_test)
    >>> artifact.save("firmware")
    """
    target = targets.get(target)
    io = _check(student, target, quantization, io, calibration, calibration_samples, batch_size)
    quantize_aware = _is_quantize_aware(student)
    model = _export_form(student) if quantize_aware else student
    inputs = graph.inputs_of(model, input_signature)
    wrapped = graph.Wrapped(
        model,
        inputs,
        preprocessing=preprocessing,
        postprocessing=_postprocessing(postprocessing),
        casts=_casts(inputs, io, quantization),
    )
    arrays = None
    if calibration is not None:
        arrays, _ = samples.read(
            calibration,
            {i.name: i.shape for i in inputs},
            calibration_samples,
            argument="calibration",
        )
        arrays = {i.name: arrays[i.name].astype(wrapped.dtype(i)) for i in inputs}
    with tempfile.TemporaryDirectory() as folder:
        outputs = graph.save(wrapped, pathlib.Path(folder, "saved_model"), batch_size)
        tflite = worker.run(
            folder,
            arrays if quantization not in _FLOAT else None,
            quantization=quantization,
            io=io,
            batch_size=batch_size,
        )
    if quantize_aware:
        _check_export(student, tflite)
    named = flatbuffer.ordered(tflite, [i.name for i in inputs], outputs)
    refused = targets.refusals(inspect(named), target.name)
    if refused:
        raise ValueError(
            f"Target {target.name!r} can't run model {student.name!r} as {quantization}: "
            f"{'; '.join(refused)}."
        )
    tflite = flatbuffer.stripped(named) if target.runtime == "micro" else named
    found = inspect(tflite)
    ports = artifact.ports(runtimes.LiteRT(named))
    report = {
        "quantization": quantization,
        "io": list(io),
        **artifact.describe(found, *ports, target.name),
        "calibration_samples": len(next(iter(arrays.values()))) if arrays else 0,
        "labels": None if labels is None else [str(label) for label in labels],
        "bytes_saved_by_stripping_names": len(named) - len(tflite),
        "versions": {p: importlib.metadata.version(p) for p in ("tensorflow", "keras")},
    }
    result = artifact.Artifact(
        tflite, target.name, report, inputs=ports[0], outputs=ports[1],
        student=wrapped, labels=report["labels"], named=named,
    )  # fmt: skip
    if target.runtime == "micro" and runtimes.micro_available():
        result.report["arena"] = runtimes.TFLiteMicro(tflite).arena
    return result


def _check(student, target, quantization, io, calibration, count, batch_size):
    """Refuses wrong arguments before any work. Returns `io` as a pair."""
    if not isinstance(student, keras.Model):
        raise TypeError(
            f"`student` must be a Keras model (`keras.Model`). Received: {type(student).__name__}"
        )
    if quantization not in targets.QUANTIZATIONS:
        raise ValueError(
            f"`quantization` must be one of {list(targets.QUANTIZATIONS)}."
            f"{targets.suggestion(quantization, targets.QUANTIZATIONS)} "
            f"Received: quantization={quantization!r}"
        )
    if quantization in target.refused:
        runs = [q for q in targets.QUANTIZATIONS if q not in target.refused]
        raise ValueError(
            f"Target {target.name!r} can't run quantization={quantization!r}: "
            f"{target.refused[quantization]}. Use one of {runs}."
        )
    if quantization not in _FLOAT and calibration is None:
        raise ValueError(
            f"`calibration` is needed for quantization={quantization!r}: give some hundred inputs "
            "like those the file will meet, for example `calibration=x_train[:500]`."
        )
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"`calibration_samples` must be an integer of at least 1. Received: {count!r}"
        )
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(
            f"`batch_size` must be an integer of at least 1, or `None`. Received: {batch_size!r}"
        )
    if batch_size is None and target.runtime == "micro":
        raise ValueError(f"Target {target.name!r} needs static shapes: give `batch_size=1`.")
    return _check_io(target, quantization, io)


def _check_io(target, quantization, io):
    if io is None:
        own = {"int8": "int8", "int4": "int8", "int16x8": "int16"}.get(quantization, "float32")
        io = own if target.runtime == "micro" else "float32"
    pair = (io, io) if isinstance(io, str) else tuple(io)
    choices = {
        "int8": ("int8", "uint8", "float32"),
        "int4": ("int8", "float32"),
        "int16x8": ("int16", "float32"),
    }.get(quantization, ("float32", "uint8"))
    if len(pair) != 2 or any(x not in choices for x in pair):
        raise ValueError(
            f"`io` must be one of {list(choices)} for quantization={quantization!r}, or a pair of "
            f"them (inputs, outputs). Received: io={io!r}"
        )
    # Without quantized activations there is no scale by which outputs could be bytes.
    return (pair[0], "float32") if quantization in _FLOAT else pair


def _casts(inputs, io, quantization):
    """Dtypes of the file's inputs where a float student is fed raw bytes."""
    if quantization in _FLOAT and io[0] == "uint8":
        return {i.name: "uint8" for i in inputs if i.dtype == "float32"}
    return {}


def _postprocessing(name):
    known = {
        "softmax": keras.ops.softmax,
        "sigmoid": keras.ops.sigmoid,
        "argmax": lambda x: keras.ops.cast(keras.ops.argmax(x, axis=-1), "int32"),
    }
    if isinstance(name, str) and name not in known:
        raise ValueError(
            f"`postprocessing` must be one of {list(known)}, or a Keras layer or function. "
            f"Received: postprocessing={name!r}"
        )
    return known[name] if isinstance(name, str) else name


def _is_quantize_aware(student):
    if importlib.util.find_spec("keras_distill.quantization") is None:
        return False
    from keras_distill import quantization

    return quantization.is_quantize_aware(student)


def _export_form(student):
    from keras_distill import quantization

    return quantization.export_form(student)


def _check_export(student, tflite):
    from keras_distill import quantization

    quantization.check_export(student, tflite)
