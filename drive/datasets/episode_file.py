"""The file of an episode: an .npz of plain arrays, and the scenes that stand in it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drive.core.errors import DataError
from drive.core.files import atomic_write_bytes
from drive.core.geometry import relative
from drive.core.types import PLAN_DT, PLAN_STEPS, Camera, Command, EgoTrack, Scenario, Tracks, Trajectory
from drive.datasets.episode import FORMAT, FUTURE, REPLAN, town_map
from drive.simulators.traffic import DT
from drive.simulators.world import FRAME_STEPS

HISTORY = -min(FRAME_STEPS)
ARRAYS = ("ego", "agent_size", "agent_type", "agent_motion", "agent_valid", "route", "plans", "frames", "frame_ends")


def episode_name(index: int) -> str:
    """File name of episode `index`."""
    return f"episode-{index:06d}.npz"


def write_episode(path: Path, arrays: dict[str, NDArray]) -> None:
    """Write the arrays of `record_episode`: whole or not at all. Raises DriveError on a full disk."""
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    atomic_write_bytes(path, buffer.getvalue())


@dataclass(frozen=True)
class EpisodeFile:
    """An episode of S steps, A agents, K scenes, C cameras and F frames of each.

    arrays: ego (S, 8) x, y, heading, vx, vy, ax, ay, yaw rate; agent_size (A, 3); agent_type (A,); agent_motion (A, S, 5) x, y,
    heading, vx, vy in the world; agent_valid (A, S); route (N, 3); plans (K, 51, 3) world, 10 Hz; frames, PNG bytes one after the
    other, camera by camera within a step; frame_ends (F * C,).
    """

    path: Path
    meta: dict[str, Any]
    arrays: dict[str, NDArray]

    @staticmethod
    def read(path: Path) -> EpisodeFile:
        """Raises DataError, naming the file, where it is missing, cut short, changed or of another format."""
        try:
            with np.load(path, allow_pickle=False) as data:
                meta = json.loads(data["meta"].tobytes())
                arrays = {name: data[name] for name in ARRAYS}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} is not a whole episode file ({error}): generate the set again, whole episodes are kept"
            ) from error
        found = meta.get("config", {}).get("format") if isinstance(meta, dict) else None
        if found != FORMAT:
            raise DataError(
                f"{path} has episode format {found}, this drive reads {FORMAT}: generate the set again in an empty folder"
            )
        return EpisodeFile(path, meta, arrays)

    def __len__(self) -> int:
        return len(self.meta["scenes"])

    @cached_property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras of every frame."""
        return tuple(
            Camera(c["name"], c["width"], c["height"], np.array(c["intrinsics"]), np.array(c["ego_from_camera"]))
            for c in self.meta["config"]["cameras"]
        )

    def image(self, camera: int, step: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of `camera` at `step` of the episode. Raises DataError where no frame was taken or it is broken."""
        ends = self.arrays["frame_ends"]
        row = step // REPLAN * len(self.cameras) + camera
        if step % REPLAN or not 0 <= row < len(ends):
            raise DataError(
                f"{self.path}: no frame was taken at step {step}; there is one every {REPLAN} steps up to the last scene"
            )
        first = int(ends[row - 1]) if row else 0
        try:
            with Image.open(BytesIO(self.arrays["frames"][first : int(ends[row])].tobytes())) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise DataError(f"{self.path}: frame {row} cannot be decoded ({error}): generate the set again") from error

    def scenario(self, number: int) -> Scenario:
        """Scene `number`, 1.5 s behind its present and 5 s ahead of it, at 10 Hz. Raises DataError on NaN, naming the record."""
        scene, meta = self.meta["scenes"][number], self.meta
        name = f"{self.path.stem}-{scene['present']:03d}"
        cut = slice(scene["present"] - HISTORY, scene["present"] + FUTURE + 1)
        ego, motion = self.arrays["ego"][cut], self.arrays["agent_motion"][:, cut].astype(float)
        valid, plan = self.arrays["agent_valid"][:, cut], self.arrays["plans"][number]
        first, end = scene["route"]
        route = self.arrays["route"][first:end]
        records = {"ego": ego, "agents": motion[valid], "teacher plan": plan, "route": route}
        broken = [record for record, values in records.items() if not np.isfinite(values).all()]
        if broken or len(ego) != HISTORY + FUTURE + 1:
            raise DataError(
                f"{self.path}: scene {name} has NaN in, or lacks steps of: {', '.join(broken) or 'ego'}: generate the set again"
            )
        seen = valid.any(1)
        index = np.flatnonzero(seen)
        agents = Tracks(
            tuple(f"vehicle-{i + 1}" for i in index), self.arrays["agent_type"][seen], self.arrays["agent_size"][seen],
            motion[seen, :, :3], motion[seen, :, 3:], valid[seen],
        )  # fmt: skip
        stride = round(PLAN_DT / DT)
        split = meta["config"]["split"]
        return Scenario(
            id=f"{split}-{name}",
            source="embedded",
            split=split,
            log_id=f"{split}-{self.path.stem}",
            kind=meta["kind"],
            dt=DT,
            present=HISTORY,
            road_map=town_map(meta["town"]),
            route_lane_ids=tuple(scene["lanes"]),
            centerline_world=route,
            command=Command(scene["command"]),
            ego=EgoTrack(ego[:, :3], ego[:, 3:5], ego[:, 5:7], ego[:, 7]),
            agents=agents,
            cameras=self.cameras,
            image_source=Frames(self, scene["present"] - HISTORY),
            frame_steps=FRAME_STEPS,
            teacher=Trajectory(relative(plan[0], plan[stride : stride * PLAN_STEPS + 1 : stride]), PLAN_DT),
            reference_world=plan,
            reasoning=scene["reasoning"],
            time_s=scene["present"] * DT,
            notes={
                "town": meta["town"],
                "disturbed": meta["disturbed"],
                "complex": scene["complex"],
                "episode_step": scene["present"],
            },
        )


@dataclass(frozen=True)
class Frames:
    """The frames of one scene, decoded when they are asked for."""

    episode: EpisodeFile
    first: int  # step of the episode at which the scene's clock starts

    def image(self, camera: int, step: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) at `step` of the scene's clock."""
        return self.episode.image(camera, self.first + step)


def file_digest(path: Path) -> str:
    """sha256 of a file; "" where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
