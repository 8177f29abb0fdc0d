"""What a motion sensor's front end makes of a window of the UCI HAR Dataset."""

import pathlib

import numpy as np

SIGNALS = [f"{sensor}_{axis}" for sensor in ("body_gyro", "total_acc") for axis in "xyz"]
BANDS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 40, 65]  # each 0.39 Hz
LAGS = (1, 2, 3, 5, 8, 13, 20)


def windows(folder, part):
    """Windows of shape (128, 6), activities from 0 to 5, and the number of each one's person."""
    folder = pathlib.Path(folder, part)
    x = [np.loadtxt(folder / "Inertial Signals" / f"{s}_{part}.txt", "float32") for s in SIGNALS]
    y, people = (np.loadtxt(folder / f"{n}_{part}.txt", "int32") for n in ("y", "subject"))
    return np.stack(x, -1), y - 1, people


def features(windows):
    """What the student reads of each window, and what the teacher reads beside."""

    def size(signal):
        return np.linalg.norm(signal, axis=-1, keepdims=True)

    turns, force = windows[..., :3], windows[..., 3:]
    gravity = force.mean(1, keepdims=True)
    up, body = gravity / size(gravity), force - gravity
    rise = (body * up).sum(-1, keepdims=True)
    yaw = (turns * up).sum(-1, keepdims=True)
    signals = [body, turns, size(body), size(turns), rise, size(body - rise * up), yaw]
    signals = np.concatenate(signals, -1)
    signals = signals - signals.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(signals * np.hanning(128)[:, None], axis=1)) ** 2 / 128
    energies = np.add.reduceat(power, BANDS[:-1], axis=1) / np.diff(BANDS)[:, None]
    read = [gravity[:, 0], up[:, 0], up[:, 0] ** 2, np.log(energies + 1e-5).reshape(len(up), -1)]

    unit = signals / (signals.std(1, keepdims=True) + 1e-6)
    later = [(unit[:, lag:] * unit[:, :-lag]).mean(1) for lag in LAGS]
    correlations = unit.swapaxes(1, 2) @ unit / 128
    beside = [*later, correlations[:, *np.triu_indices(11, 1)]]
    return [np.concatenate(part, -1).astype("float32") for part in (read, beside)]
