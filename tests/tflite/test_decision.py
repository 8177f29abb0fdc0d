"""What an app acts on is the same in Python, C++ and Kotlin."""

import os
import pathlib
import shutil
import subprocess

import cortex_m
import keras
import micro_stubs
import numpy as np
import pytest
import streamed_students
from keras_distill.tflite.micro import sources
from sweeps import rest_is_long

from keras_distill import data, tflite

#: Smoothing, no smoothing, one word, thresholds that no score reaches.
DECISIONS = {
    "words": tflite.Decision({1: 0.55, 3: 0.5}, smoothing=5, refractory=7, warm_up=3),
    "plain": tflite.Decision({0: 0.8, 2: 0.8, 1: 0.8}),
    "one": tflite.Decision({2: 1 / 3}, smoothing=3, refractory=40),
    "never": tflite.Decision({0: 2.0}, smoothing=2),
}
STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]


def by_hand(decision, scores):
    """What a decision finds, step by step, written without the code under test."""
    found, last = [], -(10**9)
    for step in range(len(scores)):
        first = step - decision.smoothing + 1
        if first < decision.warm_up or step <= last + decision.refractory:
            continue
        means = {}
        for word, least in decision.thresholds.items():
            total = 0.0
            for score in scores[first : step + 1, word]:
                total += float(score)
            if total / decision.smoothing >= least:
                means[word] = total / decision.smoothing
        if means:
            word = max(means, key=lambda w: (means[w], -w))
            found.append((step, word, means[word]))
            last = step
    return found


@pytest.fixture(scope="module")
def scores():
    """Four classes, with runs of the same values, equal classes, infinities and NaN."""
    generator = np.random.default_rng(3)
    steps = generator.normal(size=(600, 4)).cumsum(axis=0).astype("float32")
    rows = 1 / (1 + np.exp(-np.abs(steps - steps.mean(axis=0)) / 3)) - 0.2
    rows[100:140] = rows[100]
    rows[200:220, 3] = rows[200:220, 1] = 0.7
    rows[300, 1], rows[320, 2], rows[330, 0] = np.nan, np.inf, -np.inf
    return rows.astype("float32")


@pytest.mark.parametrize("name", DECISIONS)
def test_detections_are_those_of_its_description(name, scores):
    found = DECISIONS[name].detections(scores)
    assert found == by_hand(DECISIONS[name], scores)
    assert bool(found) == (name != "never")
    if name == "words":
        assert {d.word for d in found} == {1, 3}


def printed(detections):
    return "".join(f"{d.step} {d.word}\n" for d in detections)


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize("options", ["-std=c++17 -O2", "-std=gnu++14 -O0"])
def test_header_finds_what_python_finds(options, scores, tmp_path):
    """All decisions in one program, which reads the scores' bits."""
    parts = ["#include <cstdio>", "#include <cstring>"]
    parts += [f'#include "{name}.h"' for name in DECISIONS]
    parts.append(
        "template <typename D> void Play(const char* path) {\n"
        "  std::FILE* file = std::fopen(path, \"rb\");\n"
        "  static D decision;\n"
        "  float row[4];\n"
        "  for (int step = 0; std::fread(row, 4, 4, file) == 4; ++step) {\n"
        "    const int word = decision.Update(row);\n"
        '    if (word >= 0) std::printf("%d %d\\n", step, word);\n'
        "  }\n  std::fclose(file);\n  decision.Reset();\n  std::puts(\"-\");\n}\n"
        "int main(int, char** args) {"
    )  # fmt: skip
    for name, decision in DECISIONS.items():
        values = {"NAME": f"kit_{name}", "GUARD": f"KIT_{name}", **decision.constants()}
        (tmp_path / f"{name}.h").write_text(sources.filled("decision.h", values))
        # Twice: after `Reset`, nothing is left of the first time.
        parts += [f"  Play<kit_{name}::Decision>(args[1]);"] * 2
    (tmp_path / "main.cc").write_text("\n".join(parts) + "\n  return 0;\n}\n")
    (tmp_path / "scores").write_bytes(scores.tobytes())
    program = str(tmp_path / "main")
    flags = [*STRICT, *options.split()]
    subprocess.run(["g++", *flags, str(tmp_path / "main.cc"), "-o", program], check=True)
    done = subprocess.run([program, str(tmp_path / "scores")], capture_output=True, text=True)
    expected = [f"{printed(d.detections(scores))}-\n" for d in DECISIONS.values()]
    assert done.stdout == "".join(2 * text for text in expected)


def test_kotlin_finds_what_python_finds(scores, tmp_path):
    compiler = os.environ.get("KOTLINC") or shutil.which("kotlinc")
    if not compiler or not shutil.which("java"):
        pytest.skip("name a Kotlin compiler in KOTLINC, and install a Java runtime")
    phone = tflite.convert(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))
    decision = DECISIONS["words"]
    folder = phone.save(tmp_path / "kit", decision=decision)
    source = folder / "Decision.kt"
    assert source.read_text() == (folder / "app/student/src/main/kotlin/Decision.kt").read_text()
    main = tmp_path / "Main.kt"
    main.write_text(
        "import com.example.student.Decision\n"
        "fun main(args: Array<String>) {\n"
        "    val file = java.io.DataInputStream(java.io.File(args[0]).inputStream().buffered())\n"
        "    val decision = Decision()\n"
        "    for (step in 0 until 600) {\n"
        "        val word = decision.update(FloatArray(4) { file.readFloat() })\n"
        '        if (word >= 0) println("$step $word")\n'
        "    }\n    decision.reset()\n}\n"
    )
    (tmp_path / "scores").write_bytes(scores.astype(">f4").tobytes())
    jar = str(tmp_path / "main.jar")
    command = [compiler, "-Werror", str(source), str(main), "-include-runtime", "-d", jar]
    subprocess.run(command, check=True, capture_output=True)
    command = ["java", "-jar", jar, str(tmp_path / "scores")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == printed(decision.detections(scores))


def test_settings_that_do_not_fit_are_refused():
    for wrong, message in (
        ({"thresholds": {}}, "a finite threshold for each class"),
        ({"thresholds": {1: np.nan}}, "a finite threshold"),
        ({"thresholds": {-1: 0.5}}, "a finite threshold"),
        ({"thresholds": {1: 0.5}, "smoothing": 0}, "Received: smoothing=0"),
        ({"thresholds": {1: 0.5}, "refractory": -1}, "Received: refractory=-1"),
        ({"thresholds": {1: 0.5}, "warm_up": True}, "Received: warm_up=True"),
    ):
        with pytest.raises(ValueError, match=message):
            tflite.Decision(**wrong)
    with pytest.raises(ValueError, match=r"with class 3. Received: shape \(5, 3\)"):
        tflite.Decision({3: 0.5}).detections(np.zeros((5, 3)))


@pytest.fixture(scope="module")
def stream():
    """An int8 stream of a convolution, an `LSTM` and probabilities, for firmware."""
    keras.utils.set_random_seed(4)
    student = streamed_students.lstm()
    student = keras.Sequential([*student.layers, keras.layers.Softmax()])
    student.build((None, 12, 4))
    data = 3 * streamed_students.windows(student)
    return tflite.convert(student, "micro", "int8", calibration=data, stream=3)


@pytest.fixture(scope="module")
def recording():
    return np.random.default_rng(5).normal(size=(150, 4)).astype("float32") * 3


def includes(tree):
    downloads = tree / "tensorflow/lite/micro/tools/make/downloads"
    places = [tree, *(downloads / d for d in ("flatbuffers/include", "gemmlowp", "ruy", "kissfft"))]
    return [option for place in places for option in ("-isystem", str(place))]


def front_end_sources(tree):
    """Sources of TFLite Micro's audio front end."""
    if not (tree / "tensorflow/lite/micro/tools/make/downloads/kissfft").is_dir():
        pytest.skip("TFLite Micro's make has not fetched kissfft")
    folder = tree / "tensorflow/lite/experimental/microfrontend/lib"
    rest = ("test", "main", "io", "generator")
    found = [f for f in folder.iterdir() if f.suffix in (".c", ".cc")]
    return [f for f in found if f.stem.rpartition("_")[2] not in rest]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Compiles sources of a kit against TFLite Micro, and runs the program."""
    root = os.environ.get("TFLITE_MICRO_ROOT")
    if not root or not shutil.which("g++"):
        pytest.skip("name a TFLite Micro source tree, its library built, in TFLITE_MICRO_ROOT")
    tree = pathlib.Path(root)
    (library,) = tree.glob("gen/*x86_64*/lib/libtensorflow-microlite.a")
    options = ["-fno-rtti", "-fno-exceptions", "-DTF_LITE_STATIC_MEMORY", *includes(tree)]

    def objects():
        out = tmp_path_factory.mktemp("front_end")
        sources = map(str, front_end_sources(tree))
        subprocess.run(["gcc", "-w", *options[2:], "-c", *sources], check=True, cwd=out)
        return map(str, out.iterdir())

    def run(*files, sound=False):
        program = str(tmp_path_factory.mktemp("build") / "program")
        more = objects() if sound else []
        command = ["g++", *STRICT, *options, *map(str, files), *more, str(library), "-o", program]
        subprocess.run(command, check=True)
        return subprocess.run([program], capture_output=True, text=True).stdout

    return run


def of_program(folder):
    return [folder / f for f in ("stream_main.cc", "wake_model.cc", "wake_recording.cc")]


def passed(detections):
    lines = [f"step {d.step}: class {d.word}" for d in detections]
    return [*lines, f"PASS: {len(lines)} of {len(lines)} detections"]


def test_firmware_detects_what_python_detects(build, stream, recording, tmp_path):
    """The program of the kit, run on this host."""
    decision = tflite.Decision({0: 0.6, 1: 0.6}, smoothing=3, refractory=9)
    folder = stream.save(tmp_path / "kit", "wake", decision=decision, recording=recording)
    found = decision.detections(stream.predict(recording[None], "micro")[0])
    assert len(found) > 3
    assert build(*of_program(folder)).splitlines() == passed(found)


@pytest.fixture(scope="module")
def front_end():
    pytest.importorskip("pymicro_features", reason="pymicro-features is not installed")
    return data.MicroFeatures(16000)


@pytest.fixture(scope="module")
def listening(front_end, sound):
    """An int8 stream on the features of sounds, for firmware."""
    keras.utils.set_random_seed(6)
    student = keras.Sequential(
        [
            keras.Input((10, 40), name="frames"),
            keras.layers.Conv1D(6, 3, padding="valid", activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3),
        ]
    )
    frames = front_end(sound)
    windows = np.stack([frames[i : i + 10] for i in range(0, len(frames) - 10, 5)])
    return tflite.convert(student, "micro", "int8", calibration=windows, stream=2)


def test_firmware_hears_what_python_hears(build, listening, front_end, sound, tmp_path):
    """From samples through front end, stream and decision."""
    frames = front_end(sound)
    scores = listening.predict(frames[None, : len(frames) // 2 * 2], "micro")[0]
    thresholds = {c: float(np.quantile(scores[:, c], 0.8)) for c in range(3)}
    decision = tflite.Decision(thresholds, smoothing=2, refractory=5, warm_up=5)
    found = decision.detections(scores)
    assert len({d.word for d in found}) > 1
    folder = listening.save(
        tmp_path / "kit", "wake", decision=decision, recording=sound, front_end=front_end
    )
    assert "`wake_front_end.h`" in (folder / "README.md").read_text()
    assert build(*of_program(folder), sound=True).splitlines() == passed(found)


@pytest.mark.parametrize(
    ("kind", "per_frame"),
    rest_is_long([("micro", 186_000), ("log-mel", 120_000)], [("micro", 186_000)]),
)
def test_firmware_on_cortex_m_hears_what_python_hears(request, kind, per_frame, sound, tmp_path):
    """Front end, stream and decision under QEMU."""
    tree = cortex_m.root()
    fixtures = {"micro": ("listening", "front_end"), "log-mel": ("mel_stream", "mel")}[kind]
    artifact, front_end = map(request.getfixturevalue, fixtures)
    c_sources = front_end_sources(tree) if kind == "micro" else ()
    short = sound[: len(sound) // 3]
    counts = {}
    for recording in (short, sound):
        frames = np.asarray(front_end(recording))
        decision, found = decided(artifact, frames)
        assert len(found) > 1
        folder = tmp_path / str(len(recording))
        artifact.save(folder, "wake", decision=decision, recording=recording, front_end=front_end)
        program = folder / "program.elf"
        options = [f"-I{folder}", *includes(tree)]
        cortex_m.build(tree, of_program(folder), program, options, c_sources)
        printed, counts[len(frames)] = cortex_m.run(program)
        assert printed.splitlines() == passed(found)
    (few, less), (many, more) = counts.items()
    # As docs/streaming.md says. Other compilers take a little more or less.
    assert (more - less) / (many - few) == pytest.approx(per_frame, rel=0.3)


def test_front_end_of_firmware_gives_the_same_features(
    build, listening, front_end, sound, tmp_path
):
    """Number by number, also after a reset, and not from a microphone of another sample rate."""
    decision = tflite.Decision({0: 0.0})
    sound = sound[: len(sound) // 160 * 160]  # The kit's recording has whole steps.
    folder = listening.save(
        tmp_path / "kit", "wake", decision=decision, recording=sound, front_end=front_end
    )
    program = folder / "features.cc"
    program.write_text(
        '#include <cstdio>\n#include "wake_front_end.h"\n#include "wake_recording.h"\n'
        "int main() {\n  wake::FrontEnd front_end;\n  float row[wake::FrontEnd::kBands];\n"
        "  if (front_end.Start(44100) || !front_end.Start(16000)) return 1;\n"
        "  for (int time = 0; time < 2; ++time) {\n"
        "    for (int i = 0; i + 160 <= wake::kRecordingSize; i += 160) {\n"
        "      if (!front_end.Process(wake::kRecording + i, row)) continue;\n"
        '      for (float value : row) std::printf("%.9g ", static_cast<double>(value));\n'
        "    }\n    front_end.Reset();\n  }\n  return 0;\n}\n"
    )
    printed = build(program, folder / "wake_recording.cc", sound=True)
    got = np.array(printed.split(), "float32").reshape(2, -1, 40)
    expected = front_end(sound)
    assert expected.max() > 10
    np.testing.assert_array_equal(got, [expected, expected])


@pytest.fixture(scope="module")
def mel_stream(mel_student):
    """An int8 stream on log-mel features."""
    student, windows = mel_student
    return tflite.convert(student, "micro", "int8", calibration=windows, stream=2)


def decided(artifact, frames):
    """A decision with detections of several classes, and these."""
    scores = artifact.predict(frames[None, : len(frames) // 2 * 2])[0]
    thresholds = {c: float(np.quantile(scores[:, c], 0.8)) for c in range(3)}
    decision = tflite.Decision(thresholds, smoothing=2, refractory=5, warm_up=5)
    found = decision.detections(scores)
    assert len({d.word for d in found}) > 1
    return decision, found


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize("options", ["-std=c++11 -O2", "-std=gnu++17 -O0"])
def test_log_mel_of_firmware_is_that_of_training(options, mel, mel_stream, sound, tmp_path):
    """Speech, silence and clipping: features to 1e-3, and the decisions of an int8 student."""
    folder = mel_stream.save(tmp_path / "kit", "wake", front_end=mel)
    header = folder / "wake_front_end.h"
    assert not {"malloc", "new ", "vector"} & set(header.read_text().split())
    assert "log-mel" in (folder / "README.md").read_text()
    (tmp_path / "main.cc").write_text(
        f'#include <cstdio>\n#include "{header}"\n'
        "static wake::FrontEnd front_end;\n"
        "int main(int, char** args) {\n"
        "  if (front_end.Start(44100) || !front_end.Start(16000)) return 1;\n"
        "  for (int time = 0; time < 2; ++time) {\n"
        '    std::FILE* file = std::fopen(args[1], "rb");\n'
        "    std::int16_t sound[wake::FrontEnd::kStep];\n"
        "    float row[wake::FrontEnd::kBands];\n"
        "    while (std::fread(sound, sizeof(sound), 1, file) == 1) {\n"
        "      if (!front_end.Process(sound, row)) continue;\n"
        "      std::fwrite(row, sizeof(row), 1, stdout);\n"
        "    }\n    std::fclose(file);\n    front_end.Reset();\n  }\n  return 0;\n}\n"
    )
    (tmp_path / "sound").write_bytes(sound.tobytes())
    program = str(tmp_path / "main")
    flags = [*STRICT[1:], "-fno-exceptions", "-fno-rtti", *options.split()]
    subprocess.run(["g++", *flags, str(tmp_path / "main.cc"), "-o", program], check=True)
    done = subprocess.run([program, str(tmp_path / "sound")], capture_output=True, check=True)
    got = np.frombuffer(done.stdout, "float32").reshape(2, -1, 20)
    np.testing.assert_array_equal(got[0], got[1])
    # A frame is there when the steps that hold it are: the last may lack samples.
    expected = np.asarray(mel(sound))[: got.shape[1]]
    assert got.shape[1] == len(sound) // 200 - 2
    np.testing.assert_allclose(got[0], expected, rtol=0, atol=1e-3)
    # Silence is the smallest number, exactly; the clipped tone is loud.
    assert (got[0] == np.log(np.float32(1e-6))).all(axis=1).sum() > 10
    assert got[0].max() > 8
    decision, found = decided(mel_stream, expected)
    again = mel_stream.predict(got[0][None, : len(expected) // 2 * 2])[0]
    assert decision.detections(again) == found


def test_firmware_hears_log_mel_as_python_does(build, mel, mel_stream, sound, tmp_path):
    """The program of the kit, with a recording that isn't whole steps long."""
    decision, found = decided(mel_stream, np.asarray(mel(sound[:-13])))
    folder = mel_stream.save(
        tmp_path / "kit", "wake", decision=decision, recording=sound[:-13], front_end=mel
    )
    assert build(*of_program(folder)).splitlines() == passed(found)


def test_listener_hears_what_python_hears(build, mel, mel_stream, sound, tmp_path):
    """What programs give the microphone's samples to, step by step, also after a reset."""
    decision, found = decided(mel_stream, np.asarray(mel(sound)))
    folder = mel_stream.save(tmp_path / "kit", "wake", decision=decision, front_end=mel)
    samples = ", ".join(map(str, sound))
    (folder / "hear.cc").write_text(
        '#include <cstdio>\n#include "wake_listener.h"\n'
        f"const std::int16_t sound[] = {{{samples}}};\n"
        "int main() {\n  static wake::Listener listener;\n"
        "  if (listener.Start(44100) || !listener.Start(16000)) return 1;\n"
        "  for (int time = 0; time < 2; ++time) {\n"
        f"    for (int i = 0; i + 200 <= {len(sound)}; i += 200) {{\n"
        "      const int word = listener.Hear(sound + i);\n"
        '      if (word != -1) std::printf("%d %d\\n", i / 200, word);\n'
        "    }\n    listener.Reset();\n  }\n  return 0;\n}\n"
    )
    printed = build(folder / "hear.cc", folder / "wake_model.cc")
    # A step of two frames is complete with its second one, and that with three steps of samples.
    assert printed == 2 * "".join(f"{2 * d.step + 3} {d.word}\n" for d in found)


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_programs_for_microphones_compile(mel, mel_stream, tmp_path):
    """For Arduino and ESP-IDF, without a warning, against stand-ins of their headers."""
    decision = tflite.Decision({0: 0.6})
    library = mel_stream.save(tmp_path / "kit", "wake", decision=decision, front_end=mel)
    library = library / "library/wake"
    (tmp_path / "Chirale_TensorFlowLite.h").write_text("")
    sketch = library / "examples/wake_listen/wake_listen.ino"
    programs = {
        "arduino.cc": f'#include "{sketch}"\nint main() {{ setup(); loop(); }}\n',
        "idf.cc": f'#include "{library}/examples/wake_listen_idf/main/main.cc"\n'
        "int main() { app_main(); }\n",
    }
    places = (tmp_path, library / "src", pathlib.Path(__file__).parent / "board")
    options = [*micro_stubs.write(tmp_path / "tree"), *(f"-I{place}" for place in places)]
    options += ["-std=gnu++14", *STRICT[1:], "-O0", str(library / "src/wake_model.cpp")]
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        program = str(tmp_path / name) + ".out"
        subprocess.run(["g++", str(tmp_path / name), *options, "-o", program], check=True)
        subprocess.run([program], check=True, timeout=20)
    assert (library / "examples/wake_listen_idf/CMakeLists.txt").exists()


@pytest.mark.long
def test_sounds_that_do_not_fit_are_refused(listening, stream, front_end, sound, tmp_path):
    given = {"decision": tflite.Decision({0: 0.6}), "front_end": front_end}
    with pytest.raises(ValueError, match="int16 samples of one channel. Received: float32"):
        listening.save(tmp_path / "kit", recording=sound.astype("float32"), **given)
    with pytest.raises(ValueError, match="40 features a frame.*frames of shape .4,."):
        stream.save(tmp_path / "kit", recording=sound, **given)
    with pytest.raises(ValueError, match="40 features a frame.*frames of shape .4,."):
        stream.save(tmp_path / "kit", **given)
    phone = tflite.convert(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="front_end` must be a `keras_distill.data.LogMel`"):
        phone.save(tmp_path / "kit", **given)
    with pytest.raises(ValueError, match="`recording` is for microcontrollers"):
        phone.save(tmp_path / "kit", recording=sound)


def test_kit_names_what_it_has_of_a_decision(stream, recording, tmp_path):
    decision = tflite.Decision({0: 0.6})
    folder = stream.save(tmp_path / "kit", "wake", decision=decision, recording=recording)
    readme = (folder / "README.md").read_text()
    for file in ("wake_decision.h", "wake_recording.cc", "stream_main.cc"):
        assert file in readme
        assert (folder / file).exists()
    assert not {"stream_main.cc", "wake_recording.h"} & {
        path.name for path in stream.save(tmp_path / "bare", "wake", decision=decision).iterdir()
    }


def test_recordings_that_do_not_fit_are_refused(stream, recording, tmp_path):
    decision = tflite.Decision({0: 0.6})
    with pytest.raises(ValueError, match="`recording` needs a `decision`"):
        stream.save(tmp_path / "kit", recording=recording)
    with pytest.raises(ValueError, match=r"a multiple of 3 of them. Received: shape \(10, 4\)"):
        stream.save(tmp_path / "kit", decision=decision, recording=recording[:10])
    whole = tflite.convert(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), "micro")
    with pytest.raises(ValueError, match="isn't a stream"):
        whole.save(tmp_path / "kit", decision=decision, recording=recording)
    assert not (tmp_path / "kit").exists()
