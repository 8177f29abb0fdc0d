"""Tokens are checked, not assumed; another vocabulary is refused with the way out."""

import types

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


def test_the_numbers_of_a_dict_count():
    one, other = {"a": 0, "b": 5}, {"b": 1, "a": 0}
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(other) == fingerprint(["a", "b"])
    with pytest.raises(ValueError, match="1 is None for the teacher and 'b' for the student"):
        require_same_vocabulary(one, other)
    with pytest.raises(ValueError, match="Received: 0 for 'a' and 'b'"):
        fingerprint({"a": 0, "b": 0})


@pytest.mark.parametrize("wrapped", [False, True])
def test_tokenizers_that_encode(wrapped):
    """As Hugging Face's two libraries have them; calling one gives a dict, not numbers."""

    class Tokenizer:
        def __init__(self, lower):
            self.lower = lower

        def get_vocab(self):
            return {"the": 1, "[UNK]": 0}

        def __call__(self, texts):
            return {"input_ids": [self.encode(text) for text in texts]}

        def encode(self, text):
            words = (text.lower() if self.lower else text).split()
            numbers = [self.get_vocab().get(word, 0) for word in words]
            return types.SimpleNamespace(ids=numbers) if wrapped else numbers

    require_same_vocabulary(Tokenizer(True), Tokenizer(True))
    require_same_vocabulary(Tokenizer(True), ["[UNK]", "the"])
    assert fingerprint(Tokenizer(True)) != fingerprint(Tokenizer(False))
    with pytest.raises(ValueError, match="split text in different ways, for example 'The quick"):
        require_same_vocabulary(Tokenizer(True), Tokenizer(False))


def test_what_is_no_tokenizer():
    with pytest.raises(TypeError, match="Received: int"):
        fingerprint(3)
