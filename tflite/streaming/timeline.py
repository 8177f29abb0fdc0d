"""Where along time a tensor's values are: in a window, and in the stream.

A student over a window of frames computes, for each tensor along time, elements 0, 1, 2, ... of the
window. Frame by frame, the same tensor is a stream of elements that never ends. This is the
arithmetic between both: element `j` of a window that starts with the recording is element
`j + delay` of the stream.
"""

import dataclasses
from typing import TypeAlias


@dataclasses.dataclass(frozen=True)
class Elements:
    """A tensor along time.

    Attributes:
        axis: Its axis along time.
        length: How many elements a window has.
        stride: Frames from one element to the next.
        delay: Elements that the stream gives before element 0 of the recording. Below 0 where the
            first elements of a window are padding, which the stream never gives.
        low: From here on, a window's elements are the same inside a longer recording: they depend
            on no padding at its start.
        high: Up to here, they depend on no padding at its end.
        start: From here on, they are exact in a stream that starts with the window. Padding at the
            start is exact where the buffers, which start from zero, stand for it.
    """

    axis: int
    length: int
    stride: int = 1
    delay: int = 0
    low: int = 0
    high: int = 0
    start: int = 0

    @classmethod
    def of_window(cls, axis: int, length: int) -> "Elements":
        """The frames of a window of `length` frames."""
        return cls(axis, length, high=length)

    @property
    def offset(self) -> int:
        """Frames from the start of a window to the end of the step that gives its last element."""
        return self.stride * (self.length + self.delay)

    def moved(self, axis: int) -> "Elements":
        """The same elements along another axis."""
        return dataclasses.replace(self, axis=axis)

    def delayed(self, delay: int) -> "Elements":
        """The same elements, given later."""
        return dataclasses.replace(self, delay=delay)

    def computed(self) -> "Elements":
        """Results of these elements, one by one.

        Padding that the stream never gives is not computed with: buffers after it start from zero.
        """
        return dataclasses.replace(self, start=max(self.start, -self.delay))

    def padded(self, before: int, after: int) -> "Elements":
        """These elements between zeros."""
        exact = self.delay <= 0 and self.start <= 0
        return dataclasses.replace(
            self,
            length=before + self.length + after,
            delay=self.delay - before,
            low=self.low + before,
            high=self.high + before,
            start=0 if exact else self.start + before,
        )

    def cropped(self, begin: int, length: int) -> "Elements":
        """`length` of these elements from `begin` on."""
        return dataclasses.replace(
            self,
            length=length,
            delay=self.delay + begin,
            low=max(self.low - begin, 0),
            high=min(self.high - begin, length),
            start=max(self.start - begin, 0),
        )

    def buffer(self, size: int, stride: int, before: int) -> int:
        """How many elements before the new ones a kernel needs; below 0, how many it leaves out.

        Args:
            size: Elements from the first to the last that a result needs.
            stride: Elements from one result to the next.
            before: Elements of padding before the first.
        """
        least = size - stride
        return least + (before - self.delay - least) % stride

    def swept(
        self, size: int, stride: int, before: int, length: int, *, zeros: bool = True
    ) -> "Elements":
        """What a kernel computes that sweeps over these elements.

        Args:
            size: Elements from the first to the last that a result needs.
            stride: Elements from one result to the next.
            before: Elements of padding before the first.
            length: How many results a window has.
            zeros: Whether padding stands for zeros, which buffers that start from zero give.
        """
        exact = self.delay <= 0 and self.start <= 0 and (zeros or not before)
        return Elements(
            self.axis,
            length,
            self.stride * stride,
            (self.buffer(size, stride, before) + self.delay - before) // stride,
            low=max(_up(self.low + before, stride), 0),
            high=min((self.high - size + before) // stride + 1, length),
            start=0 if exact else max(_up(max(self.start, 0) + before, stride), 0),
        ).computed()

    def joined(self, other: "Elements") -> "Elements":
        """What is computed from these elements and others, which are equally late."""
        return dataclasses.replace(
            self,
            low=max(self.low, other.low),
            high=min(self.high, other.high),
            start=max(self.start, other.start),
        )

    def remembered(self) -> "Elements":
        """What a recurrent layer computes, whose state goes on from window to window."""
        return dataclasses.replace(self, low=self.length)

    def whole(self) -> "WindowValue":
        """What is computed from all elements of a window at once."""
        complete = self.high >= self.length
        return WindowValue(self.offset, self.low <= 0 and complete, self.start <= 0 and complete)


@dataclasses.dataclass(frozen=True)
class WindowValue:
    """A tensor that has one value for a window, and in the stream one for each step.

    Attributes:
        offset: Frames from the start of the window to the end of the step that gives its value.
        always: Whether it is the same for every window of a recording.
        first: Whether it is the same for the window that the stream starts with.
    """

    offset: int
    always: bool
    first: bool

    def joined(self, other: "WindowValue") -> "WindowValue":
        """What is computed from this value and another, which is equally late."""
        always, first = self.always and other.always, self.first and other.first
        return WindowValue(self.offset, always, first)


#: What is known of a tensor; nothing where it is the same at all times.
Timeline: TypeAlias = Elements | WindowValue


def _up(number, divisor):
    """A quotient, rounded up."""
    return -(-number // divisor)
