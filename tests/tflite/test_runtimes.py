"""One rounding rule for all that is quantized."""

from fractions import Fraction

import numpy as np
from keras_distill.tflite.runtimes import Port


def test_values_go_to_the_nearest_step(rng):
    """Also those beside the middle between two steps, where float32 picks the wrong one."""
    wrong = 0
    for scale in rng.uniform(1e-4, 0.3, 20).astype("float32"):
        port = Port("x", (1,), "int8", float(scale), int(rng.integers(-20, 20)))
        x = ((rng.integers(-100, 100, 200) + 0.5) * np.float64(scale)).astype("float32")
        nearest = [round(Fraction(float(value)) / Fraction(float(scale))) for value in x]
        expected = np.clip(np.array(nearest) + port.zero_point, -128, 127)
        np.testing.assert_array_equal(port.quantize(x), expected)
        wrong += np.sum(np.clip(np.round(x / scale) + port.zero_point, -128, 127) != expected)
    assert wrong > 100


def test_integers_and_values_are_inverse():
    port = Port("x", (1,), "int8", 0.125, 3)
    integers = np.arange(-128, 128).astype("int8")
    values = port.dequantize(integers)
    assert values.dtype == "float32"
    np.testing.assert_array_equal(values, (np.arange(-128, 128) - 3) / 8)
    np.testing.assert_array_equal(port.quantize(values), integers)
    assert port.limits() == (values[0] - 0.0625, values[-1] + 0.0625)


def test_ports_without_a_scale_keep_values():
    port = Port("x", (1,), "int32")
    assert port.quantize([1.0, 2.0]).dtype == "int32"
    assert port.dequantize(np.int32([1, 2])).dtype == "int32"
    assert port.limits() == (-np.inf, np.inf)
