"""What a backend doesn't run is refused by name, before training starts."""

import keras
import pytest
from backend_cases import data, network

import keras_distill
from keras_distill import backends


def test_check_numerics():
    with pytest.raises(NotImplementedError, match="`check_numerics=True` needs the TensorFlow"):
        keras_distill.Distiller(network(4, 1), network(9, 2), check_numerics=True)


def test_latency():
    x, y, _ = data()
    with pytest.raises(NotImplementedError, match="`latency_runs` needs the TensorFlow"):
        keras_distill.evaluation.compare(
            {"student": network(4, 1)}, (x, y), baseline="student", latency_runs=1
        )


def test_sparsity():
    x, y, _ = data()
    model = network(4, 1)
    model.compile(loss="sparse_categorical_crossentropy")
    for callback in (
        keras_distill.pruning.Sparsity(0.5),
        keras_distill.pruning.WeightClustering(),
        keras_distill.pruning.GradualPruning(macs=0.5),
    ):
        message = f"`{type(callback).__name__}` needs the TensorFlow"
        with pytest.raises(NotImplementedError, match=message):
            model.fit(x, y, verbose=0, callbacks=[callback])


def test_training_on_policy():
    with pytest.raises(NotImplementedError, match="language.OnPolicyDistiller` needs the TensorFl"):
        keras_distill.language.OnPolicyDistiller(network(4, 1), network(9, 2), end=2)


def test_keras_2():
    with pytest.raises(NotImplementedError, match="`keras_distill.legacy` needs the TensorFlow"):
        import keras_distill.legacy  # noqa: F401


def test_a_backend_that_is_not_supported(monkeypatch, tmp_path):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    message = (
        r"`keras_distill.Distiller` needs the TensorFlow or JAX or PyTorch backend of Keras, which "
        r"is on openvino now. Set KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax or "
        r"KERAS_BACKEND=torch before Keras is imported."
    )
    with pytest.raises(NotImplementedError, match=message):
        keras_distill.Distiller(network(4, 1), network(9, 2))
    x, y, _ = data()
    for name, run in {
        "quantize_aware": lambda: keras_distill.quantization.quantize_aware(network(4, 1)),
        "teachers.store": lambda: keras_distill.teachers.store(network(4, 1), x, tmp_path),
        "evaluation.compare": lambda: keras_distill.evaluation.compare({}, (x, y)),
        "keras_distill.tflite.convert": lambda: keras_distill.tflite.convert(network(4, 1)),
    }.items():
        with pytest.raises(NotImplementedError, match=f"`{name}` needs the TensorFlow or JAX"):
            run()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="of PyTorch")
def test_compiled_steps_on_pytorch():
    distiller = keras_distill.Distiller(network(4, 1), network(9, 2), alpha=0)
    distiller.compile(jit_compile=True)
    with pytest.raises(NotImplementedError, match="`jit_compile=True` needs the TensorFlow or JAX"):
        distiller.fit(data()[0], verbose=0)


def test_what_is_supported_passes():
    assert backends.require("anything", "tensorflow", "jax", "torch") is None
