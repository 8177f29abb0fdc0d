"""Peak memory of a training step over a large vocabulary: the plain loss, and the chunked one.

    python benchmarks/language.py

Each line is a process of its own, which runs three steps of `Distiller.fit` at a vocabulary of
32,000. Reported is how much its peak resident memory grew from before the first step.
"""

import json
import resource
import subprocess
import sys

VOCABULARY, TIME = 32_000, 64


def model(width, seed):
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    tokens = keras.Input((TIME,), dtype="int32")
    x = layers.Embedding(VOCABULARY, width)(tokens)
    x = layers.Dense(width, activation="relu")(x)
    return keras.Model(tokens, layers.Dense(VOCABULARY)(x))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(loss, batch):
    """Prints the megabytes by which the peak grew, and the loss."""
    import keras
    import numpy as np

    import keras_distill
    from keras_distill import losses

    soft = losses.SoftTargets(1.0)
    distiller = keras_distill.Distiller(
        model(64, 0),
        model(128, 1),
        losses.Chunked(soft, positions=64) if loss == "chunked" else soft,
        alpha=0.0,
    )
    distiller.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    x = np.random.default_rng(0).integers(0, VOCABULARY, (batch, TIME)).astype("int32")
    before = peak()
    history = distiller.fit(x, batch_size=batch, epochs=3, verbose=0)
    print(json.dumps({"megabytes": peak() - before, "loss": history.history["loss"][-1]}))


def main():
    print(f"{'loss':<8} {'positions':>9} {'logits, MB':>10} {'peak, MB':>9} {'value':>12}")
    for batch in (4, 8, 16):
        for loss in ("plain", "chunked"):
            command = [sys.executable, __file__, loss, str(batch)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = json.loads(output.splitlines()[-1])
            logits = batch * TIME * VOCABULARY * 4 / 2**20
            print(
                f"{loss:<8} {batch * TIME:>9} {logits:>10.0f} {found['megabytes']:>9.0f} "
                f"{found['loss']:>12.9f}"
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        main()
