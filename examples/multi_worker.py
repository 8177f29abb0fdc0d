"""Distil on several workers with `tf.distribute.MultiWorkerMirroredStrategy`.

Run it with `python examples/multi_worker.py`: it starts two workers on this machine. On a real
cluster, start the script on each machine with `TF_CONFIG` set, as TensorFlow documents it.
"""

import json
import os
import socket
import subprocess
import sys


def worker(seed=0):
    """Trains on one of the workers and prints what came out."""
    # TensorFlow reads TF_CONFIG when it starts, so it is imported here.
    import keras
    import tensorflow as tf
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    import keras_distill

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(seed)  # all workers start from the same weights

    def classifier(width):
        hidden = keras.layers.Dense(width, activation="relu")
        return keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10)])

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        (digits.data / 16).astype("float32"), digits.target, random_state=seed
    )
    # Batches of the global size: each worker takes its share of every batch.
    data = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(100, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = data.with_options(options)

    def fit(model, rate, epochs):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        model.fit(data, epochs=epochs, verbose=0)

    teacher, on_labels = classifier(256), classifier(12)
    fit(teacher, 0.001, 20)
    with strategy.scope():
        student = classifier(12)
        student.set_weights(on_labels.get_weights())
        # The losses and metrics that it reports are those of all workers together.
        fit(keras_distill.Distiller(student, teacher, alpha=0.1), 0.01, 20)
    fit(on_labels, 0.01, 20)
    models = {"teacher": teacher, "student on labels": on_labels, "student distilled": student}
    accuracy = {
        name: round(float((model(x_test).numpy().argmax(-1) == y_test).mean()), 4)
        for name, model in models.items()
    }
    print(json.dumps(accuracy | {"workers": strategy.num_replicas_in_sync}), flush=True)


def main(seed=0, workers=2):
    """Starts the workers as processes of this machine.

    Returns:
        Accuracy on held-out digits by model, and the number of workers.
    """
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    processes = []
    for index in range(workers):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, str(seed)],
                env={**os.environ, "TF_CONFIG": config},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    printed = [process.communicate()[0].strip() for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a worker failed; see its messages above")
    results = [json.loads(text.splitlines()[-1]) for text in printed]
    if any(result != results[0] for result in results):
        sys.exit(f"the workers don't agree: {results}")
    return results[0]


if __name__ == "__main__":
    if "TF_CONFIG" in os.environ:
        worker(*map(int, sys.argv[1:]))
    else:
        print(main())
