"""Language models: text that a model writes, distillation on it, vocabularies, and scores."""

from keras_distill.language.buckets import bucketed
from keras_distill.language.exporting import Generator, export
from keras_distill.language.generation import generate, write_targets
from keras_distill.language.on_policy import OnPolicyDistiller
from keras_distill.language.recognition import decode_ctc, word_error_rate
from keras_distill.language.scores import (
    bits_per_character,
    bleu,
    chrf,
    exact_match,
    keystrokes_saved,
    perplexity,
)
from keras_distill.language.text_sources import TextSources
from keras_distill.language.tokenizers import Bytes, HashedWords
from keras_distill.language.vocabularies import fingerprint, require_same_vocabulary

__all__ = [
    "Bytes",
    "Generator",
    "HashedWords",
    "OnPolicyDistiller",
    "TextSources",
    "bits_per_character",
    "bleu",
    "bucketed",
    "chrf",
    "decode_ctc",
    "exact_match",
    "export",
    "fingerprint",
    "generate",
    "keystrokes_saved",
    "perplexity",
    "require_same_vocabulary",
    "word_error_rate",
    "write_targets",
]
