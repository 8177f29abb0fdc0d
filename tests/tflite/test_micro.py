"""The kit for firmware, compiled and run."""

import hashlib
import importlib.metadata
import pathlib
import shutil
import subprocess

import cortex_m
import keras
import micro_stubs
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras_distill.tflite import _litert, budget, micro, names, targets

import keras_distill
from keras_distill import tflite

HERE = pathlib.Path(__file__).parent
STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
LABELS = ['a"b', "c\\d", "$é", "??/", "{@}", "5", "6", "7", "8", "line\nbreak"]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def kit(converted, tmp_path_factory):
    """The kit of the int8 student, with labels and a name that C++ reserves."""
    artifact = converted("micro", "int8", labels=tuple(LABELS))
    return artifact, artifact.save(tmp_path_factory.mktemp("kit"), name="class")


@pytest.fixture(scope="module")
def root():
    return cortex_m.root()


def library(root, kind):
    found = sorted(root.glob(f"gen/*{kind}*/lib/libtensorflow-microlite.a"))
    if not found:
        pytest.skip(f"{root} has no library for {kind}: build its target `microlite`")
    return str(found[0])


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kit_has_what_firmware_needs(kit):
    _, folder = kit
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    model = {f"class_student{end}" for end in (".h", "_model.h", "_model.cc")}
    vectors = {"class_student_test_vectors.h", "class_student_test_vectors.cc"}
    serving = {"class_student_serve.h", "serve_main.cc", "test_vectors.json"}
    serving |= {"class_student_profile.h", "profile_main.cc"}
    reports = {"class_student.tflite", "report.json", "report.md"}
    built = {"main.cc", "CMakeLists.txt", "Makefile", "README.md"}
    library = {f for f in files if f.startswith("library/class_student/")}
    assert "library/class_student/examples/class_student/class_student.ino" in library
    assert files == model | vectors | serving | reports | built | library | {
        "library/class_student.zip"
    }


def test_readme_names_every_file_and_where_they_come_from(kit):
    artifact, folder = kit
    readme = (folder / "README.md").read_text()
    named = {"library/class_student/"} | {
        p.name for p in folder.iterdir() if p.suffix not in ("", ".h")
    }
    assert all(f"`{name}`" in readme for name in named - {"README.md"})
    assert "@" not in readme
    digest = hashlib.sha256((folder / "class_student.tflite").read_bytes()).hexdigest()
    assert artifact.report["sha256"] == digest
    runtime = importlib.metadata.metadata("tflite-micro")
    versions = artifact.report["versions"]
    assert versions["tflite_micro"] == runtime["Version"]
    assert f"[{versions['tflite_micro_commit']}]" in runtime.get_payload()
    for text in (readme, (folder / "class_student_model.h").read_text()):
        assert digest in text
        assert f"keras_distill {keras_distill.__version__}, TensorFlow {tf.__version__}" in text
        assert f"TFLite Micro {runtime['Version']}" in text
        assert "https://github.com/tensorflow/tflite-micro" in text
    assert f"git checkout {versions['tflite_micro_commit']}" in readme
    for heading in ("CMake", "Arduino", "ESP-IDF"):
        assert heading in readme


def test_kit_of_a_loaded_file_says_what_ran_it(kit, tmp_path):
    loaded = tflite.load(kit[0].tflite, "micro")
    readme = (loaded.save(tmp_path) / "README.md").read_text()
    assert (
        f"Run in TFLite Micro as of commit {loaded.report['versions']['tflite_micro_commit']}"
        in (readme)
    )
    assert loaded.report["sha256"] == kit[0].report["sha256"]


@needs_compiler
def test_c_array_holds_the_bytes_of_the_file(kit, tmp_path):
    artifact, folder = kit
    (tmp_path / "dump.cc").write_text(
        '#include "class_student_model.h"\n#include <cstdint>\n#include <cstdio>\n'
        "int main() {\n"
        "  const auto address = reinterpret_cast<std::uintptr_t>(class_student::kModel);\n"
        "  if (address % 16) return 1;\n"
        "  std::fwrite(class_student::kModel, 1, class_student::kModelSize, stdout);\n}\n"
    )
    sources = [str(tmp_path / "dump.cc"), str(folder / "class_student_model.cc")]
    run(["g++", *STRICT, f"-I{folder}", *sources, "-o", str(tmp_path / "dump")])
    dumped = subprocess.run([str(tmp_path / "dump")], check=True, capture_output=True).stdout
    assert dumped == artifact.tflite == (folder / "class_student.tflite").read_bytes()


@needs_compiler
def test_header_holds_ports_labels_and_helpers(kit, tmp_path):
    """Compiled without TFLite Micro: a stand-in of the resolver counts the operators."""
    artifact, folder = kit
    micro_stubs.write(tmp_path)
    include = tmp_path / "tensorflow/lite/micro"
    methods = [micro.resolver_method(op) for op in artifact.report["operators"]]
    calls = "".join(f"  TfLiteStatus {m}() {{ ++added; return kTfLiteOk; }}\n" for m in methods)
    (include / "micro_mutable_op_resolver.h").write_text(
        "enum TfLiteStatus { kTfLiteOk, kTfLiteError };\n"
        "#define TF_LITE_ENSURE_STATUS(a) do { if ((a) != kTfLiteOk) return kTfLiteError; }"
        " while (0)\n"
        "namespace tflite { template <unsigned n> struct MicroMutableOpResolver {\n"
        f"  static constexpr unsigned size = n;\n  unsigned added = 0;\n{calls}}}; }}\n"
    )
    (tmp_path / "main.cc").write_text(
        '#include "class_student.h"\n#include <cstdio>\nusing namespace class_student;\n'
        "int main() {\n  Resolver resolver;\n"
        "  if (AddOperators(resolver) != kTfLiteOk || resolver.added != Resolver::size) return 1;\n"
        '  for (const char* label : kLabels) std::printf("%s%c", label, 0);\n'
        "  for (float x : {-1.0f, 0.0f, 0.3f, 0.5f, 1.0f, 9.0f})\n"
        '    std::printf("%d %.9g%c", Quantize<ImageInput>(x),\n'
        "                Dequantize<LogitsOutput>(Quantize<LogitsOutput>(x)), 0);\n}\n"
    )
    flags = [*STRICT, f"-I{folder}", f"-I{tmp_path}"]
    run(["g++", *flags, str(tmp_path / "main.cc"), "-o", str(tmp_path / "main")])
    printed = run([str(tmp_path / "main")]).split("\0")[:-1]
    assert printed[:10] == LABELS
    image, logits = artifact.report["inputs"][0], artifact.report["outputs"][0]
    for x, text in zip((-1.0, 0.0, 0.3, 0.5, 1.0, 9.0), printed[10:], strict=True):
        quantized, value = text.split()
        assert int(quantized) == _quantize(x, image)
        expected = (_quantize(x, logits) - logits["zero_point"]) * np.float32(logits["scale"])
        assert float(value) == pytest.approx(expected, abs=1e-6)


def _quantize(x, port):
    steps = np.round(np.float32(x) / np.float32(port["scale"])) + port["zero_point"]
    return int(np.clip(steps, -128, 127))


def test_stripping_names_saves_bytes_and_changes_nothing(converted, split):
    stripped, named = converted("micro", "int8"), converted("android", "int8", io="int8")
    saved = stripped.report["bytes_saved_by_stripping_names"]
    assert saved > 0.15 * len(stripped.tflite)
    assert len(named.tflite) == len(stripped.tflite) + saved
    assert tflite.inspect(stripped.tflite).signatures == {}
    x = split[1][0][:50]
    np.testing.assert_array_equal(
        stripped.predict(x, "litert-reference"), named.predict(x, "litert-reference")
    )


def test_arena_is_that_of_the_interpreter(kit):
    artifact, folder = kit
    arena = artifact.report["arena"]
    assert arena["total"] == arena["head"] + arena["tail"]
    assert arena["tail"] >= sum(arena["parts"].values()) > 0
    line = next(x for x in (folder / "class_student.h").read_text().splitlines() if "kArenaS" in x)
    size = int(line.split("=")[1].strip(" ;"))
    assert arena["total"] * 1.1 <= size <= arena["total"] * 1.5 + 128
    assert size % 16 == 0


@pytest.mark.parametrize("which", ["conv", "lstm", "gru", "float32"])
def test_program_passes_its_vectors_on_this_host(which, kit, converted, root, tmp_path):
    folder, name = _kit_of(which, kit, converted, tmp_path)
    sources = [str(folder / f) for f in ("main.cc", f"{name}_model.cc", f"{name}_test_vectors.cc")]
    flags = [*STRICT, "-fno-rtti", "-fno-exceptions", "-DTF_LITE_STATIC_MEMORY", f"-I{folder}"]
    program = str(tmp_path / "program")
    run(["g++", *flags, *cortex_m.includes(root), *sources, library(root, "x86_64"), "-o", program])
    assert "PASS: 5 of 5 test vectors" in run([program])


def _kit_of(which, kit, converted, folder):
    """Folder and name of a kit: the trained student's, or one of a recurrent student."""
    if which == "conv":
        return kit[1], "class_student"
    if which == "float32":
        return converted("micro", "float32").save(folder / "kit"), "student"
    keras.utils.set_random_seed(3)
    model = zoo.STUDENTS[which]()
    options = {"recurrent": "step"} if which == "gru" else {}
    data = zoo.data(model)
    artifact = tflite.convert(model, "micro", "int8", calibration=data, **options)
    return artifact.save(folder / "kit"), "student"


def test_program_passes_its_vectors_on_cortex_m(kit, root, tmp_path):
    _, folder = kit
    sources = ["main.cc", "class_student_model.cc", "class_student_test_vectors.cc"]
    program = tmp_path / "program.elf"
    options = [f"-I{folder}", *cortex_m.includes(root)]
    cortex_m.build(root, [folder / source for source in sources], program, options)
    printed, _ = cortex_m.run(program)
    assert "PASS: 5 of 5 test vectors" in printed


def test_cmake_builds_the_program(kit, root, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    _, folder = kit
    names = [f"-DTFLITE_MICRO_ROOT={root}", f"-DTFLITE_MICRO_LIBRARY={library(root, 'x86_64')}"]
    run(["cmake", "-S", str(folder), "-B", str(tmp_path), *names, "-DCMAKE_CXX_FLAGS=-Werror"])
    run(["cmake", "--build", str(tmp_path)])
    assert "PASS" in run([str(tmp_path / "class_student_test")])


def sketch_of(artifact, folder):
    return (artifact.save(folder) / "library/student/examples/student/student.ino").read_text()


def test_sketch_carries_state_and_fills_every_input(tmp_path):
    model = zoo.gru()
    options = {"calibration": zoo.data(model), "recurrent": "step"}
    sketch = sketch_of(tflite.convert(model, "micro", "int8", **options), tmp_path / "step")
    parts = [
        "student::MemoryStateInput::Type state_1[student::MemoryStateInput::kSize];",
        "    state_1[i] = student::MemoryStateInput::kZeroPoint;",
        "    Input<student::WindowInput>()[i] = "
        "student::Quantize<student::WindowInput>(Sensor(0, i));",
        "    Input<student::MemoryStateInput>()[i] = state_1[i];",
        "interpreter->Invoke()",
        "    state_1[i] = student::Quantize<student::MemoryStateInput>("
        "student::Dequantize<student::MemoryStateOutOutput>("
        "Output<student::MemoryStateOutOutput>()[i]));",
        "Serial.println",
    ]
    places = [sketch.rindex(part) for part in parts]
    assert places == sorted(places)
    sketch = sketch_of(tflite.convert(zoo.several(), "micro"), tmp_path / "several")
    for i, name in enumerate(("LeftInput", "RightInput")):
        value = f"static_cast<student::{name}::Type>(Sensor({i}, i))"
        assert f"    Input<student::{name}>()[i] = {value};" in sketch
    assert "state" not in sketch


def test_sketch_compiles(kit, root, tmp_path):
    _, folder = kit
    (tmp_path / "sketch.cc").write_text(
        "#include <cstddef>\n#include <cstdint>\n"
        "struct { void begin(int) {} template <class T> void print(T) {}\n"
        "  template <class T> void println(T) {} } Serial;\n"
        "void delay(int) {}\n"
        '#include "class_student.ino"\nint main() { setup(); loop(); }\n'
    )
    (tmp_path / "Chirale_TensorFlowLite.h").write_text("")
    library = folder / "library/class_student"
    local = [library / "src", library / "examples/class_student", tmp_path]
    flags = [
        *STRICT,
        "-DTF_LITE_STATIC_MEMORY",
        *(f"-I{path}" for path in local),
        *cortex_m.includes(root),
    ]
    run(["g++", "-fsyntax-only", *flags, str(tmp_path / "sketch.cc")])


def test_every_operator_has_a_method_in_the_resolver(root):
    header = root / "tensorflow/lite/micro/micro_mutable_op_resolver.h"
    text = header.read_text()
    for operator in targets.MICRO_OPERATORS:
        assert f"TfLiteStatus {micro.resolver_method(operator)}(" in text


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("CONV_2D", "AddConv2D"),
        ("FULLY_CONNECTED", "AddFullyConnected"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("L2_POOL_2D", "AddL2Pool2D"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "AddUnidirectionalSequenceLSTM"),
        ("SPLIT_V", "AddSplitV"),
    ],
)
def test_method_of_an_operator(operator, method):
    assert micro.resolver_method(operator) == method


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("class", "class_student"),
        ("3d über", "student_3d_ber"),
        ("a--b__c", "a_b_c"),
        ("", "student"),
        ("My Model", "my_model"),
    ],
)
def test_names_are_safe_in_cpp(name, safe):
    assert names.cpp_identifier(name) == safe


class TestBudgets:
    def test_sizes(self):
        assert budget.size("max_flash", "64KB") == 65536
        assert budget.size("max_flash", "1.5MB") == 1572864
        assert budget.size("max_flash", 300) == 300
        with pytest.raises(ValueError, match=r"`max_flash` must be a number of bytes"):
            budget.size("max_flash", "64 apples")

    def test_excess_comes_with_a_breakdown(self, student, split):
        options = {"calibration": split[0][0][:50], "max_flash": "4KB", "max_arena": 2000}
        with pytest.raises(tflite.BudgetError) as caught:
            tflite.convert(student, "micro", "int8", **options)
        message = str(caught.value)
        assert "4,096 allowed" in message
        assert "2,000 allowed" in message
        assert "weights" in message
        assert "activations" in message

    @pytest.mark.long
    @pytest.mark.filterwarnings("ignore:Not everything is int8. stayed float. SPLIT:UserWarning")
    def test_of_the_arena_is_what_it_takes_to_start(self):
        """While it starts, the interpreter needs more than it keeps."""
        model = zoo.gru()
        options = {"calibration": zoo.data(model), "recurrent": "unroll"}
        artifact = tflite.convert(model, "micro", "int8", **options)
        measured = artifact.report["arena"]
        assert measured["to_start"] > 1.2 * measured["total"]
        _litert.micro_interpreter(artifact.tflite, measured["to_start"])
        with pytest.raises(RuntimeError, match="allocate"):
            _litert.micro_interpreter(artifact.tflite, int(0.97 * measured["to_start"]))
        limit = (measured["total"] + measured["to_start"]) // 2
        with pytest.raises(tflite.BudgetError, match="only while it starts"):
            tflite.convert(model, "micro", "int8", **options, max_arena=limit)
        tflite.convert(model, "micro", "int8", **options, max_arena=measured["to_start"] + 600)

    def test_of_the_arena_is_kept_by_the_kit(self, converted, tmp_path):
        """The margin of the header shrinks to the budget."""
        free = converted("micro", "int8").report["arena"]
        assert free["reserved"] == -(-(1.1 * free["to_start"] + 64) // 16) * 16
        for limit in (free["to_start"], free["to_start"] + 48):
            artifact = converted("micro", "int8", max_arena=limit)
            header = (artifact.save(tmp_path / str(limit)) / "student.h").read_text()
            size = artifact.report["arena"]["reserved"]
            assert f"kArenaSize = {size};" in header
            assert free["to_start"] <= size == min(free["reserved"], limit)
            _litert.micro_interpreter(artifact.tflite, size)

    def test_arena_of_a_phone(self, student):
        with pytest.raises(ValueError, match="`max_arena` is for microcontrollers"):
            tflite.convert(student, "android", max_arena="1MB")


def test_ethos_u_budget_is_held_against_vela(student, split, monkeypatch):
    """TFLite Micro's interpreter isn't needed for it."""
    pytest.importorskip("ethosu", reason="Vela (keras-distill[ethos]) is not installed")
    monkeypatch.setattr("keras_distill.tflite.runtimes.micro_available", lambda: False)
    options = {"calibration": split[0][0][:20], "max_arena": 100}
    with pytest.raises(tflite.BudgetError, match=r"100 allowed \(SRAM "):
        tflite.convert(student, "ethos-u55-128", "int8", **options)


def test_ethos_u_estimate(student, split, tmp_path):
    pytest.importorskip("ethosu", reason="Vela (keras-distill[ethos]) is not installed")
    artifact = tflite.convert(student, "ethos-u55-128", "int8", calibration=split[0][0][:100])
    npu = artifact.report["npu"]
    assert npu["operators_left_to_the_cpu"] == []
    assert npu["cycles"] > 0
    assert npu["sram_bytes"] > 0
    assert set(tflite.inspect(artifact.compiled).counts) == {"ethos-u"}
    folder = artifact.save(tmp_path / "kit")
    assert "resolver.AddEthosU()" in (folder / "student.h").read_text()
    compiled = folder / "student_vela.tflite"
    assert compiled.read_bytes() == artifact.compiled
    readme = (folder / "README.md").read_text()
    assert npu["sha256"] == hashlib.sha256(artifact.compiled).hexdigest()
    for text in (npu["sha256"], f"Vela {importlib.metadata.version('ethos-u-vela')}"):
        assert text in readme
        assert text in (folder / "student_model.h").read_text()
    assert f"`{npu['memory_mode']}`" in readme
    # What Vela compiled is for the NPU, and can be looked into.
    found = tflite.inspect(compiled)
    assert found.refusals["ethos-u55-128"] == []
    for target in ("android", "micro"):
        assert "compiled the file for an Ethos-U" in found.refusals[target][0]
    with pytest.raises(ValueError, match="nothing on this host runs it. Load the file"):
        tflite.load(compiled)


@pytest.mark.long
def test_operators_at_which_vela_fails_are_named():
    pytest.importorskip("ethosu", reason="Vela (keras-distill[ethos]) is not installed")
    inputs = keras.Input((2, 2, 2, 2))
    x = keras.layers.Dense(2)(inputs)
    student = keras.Model(inputs, keras.layers.UpSampling3D(2, name="larger")(x))
    x = np.random.default_rng(0).normal(size=(8, 2, 2, 2, 2)).astype("float32")
    message = (
        r"Vela failed for target 'ethos-u55-128' \(exit status 1\): .*\(AvgPool\) could not run on "
        r"NPU\. It fails at RESIZE_NEAREST_NEIGHBOR \(layer '.*larger.*'\)\. Replace the layer"
    )
    with pytest.raises(ValueError, match=message):
        tflite.convert(student, "ethos-u55-128", "int8", calibration=x)


@pytest.mark.long
def test_settings_of_vela(student, split, tmp_path):
    pytest.importorskip("ethosu", reason="Vela (keras-distill[ethos]) is not installed")
    options = {"quantization": "int8", "calibration": split[0][0][:20]}
    target = tflite.EthosU("ethos-u55-128", "Ethos_U55_Deep_Embedded", "Sram_Only")
    artifact = tflite.convert(student, target, **options)
    npu = artifact.report["npu"]
    assert artifact.target == artifact.report["target"] == "ethos-u55-128"
    assert (npu["system_config"], npu["memory_mode"]) == (
        "Ethos_U55_Deep_Embedded",
        "Sram_Only",
    )
    # Vela counts them as flash on the chip.
    weights = sum(w.size for w in student.get_weights()[:1])
    assert weights < npu["flash_bytes"] < len(artifact.compiled)
    with pytest.raises(tflite.BudgetError, match=r"flash: [\d,]+ bytes needed, 100 allowed"):
        tflite.convert(student, target, max_flash=100, **options)
    own = tmp_path / "own.ini"
    own.write_text("[Memory_Mode.Mine]\nconst_mem_area=Axi0\narena_mem_area=Axi0\n")
    target = tflite.EthosU("ethos-u55-128", memory_mode="Mine", config=own)
    with pytest.raises(ValueError, match="Vela failed .*Ethos_U55_High_End_Embedded"):
        tflite.convert(student, target, **options)
    with pytest.raises(ValueError, match="`EthosU` must be given one of"):
        tflite.convert(student, tflite.EthosU("micro", memory_mode="Mine"), **options)
