"""An app that listens: what Kotlin makes of a microphone's samples, with the file run in LiteRT."""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from keras_distill.tflite import runtimes

from keras_distill import data, tflite

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def phone(mel, sound, mel_student):
    """An int8 stream on log-mel features, and a decision that detects several classes."""
    student, windows = mel_student
    artifact = tflite.convert(
        student, quantization="int8", io="int8", calibration=windows, stream=2
    )
    frames = np.asarray(mel(sound))
    scores = artifact.predict(frames[None, : len(frames) // 2 * 2])[0]
    thresholds = {c: float(np.quantile(scores[:, c], 0.8)) for c in range(3)}
    return artifact, tflite.Decision(thresholds, smoothing=2, refractory=5, warm_up=5)


def test_kit_of_a_phone_has_what_listens(phone, mel, tmp_path):
    artifact, decision = phone
    folder = artifact.save(tmp_path / "kit", decision=decision, front_end=mel)
    library = folder / "app/student/src/main"
    for name in ("Decision", "FrontEnd", "Listener", "Microphone"):
        assert (library / f"kotlin/{name}.kt").read_text() == (folder / f"{name}.kt").read_text()
    asked = '<uses-permission android:name="android.permission.RECORD_AUDIO" />'
    assert asked in (library / "AndroidManifest.xml").read_text()
    assert "kotlin/Microphone.kt`" in (folder / "app/README.md").read_text()
    bare = artifact.save(tmp_path / "bare", front_end=mel)
    assert (bare / "FrontEnd.kt").exists()
    assert not (bare / "Listener.kt").exists()
    assert asked not in (bare / "app/student/src/main/AndroidManifest.xml").read_text()


def test_what_an_app_cannot_hear_is_refused(phone, mel, tmp_path):
    artifact, decision = phone
    given = {"decision": decision, "front_end": mel}
    for name in ("listener", "microphone", "front end", "decision"):
        with pytest.raises(ValueError, match="`name` must differ from that of the class"):
            artifact.save(tmp_path, name, **given)
    with pytest.raises(ValueError, match=r"gives 40 features a frame.*shape \(20,\)"):
        artifact.save(tmp_path, decision=decision, front_end=data.LogMel(16000))
    pytest.importorskip("pymicro_features")
    with pytest.raises(ValueError, match="must be a `keras_distill.data.LogMel`.*MicroFeatures"):
        artifact.save(tmp_path, front_end=data.MicroFeatures(16000))


@pytest.fixture(scope="module")
def program(phone, mel, tmp_path_factory):
    compiler = os.environ.get("KOTLINC") or shutil.which("kotlinc")
    if not compiler or not shutil.which("java"):
        pytest.skip("name a Kotlin compiler in KOTLINC, and install a Java runtime")
    artifact, decision = phone
    folder = artifact.save(tmp_path_factory.mktemp("kit"), decision=decision, front_end=mel)
    stand_ins = [p for p in sorted((HERE / "android").glob("*.kt")) if p.stem in STAND_INS]
    files = [*sorted(folder.glob("*.kt")), *stand_ins, HERE / "listening/main.kt"]
    jar = str(folder / "program.jar")
    command = [compiler, "-Werror", *map(str, files), "-include-runtime", "-d", jar]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return jar


STAND_INS = {"annotation", "assets", "content", "graphics", "litert", "log", "media", "os"}


def played(jar, path, artifact):
    """What the program prints. Its file is run here; a line `detected` has the step in front."""
    opened = runtimes.open_file(artifact.tflite, "litert")
    ports, lines, steps = artifact.ports, [], 0
    command = ["java", "-cp", jar, "listening.MainKt", str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        for line in process.stdout:
            kind, _, rest = line.strip().partition(" ")
            if kind != "step":
                steps = 0 if kind == "listening" else steps
                lines.append(f"{steps - 1} {rest}" if kind == "detected" else line.strip())
                continue
            given = dict(port.split(":") for port in rest.split(";"))
            arrays = [
                np.array(given[port.name].split(), "int8").reshape(port.shape)
                for port in ports.inputs
            ]
            results = zip(ports.outputs, opened.run(arrays), strict=True)
            texts = [f"{p.name}:{' '.join(map(str, a.ravel()))}" for p, a in results]
            process.stdin.write(";".join(texts) + "\n")
            process.stdin.flush()
            steps += 1
    assert process.returncode == 0, lines[-5:]
    return lines


def test_app_hears_what_python_hears(program, phone, mel, sound, tmp_path):
    """Speech, silence and clipping, from samples through front end, stream and decision."""
    artifact, decision = phone
    (tmp_path / "sound").write_bytes(sound.astype(">i2").tobytes())
    lines = played(program, tmp_path / "sound", artifact)
    rows = [line.split()[1:] for line in lines if line.startswith("features ")]
    features = np.array(rows, "float32").reshape(2, -1, 20)
    expected = np.asarray(mel(sound))[: features.shape[1]]
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_allclose(features[0], expected, rtol=0, atol=1e-3)
    assert (features[0] == np.log(np.float32(1e-6))).all(axis=1).sum() > 10
    scores = artifact.predict(expected[None, : len(expected) // 2 * 2])[0]
    found = [f"{d.step} {d.word}" for d in decision.detections(scores)]
    assert len({line.split()[1] for line in found}) > 1
    ended = "failed: the microphone gave no samples, but -6"
    refused = [
        "refused: the microphone records at 44100 Hz, not at 16000, or isn't permitted",
        "refused: the microphone records at 16000 Hz, not at 16000, or isn't permitted",
        "refused: no microphone records at 16000 Hz",
    ]
    once = ["listening", *found, ended]
    assert lines[len(rows) :] == [*once, *once, *refused, "open: 0"]
