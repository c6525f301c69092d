# pyright: reportAttributeAccessIssue=false
"""The tokenizers beside the K-disk codebook: known answers, round trips, refusals, files, and the figures of their reports."""

import json
from functools import cache

import numpy as np
import pytest
from scipy.fft import dct

from drive.core.errors import DataError, TokenizerError
from drive.core.geometry import compose, wrap_angle
from drive.tokenizers.automaton import Automaton
from drive.tokenizers.bev_grid import BevGrid, headings_of_path
from drive.tokenizers.fast import Fast, apply_merges, learn_merges
from drive.tokenizers.feasibility import Bounds, feasible
from drive.tokenizers.interface import PlanTokenizer, chain, motions_of, nearest_index
from drive.tokenizers.kdisk import KDiskTokenizer
from drive.tokenizers.load import load_tokenizer
from drive.tokenizers.report import corner_distance, report
from drive.tokenizers.text_waypoints import CHARACTERS, TextWaypoints
from drive.tokenizers.unicycle import Unicycle
from drive.tokenizers.uniform_bins import UniformBins

CLASSES = {cls.name: cls for cls in (UniformBins, Unicycle, BevGrid, Fast, TextWaypoints)}
NAMES = sorted(CLASSES)


@cache
def driven(count: int = 400, seed: int = 0) -> np.ndarray:
    """Plans (count, 10, 3) of a car that speeds up, brakes and turns within what a car can do; a tenth of them stand still."""
    rng = np.random.default_rng(seed)
    speed, gain = rng.uniform(1.0, 14.0, count), rng.uniform(-1.5, 1.5, count)
    bend = rng.uniform(-0.06, 0.06, count)
    speed[: count // 10] = gain[: count // 10] = 0.0
    speeds = np.clip(speed[:, None] + gain[:, None] * 0.5 * np.arange(1, 11), 0.0, 16.0)
    length = 0.5 * speeds
    turn = np.minimum(np.abs(bend[:, None]), 2.0 / np.maximum(speeds, 1.0) ** 2) * np.sign(bend[:, None]) * length
    chord = length * np.sinc(turn / 2.0 / np.pi)
    return chain(np.stack([chord * np.cos(turn / 2.0), chord * np.sin(turn / 2.0), turn], axis=-1))


@cache
def fitted(name: str) -> PlanTokenizer:
    return CLASSES[name].fit(driven())


# ---------------------------------------------------------------- what all of them promise


@pytest.mark.parametrize(("name", "metres", "degrees"), [("uniform_bins", 0.05, 0.3), ("unicycle", 0.05, 0.5), ("bev_grid", 0.3, 3.0), ("fast", 0.15, 0.5), ("text_waypoints", 0.005, 0.2)])
def test_plans_come_back(name, metres, degrees):
    plans = driven(200, seed=1)
    tokenizer = fitted(name)
    rebuilt = tokenizer.decode(tokenizer.encode(plans))
    assert rebuilt.shape == plans.shape
    assert np.hypot(*np.moveaxis((rebuilt - plans)[..., :2], -1, 0)).mean() < metres
    assert np.degrees(np.abs(wrap_angle(rebuilt[..., 2] - plans[..., 2]))).mean() < degrees


@pytest.mark.parametrize("name", NAMES)
def test_yaw_survives_the_round_trip(name):
    """A left turn of 57 degrees comes back as a left turn of as much, not as a straight line. (The grid sees half of the last step's.)"""
    turn, slack = chain(np.tile([2.0, 0.1, 0.1], (1, 10, 1))), 0.1 if name == "bev_grid" else 0.06
    rebuilt = fitted(name).decode(fitted(name).encode(turn))
    assert abs(rebuilt[0, -1, 2] - 1.0) < slack
    mirrored = fitted(name).decode(fitted(name).encode(turn * [1.0, -1.0, -1.0]))
    assert abs(mirrored[0, -1, 2] + 1.0) < slack


@pytest.mark.parametrize("name", NAMES)
def test_every_encoded_plan_is_one_that_the_automaton_accepts_and_names_are_unique(name):
    tokenizer = fitted(name)
    automaton = tokenizer.automaton(10)
    rows = tokenizer.encode(driven(100, seed=2))
    assert all(automaton.accepts(row) for row in rows)
    assert all(automaton.shortest <= len(row) <= automaton.longest for row in rows)
    assert automaton.table.shape[1] == tokenizer.vocab_size == len(set(tokenizer.token_names))
    assert tokenizer.encode_motions(motions_of(driven())[:, 0]).shape == (400, tokenizer.motion_tokens)
    places = tokenizer.token_places
    assert places is None or places.shape == (tokenizer.vocab_size, 3)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_the_automaton_accepts_decodes_to_ten_finite_poses(name):
    tokenizer, rng = fitted(name), np.random.default_rng(3)
    table = tokenizer.automaton(10).table
    for _ in range(50):
        row, state = [], 0
        while state != len(table) - 1:
            row.append(int(rng.choice(np.flatnonzero(table[state] >= 0))))
            state = table[state, row[-1]]
        poses = tokenizer.decode([row])
        assert poses.shape == (1, 10, 3) and np.isfinite(poses).all()
        assert (np.abs(poses[..., 2]) <= np.pi).all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_make_no_plan_are_refused_and_named(name):
    tokenizer = fitted(name)
    rows = [np.array(row) for row in tokenizer.encode(driven(3, seed=4))]
    unknown, short = rows[1].copy(), rows[1][:-1]
    unknown[2] = tokenizer.vocab_size
    for bad, words in ((unknown, "not among the"), (short, "sequence 1"), (rows[1].astype(float), "integer tokens"), (np.zeros(0, int), "sequence 1")):
        with pytest.raises(TokenizerError, match=words) as caught:
            tokenizer.decode([rows[0], bad, rows[2]])
        assert "sequence 1" in str(caught.value)
        found = tokenizer.decode_each([rows[0], bad, rows[2]])
        assert [isinstance(poses, TokenizerError) for poses in found] == [False, True, False]
        np.testing.assert_array_equal(found[2], tokenizer.decode([rows[2]])[0])
    assert tokenizer.decode_each([]) == []


@pytest.mark.parametrize("name", NAMES)
def test_plans_that_are_none_are_refused(name):
    with pytest.raises(DataError, match="shape"):
        fitted(name).encode(np.zeros((3, 3)))
    with pytest.raises(DataError, match="NaN"):
        fitted(name).encode(np.full((1, 10, 3), np.nan))
    with pytest.raises(DataError, match="at least one plan"):
        CLASSES[name].fit(np.zeros((0, 10, 3)))
    with pytest.raises(DataError, match="NaN"):
        CLASSES[name].fit(np.full((1, 10, 3), np.inf))


@pytest.mark.parametrize("name", NAMES)
def test_plans_that_never_move_can_be_fitted_and_come_back(name):
    still = np.zeros((20, 10, 3))
    tokenizer = CLASSES[name].fit(still)
    assert np.abs(tokenizer.decode(tokenizer.encode(still))).max() < 0.02


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_is_the_same(name, tmp_path):
    tokenizer = fitted(name)
    tokenizer.save(tmp_path / "t")
    loaded = load_tokenizer(tmp_path / "t", expect_dt=0.5)
    assert type(loaded) is type(tokenizer) and loaded.fingerprint == tokenizer.fingerprint
    assert loaded.record == tokenizer.record and loaded.bounds == tokenizer.bounds
    plans = driven(20, seed=5)
    assert all(np.array_equal(a, b) for a, b in zip(tokenizer.encode(plans), loaded.encode(plans)))
    np.testing.assert_array_equal(loaded.decode(tokenizer.encode(plans)), tokenizer.decode(tokenizer.encode(plans)))
    with pytest.raises(TokenizerError, match=r"0\.5 s, want 0\.1 s"):
        load_tokenizer(tmp_path / "t", expect_dt=0.1)


@pytest.mark.parametrize("name", ["uniform_bins", "unicycle", "bev_grid", "fast"])
def test_a_changed_card_is_refused(name, tmp_path):
    fitted(name).save(tmp_path)
    card = json.loads((tmp_path / "tokenizer.json").read_text())
    key = next(key for key, value in card["settings"].items() if isinstance(value, int | float))
    card["settings"][key] += 2
    (tmp_path / "tokenizer.json").write_text(json.dumps(card))
    with pytest.raises(TokenizerError, match="was changed"):
        load_tokenizer(tmp_path)


def test_damaged_missing_and_foreign_cards_are_refused(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)
    fitted("unicycle").save(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    for damaged in (text[: len(text) // 2], "[]", text.replace('"settings"', '"seetings"'), text.replace('"bins"', '"bims"'), text.replace("drive-unicycle-1", "drive-unicycle-9")):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(TokenizerError, match=r"tokenizer"):
            load_tokenizer(tmp_path)


def test_a_codebook_loads_through_the_same_door(tmp_path):
    codebook = KDiskTokenizer.fit(motions_of(driven()).reshape(-1, 3), k=64)
    codebook.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == codebook.fingerprint


def test_a_full_or_closed_disk_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenizerError, match="was not saved"):
        fitted("fast").save(tmp_path / "file" / "below")


# ---------------------------------------------------------------- known answers, one by one


def test_uniform_bins_lie_between_the_quantiles():
    steps = np.linspace(0.0, 10.0, 1001)
    plans = np.stack([steps, np.zeros(1001), np.zeros(1001)], axis=-1)[:, None]
    tokenizer = UniformBins.fit(plans, bins=100)
    assert tokenizer.low[0] == pytest.approx(0.1) and tokenizer.high[0] == pytest.approx(9.9)
    assert tokenizer.low[1] == pytest.approx(-0.05), "a dimension that never varies still has a width"
    tokens = tokenizer.encode(np.array([[[5.0, 0.0, 0.0]], [[99.0, 0.0, 0.0]]]))
    assert tokens.tolist() == [[50, 50, 50], [99, 50, 50]]
    np.testing.assert_allclose(tokenizer.decode(np.array([[0, 50, 50]]))[0, 0, 0], 0.1 + 0.5 * 9.8 / 100)


def test_uniform_bins_make_up_for_what_a_bin_left_over():
    """Every step is 0.3 of a bin off; without feedback ten of them would be three bins off."""
    tokenizer = UniformBins(0.5, 0.05, Bounds(), fitted("uniform_bins").record, [0.0, -0.5, -0.1], [10.0, 0.5, 0.1], 10)
    plans = chain(np.tile([4.8, 0.05, 0.01], (1, 10, 1)))
    rebuilt = tokenizer.decode(tokenizer.encode(plans))
    assert abs(rebuilt[0, -1, 0] - plans[0, -1, 0]) < 0.6


def test_unicycle_of_known_controls():
    tokenizer = Unicycle(0.5, 0.05, Bounds(), fitted("unicycle").record, 20.0, 4.0, 0.1, 41)
    # from 10 m/s with 2 m/s^2: 11 m/s over the first half second, 12 over the second; straight, then on a curve of 50 m radius
    row = np.array([[20, 41 + 30, 82 + 20, 41 + 30, 82 + 24]])
    poses = tokenizer.decode(row)[0]
    np.testing.assert_allclose(poses[0], [5.5, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(poses[1], [5.5 + 50 * np.sin(0.12), 50 * (1 - np.cos(0.12)), 0.12], atol=1e-12)
    np.testing.assert_array_equal(tokenizer.encode(poses[None]), row)
    with pytest.raises(TokenizerError, match="is an acceleration, want a speed"):
        tokenizer.decode(row[:, [1, 1, 2]])


def test_unicycle_never_rolls_back_and_holds_the_wheel_at_a_standstill():
    tokenizer = fitted("unicycle")
    braking = np.zeros((1, 10, 3))
    braking[0, :, 0] = np.cumsum([2.0, 1.7, 1.4, 1.1, 0.8, 0.5, 0.2, 0.0, 0.0, 0.0])  # 1.2 m/s^2 down to a standstill
    rebuilt = tokenizer.decode(tokenizer.encode(braking))[0]
    assert (np.diff(rebuilt[:, 0]) >= -1e-9).all() and np.abs(rebuilt - braking[0]).max() < 0.03 and np.abs(rebuilt[:, 2]).max() < 1e-9
    assert feasible(motions_of(tokenizer.decode(tokenizer.encode(driven()))).reshape(-1, 3), 0.5, Bounds()).all()


def test_grid_is_fine_near_the_car_and_coarse_far_away():
    tokenizer = fitted("bev_grid")
    x, y = tokenizer._axes  # pyright: ignore[reportAttributeAccessIssue]
    assert 0.0 in x and 0.0 in y and (np.diff(x) > 0).all() and (np.diff(y) > 0).all()
    np.testing.assert_allclose(y, -y[::-1], atol=1e-12)
    assert np.diff(x)[-1] > 10 * np.diff(x)[len(x[x < 0])]
    ratio = np.diff(x)[-20:] / np.diff(x)[-21:-1]
    assert ratio.std() < 0.01 and ratio.mean() > 1.005, "cells grow by a constant factor"
    assert tokenizer.encode(np.array([[[1e4, -1e4, 0.0]]])).tolist() == [[len(x) - 1, len(x)]]
    with pytest.raises(TokenizerError, match="place ahead"):
        tokenizer.decode(np.array([[len(x), 0]]))


def test_headings_of_a_path():
    circle = chain(np.tile([2.0, 0.1, 0.1], (1, 10, 1)))
    found = headings_of_path(circle[..., :2])[0]
    np.testing.assert_allclose(found[:-1], circle[0, :-1, 2], atol=1e-3)
    stop = np.array([[[2.0, 2.0], [2.0, 2.0], [2.0, 2.01]]])
    np.testing.assert_allclose(headings_of_path(stop)[0], np.pi / 4)  # a car that stands does not spin
    back = np.array([[[-2.0, 0.0], [-4.0, 0.0]]])
    np.testing.assert_allclose(headings_of_path(back)[0], 0.0, atol=1e-12)


def test_fast_is_exact_at_the_quantised_level():
    tokenizer = fitted("fast")
    plans = driven(100, seed=6)
    rows = tokenizer.encode(plans)
    np.testing.assert_array_equal(tokenizer.decode_integers(rows), tokenizer.integers(plans))
    assert all(len(a) == len(b) and (a == b).all() for a, b in zip(tokenizer.encode(tokenizer.decode(rows)), rows)), "decoding adds nothing"
    assert len({len(row) for row in rows}) > 1 and np.mean([len(row) for row in rows]) < 20


def test_fast_coefficients_by_hand():
    tokenizer = Fast(0.5, 0.05, Bounds(), fitted("fast").record, [0.0, -1.0, -0.5], [10.0, 1.0, 0.5], 10.0, 4, 99, [])
    motions = np.array([[[7.0, 0.5, 0.1]] * 4])
    found = tokenizer.integers(chain(motions))[0]
    assert found[0].tolist() == [round(10 * 0.4 * 2), round(10 * 0.5 * 2), round(10 * 0.2 * 2)] and not found[1:].any()  # sqrt(4) = 2
    row = tokenizer.encode(chain(motions))[0]
    assert row[:3].tolist() == [99 + 8, 99 + 10, 99 + 4], "low frequencies first, the dimensions of one frequency together"
    np.testing.assert_allclose(motions_of(tokenizer.decode([row])), motions, atol=1e-9)
    matrix = np.asarray(dct(np.eye(4), axis=0, norm="ortho"))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-12)


def test_merges_by_hand():
    rows = np.array([[0, 1, 0, 1], [0, 1, 2, 2], [2, 2, 2, 0]])
    merges = learn_merges(rows, 3, 10)
    assert merges[:2] == [(0, 1), (2, 2)], "three times 0 1, three times 2 2: the lower pair first; rows are not joined"
    assert [row.tolist() for row in apply_merges(rows, merges, 3)] == [[3, 3], [3, 4], [4, 2, 0]]
    assert [row.tolist() for row in apply_merges(rows, [], 3)] == rows.tolist()
    assert apply_merges(np.array([[5, 5, 5, 5, 5]]), [(5, 5)], 6)[0].tolist() == [6, 6, 5], "pairs are taken from the left"


def test_fast_refuses_what_it_was_not_fitted_for():
    with pytest.raises(DataError, match="plans of 10 poses, got 4"):
        fitted("fast").encode(np.zeros((1, 4, 3)))
    with pytest.raises(TokenizerError, match="4 are wanted"):
        fitted("fast").automaton(4)
    with pytest.raises(TokenizerError, match="has no room"):
        Fast.fit(driven(), vocab_size=50)
    with pytest.raises(TokenizerError, match="spells 29 coefficients"):
        fitted("fast").decode([np.zeros(29, int)])


def test_text_reads_as_decimal_numbers():
    tokenizer = fitted("text_waypoints")
    plan = np.array([[3.214, -0.001, 0.006], [6.0, 12.345, -0.5]])
    assert tokenizer.write(plan) == "3.21,0.00,0.01;6.00,12.35,-0.50" or tokenizer.write(plan) == "3.21,0.00,0.01;6.00,12.34,-0.50"
    assert "".join(CHARACTERS[i] for i in tokenizer.encode(plan[None])[0]) == tokenizer.write(plan)
    assert "".join(CHARACTERS[i] for i in tokenizer.encode_motions(np.array([[4.2, 0.0, 0.0]]))[0]) == "04.20"
    with pytest.raises(DataError, match="1200 m away"):
        tokenizer.encode(np.full((1, 10, 3), 1200.0))


@pytest.mark.parametrize("text", ["", "1.00,2.00", "1.0,2.00,3.00", "1.00,2.00,3.00;", "1.00,2.00,3.00;1.00", "--1.00,2.00,3.00", "1234.00,2.00,3.00", "1.00;2.00;3.00"])
def test_text_that_is_no_plan_is_refused(text):
    row = np.array([CHARACTERS.index(character) for character in text], int)
    with pytest.raises(TokenizerError, match="sequence 0 is no plan"):
        fitted("text_waypoints").decode([row])
    assert not fitted("text_waypoints").automaton(1).accepts(row)


def test_rows_of_other_lengths_are_told_apart():
    tokenizer = fitted("text_waypoints")
    one, two = (tokenizer.encode(np.zeros((1, steps, 3)))[0] for steps in (1, 2))
    with pytest.raises(TokenizerError, match="sequence 1 has 2 waypoints"):
        tokenizer.decode([one, two])
    assert [poses.shape for poses in tokenizer.decode_each([one, two])] == [(1, 3), (2, 3)]


def test_automaton_of_places():
    automaton = Automaton.by_place([np.array([True, False]), np.array([True, True])])
    assert automaton.accepts([0, 1]) and not automaton.accepts([1, 1]) and not automaton.accepts([0]) and not automaton.accepts([0, 1, 1]) and not automaton.accepts([0, 7])
    assert (automaton.shortest, automaton.longest) == (2, 2) and not automaton.unconstrained
    assert Automaton.free(3, 5).unconstrained and Automaton.free(3, 5).longest == 3


def test_nearest_point_of_a_grid():
    grid = np.array([-1.0, 0.0, 2.0])
    assert nearest_index(np.array([-5.0, -0.6, -0.5, 0.9, 1.0, 1.1, 9.0]), grid).tolist() == [0, 0, 0, 1, 1, 2, 2]


# ---------------------------------------------------------------- the report


@pytest.mark.parametrize("name", NAMES)
def test_the_same_report_for_all(name):
    figures = report(fitted(name), driven(100, seed=7))
    assert figures == fitted(name).report(driven(100, seed=7))
    assert figures.plans == 100 and 0.0 < figures.usage <= 1.0 and figures.infeasible_tokens is None
    assert figures.infeasible_before == 0.0 and 0.0 <= figures.infeasible <= 1.0
    assert (figures.coverage is None) == (name == "fast")
    assert "of 1" in str(figures) or "tokens" in str(figures)
    assert "ADE" in figures.line() and "\n" not in figures.line()
    json.dumps(figures.to_dict())


def test_figures_of_text_by_hand():
    # 1.004 m is written 1.00 and 2.004 m 2.00: 4 mm off at both, 9 + 1 + 9... characters a plan
    plan = np.array([[[1.004, 0.0, 0.0], [2.004, 0.0, 0.0]]])
    figures = report(TextWaypoints.fit(plan), plan)
    np.testing.assert_allclose([figures.ade, figures.fde, figures.max_error], 0.004, atol=1e-12)
    assert figures.tokens_per_plan == len("1.00,0.00,0.00;2.00,0.00,0.00") and figures.rebuilt == figures.coverage == 1.0
    assert figures.tokens_used == 6 and figures.speed_cap is None


def test_infeasible_steps_are_those_of_the_rebuilt_plan():
    plan = chain(np.array([[[2.0, 0.0, 0.0], [2.0, 0.5, 0.0]]]))  # the second step slips sideways by half a metre
    figures = report(TextWaypoints.fit(plan), plan)
    assert figures.infeasible == figures.infeasible_before == 0.5
    straightened = report(Unicycle.fit(driven()), plan)
    assert straightened.infeasible == 0.0 and straightened.infeasible_before == 0.5


def test_corner_distance_is_that_of_the_codebook():
    motions = motions_of(driven()).reshape(-1, 3)[:200]
    codebook = KDiskTokenizer.fit(motions_of(driven(100, seed=8)).reshape(-1, 3), k=100)
    tokens, distance = codebook.nearest(motions)
    np.testing.assert_allclose(corner_distance(motions, codebook.codebook[tokens]), distance, atol=1e-12)
    np.testing.assert_array_equal(codebook.rebuild_motions(motions), codebook.codebook[tokens])
    np.testing.assert_array_equal(compose(np.zeros(3), codebook.rebuild_motions(motions[:1])), codebook.codebook[tokens[:1]])
