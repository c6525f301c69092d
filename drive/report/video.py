"""Write pictures as an mp4 that browsers play."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.files import PARTIAL, disk_errors

# mpeg4 comes last: every build of FFmpeg has it, few browsers play it.
ENCODERS = {"libx264": {"crf": "20", "preset": "veryfast"}, "libopenh264": {}, "mpeg4": {"q": "3"}}


def write_mp4(frames: Iterable[NDArray[np.uint8]], path: Path | str, fps: float) -> Path:
    """Encode `frames`, each RGB (H, W, 3) uint8 of one size, at `fps` frames/s; an odd last row or column is dropped.

    The file appears whole or not at all. Raises DataError where there is no frame or sizes differ, DriveError on a full disk.
    """
    path, remaining = Path(path), iter(frames)
    first = next(remaining, None)
    if first is None:
        raise DataError(f"{path}: a video needs at least one frame")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with disk_errors(path):
        try:
            _encode(itertools.chain([first], remaining), temporary, fps, first.shape)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _encode(frames: Iterable[NDArray[np.uint8]], path: Path, fps: float, shape: tuple[int, ...]) -> None:
    height, width = shape[0] // 2 * 2, shape[1] // 2 * 2  # yuv420p has one colour sample per 2 x 2 pixels
    codec = next(name for name in ENCODERS if name in av.codecs_available)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options=ENCODERS[codec])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            if frame.shape != shape or frame.dtype != np.uint8:
                raise DataError(f"a video takes frames of one size, {shape} uint8; got {frame.shape} {frame.dtype}")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
