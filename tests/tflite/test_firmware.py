"""What a model costs as firmware: linked and run where compiler, library and emulator are."""

import cortex_m
import keras
import numpy as np
import pytest
from keras_distill.tflite.micro import firmware

from keras_distill import tflite


@pytest.fixture(scope="module")
def artifact(converted):
    return converted("micro", "int8")


@pytest.fixture(scope="module")
def report(artifact):
    root = cortex_m.root()
    cortex_m.needed(root)
    return firmware.measure(artifact, root)


@pytest.mark.long
def test_firmware_is_linked_and_run(artifact, report):
    assert artifact.report["firmware"] == report
    assert report["flash"] == report["text"] + report["rodata"] + report["data"]
    assert report["ram"] == report["data"] + report["bss"]
    # The file is a constant, the arena cleared memory, TFLite Micro tens of kilobytes of code.
    assert report["rodata"] > len(artifact.tflite)
    assert report["bss"] > artifact.report["arena"]["total"] * 0.8
    assert 20_000 < report["text"] < 200_000
    # More than one instruction for each multiply-accumulate, by the reference kernels.
    assert report["instructions"] > artifact.report["multiply_accumulates"]
    assert 0 < report["arena_used"] <= artifact.report["arena"]["total"]
    assert 100 < report["stack"] < 16_384
    with pytest.raises(tflite.BudgetError, match=r"flash: .* 1,024 allowed \(text .*, rodata "):
        firmware.measure(artifact, max_flash="1KB")


@pytest.mark.long
def test_stack_is_that_of_the_deepest_operator(report):
    """A mean's is a third of a convolution's or a dense layer's, beside which it doesn't show."""
    inputs = keras.Input((4, 4, 2))
    student = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype("float32")
    mean = firmware.measure(tflite.convert(student, "micro", "int8", calibration=x))
    assert 256 < mean["stack"] < report["stack"] / 2


@pytest.mark.long
def test_max_flash_counts_the_whole(converted, report):
    """The file alone is less than half of it."""
    limit = report["flash"]
    fits = converted("micro", "int8", firmware="reference", max_flash=limit)
    assert fits.report["firmware"] == report
    assert len(fits.tflite) < limit / 2
    with pytest.raises(tflite.BudgetError, match=f"flash: {limit:,} bytes needed"):
        converted("micro", "int8", firmware="reference", max_flash=limit - 1)


def test_kernels_are_those_asked_for(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(firmware.shutil, "which", lambda tool: tool)
    built = {}
    for kernels, end in {"cmsis_nn": "cmsis_nn_gcc", "reference": "gcc"}.items():
        folder = tmp_path / f"gen/cortex_m_generic_cortex-m4+fp_default_{end}/lib"
        folder.mkdir(parents=True)
        built[kernels] = folder / "libtensorflow-microlite.a"
        built[kernels].touch()
        assert firmware.find(tmp_path) == (tmp_path, built[kernels])
    for kernels, library in built.items():
        assert firmware.find(tmp_path, kernels) == (tmp_path, library)
    built["cmsis_nn"].unlink()
    with pytest.raises(ValueError, match=r"OPTIMIZED_KERNEL_DIR=cmsis_nn microlite"):
        firmware.find(tmp_path, "cmsis_nn")
    with pytest.raises(ValueError, match=r"`kernels` must be one of \['reference', 'cmsis_nn'\]"):
        firmware.measure(artifact, tmp_path, kernels="esp_nn")


def test_firmware_is_refused_before_the_conversion(student, monkeypatch):
    def unread():
        yield pytest.fail("the calibration data are read")

    options = {"quantization": "int8", "calibration": unread()}
    for target, kernels in (("android", "reference"), ("ethos-u55-128", "reference"), ("micro", 4)):
        with pytest.raises(ValueError, match='`firmware` must be one of .*, for target "micro"'):
            tflite.convert(student, target, firmware=kernels, **options)
    monkeypatch.setattr(firmware.shutil, "which", lambda tool: None)
    with pytest.raises(ValueError, match="arm-none-eabi-g\\+\\+ is not installed"):
        tflite.convert(student, "micro", firmware="cmsis_nn", **options)


def test_what_is_missing_is_named(artifact, converted, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='Only artifacts for "micro"'):
        firmware.measure(converted("android", "int8"))
    monkeypatch.setattr(firmware.shutil, "which", lambda tool: None)
    with pytest.raises(ValueError, match="arm-none-eabi-g\\+\\+ is not installed"):
        firmware.measure(artifact)
    monkeypatch.setattr(firmware.shutil, "which", lambda tool: tool)
    monkeypatch.delenv("TFLITE_MICRO_ROOT", raising=False)
    with pytest.raises(ValueError, match="Name the source tree of TFLite Micro in `root`"):
        firmware.measure(artifact)
    with pytest.raises(ValueError, match="has no library for the Cortex-M4: build it there"):
        firmware.measure(artifact, tmp_path)
