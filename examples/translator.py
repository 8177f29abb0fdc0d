"""A translator: pieces of words, and a transformer that reads and writes them."""

import keras
import keras_hub
import numpy as np
import tokenizers
from keras import layers

PIECES, LENGTH = 2000, 48
START, END = 1, 2


def pieces_of(texts):
    """Byte-pair encoding, one for both languages, between a start and an end."""
    split, special = tokenizers.pre_tokenizers, ["[PAD]", "[START]", "[END]", "[UNK]"]
    pieces = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[UNK]"))
    pieces.pre_tokenizer = split.Sequence([split.Metaspace(), split.Punctuation()])
    pieces.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=PIECES, special_tokens=special)
    pieces.train_from_iterator(texts, trainer)
    ends = [("[START]", START), ("[END]", END)]
    pieces.post_processor = tokenizers.processors.TemplateProcessing("[START] $A [END]", None, ends)
    pieces.enable_truncation(LENGTH + 1)
    pieces.enable_padding(length=LENGTH + 1)
    return pieces


def tokens_of(pieces, texts):
    return np.array([text.ids for text in pieces.encode_batch(texts)], "int32")


def translator(width, depth, dropout=0.0):
    """A transformer with one table for both languages and the output."""
    hub, scale = keras_hub.layers, keras.initializers.RandomNormal(stddev=width**-0.5)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")}
    table = hub.TokenAndPositionEmbedding(PIECES, LENGTH, width, True, scale, mask_zero=True)
    drop, wide = layers.Dropout(dropout), layers.Rescaling(width**0.5)
    memory, x = (drop(wide(table(tokens))) for tokens in inputs.values())
    options = {"intermediate_dim": 2 * width, "num_heads": 4, "dropout": dropout}
    for _ in range(depth):
        memory = hub.TransformerEncoder(**options, normalize_first=True)(memory)
    memory = layers.LayerNormalization()(memory)
    for _ in range(depth):
        x = hub.TransformerDecoder(**options, normalize_first=True)(x, memory)
    logits = table.token_embedding(layers.LayerNormalization()(x), reverse=True)
    return keras.Model(inputs, logits)
