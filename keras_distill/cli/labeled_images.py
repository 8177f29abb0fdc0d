"""Data of detectors and segmenters: boxes on images, or a class for each pixel."""

import pathlib

import numpy as np
import tensorflow as tf
from absl import flags as absl_flags

from keras_distill.data.image_folders import IMAGE_SUFFIXES, opened

#: Names of the lists and folders of each part, the first that is there.
_SPLITS = {"test": ("test",), "validation": ("val", "validation")}


def boxes(flags: absl_flags.FlagValues) -> tuple[tf.data.Dataset, list[str]]:
    """Annotated images in batches, and the names of their classes.

    Args:
        flags: The flags of `evaluate`: `--data` is a folder in the layout of Pascal VOC, or a file
            of COCO.

    Raises:
        ValueError: If there is no such data, or it can't be read.
    """
    from keras_distill import detection

    path, size = pathlib.Path(_data(flags)), _size(flags)
    if path.suffix == ".json":
        if flags.images is None:
            raise ValueError(f"--images must name the folder of the images of {path}.")
        annotations = detection.read_coco(path, flags.images, class_names=flags.class_names)
    else:
        lists = [path / "ImageSets" / "Main" / f"{name}.txt" for name in _SPLITS[flags.split]]
        there = [file.stem for file in lists if file.is_file()]
        if not there:
            raise ValueError(f"There is no file {lists[0]}, the list of the images of the split.")
        annotations = detection.read_voc(path, there[0], class_names=flags.class_names)
    return detection.dataset(annotations, size).batch(32), annotations.class_names


def masks(flags: absl_flags.FlagValues) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8, and the class of each of their pixels, int32, both of `--image_size`.

    Args:
        flags: The flags of `evaluate`: `--data` is a folder with the images in `test` and, of the
            same names, PNG files of classes in `testannot`; likewise `val` and `valannot`.

    Raises:
        ValueError: If a folder, an image or its mask is missing, or can't be read.
    """
    folder, size = pathlib.Path(_data(flags)), _size(flags)
    names = _SPLITS[flags.split]
    parts = [name for name in names if (folder / f"{name}annot").is_dir()]
    if not parts:
        raise ValueError(
            f"There is no folder {folder / names[0]}annot: images are in {names[0]}, and PNG files "
            f"of the class of each pixel, of the same names, in {names[0]}annot."
        )
    paths = sorted(p for p in (folder / parts[0]).glob("*") if p.suffix in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"There are no images in {folder / parts[0]}.")
    each = [_pair(path, folder / f"{parts[0]}annot" / f"{path.stem}.png", size) for path in paths]
    return np.stack([x for x, _ in each]), np.stack([y for _, y in each])


def _pair(path: pathlib.Path, mask: pathlib.Path, size: tuple) -> tuple[np.ndarray, np.ndarray]:
    if not mask.is_file():
        raise ValueError(f"{path} has no mask: there is no file {mask}.")
    image = np.asarray(opened(str(path)).convert("RGB"))
    # Of a palette, the numbers of the colors are the classes.
    classes = np.asarray(opened(str(mask))).astype("int32")
    if classes.shape != image.shape[:2]:
        raise ValueError(
            f"{mask} must hold one number for each of the pixels {image.shape[:2]} of its image: "
            f"gray, or colors of a palette. Received: shape {classes.shape}"
        )
    image = tf.round(tf.image.resize(image, size, antialias=True))
    classes = tf.image.resize(classes[..., None], size, "nearest")[..., 0]
    return np.asarray(image).astype("uint8"), np.asarray(classes)


def _data(flags: absl_flags.FlagValues) -> str:
    if flags.data is None:
        raise ValueError("say which data: --data=FOLDER.")
    return flags.data


def _size(flags: absl_flags.FlagValues) -> tuple[int, int]:
    size = [int(x) for x in flags.image_size or () if x.strip().isdecimal() and int(x) > 0]
    if len(size) != 2 or len(flags.image_size) != 2:
        raise ValueError(
            f"--image_size must be HEIGHT,WIDTH for --task={flags.task}: that of the images that "
            f"the candidates take. It is {','.join(flags.image_size or ())!r}."
        )
    return size[0], size[1]
