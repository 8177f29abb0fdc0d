"""Arguments of `Artifact.save`: the name of an app's package, and those that say nothing."""

import re
from typing import Any

from keras_distill.tflite import names

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


def check_package(package: Any) -> None:
    """Refuses what isn't the name of a Kotlin package.

    Raises:
        ValueError: It isn't.
    """
    is_name = re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", str(package))
    if not is_name or not names.KOTLIN_KEYWORDS.isdisjoint(str(package).split(".")):
        raise ValueError(
            "`package` must be a Kotlin package of at least two parts, none of which is a keyword, "
            f'such as "com.example.app". Received: package={package!r}'
        )
