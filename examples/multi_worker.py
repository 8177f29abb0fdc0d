"""Distil on several workers with `tf.distribute.MultiWorkerMirroredStrategy`.

Run it with `python examples/multi_worker.py`: it starts two workers on this machine. On a real
cluster, start the script on each machine with `TF_CONFIG` set, as TensorFlow documents it.
"""

import json
import os
import socket
import subprocess
import sys


def worker():
    # TensorFlow reads TF_CONFIG when it starts, so it is imported here.
    import keras
    import tensorflow as tf
    from sklearn.datasets import load_digits

    import keras_distill

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(0)  # all workers start from the same weights

    def classifier(width):
        return keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(width, activation="relu"),
                keras.layers.Dense(10),
            ]
        )

    digits = load_digits()
    images = (digits.data / 16).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher = classifier(256)
    teacher.compile("adam", loss)
    # Batches of the global size: each worker takes its share of every batch.
    data = tf.data.Dataset.from_tensor_slices((images[:1500], digits.target[:1500])).batch(100)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = data.with_options(options)
    teacher.fit(data, epochs=20, verbose=0)

    with strategy.scope():
        student = classifier(12)
        distiller = keras_distill.Distiller(student, teacher, alpha=0.1)
        distiller.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    # Accuracy and losses are those of all workers together.
    history = distiller.fit(data, epochs=10, verbose=0).history
    predictions = student(images[1500:]).numpy().argmax(-1)
    result = {
        "workers": strategy.num_replicas_in_sync,
        "loss": round(float(history["loss"][-1]), 5),
        "held-out accuracy": round(float((predictions == digits.target[1500:]).mean()), 4),
    }
    print(json.dumps(result), flush=True)


def main(workers=2):
    """Starts the workers as processes of this machine. Returns what each of them printed."""
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
                [sys.executable, __file__],
                env={**os.environ, "TF_CONFIG": config},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    results = [process.communicate()[0].strip() for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a worker failed; see its messages above")
    for index, result in enumerate(results):
        print(f"worker {index}: {result}")
    return [json.loads(result.splitlines()[-1]) for result in results]


if __name__ == "__main__":
    worker() if "TF_CONFIG" in os.environ else main()
