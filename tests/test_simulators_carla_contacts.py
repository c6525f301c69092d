"""Contacts of the CARLA server: cases whose answer mechanics gives."""

import math
import time

import numpy as np
import pytest

from drive.simulators.carla_server.contacts import CELL, MOST, SLOP, cell_key, overlap, resolve

BOX = {"x": 0.0, "y": 0.0, "yaw": 0.0, "length": 4.0, "width": 2.0, "z": 0.8, "height": 1.6}


def box(*values: float, **named: float) -> list[float]:
    """A row of `resolve`: the values of BOX in their order, or by name."""
    b = {**BOX, **dict(zip(BOX, values)), **named}
    return [b["x"], b["y"], b["yaw"], b["length"] / 2.0, b["width"] / 2.0, b["z"], b["height"] / 2.0]


def meet(boxes, velocity, mass, still=(), spin=None, inertia=None):
    """`resolve` of bodies with masses kg (inf: moved by clients); boxes, motions, pairs and jolts after it."""
    boxes = np.array(boxes, float)
    n = len(boxes)
    motion = np.column_stack([np.array(velocity, float), np.zeros(n) if spin is None else spin])
    mass = np.array(mass, float)
    inertia = mass * 2.0 if inertia is None else np.array(inertia, float)
    weight = np.column_stack([1.0 / mass, 1.0 / inertia])
    still = np.array(still, float).reshape(-1, 7)
    keys = np.array([cell_key(x, y) for x, y in still[:, :2]], np.int64)
    order = np.argsort(keys, kind="stable")
    far = float(np.hypot(still[:, 3], still[:, 4]).max(initial=0.0))
    found, jolts = np.zeros((MOST, 2), np.int64), np.zeros((MOST, 2))
    count = resolve(boxes, motion, weight, still[order], keys[order], far, found, jolts)
    return boxes, motion, found[:count], jolts[:count]


@pytest.mark.parametrize("seed", range(20))
def test_momentum_and_spin_are_kept_and_energy_is_not_made(seed):
    rng = np.random.default_rng(seed)
    boxes = [box(0.0, 0.0, rng.uniform(-3, 3)), box(*rng.uniform(-2.0, 2.0, 2), rng.uniform(-3, 3))]
    velocity, spin, mass = rng.uniform(-15, 15, (2, 2)), rng.uniform(-1, 1, 2), rng.uniform(800, 9000, 2)
    inertia = 2.0 * mass
    after, motion, found, _ = meet(boxes, velocity, mass, spin=spin, inertia=inertia)
    assert len(found) == 1
    assert mass @ motion[:, :2] == pytest.approx(mass @ velocity, abs=1e-6)
    place = np.array(boxes)[:, :2]

    def turning(v, w):
        return float(np.sum(mass * (place[:, 0] * v[:, 1] - place[:, 1] * v[:, 0]) + inertia * w))

    assert turning(motion[:, :2], motion[:, 2]) == pytest.approx(turning(velocity, spin), abs=1e-6)
    energy = [np.sum(mass * (v**2).sum(axis=1) + inertia * w**2) for v, w in ((velocity, spin), (motion[:, :2], motion[:, 2]))]
    assert energy[1] <= energy[0] * (1.0 + 1e-9)
    way = np.empty(2)
    assert overlap(after[0], after[1], way) <= SLOP


def test_equal_cars_head_on_come_to_rest_but_for_the_bounce():
    _, motion, found, jolts = meet([box(0, 0), box(3.9, 0)], [(10, 0), (-10, 0)], [1500, 1500])
    assert found.tolist() == [[0, 1]]
    assert motion[:, 0] == pytest.approx([-1.0, 1.0]) and motion[:, 1:] == pytest.approx(np.zeros((2, 2)))
    assert jolts[0] == pytest.approx([11.0 * 1500.0, 0.0])


def test_a_heavy_car_pushes_a_light_one_and_a_slow_touch_does_not_bounce():
    _, motion, _, _ = meet([box(0, 0), box(3.9, 0)], [(0.5, 0), (0, 0)], [3000, 1000])
    assert motion[:, 0] == pytest.approx([0.375, 0.375])


def test_a_wall_stops_a_car_and_stays():
    wall = box(12.9, 0, length=18.0, width=20.0, z=0.0, height=2e6)
    after, motion, found, jolts = meet([box(2.0, 0)], [(8, 0)], [1500], still=[wall])
    assert found.tolist() == [[0, 1]] and motion[0, 0] == pytest.approx(-0.8)
    assert jolts[0] == pytest.approx([1500.0 * 8.8, 0.0])
    assert after[0, 0] + 2.0 == pytest.approx(3.9, abs=SLOP)


def test_what_clients_move_pushes_and_is_not_pushed():
    after, motion, found, _ = meet([box(0, 0), box(3.9, 0)], [(5, 0), (0, 0)], [math.inf, 1000])
    assert len(found) == 1 and after[0, 0] == 0.0 and motion[0, 0] == 5.0
    assert motion[1, 0] == pytest.approx(5.5) and after[1, 0] == pytest.approx(4.0, abs=SLOP)
    assert len(meet([box(0, 0), box(3.9, 0)], [(5, 0), (0, 0)], [math.inf, math.inf])[2]) == 0


def test_an_offset_blow_turns_both_cars_the_same_way():
    _, motion, _, _ = meet([box(0, 0), box(3.9, 1.0)], [(10, 0), (-10, 0)], [1500, 1500])
    assert motion[0, 2] == pytest.approx(motion[1, 2]) and abs(motion[0, 2]) > 0.5


def test_boxes_pass_over_and_beside_each_other():
    way = np.empty(2)
    assert overlap(np.array(box(0, 0)), np.array(box(0, 0, z=6.0)), way) == 0.0
    assert overlap(np.array(box(0, 0)), np.array(box(0, 2.001)), way) == 0.0
    assert overlap(np.array(box(0, 0)), np.array(box(3.0, 1.9, math.radians(45))), way) > 0.0
    assert overlap(np.array(box(0, 0)), np.array(box(3.0, 0.2)), way) == pytest.approx(1.0) and way == pytest.approx([1.0, 0.0])
    assert overlap(np.array(box(0, 0)), np.array(box(0.3, -1.5)), way) == pytest.approx(0.5) and way == pytest.approx([0.0, -1.0])


def test_what_was_pushed_apart_touches_no_more():
    boxes, velocity = np.array([box(0, 0), box(3.7, 0.1, 0.02), box(7.3, 0.0)]), np.zeros((3, 2))
    for _ in range(20):
        boxes, motion, found, _ = meet(boxes, velocity, [1500, 1500, 1500])
        if not len(found):
            break
    assert not len(found) and not motion.any()
    again = meet(boxes, velocity, [1500, 1500, 1500])
    assert np.array_equal(again[0], boxes) and not len(again[2])


@pytest.mark.parametrize("seed", range(5))
def test_the_grid_finds_all_that_stands_in_the_way(seed):
    rng = np.random.default_rng(seed)
    still = np.array([box(*rng.uniform(-90, 90, 2), rng.uniform(-3, 3), *rng.uniform(0.3, 20, 2), 0.0, 2e6) for _ in range(300)])
    car = np.array(box(*rng.uniform(-60, 60, 2), rng.uniform(-3, 3)))
    way = np.empty(2)
    touched = {k for k in range(300) if overlap(car, still[k], way) > SLOP}
    found = meet([car], [(0, 0)], [1500], still=still)[2]
    if len(touched) == 1:  # with more, the first may push the car off the second
        assert len(found) >= 1
    elif not touched:
        assert not len(found)
    keys = np.array([cell_key(x, y) for x, y in still[:, :2]])
    assert np.array_equal(keys, (np.floor(still[:, 0] / CELL).astype(np.int64) << 32) + np.floor(still[:, 1] / CELL).astype(np.int64))


def test_a_thousand_contacts_are_too_many_for_a_tick_and_harm_nothing():
    boxes = [box(0.01 * k, 0.0) for k in range(40)]
    after, motion, found, _ = meet(boxes, np.zeros((40, 2)), np.full(40, 1500.0))
    assert len(found) == MOST and np.isfinite(after).all() and np.isfinite(motion).all()


def test_a_hundred_cars_in_a_town_are_cheap():
    rng = np.random.default_rng(0)
    boxes = np.array([box(*rng.uniform(-300, 300, 2)) for _ in range(100)])
    still = np.array([box(*rng.uniform(-400, 400, 2), 0.0, 1.0, 1.0, 0.0, 2e6) for _ in range(2000)])
    keys = np.array([cell_key(x, y) for x, y in still[:, :2]], np.int64)
    order = np.argsort(keys, kind="stable")
    still, keys, motion, weight = still[order], keys[order], np.zeros((100, 3)), np.full((100, 2), 1e-3)
    found, jolts = np.zeros((MOST, 2), np.int64), np.zeros((MOST, 2))
    best = math.inf
    for _ in range(20):
        begin = time.perf_counter()
        resolve(boxes, motion, weight, still, keys, 0.8, found, jolts)
        best = min(best, time.perf_counter() - begin)
    assert best < 1e-3  # about 0.05 ms; a loop in Python takes 100 times as long
