"""Boxes on images as annotation tools store them: Pascal VOC and COCO."""

import dataclasses
import json
import math
import os
import pathlib
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class AnnotatedImage(NamedTuple):
    """An image and the boxes on it.

    Attributes:
        path: Path of the image.
        size: `(height, width)` in pixels.
        boxes: Left, top, right and bottom edge in pixels, float32, shape `(boxes, 4)`.
        labels: Indices of classes, int32, shape `(boxes,)`.
        ignored: Whether a box is a crowd (COCO) or difficult (VOC): neither found nor missed
            when it is scored. Bool, shape `(boxes,)`.
    """

    path: pathlib.Path
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Annotated images, and the names of their classes.

    Attributes:
        images: One `AnnotatedImage` each.
        class_names: Names in the order of the labels.
        faults: What was wrong, by kind: the files (or images) in which it was.
    """

    images: list[AnnotatedImage]
    class_names: list[str]
    faults: Mapping[str, list[str]]

    def __len__(self) -> int:
        return len(self.images)


def read_voc(
    folder: str | os.PathLike, split: str | None = None, *, class_names: Sequence[str] | None = None
) -> Annotations:
    """Reads Pascal VOC: an XML file in `Annotations/` for each image in `JPEGImages/`.

    Boxes without area, and those outside of the image, are dropped; those that reach beyond its
    edge are cut there; images without boxes are kept. A warning counts each kind and names files.

    Args:
        folder: The folder that holds `Annotations` and `JPEGImages`.
        split: Name of a list in `ImageSets/Main`, such as `"train"`. Defaults to `None`: all files.
        class_names: Names of the classes, in the order of the labels. Defaults to `None`: those
            that occur in any file of the folder, sorted.

    Returns:
        `Annotations`. Coordinates are those of the files; nothing is subtracted.

    Raises:
        ValueError: If a file is missing or can't be read, or a class isn't in `class_names`. The
            message names the file.

    Example:

    >>> train = keras_distill.detection.read_voc("BCCD", "train")
    >>> train.class_names
    ['Platelets', 'RBC', 'WBC']
    """
    folder = pathlib.Path(folder)
    files = sorted((folder / "Annotations").glob("*.xml"))
    if not files:
        raise ValueError(f"There are no XML files in {folder / 'Annotations'}.")
    roots = {}
    for path in files:
        try:
            roots[path.stem] = ElementTree.parse(path).getroot()
        except (ElementTree.ParseError, LookupError) as error:
            raise ValueError(f"{path} can't be read as XML: {error}") from error
    if class_names is None:
        found = {
            (name.text or "").strip()
            for root in roots.values()
            for name in root.iterfind("object/name")
        }
        class_names = sorted(found)
    faults = _Faults()
    images = [
        _voc_image(folder, name, roots, list(class_names), faults)
        for name in _voc_names(folder, split, roots)
    ]
    faults.warn()
    return Annotations(images, list(class_names), faults.files)


def _voc_names(folder: pathlib.Path, split: str | None, roots: Mapping[str, Any]) -> list[str]:
    if split is None:
        return list(roots)
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise ValueError(f"`split` must be one of {there}, the lists in {path.parent}: {split!r}")
    # Lists of one class have a second column.
    try:
        names = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} can't be read as text: {error}") from None
    for name in names:
        if name not in roots:
            raise ValueError(f"{path} names {name!r}, which {folder / 'Annotations'} doesn't have.")
    return names


def _voc_image(
    folder: pathlib.Path, name: str, roots: Mapping, class_names: list[str], faults: "_Faults"
) -> AnnotatedImage:
    root, file = roots[name], folder / "Annotations" / f"{name}.xml"
    try:
        size = int(root.find("size/height").text), int(root.find("size/width").text)
        boxes = [
            (
                thing.find("name").text.strip(),
                [float(thing.find(f"bndbox/{edge}").text) for edge in _VOC_EDGES],
                (thing.findtext("difficult") or "0").strip() == "1",
            )
            for thing in root.iterfind("object")
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} must have a size, and a name and a bndbox for each object: {error}"
        ) from error
    given = root.findtext("filename") or ""
    image = folder / "JPEGImages" / given
    if not given or not image.is_file():
        image = next(iter(sorted((folder / "JPEGImages").glob(f"{name}.*"))), image)
    return _checked(image, size, boxes, class_names, str(file), faults)


_VOC_EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_coco(
    file: str | os.PathLike, images: str | os.PathLike, *, class_names: Sequence[str] | None = None
) -> Annotations:
    """Reads COCO's `instances_*.json`.

    Faults are handled as by `read_voc`; messages name the file and the image.

    Args:
        file: Path of the JSON file.
        images: Folder of the images.
        class_names: Names of the classes, in the order of the labels. Defaults to `None`: the
            categories of the file, in the order of their `id`.

    Returns:
        `Annotations`.

    Raises:
        ValueError: If the file or an image is missing or can't be read, or a category is unknown.

    Example:

    >>> val = keras_distill.detection.read_coco("instances_val2017.json", "val2017")
    """
    file = pathlib.Path(file)
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} can't be read as JSON: {error}") from None
    try:
        named = _by_id(content, "categories", file)
        categories = {key: named[key]["name"] for key in sorted(named)}
        entries = _by_id(content, "images", file)
        paths = {
            key: pathlib.Path(images, str(entry["file_name"])) for key, entry in entries.items()
        }
        boxes: dict[Any, list] = {key: [] for key in entries}
        for note in content["annotations"]:
            box = _coco_box(note, categories, file)
            if note["image_id"] not in boxes:
                raise ValueError(
                    f"{file}: annotation {note.get('id')} has the image {note['image_id']}, which "
                    "isn't among the file's images."
                )
            boxes[note["image_id"]].append(box)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} isn't a COCO file of instances: {error!r}.") from error
    names = list(categories.values()) if class_names is None else list(class_names)
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: `class_names` must be different. Received: {names}")
    faults = _Faults()
    found = [
        _checked(
            paths[key],
            _coco_size(entry, file),
            boxes[key],
            names,
            f"{file}, image {entry['file_name']}",
            faults,
        )
        for key, entry in entries.items()
    ]
    faults.warn()
    return Annotations(found, names, faults.files)


def _by_id(content: Mapping, part: str, file: pathlib.Path) -> dict[Any, Mapping]:
    """The entries of a part of the file by their `id`."""
    found: dict[Any, Mapping] = {}
    for entry in content[part]:
        if entry["id"] in found:
            raise ValueError(f"{file}: two {part} have the `id` {entry['id']}.")
        found[entry["id"]] = entry
    return found


def _coco_size(entry: Mapping, file: pathlib.Path) -> tuple[int, int]:
    size = entry.get("height"), entry.get("width")
    if not all(map(_is_number, size)):
        raise ValueError(
            f"{file}: image {entry['file_name']} must have a height and a width. Received: {size}"
        )
    return int(size[0]), int(size[1])  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _coco_box(note: Mapping, categories: Mapping, file: pathlib.Path) -> tuple:
    if note["category_id"] not in categories:
        raise ValueError(
            f"{file}: annotation {note.get('id')} has the category {note['category_id']}, which "
            "isn't among the file's categories."
        )
    bbox = note["bbox"]
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise ValueError(
            f"{file}: annotation {note.get('id')} must have a `bbox` of left, top, width and "
            f"height. Received: {bbox!r}"
        )
    left, top, width, height = bbox
    edges = [left, top, left + width, top + height]
    return categories[note["category_id"]], edges, bool(note.get("iscrowd", 0))


class _Faults:
    """What was wrong in which files, counted."""

    def __init__(self) -> None:
        self.files: dict[str, list[str]] = {}

    def add(self, kind: str, file: str) -> None:
        self.files.setdefault(kind, []).append(file)

    def warn(self) -> None:
        """One warning that counts all faults."""
        if not self.files:
            return
        parts = []
        for kind, files in self.files.items():
            different = list(dict.fromkeys(files))
            more = f" and {len(different) - 3} more" if len(different) > 3 else ""
            parts.append(f"{len(files)} {kind} (in {', '.join(different[:3])}{more})")
        warnings.warn("Annotations: " + "; ".join(parts) + ".", stacklevel=3)


def _checked(
    image: pathlib.Path,
    size: tuple[int, int],
    given: Sequence[tuple[str, Sequence[float], bool]],
    class_names: list[str],
    source: str,
    faults: _Faults,
) -> AnnotatedImage:
    """An `AnnotatedImage` of boxes `(class, edges, ignored)`, faults counted.

    Args:
        image: Path of the image.
        size: Its height and width.
        given: The boxes.
        class_names: Names of the classes that are known.
        source: The file that a message names.
        faults: Where faults are counted.
    """
    if not image.is_file():
        raise ValueError(f"{source} is about {image}, which doesn't exist.")
    if min(size) < 1:
        raise ValueError(f"{source} says that {image} has the size {size}.")
    boxes, labels, ignored = [], [], []
    for name, edges, skip in given:
        if name not in class_names:
            raise ValueError(f"{source} has the class {name!r}, which isn't one of {class_names}.")
        kept = _kept(edges, size, source, faults)
        if kept is not None:
            boxes.append(kept)
            labels.append(class_names.index(name))
            ignored.append(skip)
    if not boxes:
        faults.add("images without boxes, kept", source)
    return AnnotatedImage(
        image,
        size,
        np.asarray(boxes, "float32").reshape(-1, 4),
        np.asarray(labels, "int32"),
        np.asarray(ignored, bool),
    )


def _kept(
    edges: Sequence[float], size: tuple[int, int], source: str, faults: _Faults
) -> list[float] | None:
    """The part of a box that is on the image, or `None`."""
    left, top, right, bottom = edges
    height, width = size
    if not all(map(math.isfinite, edges)):
        raise ValueError(f"{source} has a box with the edges {list(edges)}.")
    if right <= left or bottom <= top:
        faults.add("boxes without area, dropped", source)
        return None
    cut = [max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)]
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        faults.add("boxes outside of their image, dropped", source)
        return None
    if cut != [left, top, right, bottom]:
        faults.add("boxes that reach beyond their image, cut", source)
    return cut
