"""A serial port as a stream of bytes, without a library of its own."""

import os
import select
from types import TracebackType


class SerialPort:
    """A serial port of Linux or macOS, raw, 8N1.

    Args:
        path: The device, such as `/dev/ttyUSB0`, or a pseudo-terminal.
        baud: Its rate.
        wait: Seconds that `read` waits for bytes.

    Raises:
        ValueError: The system has no such rate, or isn't POSIX.
        OSError: The device can't be opened.
    """

    def __init__(self, path: str, baud: int = 115200, wait: float = 0.1):
        try:
            import termios
            import tty
        except ImportError:
            raise ValueError(
                "Serial ports need Linux or macOS here. Elsewhere, give "
                "`keras_distill.tflite.micro.board.prove` a port of pyserial."
            ) from None
        rate = getattr(termios, f"B{baud}", None)
        if rate is None:
            raise ValueError(f"`baud` must be a rate that the system knows. Received: {baud}")
        self._wait = wait
        # Until CLOCAL is set, opening waits for the carrier of a modem, which boards don't have.
        self._file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(self._file)
            settings = termios.tcgetattr(self._file)
            unwanted = termios.CSTOPB | termios.PARENB | termios.CRTSCTS
            settings[2] = settings[2] & ~unwanted | termios.CLOCAL
            settings[4] = settings[5] = rate
            termios.tcsetattr(self._file, termios.TCSANOW, settings)
            termios.tcflush(self._file, termios.TCIOFLUSH)
            os.set_blocking(self._file, True)
        except termios.error as error:
            os.close(self._file)
            raise OSError(f"{path} is no serial port: {error}") from None

    def read(self, size: int) -> bytes:
        """Bytes that arrived, at most `size`; none where none come for a while."""
        ready, _, _ = select.select([self._file], [], [], self._wait)
        return os.read(self._file, size) if ready else b""

    def write(self, data: bytes) -> None:
        """Sends all bytes."""
        while data:
            data = data[os.write(self._file, data) :]

    def __enter__(self) -> "SerialPort":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)
