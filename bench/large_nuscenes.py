"""nuScenes tables of v1.0-trainval's size and proportions, and the memory that converting them takes.

    python bench/large_nuscenes.py [SCENES] [WORKERS] [CAMERAS]

Per scene 40 key frames of twelve channels, 69 sweeps between two of them, and 76 instances seen for 18 key frames each. The whole of
v1.0-trainval is 850 scenes: 34,149 samples, 2,631,083 sample_data and as many ego_pose, 1,166,187 sample_annotation and 64,386 instance
(https://www.nuscenes.org/nuscenes#data-format and the devkit's own count of the tables).
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from drive.datasets import nuscenes
from drive.datasets.convert import convert

VERSION, ALL_SCENES = "v1.0-trainval", 850
SAMPLES, INSTANCES, SEEN = 40, 76, 18  # of a scene; SEEN key frames of an instance
CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")
SWEEPS = {"LIDAR_TOP": 9} | dict.fromkeys(CAMERAS, 5) | dict.fromkeys(RADARS, 6)  # between two key frames
CATEGORIES = ("vehicle.car", "human.pedestrian.adult", "movable_object.barrier", "movable_object.trafficcone", "vehicle.truck")
START, STEP_US = 1_532_402_927_000_000, 500_000


class Peak(NamedTuple):
    """MiB at most: of the converting process, of its largest worker, of all of them at one time (shared libraries count for each); and seconds."""

    parent: float
    worker: float
    together: float
    seconds: float


def token(kind: str, *numbers: int) -> str:
    """32 hexadecimal digits."""
    return f"{sum(map(ord, kind)) % 4096:03x}{''.join(f'{number:06x}' for number in numbers):0>29}"


def scene_names(scenes: int) -> list[str]:
    """The names of the scenes that are written."""
    return [f"scene-{number:04d}" for number in range(1, scenes + 1)]


def write_nuscenes(root: Path, scenes: int) -> int:
    """All thirteen tables below `root`; how many boxes they hold."""
    folder = root / VERSION
    folder.mkdir(parents=True)
    sensors = [{"token": token("sensor", n), "channel": name, "modality": name.split("_")[0].lower()} for n, name in enumerate(SWEEPS)]
    small = {
        "sensor": sensors,
        "category": [{"token": token("category", n), "name": name, "description": ""} for n, name in enumerate(CATEGORIES)],
        "attribute": [{"token": token("attribute", 0), "name": "vehicle.moving", "description": ""}],
        "visibility": [{"token": str(n), "level": f"v{n}", "description": ""} for n in range(1, 5)],
        "map": [{"token": token("map", 0), "category": "semantic_prior", "filename": "", "log_tokens": [token("log", 0)]}],
        "log": [{"token": token("log", 0), "logfile": "n015", "vehicle": "n015", "date_captured": "2018-07-24", "location": "boston-seaport"}],
        "scene": [
            {
                "token": token("scene", n), "log_token": token("log", 0), "nbr_samples": SAMPLES, "first_sample_token": token("sample", n, 0),
                "last_sample_token": token("sample", n, SAMPLES - 1), "name": name, "description": "A drive along a street",
            }
            for n, name in enumerate(scene_names(scenes))
        ],
    }  # fmt: skip
    for name, records in small.items():
        (folder / f"{name}.json").write_text(json.dumps(records, indent=0))
    rows = {
        "calibrated_sensor": _calibrated, "sample": _samples, "instance": _instances, "sample_annotation": _boxes, "sample_data": _frames, "ego_pose": _poses,
    }  # fmt: skip
    return {name: _write(folder / f"{name}.json", rows_of, scenes) for name, rows_of in rows.items()}["sample_annotation"]


def _write(path: Path, rows_of: Callable[[int], Iterable[dict]], scenes: int) -> int:
    """Records of two lines and more, as the published files have them; how many."""
    count = 0
    with path.open("w") as file:
        file.write("[\n")
        for scene in range(scenes):
            texts = [json.dumps(row, separators=(",\n", ": ")) for row in rows_of(scene)]
            file.write(("" if scene == 0 else ",\n") + ",\n".join(texts))
            count += len(texts)
        file.write("\n]")
    return count


def _samples(scene: int) -> Iterator[dict]:
    for k in range(SAMPLES):
        ends = (token("sample", scene, k - 1) if k else "", token("sample", scene, k + 1) if k + 1 < SAMPLES else "")
        yield {"token": token("sample", scene, k), "timestamp": _time(scene, k), "prev": ends[0], "next": ends[1], "scene_token": token("scene", scene)}


def _time(scene: int, k: int, part: float = 0.0) -> int:
    return START + scene * 100_000_000 + round((k + part) * STEP_US)


def _calibrated(scene: int) -> Iterator[dict]:
    for n, channel in enumerate(SWEEPS):
        yield {
            "token": token("calibrated", scene, n), "sensor_token": token("sensor", n), "translation": [1.70079118954, 0.0159456324149, 1.51095763913],
            "rotation": [0.4998015430569128, -0.5030316162024876, 0.4997798114386805, -0.4973708348126812],
            "camera_intrinsic": [[1266.417203046554, 0.0, 816.2670197447984], [0.0, 1266.417203046554, 491.5070657929476], [0.0, 0.0, 1.0]]
            if channel.startswith("CAM") else [],
        }  # fmt: skip


def _captures(scene: int) -> Iterator[tuple[int, int, int, float]]:
    """Channel, key frame, number (0 is the key frame itself), and time after the key frame as a part of the step."""
    for k in range(SAMPLES):
        for channel, sweeps in enumerate(SWEEPS.values()):
            for part in range(sweeps + 1 if k + 1 < SAMPLES else 1):
                yield channel, k, part, part / (sweeps + 1)


def _frames(scene: int) -> Iterator[dict]:
    names = list(SWEEPS)
    for channel, k, part, share in _captures(scene):
        name, stamp = names[channel], _time(scene, k, share)
        camera, folder = name.startswith("CAM"), "sweeps" if part else "samples"
        yield {
            "token": token("data", scene, channel, k, part), "sample_token": token("sample", scene, k), "ego_pose_token": token("ego", scene, channel, k, part),
            "calibrated_sensor_token": token("calibrated", scene, channel), "timestamp": stamp, "fileformat": "jpg" if camera else "pcd",
            "is_key_frame": not part, "height": 900 if camera else 0, "width": 1600 if camera else 0,
            "filename": f"{folder}/{name}/n015-2018-07-24-11-22-45+0800__{name}__{stamp}.{'jpg' if camera else 'pcd.bin'}",
            "prev": token("data", scene, channel, k, part), "next": token("data", scene, channel, k, part),
        }  # fmt: skip


def _poses(scene: int) -> Iterator[dict]:
    for channel, k, part, share in _captures(scene):
        yield {
            "token": token("ego", scene, channel, k, part), "timestamp": _time(scene, k, share),
            "rotation": [0.5720320396729045, -0.0016977771610471074, 0.011798001930183783, -0.8201446642457809],
            "translation": [411.3039349319818 + 0.37 * scene + 2.513 * (k + share), 1180.8903791765097, 0.0],
        }  # fmt: skip


def _first(n: int) -> int:
    return n * 7 % (SAMPLES - SEEN + 1)


def _instances(scene: int) -> Iterator[dict]:
    for n in range(INSTANCES):
        ends = [token("box", scene, n, k) for k in (_first(n), _first(n) + SEEN - 1)]
        yield {
            "token": token("instance", scene, n), "category_token": token("category", n % len(CATEGORIES)), "nbr_annotations": SEEN,
            "first_annotation_token": ends[0], "last_annotation_token": ends[1],
        }  # fmt: skip


def _boxes(scene: int) -> Iterator[dict]:
    for n in range(INSTANCES):
        for k in range(_first(n), _first(n) + SEEN):
            yield {
                "token": token("box", scene, n, k), "sample_token": token("sample", scene, k), "instance_token": token("instance", scene, n),
                "visibility_token": str(1 + n % 4), "attribute_tokens": [token("attribute", 0)],
                "translation": [373.256 + 0.37 * scene + 1.7 * n, round(1130.419 + 0.9 * k, 3), 0.8], "size": [0.621, 0.669, 1.642],
                "rotation": [0.9831098797903927, 0.0, 0.0, -0.18301629506281616], "prev": token("box", scene, n, k - 1 if k > _first(n) else 0),
                "next": token("box", scene, n, k + 1), "num_lidar_pts": 1, "num_radar_pts": 0,
            }  # fmt: skip


def _convert(root: Path, out: Path, workers: int, camera: str, tell: Connection) -> None:
    names = scene_names(len(json.loads((root / VERSION / "scene.json").read_text())))
    nuscenes.official_splits = lambda version: {"train": names[len(names) // 6 :], "test": names[: len(names) // 6]}  # needs no devkit
    start = time.perf_counter()
    done = convert(nuscenes.NuScenesReader(VERSION, camera), root, out, workers=workers, progress=False)
    took = time.perf_counter() - start
    if done.converted != len(names):
        raise RuntimeError(f"{done.converted} of {len(names)} scenes were converted: {done.faults[:3]}")
    tell.send(took)
    tell.recv()  # wait until the last look at our memory


def peak_of_converting(root: Path, out: Path, workers: int = 1, camera: str = "") -> Peak:
    """Memory and time of `convert` in a process of its own. Linux alone: elsewhere ru_maxrss of a worker could not be told from its parent's."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_convert, args=(root, out, workers, camera, theirs))
    process.start()
    theirs.close()
    parent = worker = together = 0.0
    done = False
    while not done:
        done = ours.poll(0.05)
        (now, most), children = _memory(str(process.pid)), [_memory(child) for child in _children(str(process.pid))]
        parent, worker = max(parent, most), max([worker, *(most for _, most in children)])
        together = max(together, now + sum(now for now, _ in children))
    took = ours.recv()  # EOFError where it failed
    ours.send(None)
    process.join()
    return Peak(parent, worker, together, took)


def _children(process: str) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def _memory(process: str) -> tuple[float, float]:
    """MiB that a process holds now, and at most so far; 0 where it has ended.

    Not ru_maxrss: that of a child begins with what its parent held when it was started.
    """
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return int(lines["VmRSS"].split()[0]) / 1024.0, int(lines["VmHWM"].split()[0]) / 1024.0
    except (OSError, KeyError):
        return 0.0, 0.0


def write_images(root: Path, scenes: int, cameras: Sequence[str]) -> None:
    """Empty files in the place of the images of key frames, which converting names and does not read."""
    for camera in cameras:
        (root / "samples" / camera).mkdir(parents=True)
    for scene in range(scenes):
        for frame in _frames(scene):
            if frame["is_key_frame"] and frame["filename"].split("/")[1] in cameras:
                (root / frame["filename"]).touch()


def main(scenes: int = ALL_SCENES, workers: int = 1, cameras: int = 0) -> None:
    """Writes the tables, converts them, prints the figures."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "nuscenes"
        boxes = write_nuscenes(root, scenes)
        write_images(root, scenes, CAMERAS[:cameras])
        size = sum(path.stat().st_size for path in root.rglob("*.json")) / 1e6
        peak = peak_of_converting(root, Path(folder) / "cache", workers, ",".join(CAMERAS[:cameras]))
        print(f"{scenes} scenes, {boxes} boxes, {size:.0f} MB on the disk, {workers} workers, {cameras} cameras: ", end="")
        print(f"parent {peak.parent:.0f} MiB, worker {peak.worker:.0f} MiB, together {peak.together:.0f} MiB, {peak.seconds:.0f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
