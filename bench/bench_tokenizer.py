"""The K-disk codebook from 2 M motions, and encoding of 10,000 plans of 10 tokens, against the naive numpy loops.

Motions are a bicycle's with changing steering, 15 % near standstill. Both sides get the same motions in the same order; before
any time counts, their codebooks and tokens are compared and must be equal. What the naive loop cannot do in reasonable time
is extrapolated, and says so.
"""

import numpy as np
from harness import Row, ratio, timed

from drive.core.geometry import box_corners, compose
from drive.core.seeds import numpy_rng
from drive.tokenizers.feasibility import Bounds, feasible
from drive.tokenizers.kdisk import Box, KDiskTokenizer

SEGMENTS, SMALL, PLANS, STEPS, NAIVE_PLANS, NAIVE_TOKENS, K, TOLERANCE = 2_000_000, 20_000, 10_000, 10, 50, 8, 2048, 0.05
BOX = Box()


def motions(count: int) -> np.ndarray:
    """Motions (count, 3) over 0.5 s: speeds to about 30 m/s, curvature falling with speed, steering that changes on the way."""
    rng = numpy_rng(0, "bench", "motions")
    speed = rng.gamma(4.0, 2.5, count) * np.where(rng.random(count) < 0.15, 0.01, 1.0)
    limit = np.minimum(0.2, 3.0 / np.maximum(speed, 0.1) ** 2)
    first = limit * np.clip(0.3 * rng.standard_t(3, count), -1.0, 1.0)
    last = np.clip(first + 0.2 * limit * rng.standard_normal(count), -limit, limit)
    length = 0.5 * speed
    half, slip = length * (first + last) / 4.0, length**2 * (first - last) / 12.0
    chord = length * np.sinc(half / np.pi)
    x, y = np.cos(half) * chord - np.sin(half) * slip, np.sin(half) * chord + np.cos(half) * slip
    return np.stack([x, y, 2.0 * half], axis=-1)


def naive_codebook(segments: np.ndarray, k: int) -> np.ndarray:
    """Tokens (<= k, 3): take the first remaining motion in the order of the seed, remove its disk, repeat."""
    pool = segments[feasible(segments, 0.5, Bounds())]
    pool = pool[numpy_rng(0, "kdisk").permutation(len(pool))]
    corners = box_corners(pool, BOX.length, BOX.width, BOX.rear_to_center)
    tokens, here = [np.zeros(3)], box_corners(np.zeros(3), BOX.length, BOX.width, BOX.rear_to_center)
    while True:
        left = np.sqrt(((corners - here) ** 2).sum(-1)).mean(-1) > TOLERANCE
        pool, corners = pool[left], corners[left]
        if len(tokens) == k or not len(pool):
            return np.array(tokens)
        tokens.append(pool[0])
        here = corners[0]


def naive_encode(plans: np.ndarray, tokenizer: KDiskTokenizer) -> np.ndarray:
    """Tokens (N, T): at every step of every plan, all tokens are rolled out and compared."""
    tokens = np.zeros(plans.shape[:2], int)
    for n, plan in enumerate(plans):
        pose, targets = np.zeros(3), box_corners(plan, BOX.length, BOX.width, BOX.rear_to_center)
        for t, target in enumerate(targets):
            ends = compose(pose, tokenizer.codebook)
            corners = box_corners(ends, BOX.length, BOX.width, BOX.rear_to_center)
            tokens[n, t] = np.argmin(np.sqrt(((corners - target) ** 2).sum(-1)).mean(-1))
            pose = ends[tokens[n, t]]
    return tokens


def plans_of(segments: np.ndarray) -> np.ndarray:
    """Plans (PLANS, STEPS, 3): motions of the pool one after another, each speed near the one before."""
    rng = numpy_rng(0, "bench", "plans")
    order = segments[np.argsort(segments[:, 0])]
    place = rng.integers(0, len(order), PLANS)
    pose, poses = np.zeros((PLANS, 3)), []
    for _ in range(STEPS):
        place = np.clip(place + rng.integers(-len(order) // 50, len(order) // 50, PLANS), 0, len(order) - 1)
        pose = compose(pose, order[place])
        poses.append(pose)
    return np.stack(poses, axis=1)


def measure() -> list[Row]:
    """Rows of the table; raises where ours and the naive loops disagree."""
    segments = motions(SEGMENTS)
    few = segments[:SMALL]

    def fit(pool: np.ndarray, k: int = K) -> KDiskTokenizer:
        return KDiskTokenizer.fit(pool, k=k, tolerance=TOLERANCE, mirror=False)

    np.testing.assert_array_equal(fit(few).codebook, naive_codebook(few, K))
    np.testing.assert_array_equal(fit(segments, NAIVE_TOKENS).codebook, naive_codebook(segments, NAIVE_TOKENS))
    tokenizer = fit(segments)
    plans = plans_of(segments)
    some = plans[:NAIVE_PLANS]
    np.testing.assert_array_equal(tokenizer.encode(some), naive_encode(some, tokenizer))

    small = ratio(lambda: naive_codebook(few, K), lambda: fit(few), rounds=3, warm=1)
    ours = timed(lambda: fit(segments))
    start = timed(lambda: naive_codebook(segments, NAIVE_TOKENS), repeats=1, warm=0).median
    encode = timed(lambda: tokenizer.encode(plans))
    scale = PLANS / NAIVE_PLANS
    paired = ratio(lambda: naive_encode(some, tokenizer), lambda: tokenizer.encode(plans), rounds=5, warm=1)
    build = f"at most: naive took {start:.1f} s for {NAIVE_TOKENS} tokens, times {K // NAIVE_TOKENS}; its pool shrinks"
    return [
        Row("codebook of 2 M motions, K=2048", ours.median, "s", f"{ours.fastest:.2f} to {ours.slowest:.2f}; goal < 5"),
        Row("naive loop / ours, 2 M motions", start * K / NAIVE_TOKENS / ours.median, "x", build),
        Row("naive loop / ours, 20 k motions", small.median, "x", f"{fit(few).vocab_size} equal tokens; both run to the end"),
        Row("10,000 plans x 10 tokens, K=2048", encode.median, "s", f"{encode.fastest:.3f} to {encode.slowest:.3f}; goal < 0.5"),
        Row("naive loop / ours, encode", paired.median * scale, "x", f"goal >= 40; naive {NAIVE_PLANS} plans, times {scale:.0f}"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(f"{row.what:<36}{row.value:>10.4g} {row.unit:<3}{row.note}")
