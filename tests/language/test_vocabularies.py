"""Tokens are checked, not assumed; another vocabulary is refused with the way out."""

import keras
import pytest

from keras_distill.language import fingerprint, require_same_vocabulary

TEXTS = ["a dog runs", "The dog sleeps", "über alles"]


def vectorization(**options):
    layer = keras.layers.TextVectorization(**options)
    layer.adapt(TEXTS)
    return layer


def test_the_same_tokenizer_passes():
    one, same = vectorization(), vectorization()
    require_same_vocabulary(one, same)
    assert fingerprint(one) == fingerprint(same)
    require_same_vocabulary(one, one.get_vocabulary())
    numbers = {token: number for number, token in enumerate(one.get_vocabulary())}
    assert fingerprint(numbers) == fingerprint(one.get_vocabulary())


def test_another_vocabulary_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"1 is 'cat' for the teacher and 'dog' for the student"):
        require_same_vocabulary(["", "cat"], ["", "dog"])
    with pytest.raises(ValueError, match=r"2 is None for the teacher .*language.write_targets"):
        require_same_vocabulary(["", "cat"], ["", "cat", "dog"])
    assert fingerprint(["", "cat"]) != fingerprint(["", "dog"])


def test_the_same_tokens_split_in_another_way_are_refused():
    lower = vectorization()
    kept = vectorization(standardize=None, vocabulary=None)
    kept.set_vocabulary(lower.get_vocabulary()[2:])
    with pytest.raises(ValueError, match="split text in different ways, for example 'The quick"):
        require_same_vocabulary(lower, kept)
    assert fingerprint(lower) != fingerprint(kept)


def test_what_is_no_tokenizer():
    with pytest.raises(TypeError, match="Received: int"):
        fingerprint(3)
