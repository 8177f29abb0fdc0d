"""Which backends of Keras run what. `docs/backends.md` has the table."""

import keras

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def require(feature: str, *supported: str) -> None:
    """Raises unless Keras is on a backend that runs a feature.

    Args:
        feature: What was asked for, as the user wrote it.
        *supported: The backends, as in `KERAS_BACKEND`.

    Raises:
        NotImplementedError: If it isn't. Names the feature, the backend and the setting.
    """
    backend = keras.backend.backend()
    if backend in supported:
        return
    names = " or ".join(NAMES[name] for name in supported)
    settings = " or ".join(f"KERAS_BACKEND={name}" for name in supported)
    raise NotImplementedError(
        f"{feature} needs the {names} backend of Keras, which is on "
        f"{NAMES.get(backend, backend)} now. Set {settings} before Keras is imported."
    )
