"""Shapes and slices: where an axis goes, and what is cut from it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


def kept(before: Sequence[int], axis: int, after: Sequence[int]) -> int | None:
    """The axis that holds the same after a reshape, `None` where there is none.

    A first axis of size 1 is the batch, as that of a window whose only element is left.
    """
    ahead = math.prod(before[:axis])
    for i, size in enumerate(after):
        if size == before[axis] and math.prod(after[:i]) == ahead and (i or size > 1):
            return i
    return None


def merged(before: Sequence[int], axis: int, after: Sequence[int]) -> bool:
    """Whether an axis becomes part of a larger one in a reshape, as in flattening."""
    ahead, through = math.prod(before[:axis]), math.prod(before[: axis + 1])
    for i in range(len(after)):
        inner = math.prod(after[:i])
        if not ahead % inner and not math.prod(after[: i + 1]) % through:
            return True
    return False


class Cut(NamedTuple):
    """What a slice takes of an axis.

    Attributes:
        begin: First element.
        end: The one after the last.
        step: From one element to the next.
        gone: Whether the axis goes away.
        whole: Whether the axis stays as it is.
    """

    begin: int
    end: int
    step: int
    gone: bool
    whole: bool


def cuts(
    begins: Sequence[int],
    ends: Sequence[int],
    steps: Sequence[int],
    shape: Sequence[int],
    options: Any,
) -> list[Cut]:
    """What a `STRIDED_SLICE` takes of each axis.

    Args:
        begins: First element of each axis, counted from the end where negative.
        ends: The one after the last.
        steps: From one element to the next.
        shape: Sizes of the axes.
        options: The operator's `StridedSliceOptionsT`.
    """
    result = []
    for i, size in enumerate(shape):
        if i >= len(begins):
            result.append(Cut(0, size, 1, False, True))
            continue
        bit = 1 << i
        if options.shrinkAxisMask & bit:
            only = begins[i] % size
            result.append(Cut(only, only + 1, 1, True, False))
            continue
        begin = None if options.beginMask & bit else begins[i]
        end = None if options.endMask & bit else ends[i]
        first, last, step = slice(begin, end, steps[i]).indices(size)
        result.append(Cut(first, last, step, False, (first, last, step) == (0, size, 1)))
    return result


def keep_all(options: Any, axis: int) -> None:
    """Has a `STRIDED_SLICE` take an axis from its first to its last element."""
    options.beginMask |= 1 << axis
    options.endMask |= 1 << axis
