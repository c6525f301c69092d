"""What is in the info pickles that detectors are trained on: mmdetection3d's (v1.1: a dict with `data_list`) and vis4d's (a list of key frames).

They are counted, not driven: mmdetection3d's boxes carry no identity from frame to frame, and neither file says where its cameras' ego stands
on a map; the tables that they were made from do (`dataset=nuscenes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from drive.core.errors import DataError
from drive.datasets.logged import Inspection
from drive.datasets.unpickle import load_plain_pickle

POINT_BYTES = 4  # of a value of a lidar point
Counts = dict[str, int | float | str]


def inspect(path: Path) -> Inspection:
    """Counts of an info pickle of either kind. Raises DataError on any other; frames and files at fault are faults."""
    content = load_plain_pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("data_list"), list):
        return _mmdet3d(path, content)
    if isinstance(content, list) and content and all(isinstance(frame, Mapping) and "LIDAR_TOP" in frame for frame in content):
        return _vis4d(path, content)
    raise DataError(f"{path} is no info pickle: neither a dict with a data_list (mmdetection3d) nor a list of key frames with LIDAR_TOP (vis4d)")


def _mmdet3d(path: Path, content: Mapping[str, Any]) -> Inspection:
    names = {number: str(name) for name, number in (content.get("metainfo") or {}).get("categories", {}).items()}
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    faults: list[str] = []
    for number, frame in enumerate(content["data_list"]):
        try:
            boxes = [int(box["bbox_label_3d"]) for box in frame["instances"]]
            files = [str(image["img_path"]) for image in frame["images"].values()]
            cloud, width = str(frame["lidar_points"]["lidar_path"]), int(frame["lidar_points"]["num_pts_feats"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            faults.append(f"{path}: record {number} of data_list lacks a field ({error!r})")
            continue
        counts += Counter({"frames": 1, "boxes": len(boxes), "images": len(files)})
        kinds += Counter(names.get(label, f"label {label}") for label in boxes)
        for file in files:
            _image(path.parent / file, counts, sizes, faults)
        if width > 0 and (path.parent / cloud).is_file():
            counts["lidar points beside it"] += (path.parent / cloud).stat().st_size // (POINT_BYTES * width)
        else:
            faults.append(f"{path.parent / cloud} is missing")
    version = str((content.get("metainfo") or {}).get("version", ""))
    return Inspection("mmdetection3d infos", path, {"version": version, **counts, "image sizes": ", ".join(sorted(sizes)), **kinds}, tuple(faults))


def _image(file: Path, counts: Counter[str], sizes: Counter[str], faults: list[str]) -> None:
    try:
        with Image.open(file) as picture:
            sizes[f"{picture.width}x{picture.height}"] += 1
            counts["images beside it"] += 1
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        faults.append(f"{file}: no image can be read ({type(error).__name__})")


def _vis4d(path: Path, frames: list[Mapping[str, Any]]) -> Inspection:
    counts: Counter[str] = Counter()
    scenes: Counter[str] = Counter()
    tracks: set[tuple[str, int]] = set()
    faults = []
    for number, frame in enumerate(frames):
        try:
            name, notes = str(frame["scene_name"]), frame["LIDAR_TOP"]["annotations"]
            ids, boxes = [int(track) for track in notes["boxes3d_track_ids"]], len(notes["boxes3d"])
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"{path}: key frame {number} lacks a field ({error!r})")
            continue
        scenes[name] += 1
        tracks |= {(name, track) for track in ids}
        counts += Counter({"key frames": 1, "boxes": boxes, "cameras": sum(key.startswith("CAM_") for key in frame)})
    named: Counts = {"scenes": len(scenes), **counts, "tracks": len(tracks), **scenes}
    return Inspection("vis4d key frames", path, named, tuple(faults))
