"""The kit for apps: metadata, labels, Kotlin, variants, the sample app."""

import io
import json
import re
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
import zoo
from ai_edge_litert.tools import flatbuffer_utils
from flatbuffers import number_types
from keras_distill.tflite import android, names

from keras_distill import tflite

LABELS = ('a"b', "c\\d", "$x{y}", "é", "4", "5", "6", "7", "8", "line\nbreak")


@pytest.fixture(scope="module")
def kit(converted, tmp_path_factory):
    """The kit of the float16 student beside its int8 variant."""
    artifact = converted("android", "float16", labels=LABELS)
    folder = artifact.save(
        tmp_path_factory.mktemp("kit"),
        name="my digits",
        package="org.example.digits",
        description="Reads digits */ of 8 x 8 pixels.",
        normalization=(0.0, 16.0),
        variants=[converted("android", "int8", labels=LABELS)],
    )
    return artifact, folder


def test_kit_has_what_an_app_needs(kit):
    _, folder = kit
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    models = {"my_digits.tflite", "my_digits_int8.tflite"}
    kotlin = {"MyDigits.kt", "Session.kt", "Placement.kt", "Inputs.kt"}
    own = models | kotlin | {"labels.txt", "dependencies.gradle.kts"}
    main, library = "app/app/src/main", "app/student/src"
    assets = {f"{library}/main/assets/{f}" for f in models | {"labels.txt"}}
    assets |= {f"{main}/assets/test_vectors.json"}
    sources = {f"{library}/main/kotlin/{f}" for f in kotlin} | {f"{main}/kotlin/MainActivity.kt"}
    tests = ("InputsTest.kt", "PlacementTest.kt", "StudentTest.kt")
    sources |= {f"{library}/test/kotlin/{f}" for f in tests}
    project = {
        "app/settings.gradle.kts", "app/build.gradle.kts", "app/gradle.properties",
        "app/README.md", "app/app/build.gradle.kts", f"{main}/AndroidManifest.xml",
        f"{main}/res/values/strings.xml", "app/student/build.gradle.kts",
        "app/student/consumer-rules.pro", f"{library}/main/AndroidManifest.xml",
    }  # fmt: skip
    assert files == own | assets | sources | project | {"report.json", "report.md"}
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".kt", ".kts", ".xml", ".md", ".pro"):
            assert not re.search("@[A-Z_]+@", path.read_text()), path


def test_project_asks_for_what_litert_asks_for(kit):
    """The manifest merger refuses less than API 24; the GPU has a library of its own."""
    _, folder = kit
    for path in ("app/app/build.gradle.kts", "app/student/build.gradle.kts"):
        assert "minSdk = 24" in (folder / path).read_text()
    for path in ("app/student/build.gradle.kts", "dependencies.gradle.kts"):
        text = (folder / path).read_text()
        assert "minSdk = 24" in text
        assert 'com.google.ai.edge.litert:litert:2.3.0"' in text
        assert 'com.google.ai.edge.litert:litert-gpu:2.3.0"' in text
    library = (folder / "app/student/build.gradle.kts").read_text()
    assert 'id("com.android.library")' in library
    assert 'consumerProguardFiles("consumer-rules.pro")' in library
    assert 'include(":app", ":student")' in (folder / "app/settings.gradle.kts").read_text()
    # Two modules of one namespace don't merge.
    assert 'namespace = "org.example.digits"' in library
    assert (
        'namespace = "org.example.digits.sample"'
        in (folder / "app/app/build.gradle.kts").read_text()
    )


def test_variants_run_as_before(kit, converted, split):
    artifact, folder = kit
    x = split[1][0][:20]
    for name, one in (("my_digits", artifact), ("my_digits_int8", converted("android", "int8"))):
        loaded = tflite.load(folder / f"{name}.tflite")
        np.testing.assert_array_equal(loaded.predict(x), one.predict(x))
        assert loaded.report["inputs"][0]["name"] == "image"


def test_file_runs_in_the_compiled_model_api_by_signature(kit, split):
    from ai_edge_litert.compiled_model import CompiledModel

    artifact, folder = kit
    model = CompiledModel.from_file(str(folder / "my_digits.tflite"))
    x = split[1][0][:1]
    given = {"image": model.create_input_buffer_by_name("serving_default", "image")}
    got = {"logits": model.create_output_buffer_by_name("serving_default", "logits")}
    given["image"].write(x)
    model.run_by_name("serving_default", given, got)
    np.testing.assert_allclose(
        got["logits"].read(10, np.float32), artifact.predict(x)[0], atol=1e-2
    )


def test_labels_are_packed_behind_the_file(kit):
    _, folder = kit
    with zipfile.ZipFile(io.BytesIO((folder / "my_digits.tflite").read_bytes())) as archive:
        packed = archive.read("labels.txt").decode()
    lines = packed.splitlines()
    assert lines == [*LABELS[:9], "line break"]
    assert (folder / "labels.txt").read_text() == packed


class Table:
    """A flatbuffer table read by the field numbers of `metadata_schema.fbs`."""

    def __init__(self, data, position):
        self._table = flatbuffers.table.Table(data, position)

    @classmethod
    def root(cls, data):
        return cls(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))

    def _offset(self, field):
        offset = self._table.Offset(4 + 2 * field)
        assert offset, f"field {field} is missing"
        return offset + self._table.Pos

    def text(self, field):
        return self._table.String(self._offset(field)).decode()

    def table(self, field):
        return Table(self._table.Bytes, self._table.Indirect(self._offset(field)))

    def number(self, field, kind):
        return self._table.Get(kind, self._offset(field))

    def tables(self, field):
        offset = self._table.Offset(4 + 2 * field)
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return [Table(self._table.Bytes, self._table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, field):
        offset = self._table.Offset(4 + 2 * field)
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        kind = number_types.Float32Flags
        return [self._table.Get(kind, start + 4 * i) for i in range(count)]


def test_metadata_follow_the_schema(kit):
    _, folder = kit
    model = flatbuffer_utils.read_model(str(folder / "my_digits.tflite"))
    [entry] = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    data = bytes(model.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    root = Table.root(bytearray(data))
    assert root.text(0) == "my_digits"
    assert root.text(1) == "Reads digits */ of 8 x 8 pixels."
    [graph] = root.tables(3)
    [given], [result] = graph.tables(2), graph.tables(3)
    assert given.text(0) == "image"
    content = given.table(3)
    assert content.number(0, number_types.Uint8Flags) == 2  # ImageProperties
    assert content.table(1).number(0, number_types.Int8Flags) == 2  # GRAYSCALE
    size = content.table(1).table(1)
    assert [size.number(i, number_types.Uint32Flags) for i in (0, 1)] == [8, 8]
    [unit] = given.tables(4)
    assert unit.number(0, number_types.Uint8Flags) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [16.0])
    assert result.text(0) == "logits"
    [file] = result.tables(6)
    assert file.text(0) == "labels.txt"
    assert file.number(2, number_types.Int8Flags) == 2  # TENSOR_AXIS_LABELS


def test_vectors_hold_what_the_file_gives(kit):
    artifact, folder = kit
    vectors = json.loads((folder / "app/app/src/main/assets/test_vectors.json").read_text())
    assert vectors["count"] == 5
    # What the class is given, which divides it by 16.
    x = np.array(vectors["inputs"]["image"], "float32").reshape(5, 8, 8, 1) / 16
    wanted = np.array(vectors["outputs"]["logits"], "float32")
    np.testing.assert_allclose(artifact.predict(x), wanted, atol=1e-5)


def test_kotlin_names_tensors_normalization_and_labels(kit):
    _, folder = kit
    source = (folder / "MyDigits.kt").read_text()
    assert "package org.example.digits" in source
    assert "class MyDigits(" in source
    assert "fun run(image: FloatArray): Result" in source
    assert "FloatArray(64) { (image[it] - 0f) / 16f }" in source
    assert r'"a\u0022b", "c\u005Cd", "\u0024x{y}", "\u00E9"' in source
    assert 'Accelerator.GPU -> "my_digits.tflite"' in source
    assert 'Accelerator.NPU -> "my_digits_int8.tflite"' in source
    assert "Reads digits * / of 8 x 8 pixels." in source


def test_state_is_not_normalized(tmp_path):
    artifact = tflite.convert(zoo.gru(), recurrent="step")
    folder = artifact.save(tmp_path / "kit", normalization=(1.0, 16.0))
    source = (folder / "Student.kt").read_text()
    assert 'getValue("window").writeFloat(FloatArray(3) { (window[it] - 1f) / 16f })' in source
    assert 'getValue("memory_state").writeFloat(memory_state)' in source
    vectors = json.loads((folder / "app/app/src/main/assets/test_vectors.json").read_text())
    given, _ = artifact.example_values()
    np.testing.assert_allclose(vectors["inputs"]["memory_state"], given["memory_state"], atol=1e-6)
    x = np.array(vectors["inputs"]["window"]).reshape(given["window"].shape)
    np.testing.assert_allclose((x - 1) / 16, given["window"], atol=1e-6)
    model = flatbuffer_utils.read_model(str(folder / "student.tflite"))
    [entry] = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    root = Table.root(bytearray(bytes(model.buffers[entry.buffer].data)))
    window, state = root.tables(3)[0].tables(2)
    assert window.tables(4)[0].table(1).floats(1) == [16.0]
    with pytest.raises(AssertionError, match="field 4 is missing"):
        state.table(4)


def test_tensors_called_like_members_of_the_class(tmp_path):
    given = [keras.Input((2,), name=name) for name in ("inputs", "model", "it")]
    model = keras.Model(given, keras.layers.Add(name="outputs")(given))
    folder = tflite.convert(model).save(tmp_path / "kit", normalization=(0, 2))
    source = (folder / "Student.kt").read_text()
    assert "fun run(inputs_: FloatArray, model_: FloatArray, it_: FloatArray): Result" in source
    assert "class Result(val outputs_: FloatArray)" in source
    assert "FloatArray(2) { (it_[it] - 0f) / 2f }" in source
    assert 'inputs.getValue("inputs")' in source
    assert '"outputs" to result.outputs_' in source


class TestBadInput:
    def test_variant_of_other_types(self, converted, tmp_path):
        with pytest.raises(ValueError, match="Variants must have the same inputs and outputs"):
            converted("android", "float32").save(
                tmp_path / "kit", variants=[converted("android", "int8", io="int8")]
            )
        assert not (tmp_path / "kit").exists()

    def test_variant_of_the_same_quantization(self, converted, tmp_path):
        one = converted("android", "int8")
        with pytest.raises(ValueError, match="differ in their quantization"):
            one.save(tmp_path / "kit", variants=[one])

    def test_variant_of_a_loaded_file(self, converted, tmp_path):
        one = converted("android", "int8")
        for kit, other in ((tflite.load(one.tflite), one), (one, tflite.load(one.tflite))):
            with pytest.raises(ValueError, match="give artifacts that `convert` made"):
                kit.save(tmp_path / "kit", variants=[other])

    @pytest.mark.parametrize("package", ["app", "org.example.in"])
    def test_package(self, package, converted, tmp_path):
        with pytest.raises(ValueError, match=f"a Kotlin package .* Received: package='{package}'"):
            converted("android", "int8").save(tmp_path / "kit", package=package)

    def test_labels_of_another_count(self, student):
        with pytest.raises(ValueError, match="`labels` has 2 names for the 10 classes"):
            tflite.convert(student, labels=["a", "b"])

    def test_npu_without_sdk(self, converted):
        with pytest.raises(ValueError, match="`vendor` must be one of"):
            android.compile_for_npu(converted("android", "int8"), "acme", "X1")
        with pytest.raises(ValueError, match="`soc` must be one of"):
            android.compile_for_npu(converted("android", "int8"), "qualcomm", "X1")

    @pytest.mark.parametrize(
        ("vendor", "soc", "package"),
        [
            ("qualcomm", "SM8750", "ai-edge-litert-sdk-qualcomm"),
            ("mediatek", "MT6991", "ai-edge-litert-sdk-mediatek"),
            ("google_tensor", "Tensor_G5", "ai-edge-litert-sdk-google-tensor"),
            ("samsung", "E9965", "ai-edge-litert-sdk-samsung-nightly"),
            ("intel_openvino", "PTL", "ai-edge-litert-sdk-intel"),
        ],
    )
    def test_npu_of_every_vendor_names_its_sdk(self, converted, vendor, soc, package):
        with pytest.raises(ValueError, match=f"not compiled for {soc}: .*pip install {package}`"):
            android.compile_for_npu(converted("android", "int8"), vendor, soc)


def test_identifiers_are_safe_in_kotlin():
    assert names.kotlin_identifier("object") == "`object`"
    assert names.kotlin_identifier("image") == "image"
    assert names.kotlin_string("\U0001f600") == r'"\uD83D\uDE00"'
    assert names.camel_case("3d scan") == "X3dScan"


def test_fused_lstms_that_the_app_would_not_load(tmp_path):
    """LiteRT's `CompiledModel` says so itself; in single steps, and with a GRU, it loads them."""
    from ai_edge_litert.compiled_model import CompiledModel

    def loads(artifact):
        (tmp_path / "file.tflite").write_bytes(artifact.tflite)
        try:
            CompiledModel.from_file(str(tmp_path / "file.tflite"))
        except RuntimeError:
            return False
        return True

    inputs = keras.Input((4, 3))
    lstm = keras.Model(inputs, keras.layers.LSTM(2, return_sequences=True)(inputs))
    fused, step = tflite.convert(lstm), tflite.convert(lstm, recurrent="step")
    assert (loads(fused), loads(step)) == (False, True)
    with pytest.warns(UserWarning, match="Student.kt .* load student.tflite: .*recurrent='step'"):
        fused.save(tmp_path / "fused")
    step.save(tmp_path / "step")  # Without a warning.


@pytest.mark.parametrize("wrong", [(0, 0), 5, (float("nan"), 1), ("a", 1), (1, 2, 3)])
def test_normalization_that_is_none(converted, tmp_path, wrong):
    with pytest.raises(ValueError, match="`normalization` must be"):
        converted("android", "int8").save(tmp_path / "kit", normalization=wrong)
    with pytest.raises(ValueError, match="`package` must be.*package=None"):
        converted("android", "int8").save(tmp_path / "kit", package=None)
    assert not (tmp_path / "kit").exists()
