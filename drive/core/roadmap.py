"""RoadMap: the vector map of drive. Lanes with centrelines and topology, and the polygon layers that NAVSIM scores on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle

Array = NDArray[np.float64]
FORMAT = 1


class Layer(IntEnum):
    """NAVSIM's SemanticMapLayer, the six that its score reads."""

    LANE = 0
    LANE_CONNECTOR = 1
    ROADBLOCK = 2
    INTERSECTION = 3
    CARPARK = 4
    DRIVABLE_AREA = 5


@dataclass(frozen=True)
class Polygons:
    """P simple polygons as flat arrays; outer rings, not closed, no holes."""

    tokens: tuple[str, ...]
    layers: NDArray[np.int8]  # (P,) Layer
    vertices: Array  # (V, 2) world, m
    offsets: NDArray[np.int64]  # (P + 1,) ring i is vertices[offsets[i]:offsets[i + 1]]

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def from_rings(rings: list[tuple[str, Layer, Array]]) -> Polygons:
        """Polygons from (token, layer, ring (N, 2)) triples."""
        sizes = [len(ring) for _, _, ring in rings]
        vertices = np.concatenate([np.asarray(ring, float) for _, _, ring in rings]) if rings else np.zeros((0, 2))
        return Polygons(
            tuple(token for token, _, _ in rings),
            np.array([layer for _, layer, _ in rings], np.int8),
            vertices,
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        )

    def ring(self, i: int) -> Array:
        """(N, 2) outer ring of polygon `i`, not closed."""
        return self.vertices[self.offsets[i] : self.offsets[i + 1]]

    @cached_property
    def bounds(self) -> Array:
        """(P, 4) xmin, ymin, xmax, ymax."""
        if not len(self):
            return np.zeros((0, 4))
        start = self.offsets[:-1]
        low, high = np.minimum.reduceat(self.vertices, start), np.maximum.reduceat(self.vertices, start)
        return np.hstack([low, high])

    def subset(self, index) -> Polygons:
        """The polygons of an index array or boolean mask."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index
        return Polygons.from_rings([(self.tokens[i], Layer(int(self.layers[i])), self.ring(int(i))) for i in index])

    def near(self, xy, radius: float) -> Polygons:
        """Polygons whose bounding box comes within `radius` metres of `xy` (2,)."""
        b = self.bounds
        gap_x = np.maximum(np.maximum(b[:, 0] - xy[0], xy[0] - b[:, 2]), 0.0)
        gap_y = np.maximum(np.maximum(b[:, 1] - xy[1], xy[1] - b[:, 3]), 0.0)
        return self.subset(gap_x**2 + gap_y**2 <= radius**2)


@dataclass(frozen=True)
class Lane:
    """One lane, or one lane connector through a junction."""

    id: str
    centerline: Array  # (N, 3) x, y, heading in driving direction, about 1 m apart
    left: Array  # (N, 2) left border
    right: Array  # (N, 2) right border
    speed_limit: float  # m/s
    is_connector: bool = False
    turn: str = ""  # of a connector: "left", "right" or "straight"
    roadblock: str = ""  # lanes side by side in one direction share it
    junction: str = ""  # id of the junction a connector belongs to
    successors: tuple[str, ...] = ()
    predecessors: tuple[str, ...] = ()
    left_neighbor: str = ""  # same direction, a change is allowed
    right_neighbor: str = ""

    @cached_property
    def s(self) -> Array:
        """(N,) arc length along the centreline, m."""
        return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(self.centerline[:, :2], axis=0).T))])

    @property
    def length(self) -> float:
        """m"""
        return float(self.s[-1])


class RoadMap:
    """Lanes and polygons of one town or one log."""

    def __init__(self, name: str, lanes: dict[str, Lane], polygons: Polygons) -> None:
        self.name = name
        self.lanes = lanes
        self.polygons = polygons

    @cached_property
    def _points(self) -> tuple[Array, NDArray[np.int64], list[str]]:
        ids = list(self.lanes)
        if not ids:
            return np.zeros((0, 3)), np.zeros(0, np.int64), ids
        owner = np.concatenate([np.full(len(self.lanes[k].centerline), i) for i, k in enumerate(ids)])
        return np.concatenate([self.lanes[k].centerline for k in ids]), owner, ids

    def lanes_near(self, xy, radius: float) -> list[str]:
        """Ids of lanes with a centreline point within `radius` metres of `xy` (2,)."""
        points, owner, ids = self._points
        hit = ((points[:, :2] - np.asarray(xy)[:2]) ** 2).sum(1) <= radius**2
        return [ids[i] for i in np.unique(owner[hit])]

    def nearest_lane(self, pose, among: tuple[str, ...] | None = None) -> str:
        """Id of the lane closest to `pose` (3,) in position and heading (1 rad counts as 5 m). Raises DataError without lanes."""
        points, owner, ids = self._points
        if not ids:
            raise DataError(f"map {self.name} has no lanes")
        cost = np.hypot(points[:, 0] - pose[0], points[:, 1] - pose[1]) + 5.0 * np.abs(wrap_angle(points[:, 2] - pose[2]))
        if among is not None:
            allowed = np.isin(owner, [ids.index(k) for k in among if k in self.lanes])
            cost = np.where(allowed, cost, np.inf) if allowed.any() else cost
        return ids[int(owner[int(np.argmin(cost))])]

    def path(self, lane_ids) -> Array:
        """(N, 3) centreline through consecutive lanes, without repeated points at the seams."""
        parts: list[Array] = []
        for lane_id in lane_ids:
            line = self.lanes[lane_id].centerline
            if parts and np.hypot(*(parts[-1][-1, :2] - line[0, :2])) < 0.3:
                line = line[1:]
            parts.append(line)
        return np.concatenate(parts)

    def shifted(self, offset: Array) -> RoadMap:
        """The same map moved by `offset` (2,) m."""
        move = np.array([*offset, 0.0])
        lanes = {
            key: replace(lane, centerline=lane.centerline + move, left=lane.left + offset, right=lane.right + offset) for key, lane in self.lanes.items()
        }
        return RoadMap(self.name, lanes, replace(self.polygons, vertices=self.polygons.vertices + offset))

    def save(self, path: str | Path) -> None:
        """Write as .npz without pickles; through a temporary file, so that no half-written map is left."""
        lanes = list(self.lanes.values())
        meta = {
            "format": FORMAT,
            "name": self.name,
            "tokens": self.polygons.tokens,
            "lanes": [
                {
                    "id": lane.id,
                    "n": len(lane.centerline),
                    "speed_limit": lane.speed_limit,
                    "is_connector": lane.is_connector,
                    "turn": lane.turn,
                    "roadblock": lane.roadblock,
                    "junction": lane.junction,
                    "successors": lane.successors,
                    "predecessors": lane.predecessors,
                    "left_neighbor": lane.left_neighbor,
                    "right_neighbor": lane.right_neighbor,
                }
                for lane in lanes
            ],
        }
        rows = np.concatenate([np.hstack([lane.centerline, lane.left, lane.right]) for lane in lanes]) if lanes else np.zeros((0, 7))
        path = Path(path)
        partial = path.with_suffix(".partial.npz")
        try:
            np.savez_compressed(
                partial,
                meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
                lane_points=rows,
                polygon_layers=self.polygons.layers,
                polygon_vertices=self.polygons.vertices,
                polygon_offsets=self.polygons.offsets,
            )
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def load(path: str | Path) -> RoadMap:
        """Read what `save` wrote. Raises DataError on any other file."""
        try:
            with np.load(path, allow_pickle=False) as data:
                meta = json.loads(data["meta"].tobytes())
                rows = data["lane_points"]
                polygons = Polygons(tuple(meta["tokens"]), data["polygon_layers"], data["polygon_vertices"], data["polygon_offsets"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is not a RoadMap file of drive ({error})") from error
        if meta["format"] != FORMAT:
            raise DataError(f"{path} has map format {meta['format']}, this drive reads {FORMAT}: build the map again")
        lanes, at = {}, 0
        for item in meta["lanes"]:
            part = rows[at : at + item["n"]]
            at += item.pop("n")
            item["successors"], item["predecessors"] = tuple(item["successors"]), tuple(item["predecessors"])
            lanes[item["id"]] = Lane(centerline=part[:, :3], left=part[:, 3:5], right=part[:, 5:7], **item)
        return RoadMap(meta["name"], lanes, polygons)
