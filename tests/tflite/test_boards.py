"""The kit as a library for boards' build systems: its metadata, and what they compile."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import cortex_m
import keras
import micro_stubs
import pytest
import yaml
import zoo
import zoo_models
import zoo_table

from keras_distill import tflite

STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fno-rtti", "-fno-exceptions"]
COMPILERS = {
    "g++": [],
    "arm-none-eabi-g++": [
        "-mcpu=cortex-m4",
        "-mthumb",
        "-fno-threadsafe-statics",
        "--specs=nosys.specs",
    ],
}

#: What compiles the kits of most students; a few are compiled by each, with each's headers.
SHORT = [("g++", "ours"), ("arm-none-eabi-g++", "of TFLite Micro")]

#: What stands for Arduino where a sketch is compiled.
ARDUINO = """
#include <cstddef>
#include <cstdint>
struct { void begin(int) {} template <class T> void print(T) {}
  template <class T> void println(T) {} void write(char) {}
  int available() { return 0; } int read() { return 0; } } Serial;
inline void delay(int) {}
inline unsigned long micros() { return 0; }
"""


@pytest.fixture(scope="module")
def kit(converted, tmp_path_factory):
    return converted("micro", "int8").save(tmp_path_factory.mktemp("kit"), name="digit reader")


@pytest.fixture(scope="module")
def library(kit):
    return kit / "library/digit_reader"


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name, package):
    """Path of a registry's tool, which validates metadata; the test is skipped without it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return found


def test_library_has_a_place_for_everything(library):
    files = {str(p.relative_to(library)) for p in library.rglob("*") if p.is_file()}
    headers = {f"src/digit_reader{end}.h" for end in ("", "_model", "_serve", "_profile")}
    sources = headers | {"src/digit_reader_model.cpp"}
    sketches = {f"examples/{name}/{name}.ino" for name in ("digit_reader", "digit_reader_serve")}
    described = {"README.md", "library.json", "library.properties", "idf_component.yml"}
    built = {"CMakeLists.txt", "zephyr/module.yml", "zephyr/CMakeLists.txt", "zephyr/Kconfig"}
    assert files == sources | described | built | sketches
    for path in files:
        assert not re.search("@[A-Z_]+@", (library / path).read_text()), path
    readme = (library / "README.md").read_text()
    for name in ("ESP-IDF", "PlatformIO", "Arduino", "Zephyr", "make"):
        section = readme.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert "```sh" in section


def test_archive_is_the_folder(kit, library):
    with zipfile.ZipFile(kit / "library/digit_reader.zip") as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
        packed = {info.filename: archive.read(info) for info in archive.infolist()}
    files = {
        f"digit_reader/{p.relative_to(library)}": p.read_bytes()
        for p in library.rglob("*")
        if p.is_file()
    }
    assert packed == files


def test_arduino_library_follows_the_specification(library):
    lines = (library / "library.properties").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    wanted = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url"}
    assert wanted | {"architectures"} <= set(fields)
    assert all(fields.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}", fields["name"])
    assert not fields["name"].startswith("Arduino")
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert fields["category"] == "Data Processing"  # One of those listed.
    assert (library / "src" / fields["includes"]).is_file()
    # A sketch has the name of its folder, and finds TFLite Micro by a header.
    sketch = (library / "examples/digit_reader/digit_reader.ino").read_text()
    assert fields["depends"] == "Chirale_TensorFLowLite"  # As Arduino's index spells it.
    assert "#include <Chirale_TensorFlowLite.h>" in sketch


def test_platformio_library_follows_the_schema(library):
    manifest = json.loads((library / "library.json").read_text())
    assert manifest["name"] == "digit_reader"
    assert len(manifest["description"]) <= 255
    assert {"name", "version", "description", "keywords"} <= set(manifest)
    assert all((library / "src" / header).is_file() for header in manifest["headers"])


def test_platformio_packs_it(library, tmp_path):
    pio = tool("pio", "platformio")
    run([pio, "pkg", "pack", str(library), "--output", str(tmp_path / "packed.tar.gz")])
    assert (tmp_path / "packed.tar.gz").is_file()


def test_component_manifest_names_the_runtime(library):
    manifest = yaml.safe_load((library / "idf_component.yml").read_text())
    assert set(manifest["dependencies"]) == {"idf", "espressif/esp-tflite-micro"}
    cmake = (library / "CMakeLists.txt").read_text()
    [source] = re.findall(r'SRCS "(.*?)"', cmake)
    assert (library / source).is_file()
    assert "REQUIRES esp-tflite-micro" in cmake


def test_component_manager_packs_it(library, tmp_path):
    compote = tool("compote", "idf-component-manager")
    copy = tmp_path / "digit_reader"
    shutil.copytree(library, copy)
    run([compote, "component", "pack", "--name", "digit_reader", "--project-dir", str(copy)])
    assert list(copy.rglob("digit_reader_1.0.0.tgz"))


def test_zephyr_module_names_its_files(library):
    module = yaml.safe_load((library / "zephyr/module.yml").read_text())
    assert module == {
        "name": "digit_reader",
        "build": {"cmake": "zephyr", "kconfig": "zephyr/Kconfig"},
    }
    cmake = (library / "zephyr/CMakeLists.txt").read_text()
    [option] = re.findall(r"if\(CONFIG_(\w+)\)", cmake)
    kconfig = (library / "zephyr/Kconfig").read_text()
    assert f"config {option}\n" in kconfig
    assert "depends on TENSORFLOW_LITE_MICRO" in kconfig
    for path in re.findall(r"\.\./(src\S*?)\)", cmake):
        assert (library / path).exists()


def test_zephyr_takes_the_module(library, tmp_path):
    """Zephyr's own script checks the schema, and that the files named are there."""
    base = os.environ.get("ZEPHYR_BASE")
    if not base:
        pytest.skip("name Zephyr's source tree in ZEPHYR_BASE")
    found = {kind: tmp_path / kind for kind in ("kconfig", "cmake")}
    outputs = [word for kind, path in found.items() for word in (f"--{kind}-out", str(path))]
    script = f"{base}/scripts/zephyr_module.py"
    command = [sys.executable, script, "--zephyr-base", base, "--extra-modules", str(library)]
    run([*command, *outputs])
    assert f'osource "{library}/zephyr/Kconfig"' in found["kconfig"].read_text()
    assert f'"digit_reader":"{library}":"{library}/zephyr"' in found["cmake"].read_text()


def compiles(compiler, folder, name, options, sketches=True):
    """Compiles all sources of a kit with warnings as errors."""
    kit, library = folder / "kit", folder / "kit/library" / name
    (folder / "Chirale_TensorFlowLite.h").write_text("")
    sources = [kit / f"{name}_{end}.cc" for end in ("test_vectors", "model")]
    sources += [kit / f"{end}main.cc" for end in ("", "serve_", "profile_")]
    flags = [*STRICT, *COMPILERS[compiler], *options, "-fsyntax-only"]
    run([compiler, *flags, f"-I{kit}", *map(str, sources)])
    if not sketches:
        return
    # Arduino's cores for mbed take C++14, in which constants of a class may lack a place. Code that
    # isn't optimized refers to each of them.
    flags = [*STRICT[1:], *COMPILERS[compiler], *options, "-std=gnu++14", "-O0"]
    includes = [f"-I{path}" for path in (library / "src", folder)]
    for sketch in sorted((library / "examples").rglob("*.ino")):
        main = folder / f"{sketch.stem}.cc"
        main.write_text(f'{ARDUINO}#include "{sketch}"\nint main() {{ setup(); loop(); }}\n')
        sources = [str(main), str(library / "src" / f"{name}_model.cpp")]
        run([compiler, *flags, *includes, *sources, "-o", str(folder / "sketch")])


#: Students of the zoo that TFLite Micro runs.
KITS = [name for name in zoo_models.MODELS if zoo_table.runs(name, "micro int8")]


@pytest.mark.filterwarnings("ignore:As int8:UserWarning")
@pytest.mark.parametrize(
    ("which", "compiler", "headers"),
    [
        pytest.param(*case, marks=() if case[0] == "several" else pytest.mark.nightly)
        for case in itertools.product(KITS, COMPILERS, ("ours", "of TFLite Micro"))
        if case[0] in zoo.STUDENTS or case[1:] in SHORT
    ],
)
def test_kit_compiles_without_a_warning(which, compiler, headers, tmp_path, kits):
    """Sketches with our headers alone: Arduino's libraries of TFLite Micro are others."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    ours = headers == "ours"
    options = micro_stubs.write(tmp_path / "tree") if ours else cortex_m.includes(cortex_m.root())
    (tmp_path / "kit").symlink_to(kits(which))
    compiles(compiler, tmp_path, "student", options, sketches=ours)


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """Kits of the zoo's students, made once."""
    folder, made = tmp_path_factory.mktemp("kits"), {}

    def kit(which):
        if which not in made:
            keras.utils.set_random_seed(3)
            student, options = zoo_models.MODELS[which](), zoo_table.options(which, "int8")
            if which == "gru":
                options["recurrent"] = "step"  # A kit with state.
            artifact = tflite.convert(
                student, "micro", "int8", calibration=zoo.data(student), **options
            )
            made[which] = artifact.save(folder / which)
        return made[which]

    return kit


@pytest.mark.parametrize("quantization", ["int8", "float32"])
def test_old_tree_is_refused_where_it_would_compute_wrong(quantization, converted, tmp_path):
    """TFLite Micro of before September 2024 gives a dense layer's weights one scale."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    options = micro_stubs.write(tmp_path / "tree")
    dense = tmp_path / "tree/tensorflow/lite/micro/kernels/fully_connected.h"
    dense.write_text(dense.read_text().replace("bool is_per_channel;", ""))
    kit = converted("micro", quantization).save(tmp_path / "kit", name="reader")
    command = ["g++", *STRICT, *options, "-fsyntax-only", str(kit / "main.cc")]
    done = subprocess.run(command, capture_output=True, text=True)
    refused = "take TFLite Micro of September 2024 or later" in done.stderr
    assert (done.returncode != 0, refused) == (quantization == "int8",) * 2, done.stderr


def test_makefile_builds_library_and_program(kit, tmp_path):
    """With stand-ins for TFLite Micro, which compute nothing: the program ends with FAIL."""
    if shutil.which("g++") is None or shutil.which("make") is None:
        pytest.skip("g++ or make is not installed")
    micro_stubs.write(tmp_path / "tree")
    command = ["make", "-C", str(kit), f"BUILD={tmp_path / 'build'}"]
    command += [f"TFLITE_MICRO_ROOT={tmp_path / 'tree'}", "CXXFLAGS=-Werror"]
    done = subprocess.run([*command, "library", "test"], capture_output=True, text=True)
    assert "FAIL: " in done.stdout, done.stderr
    assert (tmp_path / "build/libdigit_reader.a").is_file()
    command = ["make", "-C", str(kit), "TFLITE_MICRO_ROOT="]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Give the source tree of TFLite Micro" in done.stderr
