"""What models and files can't write with is said where it is given, before anything is written."""

import numpy as np
import pytest

from keras_distill import language

TRANSLATES = {"length": 6, "end": 2, "target": "target", "start": 1}


@pytest.fixture(scope="module")
def translates(translating, sources, tmp_path_factory):
    """An exported encoder and decoder, and its file."""
    made = language.export(translating(), {"source": sources}, **TRANSLATES)
    return made, made.save(tmp_path_factory.mktemp("translates"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :4], r"'source' of the shape \(10, 5\). Received: shape \(10, 4\)"),
        (lambda x: np.pad(x, ((0, 0), (0, 1))), r"Received: shape \(10, 6\)"),
        (lambda x: x + 0.5, "'source' of int32. Received: float64 from 1.5 to 6.5"),
        (lambda x: x.astype("int64") + 2**32, "'source' of int32. Received: int64 from 4294967297"),
        (lambda x: x.astype(str), "'source' of int32. Received: <U"),
    ],
    ids=["narrow", "wide", "half", "large", "text"],
)
def test_a_file_says_what_its_encoder_takes(spoil, message, translates, sources):
    made, path = translates
    wrong = {"source": spoil(sources)}
    with pytest.raises(ValueError, match=message):
        made.predict(np.ones((10, 2), "int32"), wrong)
    with pytest.raises(ValueError, match=message):
        language.generate(path, wrong, batch_size=10, **TRANSLATES)
