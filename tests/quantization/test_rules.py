"""The table of rules, and the page that is made from it."""

import importlib.util
import pathlib

import keras
import pytest

from keras_distill import quantization
from keras_distill.quantization import rules
from keras_distill.quantization.rules.rule import Output

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def test_page_agrees_with_the_rules():
    """If not, `python docs/supported_layers.py` writes it anew."""
    spec = importlib.util.spec_from_file_location("supported_layers", DOCS / "supported_layers.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (DOCS / "quantization.md").read_text()
    assert script.written(page) == page


def test_a_rule_in_the_table_is_all_that_a_layer_needs(monkeypatch):
    """Here one of a layer of a user's own, which has the range of its input."""

    class Mirrored(keras.layers.Layer):
        def call(self, x):
            return keras.ops.flip(x, axis=1)

    x = keras.Input((4, 3))
    model = keras.Model(x, Mirrored(name="mirrored")(x))
    with pytest.raises(ValueError, match="'mirrored'"):
        quantization.quantize_aware(model)
    monkeypatch.setitem(rules.LAYERS, Mirrored, rules.Rule(Output.SAME))
    names = [layer.name for layer in quantization.quantize_aware(model).layers]
    assert names[2:] == ["mirrored"]
    assert names[1].endswith("_range")


def test_operands_of_attention_may_be_keywords(rng):
    x, y = keras.Input((6, 8), name="x"), keras.Input((6, 8), name="y")
    attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
    model = keras.Model([x, y], attention(x, key=y, value=x))
    data = [rng.normal(size=(64, 6, 8)).astype("float32") for _ in range(2)]
    aware = quantization.quantize_aware(model, data)
    expected = model.predict(data, verbose=0)
    error = aware.predict(data, verbose=0) - expected
    assert abs(error).max() < 0.1 * abs(expected).max()
