"""The K-disk tokenizer against a naive build and a naive encoder, hand-made motions, and its files."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from drive.core.errors import DataError, TokenizerError
from drive.core.geometry import box_corners, compose, wrap_angle
from drive.tokenizers import codebook_files, kernels
from drive.tokenizers.feasibility import Bounds, arc_motion, feasible, feasible_acceleration, feasible_pairs, rear_axle_offset
from drive.tokenizers.kdisk import Box, FitRecord, KDiskTokenizer, segments_from_tracks

DT = 0.5


def arc(speed, curvature, dt=DT):
    """The end (3,) of driving `dt` s at constant speed and curvature, by the closed form of a circle."""
    heading = speed * dt * curvature
    if abs(heading) < 1e-12:
        return np.array([speed * dt, 0.0, 0.0])
    return np.array([np.sin(heading) / curvature, (1.0 - np.cos(heading)) / curvature, heading])


def motions(count, seed=0):
    """Feasible motions (count, 3): some standing, speeds to 20 m/s, curvature falling with speed."""
    rng = np.random.default_rng(seed)
    speed = np.where(rng.random(count) < 0.15, 0.0, rng.uniform(0.0, 20.0, count))
    curvature = rng.uniform(-1.0, 1.0, count) * np.minimum(0.2, 3.0 / np.maximum(speed, 0.1) ** 2)
    return np.stack([arc(v, c) for v, c in zip(speed, curvature)])


def plans_of(segments, count, steps, seed=1):
    """Plans (count, steps, 3) of random motions one after another."""
    pick = np.random.default_rng(seed).integers(0, len(segments), (count, steps))
    pose, poses = np.zeros((count, 3)), []
    for t in range(steps):
        pose = compose(pose, segments[pick[:, t]])
        poses.append(pose)
    return np.stack(poses, axis=1)


def corner_distance(a, b, box):
    """Mean distance of the box corners at poses a and b (..., 3), by core's geometry."""
    a, b = (box_corners(p, box.length, box.width, box.rear_to_center) for p in (a, b))
    return np.linalg.norm(a - b, axis=-1).mean(-1)


def naive_codebook(samples, order, k, tolerance, box):
    """Take the first remaining sample, remove all within the tolerance, repeat: the definition, in numpy."""
    remaining = samples[order]
    tokens = [np.zeros(3)]
    while True:
        remaining = remaining[corner_distance(remaining, tokens[-1], box) > tolerance]
        if len(tokens) == k or not len(remaining):
            return np.array(tokens)
        tokens.append(remaining[0])


def naive_encode(plans, tokenizer):
    """Roll out in the plan's own frame, trying every token at every step."""
    tokens = np.zeros(plans.shape[:2], int)
    for n, plan in enumerate(plans):
        pose = np.zeros(3)
        for t, target in enumerate(plan):
            ends = compose(pose, tokenizer.codebook)
            tokens[n, t] = np.argmin(corner_distance(ends, target, tokenizer.box))
            pose = ends[tokens[n, t]]
    return tokens


def by_hand(codebook, **box):
    """A tokenizer with the codebook given."""
    record = FitRecord(len(codebook), 0, False, 0, 0, 0, 0, False, 0, 0.0, "by hand")
    return KDiskTokenizer(np.asarray(codebook, float), DT, 0.05, Box(**box), Bounds(), record)


@pytest.fixture(scope="module")
def tokenizer():
    return KDiskTokenizer.fit(motions(30_000), k=400)


@pytest.mark.parametrize("k, tolerance", [(150, 0.05), (10_000, 0.3)])
def test_walk_equals_the_naive_build_token_for_token(k, tolerance):
    samples, box = motions(4000), Box()
    order = np.random.default_rng(3).permutation(len(samples))
    kept, walked = kernels.kdisk_walk(samples, order, k, tolerance, box.kernel)
    naive = naive_codebook(samples, order, k, tolerance, box)
    np.testing.assert_array_equal(np.concatenate([np.zeros((1, 3)), samples[kept[1:]]]), naive)
    assert (walked == len(samples)) == (len(kept) < k)


def test_tokens_are_apart_and_every_motion_is_covered_when_the_pool_runs_empty():
    samples = motions(5000)
    tokenizer = KDiskTokenizer.fit(samples, k=4000, tolerance=0.2)
    assert tokenizer.vocab_size < 4000
    assert tokenizer.record.pool_ran_empty and tokenizer.record.arcs == 0
    gap = corner_distance(tokenizer.codebook[:, None], tokenizer.codebook[None], tokenizer.box)
    assert gap[~np.eye(len(gap), dtype=bool)].min() > 0.2
    tokens, distance = tokenizer.nearest(samples)
    assert distance.max() <= 0.2
    np.testing.assert_allclose(distance, corner_distance(samples, tokenizer.codebook[tokens], tokenizer.box), atol=1e-12)


def test_fit_repeats_by_seed_and_token_zero_is_no_motion(tokenizer):
    again, other = KDiskTokenizer.fit(motions(30_000), k=400), KDiskTokenizer.fit(motions(30_000), k=400, seed=1)
    np.testing.assert_array_equal(tokenizer.codebook, again.codebook)
    assert tokenizer.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(tokenizer.codebook[0], 0.0)
    assert tokenizer.vocab_size == 400 and not tokenizer.record.pool_ran_empty
    assert tokenizer.token_names[:2] == ["<action_0>", "<action_1>"] and len(tokenizer.token_names) == 400


def test_fit_drops_what_no_car_does_and_counts_it():
    good = np.stack([arc(10.0, 0.0), arc(5.0, 0.1), arc(10.0, 0.02)])
    bad = np.array([[3.0, 0.0, 2.6], [-2.0, 0.0, 0.0], [2.0, 1.5, 0.0], [40.0, 0.0, 0.0], *good])
    previous = np.array([6.0, 0.0, 4.0, 80.0, 9.0, np.nan, 2.0])  # the last would be +16 m/s^2
    tokenizer = KDiskTokenizer.fit(bad, previous_speed=previous, mirror=False)
    assert (tokenizer.record.segments, tokenizer.record.infeasible, tokenizer.record.jumps) == (7, 4, 1)
    assert {tuple(row) for row in tokenizer.codebook} == {(0.0, 0.0, 0.0), tuple(good[0]), tuple(good[1])}
    mirrored = KDiskTokenizer.fit(bad, previous_speed=previous, mirror=True)
    assert tuple(good[1] * [1, -1, -1]) in {tuple(row) for row in mirrored.codebook}


def test_fill_gives_the_places_left_to_feasible_arcs():
    few = np.stack([arc(12.0, 0.0), arc(6.0, 0.1)])
    filled = KDiskTokenizer.fit(few, k=300, fill=True)
    assert filled.vocab_size == 300 and filled.record.pool_ran_empty
    assert filled.record.arcs == 300 - 4  # no motion, straight on, the bend and its mirror image are logged
    assert filled.speed_cap <= 12.0 + 1e-9
    assert np.abs(arc_motion(filled.codebook)[1]).max() < 1e-9


def test_sources_of_motion_that_cannot_be_used_are_refused():
    with pytest.raises(DataError, match="shape"):
        KDiskTokenizer.fit(np.zeros((4, 2)))
    with pytest.raises(DataError, match="NaN"):
        KDiskTokenizer.fit(np.full((4, 3), np.nan))
    with pytest.raises(DataError, match="previous_speed"):
        KDiskTokenizer.fit(np.zeros((4, 3)), previous_speed=np.zeros(3))
    with pytest.raises(TokenizerError, match="none of the 4 motions"):
        KDiskTokenizer.fit(np.full((4, 3), 2.0))
    with pytest.raises(TokenizerError, match="k >= 1"):
        KDiskTokenizer.fit(np.zeros((4, 3)), k=0)
    with pytest.raises(TokenizerError, match="1 tokens of the codebook are infeasible"):
        by_hand([[0.0, 0.0, 0.0], [0.0, 0.0, 2.6]])


def test_encode_equals_the_naive_roll_out(tokenizer):
    plans = plans_of(motions(500, seed=5), 60, 10)
    plans[:5, :, :2] *= 3.0  # faster than any token
    plans[5:10, :, 0] *= -1.0  # backwards
    np.testing.assert_array_equal(tokenizer.encode(plans), naive_encode(plans, tokenizer))


def test_tokens_survive_the_round_trip_and_errors_do_not_add_up(tokenizer):
    tokens = np.random.default_rng(2).integers(0, tokenizer.vocab_size, (50, 10))
    np.testing.assert_array_equal(tokenizer.encode(tokenizer.decode(tokens)), tokens)
    slow = np.cumsum(np.full((1, 40, 3), [0.51, 0.0, 0.0]), axis=1)
    rebuilt = by_hand([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.6, 0.0, 0.0]]).encode(slow)
    assert set(rebuilt[0]) == {1, 2}  # always taking the nearest single motion would give 0.6 forty times: 3.6 m too far
    assert abs(rebuilt[0].sum() * 0.3 - 40 * 0.51) <= 0.15


def test_ties_go_to_the_lower_token():
    left, right = arc(4.0, 0.1), arc(4.0, -0.1)
    plan = np.array([[[arc(4.0, 0.1)[0], 0.0, 0.0]]])
    assert by_hand([[0.0, 0.0, 0.0], left, right]).encode(plan)[0, 0] == 1
    assert by_hand([[0.0, 0.0, 0.0], right, left]).encode(plan)[0, 0] == 1


def test_decode_follows_the_circle_and_wraps_the_heading():
    tokenizer = by_hand([[0.0, 0.0, 0.0], arc(4.0, 0.2)])
    poses = tokenizer.decode(np.array([[1] * 12, [0] * 12]))
    step = 0.4 * np.arange(1, 13)
    circle = np.stack([np.sin(step) / 0.2, (1.0 - np.cos(step)) / 0.2, wrap_angle(step)], axis=-1)
    np.testing.assert_allclose(poses[0], circle, atol=1e-9)
    assert poses[0, -1, 2] < 0.0
    np.testing.assert_array_equal(poses[1], 0.0)


@pytest.mark.parametrize("tokens", [[[0, -1]], [[0, 400]], [[0.0, 1.0]], [0, 1], [[True, False]]])
def test_decode_refuses_what_is_no_token(tokenizer, tokens):
    with pytest.raises(TokenizerError):
        tokenizer.decode(np.array(tokens))


def test_box_offset_moves_the_corners():
    turn = np.array([[0.0, 0.0, 0.004]])
    distance = [by_hand([[0.0, 0.0, 0.0]], rear_to_center=r).nearest(turn)[1][0] for r in (0.0, 1.4)]
    np.testing.assert_allclose(distance[0], 2 * np.hypot(2.4, 1.0) * np.sin(0.002), rtol=1e-9)
    assert distance[1] > distance[0]  # the box swings about the rear axle


def test_bounds_by_hand():
    bounds = Bounds()
    cases = [
        (arc(10.0, 0.05), True),
        (arc(10.0, 0.07), False),  # 7 m/s^2 sideways
        (arc(3.0, 0.21), True),
        (arc(3.0, 0.25), False),  # a radius of 4 m
        (arc(6.0, 0.19), False),  # 1.14 rad/s
        (arc(34.9, 0.0), True),
        (arc(35.1, 0.0), False),
        (np.array([5.0, 0.09, 0.0]), True),
        (np.array([5.0, 0.12, 0.0]), False),  # sideways, heading unchanged
        (np.array([-0.02, 0.0, 0.0]), True),  # noise of standing
        (np.array([-0.2, 0.0, 0.0]), False),
        (np.array([0.0, 0.0, 0.1]), False),  # turning on the spot
    ]
    np.testing.assert_array_equal(feasible(np.stack([c for c, _ in cases]), DT, bounds), [ok for _, ok in cases])
    assert feasible(np.array([[-2.0, 0.0, 0.0]]), DT, Bounds(allow_reverse=True)).all()


def test_motions_of_box_centres_are_noticed():
    segments = motions(2000)
    ahead = compose(compose(np.array([-1.4, 0.0, 0.0]), segments), np.array([1.4, 0.0, 0.0]))
    np.testing.assert_allclose([rear_axle_offset(segments), rear_axle_offset(ahead)], [0.0, 1.4], atol=1e-9)
    record = KDiskTokenizer.fit(ahead, k=10).record
    assert record.infeasible > 200 and "1.4 m ahead of the rear axle" in str(record)
    assert rear_axle_offset(ahead[:20]) == 0.0  # too few to tell


def test_acceleration_is_a_property_of_pairs():
    previous, speed = np.array([10.0, 10.0, 10.0, 10.0, np.nan]), np.array([12.4, 12.6, 5.6, 5.4, 30.0])
    np.testing.assert_array_equal(feasible_acceleration(previous, speed, DT, Bounds()), [True, False, True, False, True])
    steps = np.stack([[arc(10.0, 0.0), arc(12.0, 0.01), arc(5.0, 0.0)]])
    np.testing.assert_array_equal(feasible_pairs(steps, DT, Bounds()), [[True, False]])


def test_segments_slide_over_tracks_and_skip_what_is_not_valid():
    step = 0.1
    circle = np.stack([arc(8.0, 0.05, step * i) for i in range(21)])
    world = compose(np.array([100.0, -50.0, 3.0]), circle)
    poses, valid = np.stack([world, world]), np.ones((2, 21), bool)
    valid[1, 12] = False
    deltas, previous = segments_from_tracks(poses, valid, step)
    assert len(deltas) == 16 + 7 + 3  # starts 0..15; then 0..6 and 13..15
    np.testing.assert_allclose(deltas, np.tile(arc(8.0, 0.05), (26, 1)), atol=1e-9)
    known = np.isfinite(previous)
    np.testing.assert_allclose(previous[known], 8.0)
    assert known.sum() == 11 + 2  # starts 5..15; then 5..6
    assert segments_from_tracks(poses[:, :4], valid[:, :4], step)[0].shape == (0, 3)
    with pytest.raises(DataError, match="interpolate"):
        segments_from_tracks(poses, valid, 0.3)


def test_save_and_load(tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path / "tok")
    loaded = KDiskTokenizer.load(tmp_path / "tok", expect_dt=0.5)
    np.testing.assert_array_equal(loaded.codebook, tokenizer.codebook)
    assert (loaded.fingerprint, loaded.box, loaded.bounds, loaded.record) == (
        tokenizer.fingerprint, tokenizer.box, tokenizer.bounds, tokenizer.record,
    )
    card = json.loads((tmp_path / "tok/tokenizer.json").read_text())
    assert card["record"]["segments"] == 30_000 and card["speed_cap"] == tokenizer.speed_cap
    with pytest.raises(TokenizerError, match=r"0\.5 s, want 0\.1 s"):
        KDiskTokenizer.load(tmp_path / "tok", expect_dt=0.1)


def test_load_refuses_missing_changed_and_foreign_files(tokenizer, tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing"):
        KDiskTokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    book, card = tmp_path / "codebook.safetensors", tmp_path / "tokenizer.json"
    whole, text = book.read_bytes(), card.read_text()
    for content in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:40], b""):
        book.write_bytes(content)
        with pytest.raises(TokenizerError, match=r"not the codebook|cannot be read"):
            KDiskTokenizer.load(tmp_path)
    book.write_bytes(whole)
    for other in (text.replace("kdisk-1", "kdisk-9"), text[:50], "[]", text.replace('"dt"', '"time"')):
        card.write_text(other)
        with pytest.raises(TokenizerError, match=r"format|cannot be read"):
            KDiskTokenizer.load(tmp_path)


def test_a_full_disk_leaves_the_old_files_whole(tokenizer, tmp_path: Path, monkeypatch):
    old = KDiskTokenizer.fit(motions(100), k=20)
    old.save(tmp_path)
    write = codebook_files._write

    def full(path, content):
        if "json" in path.name:
            write(path, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(codebook_files, "_write", full)
    with pytest.raises(TokenizerError, match="No space left on device"):
        tokenizer.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["codebook.safetensors", "tokenizer.json"]
    assert KDiskTokenizer.load(tmp_path).fingerprint == old.fingerprint
