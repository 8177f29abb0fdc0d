"""Ctrl-C during a training: heard between two batches."""

import signal

import keras


class BetweenBatches(keras.callbacks.Callback):
    """The context of a training, and a callback for it: Ctrl-C ends it after a batch.

    Python raises `KeyboardInterrupt` wherever it happens to be. Inside TensorFlow it is now and
    then swallowed, or ends the process. A second Ctrl-C is heard at once, as always.
    """

    def __enter__(self):
        self.heard = False
        self.handler = signal.getsignal(signal.SIGINT)
        # Where Ctrl-C is ignored, as in the background of a shell, or handled by the caller.
        if self.handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, error, *_):
        signal.signal(signal.SIGINT, self.handler)
        if error is None:
            self._raise()

    def on_train_batch_end(self, batch, logs=None):
        self._raise()

    def on_test_batch_end(self, batch, logs=None):
        self._raise()

    def _hear(self, *_):
        self.heard = True
        signal.signal(signal.SIGINT, self.handler)

    def _raise(self):
        if self.heard:
            raise KeyboardInterrupt
