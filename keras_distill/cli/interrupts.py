"""Ctrl-C during training, handled between two batches."""

import signal
import threading
from typing import Any, Self

import keras


class BetweenBatches(keras.callbacks.Callback):
    """A context for training, and a callback: Ctrl-C ends the training after the current batch.

    Python raises `KeyboardInterrupt` wherever it happens to be. Inside TensorFlow it is sometimes
    swallowed, or ends the process. A second Ctrl-C takes effect at once, as usual.
    """

    def __enter__(self) -> Self:
        self.heard = False
        # Only the main thread gets Ctrl-C, which may also be ignored or handled by the caller.
        self.listens = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.listens:
            signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self.listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if error is None:
            self._raise()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._raise()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._raise()

    def _hear(self, *_: object) -> None:
        self.heard = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _raise(self) -> None:
        if self.heard:
            raise KeyboardInterrupt
