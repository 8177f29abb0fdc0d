"""The table of rules, and the page that is made from it."""

import importlib.util
import pathlib

import keras
import pytest

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

    from keras_distill import quantization

    x = keras.Input((4, 3))
    model = keras.Model(x, Mirrored(name="mirrored")(x))
    with pytest.raises(ValueError, match="'mirrored'"):
        quantization.quantize_aware(model)
    monkeypatch.setitem(rules.LAYERS, Mirrored, rules.Rule(Output.SAME))
    names = [layer.name for layer in quantization.quantize_aware(model).layers]
    assert names[2:] == ["mirrored"]
    assert names[1].endswith("_range")
