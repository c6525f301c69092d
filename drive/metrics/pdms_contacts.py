"""Who is hit and whose fault it is: at-fault collisions and time to collision of NAVSIM's PDM score, v1.1.

Source: NAVSIM v1.1, pdm_scorer.py and pdm_scorer_utils.py; the rules are nuPlan's. Boxes that touch intersect.
A track's class (static or stopped) comes from its first sample, its box from the current one. A track that was touched without
fault is ignored for the rest of that proposal; time to collision keeps a list of its own.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.types import AgentType
from drive.metrics.pdms_areas import INTERSECTION, in_any

Array = NDArray[np.float64]
STOPPED_SPEED = 0.05  # m/s, of the ego and of a track, for the kind of a collision
TTC_STOPPED_SPEED = 0.005  # m/s, of the ego, below which time to collision is not asked
TTC_OFFSETS = (0, 3, 6, 9)  # steps of 0.1 s ahead
COS_TOLERANCE = math.cos(math.radians(30.0))  # ahead within 30 degrees of the heading, behind beyond 150
DT = 0.1  # s between steps
STATIC_PENALTY = 0.5  # what an at-fault hit of a static object leaves


class PackedAgents(NamedTuple):
    """A agents over 51 steps as the kernels read them."""

    boxes: Array  # (51, A, 4) centre x, y, cos and sin of the heading
    valid: NDArray[np.bool_]  # (51, A)
    half_size: Array  # (A, 2) half length, half width, m
    stopped: NDArray[np.bool_]  # (A,) static object, or all but standing when first seen
    hit_score: Array  # (A,) score left by an at-fault hit


def pack_agents(
    poses_world: Array, velocity_world: Array, valid: NDArray[np.bool_], size: Array, types: NDArray[np.int64]
) -> PackedAgents:
    """PackedAgents of box centres (A, S, 3), velocities (A, S, 2), validity (A, S), length and width (A, 2+), AgentType (A,)."""
    first = valid.argmax(axis=1)
    speed = np.hypot(*velocity_world[np.arange(len(valid)), first].T)
    static = types >= AgentType.TRAFFIC_CONE
    heading = poses_world[..., 2].T
    boxes = np.stack([poses_world[..., 0].T, poses_world[..., 1].T, np.cos(heading), np.sin(heading)], axis=-1)
    return PackedAgents(
        np.ascontiguousarray(boxes, np.float64),
        np.ascontiguousarray(valid.T),
        np.ascontiguousarray(size[:, :2] / 2.0, np.float64),
        static | (speed <= STOPPED_SPEED),
        np.where(static, STATIC_PENALTY, 0.0),
    )


@njit(cache=True)
def boxes_meet(dx, dy, c, s, half_length, half_width, other_c, other_s, other_length, other_width):
    """Whether two oriented boxes intersect or touch: (dx, dy) between their centres, cos and sin of headings, half sizes."""
    along, across = abs(c * other_c + s * other_s), abs(c * other_s - s * other_c)
    if abs(dx * c + dy * s) > half_length + other_length * along + other_width * across:
        return False
    if abs(dy * c - dx * s) > half_width + other_length * across + other_width * along:
        return False
    if abs(dx * other_c + dy * other_s) > other_length + half_length * along + half_width * across:
        return False
    return abs(dy * other_c - dx * other_s) <= other_width + half_length * across + half_width * along


@njit(cache=True)
def _bearing(x, y, c, s, other_x, other_y):
    """Cosine of the angle between the heading (c, s) at (x, y) and the way to the other point.

    NAVSIM does not clip it, so that an object dead ahead may come out beyond 1 by rounding and then counts as neither ahead nor
    behind.
    """
    dx, dy = other_x - x, other_y - y
    norm = math.sqrt(dx * dx + dy * dy)
    if norm == 0.0:
        return math.nan
    return c * (dx / norm) + s * (dy / norm)


@njit(cache=True)
def _is_ahead(bearing):
    return COS_TOLERANCE < bearing <= 1.0


@njit(cache=True)
def _is_behind(bearing):
    return -1.0 <= bearing < -COS_TOLERANCE


@njit(cache=True)
def _at_fault(state, c, s, front, half_width, agents, step, a, outside_one_lane):
    """Whether the ego is to blame for touching agent `a` at `step`."""
    if math.hypot(state[3], state[4]) <= STOPPED_SPEED:
        return False
    if agents.stopped[a]:
        return True
    box = agents.boxes[step, a]
    if _is_behind(_bearing(state[0], state[1], c, s, box[0], box[1])):
        return False
    dx, dy = box[0] - (state[0] + c * front), box[1] - (state[1] + s * front)
    if boxes_meet(dx, dy, c, s, 0.0, half_width, box[2], box[3], agents.half_size[a, 0], agents.half_size[a, 1]):
        return True
    return outside_one_lane


@njit(cache=True, nogil=True)
def collisions(states, flags, agents, front, rear, half_width):
    """Scores (N,), 0, 0.5 or 1, and the step (N,) of the first at-fault collision (-1: none).

    Of states (N, T, 11) with area flags (N, T, 3); any number of static objects leaves 0.5.
    """
    n_proposals, n_steps, n_agents = states.shape[0], states.shape[1], agents.valid.shape[1]
    scores, first = np.ones(n_proposals), np.full(n_proposals, -1)
    half_length, to_center = (front + rear) / 2.0, (front - rear) / 2.0
    reach = math.hypot(half_length, half_width) + np.sqrt((agents.half_size**2).sum(axis=1))
    ignored = np.empty(n_agents, np.bool_)
    for n in range(n_proposals):
        ignored[:] = False
        for t in range(n_steps):
            state = states[n, t]
            c, s = math.cos(state[2]), math.sin(state[2])
            x, y = state[0] + c * to_center, state[1] + s * to_center
            for a in range(n_agents):
                box = agents.boxes[t, a]
                dx, dy = box[0] - x, box[1] - y
                if dx * dx + dy * dy > reach[a] * reach[a] or ignored[a] or not agents.valid[t, a]:
                    continue
                size = agents.half_size[a]
                if not boxes_meet(dx, dy, c, s, half_length, half_width, box[2], box[3], size[0], size[1]):
                    continue
                if _at_fault(state, c, s, front, half_width, agents, t, a, flags[n, t, 0] or flags[n, t, 1]):
                    scores[n] = min(scores[n], agents.hit_score[a])
                    first[n] = t if first[n] < 0 else first[n]
                else:
                    ignored[a] = True
            if scores[n] == 0.0:
                break
    return scores, first


@njit(cache=True)
def _endangered(state, c, s, agents, step, a, outside_one_lane, areas):
    """Whether a projection that meets agent `a` at `step` counts: it is ahead, or beside where no lane protects the ego."""
    box = agents.boxes[step, a]
    bearing = _bearing(state[0], state[1], c, s, box[0], box[1])
    if _is_ahead(bearing):
        return True
    if _is_behind(bearing):
        return False
    return outside_one_lane or in_any(areas, INTERSECTION, state[0], state[1])


@njit(cache=True)
def _ttc_at(state, outside_one_lane, agents, areas, t, front, rear, half_width, reach, ignored):
    """Whether time to collision fails at step `t`; marks tracks met without danger in `ignored` (A,)."""
    speed = math.hypot(state[3], state[4])
    if speed < TTC_STOPPED_SPEED:
        return False
    c, s = math.cos(state[2]), math.sin(state[2])
    half_length, to_center = (front + rear) / 2.0, (front - rear) / 2.0
    for offset in TTC_OFFSETS:
        ahead = to_center + speed * offset * DT
        x, y = state[0] + c * ahead, state[1] + s * ahead
        for a in range(ignored.shape[0]):
            box = agents.boxes[t + offset, a]
            dx, dy = box[0] - x, box[1] - y
            if dx * dx + dy * dy > reach[a] * reach[a] or ignored[a] or not agents.valid[t + offset, a]:
                continue
            size = agents.half_size[a]
            if not boxes_meet(dx, dy, c, s, half_length, half_width, box[2], box[3], size[0], size[1]):
                continue
            if _endangered(state, c, s, agents, t + offset, a, outside_one_lane, areas):
                return True
            ignored[a] = True
    return False


@njit(cache=True, nogil=True)
def times_to_collision(states, flags, agents, areas, front, rear, half_width):
    """Scores (N,), 0 or 1, and the step (N,) of the first violation (-1: none) of states (N, T, 11) with area flags (N, T, 3).

    The ego box moves on with its speed and heading by 0, 0.3, 0.6 and 0.9 s; tracks stand at their logged pose of that time.
    """
    n_proposals, n_agents = states.shape[0], agents.valid.shape[1]
    scores, first = np.ones(n_proposals), np.full(n_proposals, -1)
    reach = math.hypot((front + rear) / 2.0, half_width) + np.sqrt((agents.half_size**2).sum(axis=1))
    ignored = np.empty(n_agents, np.bool_)
    for n in range(n_proposals):
        ignored[:] = False
        for t in range(states.shape[1]):
            outside = flags[n, t, 0] or flags[n, t, 1]
            if _ttc_at(states[n, t], outside, agents, areas, t, front, rear, half_width, reach, ignored):
                scores[n], first[n] = 0.0, t
                break
    return scores, first
