"""What is in recordings that drive counts and does not drive: a planner's published plans, comma2k19 segments, Donkeycar tubs."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drive.core.errors import DataError
from drive.datasets.logged import Inspection
from drive.datasets.unpickle import load_plain_pickle

Counts = dict[str, int | float | str]
# of a comma2k19 segment: name in the counts, folder, the columns of its values
SIGNALS = (
    ("CAN speeds", "processed_log/CAN/speed", 1),
    ("CAN steering angles", "processed_log/CAN/steering_angle", 1),
    ("IMU accelerations", "processed_log/IMU/accelerometer", 3),
    ("IMU turn rates", "processed_log/IMU/gyro", 3),
)
MAX_FILE, MAX_TUB = 1 << 26, 1 << 32  # bytes of one file of a tub, and of all of them unpacked


def inspect_plans(path: Path) -> Inspection:
    """Counts of a pickle of plans by nuScenes sample token, as Agent-Driver publishes its own. Raises DataError on any other pickle."""
    content = load_plain_pickle(path)
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path} is no pickle of plans by sample token")
    shapes: dict[str, int] = {}
    faults = []
    for token, plan in content.items():
        values = np.asarray(plan)
        if values.dtype.kind not in "fiu" or values.ndim < 2 or not np.isfinite(values).all():
            faults.append(f"{path}: the plan of {token} has NaN or is no array of positions")
            continue
        name = " x ".join(map(str, values.shape))
        shapes[name] = shapes.get(name, 0) + 1
    if not shapes:
        raise DataError(f"{path} is no pickle of plans by sample token: {faults[0]}")
    return Inspection("plans by sample", path, {"samples": len(content), **{f"of shape {k}": v for k, v in shapes.items()}}, tuple(faults))


def _npy(path: Path, columns: int) -> NDArray[Any]:
    try:
        values = np.lib.format.read_array(BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a numpy array ({error})") from error
    if values.dtype.kind != "f" or values.size != len(values) * columns:
        raise DataError(f"{path} is of shape {values.shape} and type {values.dtype}, want {columns} columns of numbers")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: record {int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).argmax())} is NaN or infinite")
    return values


def _rate(times: NDArray[Any]) -> float:
    return round((len(times) - 1) / float(times[-1] - times[0]), 1) if len(times) > 1 and times[-1] > times[0] else 0.0


def inspect_comma2k19(path: Path) -> Inspection:
    """Counts of one segment's folder (`global_pose` and `processed_log`): frame poses, CAN and IMU messages with their rates.

    Raises DataError where it has no frame poses; signals that cannot be read are faults. The arrays are .npy files without the suffix.
    """
    times, velocity = _npy(path / "global_pose" / "frame_times", 1).ravel(), _npy(path / "global_pose" / "frame_velocities", 3)
    places, turns = _npy(path / "global_pose" / "frame_positions", 3), _npy(path / "global_pose" / "frame_orientations", 4)
    if not len(times) == len(velocity) == len(places) == len(turns):
        raise DataError(f"{path / 'global_pose'}: {len(times)} times, {len(places)} positions, {len(turns)} orientations, {len(velocity)} velocities")
    metres = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    counts: Counts = {"frame poses": len(times), "rate (Hz)": _rate(times), "driven (m)": round(metres, 1)}
    faults = []
    for name, folder, columns in SIGNALS:
        try:
            stamps, values = _npy(path / folder / "t", 1), _npy(path / folder / "value", columns)
            if len(stamps) != len(values):
                raise DataError(f"{path / folder}: {len(stamps)} times, {len(values)} values")
        except DataError as error:
            faults.append(str(error))
            continue
        counts |= {name: len(values), f"{name} (Hz)": _rate(stamps.ravel())}
    return Inspection("comma2k19 segment", path, counts, tuple(faults))


def inspect_tub(path: Path) -> Inspection:
    """Counts of a Donkeycar tub in a .tar.gz: records with steering and throttle, and camera images.

    Nothing is extracted: files are read from the archive one by one, within bounds. Raises DataError where it cannot be read to its
    end, is larger than the bounds, or holds no manifest; records and images at fault are faults.
    """
    sizes: dict[str, int] = {}
    images: set[str] = set()
    records: list[tuple[str, Any]] = []
    faults: list[str] = []
    manifests = total = 0
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = Path(member.name).name
                total += member.size
                if total > MAX_TUB:
                    raise DataError(f"{path} unpacks to more than {MAX_TUB >> 30} GiB")
                if not member.isfile() or name.startswith("._"):  # a Mac's side files
                    continue
                if member.size > MAX_FILE:
                    raise DataError(f"{path}: {member.name} is larger than {MAX_FILE >> 20} MiB")
                file = archive.extractfile(member)
                data = file.read() if file is not None else b""
                manifests += name == "manifest.json"
                if name.endswith(".catalog"):
                    records += _catalog(path, member.name, data, faults)
                elif name.endswith((".jpg", ".png")):
                    images.add(name)
                    _picture(path, member.name, data, sizes, faults)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a .tar.gz archive ({error}): fetch it again") from error
    if not manifests:
        raise DataError(f"{path} is no Donkeycar tub: it holds no manifest.json")
    faults += [f"{path}: {where} names the image {name!r}, which is not in the archive" for where, name in records if name not in images]
    counts: Counts = {"records": len(records), "images": sum(sizes.values()), **{f"of {size}": count for size, count in sizes.items()}}
    return Inspection("Donkeycar tub", path, counts, tuple(faults))


def _catalog(path: Path, name: str, data: bytes, faults: list[str]) -> list[tuple[str, Any]]:
    """(where, image) of the records of a catalog, a line of JSON each."""
    found = []
    for number, line in enumerate(data.splitlines()):
        try:
            record = json.loads(line)
            angle, throttle, image = record["user/angle"], record["user/throttle"], record["cam/image_array"]
            if not np.isfinite([float(angle), float(throttle)]).all():
                raise ValueError("steering or throttle is NaN")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            faults.append(f"{path}: line {number + 1} of {name} is no record ({error!r})")
            continue
        found.append((f"line {number + 1} of {name}", image))
    return found


def _picture(path: Path, name: str, data: bytes, sizes: dict[str, int], faults: list[str]) -> None:
    try:
        with Image.open(BytesIO(data)) as picture:
            key = f"{picture.width}x{picture.height}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        faults.append(f"{path}: {name} is no image ({type(error).__name__})")
        return
    sizes[key] = sizes.get(key, 0) + 1
