"""Scores of language models, against formulas and the published example of sacrebleu."""

import math

import numpy as np
import pytest
from scipy import special

from keras_distill.language import (
    bits_per_character,
    bleu,
    chrf,
    exact_match,
    perplexity,
    word_error_rate,
)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_perplexity_and_bits(causal, activation):
    model = causal(activation=activation)
    x = np.array([[3, 4, 5, 6], [4, 6, 0, 0], [5, 5, 5, 0]], "int32")
    y = np.array([[4, 5, 6, 2], [6, 2, 0, 0], [5, 5, 2, 0]], "int32")
    log_p = special.log_softmax(np.float64(causal()(x)), -1)
    surprise = -np.take_along_axis(log_p, y[..., None], -1)[..., 0]
    want = math.exp(surprise[y != 0].mean())
    assert perplexity(model, x, y, batch_size=2) == pytest.approx(want, rel=1e-5)
    weights = np.array([[1, 0, 2, 1], [0, 0, 0, 0], [1, 1, 0, 0]])
    want = math.exp((surprise * weights).sum() / weights.sum())
    assert perplexity(model, x, y, weights) == pytest.approx(want, rel=1e-5)
    texts = ["abcd", "efg", "hi jk"]
    want = surprise[y != 0].sum() / math.log(2) / 12
    assert bits_per_character(model, x, y, texts) == pytest.approx(want, rel=1e-5)


def test_only_tokens_that_count_are_divided_by(causal):
    """Neither labels of no class nor masked positions make a model look better."""
    x = np.array([[3, 4, 5, 6], [4, 6, 0, 0]], "int32")
    y = np.array([[4, 5, -100, 2], [6, 2, 3, -1]], "int32")
    log_p = special.log_softmax(np.float64(causal()(x)), -1)
    surprise = -np.take_along_axis(log_p, np.maximum(y, 0)[..., None], -1)[..., 0]
    counts = (y > 0) & (x != 0)
    want = math.exp(surprise[counts].mean())
    assert perplexity(causal(), x, y, batch_size=1) == pytest.approx(want, rel=1e-5)
    assert perplexity(causal(), x, y, np.ones(y.shape)) == pytest.approx(want, rel=1e-5)


def test_what_has_no_score(causal):
    x = np.array([[3, 4]], "int32")
    with pytest.raises(ValueError, match="knows tokens below 7. Received: y with 7"):
        perplexity(causal(), x, np.array([[4, 7]]))
    with pytest.raises(ValueError, match="No token counts"):
        perplexity(causal(), x, np.zeros((1, 2), "int32"))
    for texts, message in ((["a", "b"], "2 texts of 2 characters, 1 rows"), ([""], "0 characters")):
        with pytest.raises(ValueError, match=message):
            bits_per_character(causal(), x, x, texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # As long as there are samples: they would be the weights of columns.
        ({"weights": [1.0, 0.0]}, r"`weights` must have the shape of `y`, \(2, 2\).*\(2,\)"),
        ({"weights": [[1.0, 1.0]]}, r"Received: weights of shape \(1, 2\)"),
        ({"weights": [[1, 1], [1, np.nan]]}, "`weights` must be finite .* Received: nan"),
        ({"weights": [[1, 1], [1, -2]]}, "at least 0. Received: -2.0"),
        ({"y": [[4, 2.5], [1, 1]]}, r"`y` must be tokens, whole numbers.*Received: .*\[2.5\]"),
        ({"y": [["a", "b"], ["c", "d"]]}, "`y` must be tokens, whole numbers"),
        (
            {"y": [[4, 5, 6], [4, 5, 6]]},
            r"y of shape \(2, 3\); of 2 samples, outputs of \(2, 2, 7\)",
        ),
        ({"y": [[[4], [5]], [[4], [5]]]}, r"y of shape \(2, 2, 1\); of 2 samples"),
        ({"y": [[4, 5]]}, r"same number of samples. Received: 1 rows of `y`, and inputs of \[2\]"),
        ({"batch_size": 0}, "`batch_size` must be a whole number of at least 1. Received: .*=0"),
        ({"batch_size": -1}, "Received: batch_size=-1"),
    ],
)
def test_what_does_not_fit_is_named(causal, change, message):
    given = {"x": np.array([[3, 4], [5, 6]]), "y": [[4, 5], [6, 2]]} | change
    with pytest.raises(ValueError, match=message):
        perplexity(causal(), **given)
    if "weights" not in change:
        with pytest.raises(ValueError, match=message):
            bits_per_character(causal(), texts=["ab"] * len(given["y"]), **given)


def test_tokens_may_be_whole_floats(causal):
    x, y = np.array([[3, 4], [5, 6]]), np.array([[4, 5], [6, 2]])
    assert perplexity(causal(), x, y.astype("float32")) == perplexity(causal(), x, y)


def test_a_single_string_is_no_list_of_texts(causal):
    """Its characters would count as texts."""
    x = np.array([[3, 4], [5, 6]])
    with pytest.raises(TypeError, match="`texts` must be a list of strings. Received: texts='ab'"):
        bits_per_character(causal(), x, x, "ab")
    for score in (bleu, chrf, word_error_rate):
        with pytest.raises(TypeError, match="`references` must be a list of strings.*='ab'"):
            score(["a", "b"], "ab")
        with pytest.raises(TypeError, match="`hypotheses` must be a list of strings.*='ab'"):
            score("ab", ["a", "b"])
        with pytest.raises(TypeError, match="`references` must be a list of strings"):
            score(["a"], [["a", "b"]])
    with pytest.raises(TypeError, match="`hypotheses` must be a list of texts, or of rows.*='ab'"):
        exact_match("ab", "ax")
    with pytest.raises(TypeError, match="`references` must be a list of texts, or of rows.*='ab'"):
        exact_match(["a", "b"], "ab")


def test_exact_match():
    assert exact_match(["a", "b", "c"], ["a", "x", "c"]) == pytest.approx(2 / 3)
    assert exact_match(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 5]])) == 0.5
    with pytest.raises(ValueError, match="2 texts, 1 references"):
        exact_match(["a", "b"], ["a"])


def test_bleu_and_chrf():
    pytest.importorskip("sacrebleu", reason="needs sacrebleu, the extra `language`")
    references = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
    written = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    # As printed in the README of sacrebleu, with its first set of references.
    assert bleu(written, references) == pytest.approx(45.0675, abs=5e-4)
    assert bleu(references, references) == pytest.approx(100)
    assert chrf(references, references) == pytest.approx(100)
    assert 0 < chrf(written, references) < 100
