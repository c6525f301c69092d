"""The recorder: every snapshot of an episode, who was spawned and destroyed, and what was drawn for debugging, in one file.

The file is a stream of msgpack arrays: ["drive-carla-recording", 1, map], then ["frame", frame, seconds, snapshot records], ["spawn", frame, id, type],
["destroy", frame, id], ["collision", frame, id, other], ["debug", frame, shape]. It is not Unreal's format.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgpack

from drive.simulators.carla_server.layouts import ServerError

LOG = logging.getLogger("drive.carla_server")
MAGIC = "drive-carla-recording"
LONGEST = 1 << 30  # bytes of a file that is read back


class Recorder:
    """Writes while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None
        self._packer = msgpack.Packer(use_bin_type=True)

    @property
    def running(self) -> bool:
        """Whether a file is open."""
        return self._file is not None

    def path(self, name: str) -> Path:
        """Where the recording `name` is. Raises ServerError where the name would lead out of the folder."""
        given = Path(name)
        if not given.name or given.name.startswith(".") or given.name != name:
            raise ServerError(f"a recording is named by a plain file name, and lies in the folder that the server was given; got {name!r}")
        return self.folder / given.name

    def start(self, name: str, town: str) -> str:
        """Begin a file; its path. Raises ServerError where it cannot be written."""
        self.stop()
        path = self.path(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        except OSError as error:
            raise ServerError(f"cannot write the recording {path} ({error.strerror})") from error
        self.write(MAGIC, 1, town)
        return str(path)

    def write(self, *what: Any) -> None:
        """One entry, if a file is open."""
        if self._file is None:
            return
        try:
            self._file.write(bytes(self._packer.pack(list(what)) or b""))
        except OSError as error:
            LOG.warning("the recording %s ends here (%s)", self._file.name, error.strerror)
            self.stop()

    def stop(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # of a full disk: what was written stands
                file.close()

    def entries(self, name: str) -> list[list]:
        """Of a recording. Raises ServerError where it is none; an unfinished last entry is left out."""
        path = self.path(name)
        try:
            if path.stat().st_size > LONGEST:
                raise ServerError(f"{path} is larger than {LONGEST >> 30} GiB")
            unpacker = msgpack.Unpacker(raw=False, max_buffer_size=LONGEST)
            unpacker.feed(path.read_bytes())
            found = [entry for entry in unpacker if isinstance(entry, list) and entry]
        except OSError as error:
            raise ServerError(f"cannot read the recording {path} ({error.strerror})") from error
        except (msgpack.exceptions.UnpackException, ValueError) as error:
            raise ServerError(f"{path} is no recording of this server ({error})") from error
        if not found or found[0][0] != MAGIC:
            raise ServerError(f"{path} is no recording of this server")
        return found

    def info(self, name: str, everything: bool) -> str:
        """What a recording holds, to be read."""
        found = self.entries(name)
        frames = [entry for entry in found if entry[0] == "frame"]
        kinds = Counter(entry[0] for entry in found[1:])
        lines = [f"Version: {found[0][1]}", f"Map: {found[0][2]}"]
        lines += [" ".join(map(str, entry)) for entry in found[1:] if everything and entry[0] not in ("frame", "debug")]
        seconds = frames[-1][2] - frames[0][2] if frames else 0.0
        lines += [f"Frames: {len(frames)}", f"Duration: {seconds:g} seconds"]
        lines += [f"{name}: {count}" for name, count in sorted(kinds.items()) if name != "frame"]
        return "\n".join(lines)

    def collisions(self, name: str) -> str:
        """Who hit whom in a recording, to be read."""
        rows = [f"frame {entry[1]}: {entry[2]} with {entry[3]}" for entry in self.entries(name) if entry[0] == "collision"]
        return "\n".join([f"Collisions: {len(rows)}", *rows])
