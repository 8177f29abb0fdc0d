"""Fixtures that all tests share: quiet TensorFlow, digits, and the folder of larger datasets."""

import gc
import itertools
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As many workers run as there are cores: scikit-learn's threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

DATA = "KERAS_DISTILL_TEST_DATA"


#: Folders of which one worker runs all tests, since their files share fixtures that take long.
TOGETHER = ("tests/cli/", "tests/evaluation/", "tests/quantization/")
#: What takes longest, which begins first.
FIRST = ("tests/cli/", "tests/unchanged/", "tests/docs/", "tests/quantization/", "tests/tflite/")


def pytest_collection_modifyitems(items):
    order = {folder: place for place, folder in enumerate(FIRST)}
    folders = {item: item.nodeid.partition("::")[0].rpartition("/")[0] + "/" for item in items}
    items.sort(key=lambda item: order.get(folders[item], len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps a file's tests on one worker, as `loadfile` does, and those of `TOGETHER`."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            folders = (folder for folder in TOGETHER if nodeid.startswith(folder))
            return next(folders, super()._split_scope(nodeid))

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def optimize_graphs(on):
    """Whether TensorFlow optimizes graphs, which doesn't pay for models as small as these."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not on})


@pytest.fixture
def optimized_graphs():
    """Graphs as in processes that tests start: optimized, which changes sums in their last bits."""
    optimize_graphs(True)
    yield
    optimize_graphs(False)


def build_before_tracing():
    """Has Keras create a model's variables before it traces a step.

    It does so in the trace, which TensorFlow then repeats.
    """
    import keras

    from keras_distill import _keras

    symbolic_build = keras.Model._maybe_symbolic_build

    def build(model, iterator=None, data_batch=None):
        symbolic_build(model, iterator, data_batch)
        optimizer, metrics = model.optimizer, _keras.compiled_metrics(model)
        outputs = getattr(_keras.graph_of(model), "outputs", None)
        if _keras.strategy_of(model) is not None or iterator is None or not outputs:
            return
        if optimizer is not None and not optimizer.built:
            optimizer.build(model.trainable_variables)
        batch = keras.utils.unpack_x_y_sample_weight(_keras.batch_spec(iterator))
        labels = keras.tree.flatten(batch[1])
        if metrics is not None and not metrics.built and all(hasattr(y, "shape") for y in labels):
            metrics.build(batch[1], _keras.graph_of(model).output)

    keras.Model._maybe_symbolic_build = build


def predict_few_batches_eagerly():
    """Has `predict` trace a model at its fifth batch, since tracing takes longer than four of them.

    Those that train are what is tested: they predict as ever.
    """
    import keras

    from keras_distill import Distiller, MutualDistiller

    make = keras.Model.make_predict_function

    def make_predict_function(model, force=False):
        known = None if force else model.predict_function
        traced = make(model, force) or model.predict_function
        if known is not None or model.run_eagerly or not hasattr(traced, "python_function"):
            return traced
        if isinstance(model, (Distiller, MutualDistiller)):
            return traced
        batches = itertools.count(1)

        def predict_function(data):
            return (traced if next(batches) > 4 else traced.python_function)(data)

        model.predict_function = predict_function
        return predict_function

    keras.Model.make_predict_function = make_predict_function


def pytest_collection_finish(session):
    """Spares the tests work that takes longer than what they run."""
    if session.items and not session.config.option.collectonly:
        optimize_graphs(False)
        # `make test-long` and `make test-nightly` run Keras as users have it.
        is_short = "not long" in session.config.option.markexpr
        if is_short and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
            build_before_tracing()
            predict_few_batches_eagerly()
        # What is imported stays, and needn't be searched for garbage again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def _seeded():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's handwritten digits: images (1797, 8, 8, 1) from 0 to 1, and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[..., None] / 16).astype("float32"), data.target.astype("int32")


@pytest.fixture(scope="session")
def split(digits):
    """The digits: 1,400 to train on, 397 to test with."""
    order = np.random.default_rng(0).permutation(len(digits[0]))
    x, y = (array[order] for array in digits)
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


@pytest.fixture(scope="session")
def data_dir():
    """The folder of real datasets beside the checkout; skips where there is none."""
    default = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get(DATA, default))
    if not folder.is_dir():
        pytest.skip(f"no datasets at {folder}; name their folder in {DATA}")
    return folder


@pytest.fixture(scope="session")
def tfds_dir(digits, tmp_path_factory):
    """A `data_dir` from which `tfds.load("mnist")` reads the digits, 1500 and 297, as 28×28."""
    pytest.importorskip("tensorflow_datasets")
    from staging import stage

    images, labels = digits
    images = np.pad((images * 255).astype("uint8").repeat(3, 1).repeat(3, 2), 2)[2:-2, ..., 2:-2]
    train, test = (images[:1500], labels[:1500]), (images[1500:], labels[1500:])
    return stage("mnist", str(tmp_path_factory.mktemp("tfds")), train, test)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
