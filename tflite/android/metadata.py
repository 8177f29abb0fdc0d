"""TFLite metadata: what a file's inputs and outputs mean, for apps to read.

Tables and field numbers are those of the public schema, `metadata_schema.fbs`, version 1.4.
"""

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence

import flatbuffers
from keras_distill.tflite import flatbuffer

_BUFFER = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_IMAGE_PROPERTIES = 2
_FEATURE_PROPERTIES = 1
_NORMALIZATION_OPTIONS = 1
_RGB, _GRAYSCALE = 1, 2
_TENSOR_AXIS_LABELS = 2


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What an app is told of an input or output.

    Attributes:
        name: Name.
        description: What it means.
        shape: Shape, batch axis first.
        normalization: `(mean, std)` of an input: the file takes `(value - mean) / std`. `None`
            for state and for outputs.
        labels: Name of the file of labels of an output, or `None`.
    """

    name: str
    description: str
    shape: tuple[int, ...]
    normalization: tuple[float, float] | None = None
    labels: str | None = None


def with_metadata(
    tflite: bytes,
    name: str,
    description: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    files: Mapping[str, str],
) -> bytes:
    """A file with metadata, and with further files packed after it.

    Args:
        tflite: The file.
        name: Name of the model.
        description: What it does.
        inputs: `TensorInfo`s.
        outputs: `TensorInfo`s.
        files: Contents of the packed files (labels) by name.
    """
    file = flatbuffer.File(tflite)
    file.add_metadata(_BUFFER, model_metadata(name, description, inputs, outputs))
    file.model.description = description
    packed = io.BytesIO(file.to_bytes())
    if files:
        with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
            for path, text in files.items():
                # A fixed time keeps the bytes the same from run to run.
                archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), text)
    return packed.getvalue()


def model_metadata(
    name: str,
    description: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
) -> bytes:
    """The flatbuffer `ModelMetadata`."""
    builder = _Builder()
    given = [builder.tensor(info) for info in inputs]
    results = [builder.tensor(info) for info in outputs]
    graph = builder.table({2: builder.vector(given), 3: builder.vector(results)}, 10)
    root = builder.table(
        {
            0: builder.string(name),
            1: builder.string(description),
            3: builder.vector([graph]),
            7: builder.string("1.0.0"),
        },
        8,
    )
    return builder.finished(root)


class _Builder:
    """Tables of the metadata schema, by field number."""

    def __init__(self):
        self._builder = flatbuffers.Builder(1024)

    def finished(self, root):
        self._builder.Finish(root, file_identifier=_IDENTIFIER)
        return bytes(self._builder.Output())

    def string(self, text):
        return self._builder.CreateString(text)

    def vector(self, offsets):
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def floats(self, values):
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return self._builder.EndVector()

    def table(self, offsets, fields, *, enums=None, numbers=None):
        """A table of offsets (tables, vectors, strings), enums (bytes) and unsigned integers."""
        self._builder.StartObject(fields)
        for field, offset in offsets.items():
            self._builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, value in (numbers or {}).items():
            self._builder.PrependUint32Slot(field, value, 0)
        for field, value in (enums or {}).items():
            self._builder.PrependInt8Slot(field, value, 0)
        return self._builder.EndObject()

    def tensor(self, info):
        """A `TensorMetadata`."""
        fields = {0: self.string(info.name), 1: self.string(info.description)}
        fields[3] = self._content(info)
        if info.normalization is not None:
            mean, std = info.normalization
            options = self.table({0: self.floats([mean]), 1: self.floats([std])}, 2)
            unit = self.table({1: options}, 2, enums={0: _NORMALIZATION_OPTIONS})
            fields[4] = self.vector([unit])
        if info.labels is not None:
            file = self.table(
                {0: self.string(info.labels), 1: self.string("Names of the classes.")},
                5,
                enums={2: _TENSOR_AXIS_LABELS},
            )
            fields[6] = self.vector([file])
        return self.table(fields, 7)

    def _content(self, info):
        """Image properties of an input that looks like an image, else feature properties."""
        if info.normalization is not None and len(info.shape) == 4 and info.shape[3] in (1, 3):
            size = self.table({}, 2, numbers={0: info.shape[2], 1: info.shape[1]})
            color = _RGB if info.shape[3] == 3 else _GRAYSCALE
            properties = self.table({1: size}, 2, enums={0: color})
            return self.table({1: properties}, 3, enums={0: _IMAGE_PROPERTIES})
        properties = self.table({}, 0)
        return self.table({1: properties}, 3, enums={0: _FEATURE_PROPERTIES})
