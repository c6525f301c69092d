"""The K-disk action tokenizer: a token is half a second of motion of the rear axle, taken from a codebook of feasible motions.

After AutoVLA (arXiv 2506.13757, section 3) and the K-disks of Trajeglish (arXiv 2312.04535): draw a remaining motion at random,
remove all within the tolerance, repeat K times. Differences, each on purpose:
- the token is the motion drawn, not the mean of its disk: a mean may be infeasible, closer than the tolerance to another token,
  and further than the tolerance from a motion that it removed. With the drawn motion every logged motion is within the tolerance
  of a token unless the codebook is full, tokens are further apart than the tolerance, and each was driven by a car;
- motions that no car can make are filtered out first (`feasibility.py`);
- a pool that runs empty gives a smaller codebook, or, where asked, arcs of steady steering take the places left;
- an unknown token is an error, never the token of no motion.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError, TokenizerError
from drive.core.geometry import compose, relative
from drive.core.seeds import numpy_rng
from drive.core.types import PLAN_DT
from drive.tokenizers import codebook_files, kernels
from drive.tokenizers.automaton import Automaton
from drive.tokenizers.feasibility import Bounds, arc_motion, feasible, feasible_acceleration, rear_axle_offset, segment_speed
from drive.tokenizers.interface import Array, PlanTokenizer, Sources

ARCS = 200_000  # arcs offered to the places that logged motions leave; many more than any codebook takes
ARC_LATERAL_ACCELERATION = 3.0  # m/s^2 of those arcs: brisk, but what people drive


@dataclass(frozen=True)
class Box:
    """The box whose corners measure how far apart two motions are; poses are rear-axle, the box centre lies ahead of them."""

    length: float = 4.8  # m, AutoVLA's
    width: float = 2.0  # m, AutoVLA's
    rear_to_center: float = 1.4  # m from the rear axle to the box centre; 0 where poses are box centres

    @property
    def kernel(self) -> Array:
        """(3,) half length, half width, rear axle to centre: as the kernels take it."""
        return np.array([self.length / 2.0, self.width / 2.0, self.rear_to_center])


@dataclass(frozen=True)
class FitRecord:
    """Where a codebook came from."""

    k: int  # tokens asked for
    seed: int
    mirrored: bool
    segments: int  # motions given
    infeasible: int  # of them, dropped by the bounds on one motion
    jumps: int  # of them, dropped by the bounds on acceleration
    walked: int  # motions, mirror images included, looked at before the codebook was full; all of them if the pool ran empty
    pool_ran_empty: bool  # every motion kept is within the tolerance of a token
    arcs: int  # tokens that are arcs of steady steering instead of logged motions
    rear_axle_offset: float  # m ahead of the rear axle that the motions seem to be of; near 0 or they want converting
    sources: Sources

    def __str__(self) -> str:
        pool = f"{self.segments:,} motions, {self.infeasible:,} infeasible, {self.jumps:,} reached by a jump"
        end = "every motion is covered" if self.pool_ran_empty else f"full after {self.walked:,} motions"
        offset = f"motions of a point {self.rear_axle_offset:.1f} m ahead of the rear axle"
        return f"{pool}, {offset}; {self.k:,} tokens asked for: {end}, {self.arcs:,} arcs"


@dataclass(frozen=True, eq=False)
class KDiskTokenizer(PlanTokenizer):
    """A codebook of SE(2) motions (K, 3) of the rear axle over `dt` s; token 0 is no motion."""

    codebook: Array  # (K, 3) forward m, left m, heading change rad
    dt: float  # s per token
    tolerance: float  # m, radius of a disk
    box: Box
    bounds: Bounds
    record: FitRecord

    name: ClassVar[str] = "kdisk"
    motion_tokens: ClassVar[int] = 1

    @classmethod
    def fit(
        cls,
        segments: Array,
        k: int = 2048,
        tolerance: float = 0.05,
        dt: float = PLAN_DT,
        bounds: Bounds | None = None,
        seed: int = 0,
        sources: Sources = "",
        previous_speed: Array | None = None,
        mirror: bool = True,
        fill: bool = False,
        box: Box | None = None,
    ) -> "KDiskTokenizer":
        """A codebook of at most `k` tokens from the motions `segments` (N, 3), rear axle, over `dt` s.

        `previous_speed` (N,) m/s, NaN where unknown, drops motions reached by an impossible acceleration. `mirror` also offers
        each motion with left and right exchanged. Where the pool runs empty before `k`, the codebook is smaller, or, with
        `fill`, arcs of steady steering up to the fastest logged speed take the places left: for logs too few to hold every
        motion. Equal inputs and seed give an equal codebook. Raises DataError on arrays of another shape, or not
        finite, and TokenizerError if no motion is feasible.
        """
        bounds, box = bounds or Bounds(), box or Box()
        segments = _checked(segments, 2, "motions to fit")
        if k < 1 or tolerance <= 0.0 or dt <= 0.0:
            raise TokenizerError(f"a codebook wants k >= 1, tolerance > 0 and dt > 0, got k={k}, tolerance={tolerance}, dt={dt}")
        keep, jump = _filter(segments, previous_speed, dt, bounds)
        pool, offset = segments[keep & ~jump], rear_axle_offset(segments)
        if not len(pool):
            raise TokenizerError(
                f"none of the {len(segments)} motions is one that a car can make (they seem to be of a point {offset:.1f} m "
                f"ahead of the rear axle, {dt:g} s apart): check frame, units and dt"
            )
        if mirror:
            pool = np.concatenate([pool, pool * np.array([1.0, -1.0, -1.0])])
        order, logged = numpy_rng(seed, "kdisk").permutation(len(pool)), len(pool)
        if fill:
            arcs = _arcs(float(segment_speed(pool, dt).max()), dt, bounds, seed)
            pool, order = np.concatenate([pool, arcs]), np.concatenate([order, logged + np.arange(len(arcs))])
        kept, walked = kernels.kdisk_walk(pool, order, k, tolerance, box.kernel)
        codebook = np.concatenate([np.zeros((1, 3)), pool[kept[1:]]])
        record = FitRecord(
            k=k,
            seed=seed,
            mirrored=mirror,
            segments=len(segments),
            infeasible=int((~keep).sum()),
            jumps=int(jump.sum()),
            walked=min(walked, logged),
            pool_ran_empty=walked >= logged,
            arcs=int((kept >= logged).sum()),
            rear_axle_offset=offset,
            sources=sources,
        )
        return cls(codebook, dt, tolerance, box, bounds, record)

    def __post_init__(self) -> None:
        if self.codebook.ndim != 2 or self.codebook.shape[1] != 3 or not len(self.codebook):
            raise TokenizerError(f"a codebook has shape (K, 3) with K >= 1, got {self.codebook.shape}: fit it again")
        bad = np.flatnonzero(~feasible(self.codebook, self.dt, self.bounds))
        if len(bad):
            raise TokenizerError(f"{len(bad)} tokens of the codebook are infeasible, the first is {bad[0]}: fit it again")

    @property
    def vocab_size(self) -> int:
        """Number of action tokens."""
        return len(self.codebook)

    @property
    def token_motions(self) -> Array:
        """The codebook."""
        return self.codebook

    def automaton(self, steps: int) -> Automaton:
        """Any token may follow any other."""
        return Automaton.free(steps, self.vocab_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over dt and codebook, all that decides what a token means; checkpoints are bound to it."""
        return codebook_files.fingerprint(self.codebook, self.dt)

    @property
    def speed_cap(self) -> float:
        """m/s, mean speed of the fastest token: no plan of this vocabulary is faster."""
        return float((np.abs(arc_motion(self.codebook)[0]) / self.dt).max())

    @cached_property
    def _index(self) -> tuple[Array, NDArray[np.int64]]:
        """Placed boxes (K, 10) in order of centre x, and their tokens (K,): what the nearest-token search takes."""
        boxes = kernels.place_boxes(self.codebook, self.box.kernel)
        order = np.argsort(boxes[:, 8], kind="stable")
        return boxes[order], order

    def nearest(self, deltas: Array) -> tuple[NDArray[np.int64], Array]:
        """(tokens (N,), mean corner distances (N,) m) nearest to single motions (N, 3); ties go to the lower token."""
        return kernels.nearest(_checked(deltas, 2, "motions"), *self._index, self.box.kernel)

    def encode_motions(self, deltas: Array) -> NDArray[np.int64]:
        """Motions (N, 3) to their nearest tokens (N, 1)."""
        return self.nearest(deltas)[0][:, None]

    def rebuild_motions(self, deltas: Array) -> Array:
        """Motions (N, 3) to the motions of their nearest tokens."""
        return self.codebook[self.nearest(deltas)[0]]

    def encode(self, poses_ego: Array) -> NDArray[np.int64]:
        """Poses (N, T, 3) of the rear axle, ego frame, `dt` apart, the first one `dt` ahead, to tokens (N, T).

        Greedy and with feedback: each step takes the token whose end is nearest to the pose, seen from where the tokens so far
        have led, so that errors do not add up (AutoVLA; SMART's rolling matching). Ties go to the lower token.
        """
        return kernels.encode(_checked(poses_ego, 3, "poses to encode"), self.codebook, *self._index, self.box.kernel)

    def decode(self, tokens: NDArray[np.int64]) -> Array:
        """Tokens (N, T) to poses (N, T, 3) of the rear axle, ego frame, heading in (-pi, pi].

        Raises TokenizerError on a token outside 0..vocab_size-1, or of no integer type: there is no default motion.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise TokenizerError(f"decode takes integer tokens of shape (N, T), got {tokens.dtype} of shape {tokens.shape}")
        unknown = (tokens < 0) | (tokens >= self.vocab_size)
        if unknown.any():
            row, step = np.argwhere(unknown)[0]
            raise TokenizerError(
                f"token {tokens[row, step]} at step {step} of sequence {row} is not among the {self.vocab_size} tokens of this "
                "codebook: the sequence was made with another codebook, or its generation failed"
            )
        poses = np.zeros((*tokens.shape, 3))
        pose = np.zeros((len(tokens), 3))
        for t in range(tokens.shape[1]):
            pose = poses[:, t] = compose(pose, self.codebook[tokens[:, t]])
        return poses

    def save(self, folder: str | Path) -> None:
        """Write `codebook.safetensors` and `tokenizer.json`, whole or not at all. Raises TokenizerError if the disk refuses."""
        codebook_files.save(folder, self)

    @staticmethod
    def load(folder: str | Path, expect_dt: float | None = None) -> "KDiskTokenizer":
        """Read what `save` wrote. Raises TokenizerError on missing, changed or foreign files, or a dt other than `expect_dt`."""
        return codebook_files.load(folder, expect_dt)


def segments_from_tracks(
    poses: Array, valid: NDArray[np.bool_], step_dt: float, dt: float = PLAN_DT
) -> tuple[Array, Array]:
    """(deltas (N, 3), previous_speed (N,)): every motion of `dt` s within the tracks, starting at any step.

    poses (M, S, 3) are rear-axle poses in any flat frame, `step_dt` s apart; a motion counts if `valid` (M, S) holds at each
    step of it. previous_speed is the mean speed, m/s, over the `dt` s before the motion, NaN where that is not logged.
    Raises DataError if `dt` is no multiple of `step_dt`.
    """
    stride = round(dt / step_dt)
    if stride < 1 or abs(stride * step_dt - dt) > 1e-6:
        raise DataError(f"tracks {step_dt:g} s apart have no step at {dt:g} s: interpolate them first")
    poses = np.asarray(poses, float)
    if poses.shape[1] <= stride:
        return np.zeros((0, 3)), np.zeros(0)
    whole = np.lib.stride_tricks.sliding_window_view(valid, stride + 1, axis=1).all(-1)  # (M, S - stride)
    deltas = relative(poses[:, :-stride], poses[:, stride:])
    speed = np.where(whole, segment_speed(deltas.reshape(-1, 3), dt).reshape(whole.shape), np.nan)
    previous = np.full_like(speed, np.nan)
    previous[:, stride:] = speed[:, :-stride]
    return deltas[whole], previous[whole]


def _filter(segments: Array, previous_speed: Array | None, dt: float, bounds: Bounds) -> tuple[NDArray, NDArray]:
    """(feasible, reached by a jump), both (N,) bool, of motions (N, 3)."""
    keep = feasible(segments, dt, bounds)
    if previous_speed is None:
        return keep, np.zeros(len(segments), bool)
    if previous_speed.shape != (len(segments),):
        raise DataError(f"previous_speed has shape {previous_speed.shape}, want ({len(segments)},): one per motion")
    return keep, keep & ~feasible_acceleration(previous_speed, segment_speed(segments, dt), dt, bounds)


def _arcs(top_speed: float, dt: float, bounds: Bounds, seed: int) -> Array:
    """Motions (<= ARCS, 3) of steady steering, even in speed up to `top_speed` m/s and in curvature up to the bounds."""
    bounds = replace(bounds, max_lateral_acceleration=min(bounds.max_lateral_acceleration, ARC_LATERAL_ACCELERATION))
    rng = numpy_rng(seed, "kdisk", "arcs")
    speed = rng.uniform(0.0, top_speed, ARCS)
    curvature = rng.uniform(-1.0, 1.0, ARCS) * np.minimum(
        bounds.max_curvature, bounds.max_lateral_acceleration / np.maximum(speed, 1e-3) ** 2
    )
    half = speed * dt * curvature / 2.0
    chord = speed * dt * np.sinc(half / np.pi)
    arcs = np.stack([chord * np.cos(half), chord * np.sin(half), 2.0 * half], axis=-1)
    return arcs[feasible(arcs, dt, bounds)]


def _checked(array: Array, ndim: int, what: str) -> Array:
    """The array as contiguous float64 (..., 3); DataError on another shape, or on NaN and infinity."""
    array = np.ascontiguousarray(array, np.float64)
    if array.ndim != ndim or array.shape[-1] != 3:
        raise DataError(f"{what} want shape ({'N, ' if ndim == 2 else 'N, T, '}3), got {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{what} hold NaN or infinity: drop those records first")
    return array
