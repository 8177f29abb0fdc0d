"""Arguments of `Artifact.save` that say nothing on the kit of its target."""

from typing import Any

PACKAGE = "com.example.student"
DESCRIPTION = "A student distilled with keras_distill."
NORMALIZATION = (0.0, 1.0)

_DEFAULTS = {
    "variants": (),
    "package": PACKAGE,
    "description": DESCRIPTION,
    "normalization": NORMALIZATION,
}


def refuse_of_apps(target: str, **given: Any) -> None:
    """Refuses arguments that are for the kit of an app.

    Args:
        target: Name of the target, which has no app.
        **given: `variants`, `package`, `description` and `normalization`.

    Raises:
        ValueError: One of them isn't its default.
    """
    for name, value in given.items():
        default = _DEFAULTS[name]
        if (tuple(value) if isinstance(default, tuple) else value) != default:
            raise ValueError(
                f"`{name}` is for the app of a phone, which the kit for target {target!r} doesn't "
                f'have. Leave it out, or convert with target="android". Received: {name}={value!r}'
            )
