"""The beam that is most like a reference, against sacrebleu."""

import numpy as np
import pytest
from keras import ops

from keras_distill import language
from keras_distill.language.likeness import log_bleu

START, END = 1, 2


def texts(tokens):
    return [" ".join(map(str, row[row != 0])) for row in tokens]


def test_bleu_is_that_of_sacrebleu(rng):
    """Sentences of 1 to 9 of four words, so that much is repeated."""
    sacrebleu = pytest.importorskip("sacrebleu")
    written, references = rng.integers(1, 5, (20, 6, 9)), rng.integers(1, 5, (20, 8))
    for x in (written, references):
        x[np.arange(x.shape[-1]) >= rng.integers(1, x.shape[-1] + 1, x.shape[:-1])[..., None]] = 0
    got = np.exp(log_bleu(written, references))
    for row, reference, values in zip(written, texts(references), got, strict=True):
        for text, value in zip(texts(row), values, strict=True):
            options = {"smooth_method": "add-k", "smooth_value": 1, "tokenize": "none"}
            want = sacrebleu.sentence_bleu(text, [reference], **options).score / 100
            assert value == pytest.approx(want, rel=1e-4, abs=0.04 if want == 0 else 0)


@pytest.mark.long
def test_references_choose_among_the_beams(translating, sources, tmp_path):
    """Those that are the second beam are found."""
    model = translating(2)
    options = {"target": "target", "start": START, "end": END, "length": 8}
    first = language.write_targets(model, {"source": sources}, tmp_path / "a", verbose=0, **options)
    _, last, *_ = beams_of(model, sources, options)
    inputs = {"source": sources, "target": last}
    for name in ("b", "b"):  # written, and read
        chosen = language.write_targets(
            model, inputs, tmp_path / name, interpolate=True, verbose=0, **options
        )
        np.testing.assert_array_equal(chosen, last)
    assert (chosen != first).any(1).sum() > 5
    with pytest.raises(ValueError, match=r"references as the input 'target'. Received: \['source'"):
        language.write_targets(
            model, {"source": sources}, tmp_path / "c", interpolate=True, verbose=0, **options
        )
    with pytest.raises(ValueError, match="several beams by references.* beams=1"):
        language.write_targets(
            model, inputs, tmp_path / "d", interpolate=True, beams=1, verbose=0, **options
        )


def beams_of(model, sources, options):
    """The four beams that `write_targets` chooses from, each of shape `(samples, length)`."""
    from keras_distill.language.search import beam_search, reader

    start = np.full((len(sources), options["length"]), options["start"])
    repeated = {"source": ops.convert_to_tensor(np.repeat(sources, 4, axis=0))}
    given = np.ones(len(sources))
    found, _ = beam_search(reader(model, repeated, "target"), start, given, options["end"], 4)
    return np.moveaxis(np.asarray(found), 1, 0)
