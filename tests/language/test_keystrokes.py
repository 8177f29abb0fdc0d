"""Keys that suggestions save, against a keyboard that is typed on."""

import numpy as np
import pytest

from keras_distill.language import keystrokes_saved

VOCABULARY = ["", "", "a", "an", "and", "ant", "be", "bee", "been"]


def typed(row, word, suggestions):
    """Keys for a word and its space, by looking at the keyboard before each."""
    for count in range(len(word)):
        fitting = [i for i, w in enumerate(VOCABULARY) if w and w.startswith(word[:count])]
        shown = sorted(fitting, key=lambda i: -row[i])[:suggestions]
        if word in [VOCABULARY[i] for i in shown]:
            return count + 1
    return len(word) + 1


@pytest.mark.parametrize(("suggestions", "rounded"), [(1, 9), (3, 9), (1, 0), (2, 0)])
def test_a_typist_counts_as_many_keys(suggestions, rounded, rng):
    """Two tokens more than words, also with ties; one word is unknown, and typed in full."""
    words = [*VOCABULARY[2:], *VOCABULARY[2:], "zebra"] * 3
    logits = rng.normal(size=(len(words), len(VOCABULARY) + 2)).astype("float32").round(rounded)
    keys = sum(typed(row, word, suggestions) for row, word in zip(logits, words, strict=True))
    got = keystrokes_saved(logits, words, VOCABULARY, suggestions)
    assert got == pytest.approx(1 - keys / sum(len(word) + 1 for word in words))
    assert 0.1 < got < 0.8


def test_the_best_and_the_worst():
    words = ["been", "bee"]
    sure = np.eye(9)[[8, 7]]
    assert keystrokes_saved(sure, words, VOCABULARY) == pytest.approx(1 - 2 / 9)
    assert keystrokes_saved(-sure, words, VOCABULARY, 1) == pytest.approx(0.0)


def test_what_isnt_scores_of_words_is_refused():
    for logits, words in ((np.zeros((1, 9)), ["a", "an"]), (np.zeros((0, 9)), [])):
        with pytest.raises(ValueError, match=r"shape \(words, tokens\), with one word at least"):
            keystrokes_saved(logits, words, VOCABULARY)
    with pytest.raises(ValueError, match="a vocabulary of 9"):
        keystrokes_saved(np.zeros((1, 8)), ["a"], VOCABULARY)
    with pytest.raises(ValueError, match="`logits` hold NaN, first for word 1"):
        keystrokes_saved([[0.0] * 9, [np.nan] * 9], ["a", "an"], VOCABULARY)
    with pytest.raises(TypeError, match="`words` must be a list of strings. Received: words='an'"):
        keystrokes_saved(np.zeros((2, 9)), "an", VOCABULARY)
    with pytest.raises(TypeError, match="`vocabulary` must be a list of strings.*='an'"):
        keystrokes_saved(np.zeros((1, 2)), ["a"], "an")
