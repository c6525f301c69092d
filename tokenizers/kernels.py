"""Compiled inner loops of the K-disk tokenizer: the codebook walk and the nearest-token search.

Distance between two poses = mean distance of the 4 corners of a box placed at each. `box` is (half length, half width, rear
axle to box centre) in metres, poses are rear-axle (x, y, heading). Two facts make the loops fast and keep them exact: the
distance between box centres never exceeds the mean corner distance (the mean of vectors is no longer than the mean length),
so a search by centre misses nothing; and corner distances are summed in an order that mirrors left and right, so that mirrored
tokens tie exactly and the lower index wins.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def _place(x, y, heading, box, out):
    """Write the box at a pose into out (10,): front-left, rear-left, rear-right, front-right, centre; x and y each."""
    c, s = np.cos(heading), np.sin(heading)
    cx, cy = x + c * box[2], y + s * box[2]
    lx, ly = c * box[0], s * box[0]
    wx, wy = -s * box[1], c * box[1]
    out[0], out[1] = cx + lx + wx, cy + ly + wy
    out[2], out[3] = cx - lx + wx, cy - ly + wy
    out[4], out[5] = cx - lx - wx, cy - ly - wy
    out[6], out[7] = cx + lx - wx, cy + ly - wy
    out[8], out[9] = cx, cy


@njit(cache=True)
def _distance(a, b):
    """Mean corner distance of two placed boxes (10,)."""
    front_left = np.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)
    rear_left = np.sqrt((a[2] - b[2]) ** 2 + (a[3] - b[3]) ** 2)
    rear_right = np.sqrt((a[4] - b[4]) ** 2 + (a[5] - b[5]) ** 2)
    front_right = np.sqrt((a[6] - b[6]) ** 2 + (a[7] - b[7]) ** 2)
    return ((front_left + front_right) + (rear_left + rear_right)) / 4.0


@njit(cache=True)
def place_boxes(poses, box):
    """Placed boxes (N, 10) of poses (N, 3): 4 corners and the centre, x and y each."""
    out = np.empty((len(poses), 10))
    for i in range(len(poses)):
        _place(poses[i, 0], poses[i, 1], poses[i, 2], box, out[i])
    return out


@njit(cache=True)
def kdisk_walk(samples, order, k, tolerance, box):
    """Walk samples (N, 3) in `order` (N,); keep each that no kept one is within `tolerance` of. (kept (<= k,), samples walked).

    kept holds indices of samples, the first one -1: no motion, which stands before the walk. Equal in law to "pick a remaining
    sample at random, remove its disk, repeat", because a sample is still in the pool exactly when no earlier token's disk
    holds it. Kept boxes hang in a hash grid of their centres.
    """
    buckets = 64
    while buckets < 4 * k:
        buckets *= 2
    head, chain = np.full(buckets, -1), np.full(k, -1)
    kept, boxes = np.full(k, -1), np.empty((k, 10))
    cell = tolerance * (1.0 + 1e-9)  # a hair wider, so that rounding cannot put a pair within tolerance two cells apart
    here = np.empty(10)
    count, step = 0, -1
    while step < len(order) and count < k:
        if step < 0:
            _place(0.0, 0.0, 0.0, box, here)
        else:
            sample = samples[order[step]]
            _place(sample[0], sample[1], sample[2], box, here)
        ix, iy = int(np.floor(here[8] / cell)), int(np.floor(here[9] / cell))
        covered = False
        for jx in range(ix - 1, ix + 2):
            for jy in range(iy - 1, iy + 2):
                j = head[(jx * 73856093 ^ jy * 19349663) & (buckets - 1)]
                while j >= 0 and not covered:
                    covered = _distance(here, boxes[j]) <= tolerance
                    j = chain[j]
            if covered:
                break
        if not covered:
            if step >= 0:
                kept[count] = order[step]
            boxes[count] = here
            bucket = (ix * 73856093 ^ iy * 19349663) & (buckets - 1)
            chain[count], head[bucket] = head[bucket], count
            count += 1
        step += 1
    return kept[:count], max(step, 0)


@njit(cache=True)
def _search(target, boxes, index):
    """(token, distance) nearest to the placed box `target`; boxes (K, 10) in order of centre x, index (K,) their tokens."""
    right = np.searchsorted(boxes[:, 8], target[8])
    left = right - 1
    best, token = np.inf, -1
    while left >= 0 or right < len(boxes):
        gap_left = target[8] - boxes[left, 8] if left >= 0 else np.inf
        gap_right = boxes[right, 8] - target[8] if right < len(boxes) else np.inf
        gap = min(gap_left, gap_right)
        if gap * (1.0 - 1e-12) > best:
            break
        if gap_left <= gap_right:
            i = left
            left -= 1
        else:
            i = right
            right += 1
        if abs(target[9] - boxes[i, 9]) * (1.0 - 1e-12) > best:
            continue
        distance = _distance(target, boxes[i])
        if distance < best or (distance == best and index[i] < token):
            best, token = distance, index[i]
    return token, best


@njit(cache=True)
def nearest(deltas, boxes, index, box):
    """(tokens (N,), distances (N,)) of motions (N, 3); boxes and index as in `_search`."""
    tokens, distances = np.empty(len(deltas), np.int64), np.empty(len(deltas))
    target = np.empty(10)
    for i in range(len(deltas)):
        _place(deltas[i, 0], deltas[i, 1], deltas[i, 2], box, target)
        tokens[i], distances[i] = _search(target, boxes, index)
    return tokens, distances


@njit(cache=True)
def encode(poses, codebook, boxes, index, box):
    """Tokens (N, T) of plans (N, T, 3): each step matches the pose as seen from where the tokens so far have led."""
    tokens = np.empty(poses.shape[:2], np.int64)
    target = np.empty(10)
    for n in range(poses.shape[0]):
        x, y, heading = 0.0, 0.0, 0.0
        for t in range(poses.shape[1]):
            c, s = np.cos(heading), np.sin(heading)
            dx, dy = poses[n, t, 0] - x, poses[n, t, 1] - y
            _place(c * dx + s * dy, c * dy - s * dx, poses[n, t, 2] - heading, box, target)
            token, _ = _search(target, boxes, index)
            tokens[n, t] = token
            step = codebook[token]
            x += c * step[0] - s * step[1]
            y += s * step[0] + c * step[1]
            heading += step[2]
    return tokens
