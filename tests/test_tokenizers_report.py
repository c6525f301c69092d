"""The tokenizer's report on plans of known error, and its picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drive.core.errors import DataError
from drive.core.geometry import compose
from drive.tokenizers.feasibility import Bounds, feasible
from drive.tokenizers.kdisk import Box, FitRecord, KDiskTokenizer, segments_from_tracks
from drive.tokenizers.report import envelope, plot_codebook, report

REAL = Path(__file__).resolve().parents[1] / "../shared/data/real/NVlabs__GTRS/traj_final/8192.npy"
STRAIGHT = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [5.0, 0.0, 0.0]]


def tokenizer(codebook=STRAIGHT):
    record = FitRecord(len(codebook), 0, False, 0, 0, 0, 0, False, 0, 0.0, "by hand")
    return KDiskTokenizer(np.array(codebook), 0.5, 0.05, Box(), Bounds(), record)


def test_figures_of_a_plan_worked_out_by_hand():
    # Steps of 1.04 m: tokens reach 1, 2, 3 m against 1.04, 2.08, 3.12, so that errors are 4, 8 and 12 cm.
    plan = np.array([[[1.04, 0.0, 0.0], [2.08, 0.0, 0.0], [3.12, 0.0, 0.0]]])
    figures = report(tokenizer(), plan)
    np.testing.assert_allclose([figures.ade, figures.fde, figures.max_error], [0.08, 0.12, 0.12], atol=1e-12)
    assert (figures.plans, figures.tokens_per_plan, figures.tokens_used, figures.usage) == (1, 3, 1, 0.25)
    assert figures.coverage == 1.0 and figures.speed_cap == 10.0
    assert figures.infeasible_tokens == 0 and figures.jumps == 0.0
    assert figures.to_dict()["ade"] == figures.ade
    assert "8.00 cm" in str(figures) and "1 of 4 (25.0 %)" in str(figures)


def test_heading_error_coverage_and_jumps():
    plan = np.array([[[1.0, 0.0, 0.0], [6.0, 0.0, 0.1]]])  # 2 m/s, then 10 m/s: 16 m/s^2, and the turn has no token
    figures = report(tokenizer(), plan)
    np.testing.assert_allclose(figures.heading_error_deg, np.degrees(0.05))
    assert figures.coverage == 0.5 and figures.jumps == 1.0


def test_no_plans_give_no_figures():
    with pytest.raises(DataError, match="at least one plan"):
        report(tokenizer(), np.zeros((0, 10, 3)))


def test_envelope_is_the_edge_of_the_bounds():
    border = envelope(Bounds(), 20.0, 0.5)[:200]
    heading = 2.0 * np.arctan2(border[:, 1], border[:, 0])
    moving = np.hypot(*border.T) > 0.5
    edge = np.column_stack([border, heading])[moving]
    assert feasible(edge * [1.0, 1.0, 1.0 - 1e-9], 0.5, Bounds()).all()
    sharper = np.column_stack([edge[:, 0], edge[:, 1] * 1.15, 2.0 * np.arctan2(edge[:, 1] * 1.15, edge[:, 0])])
    assert not feasible(sharper, 0.5, Bounds()).any()


def test_picture_is_written(tmp_path):
    path = plot_codebook(KDiskTokenizer.fit(np.array(STRAIGHT), k=50, fill=True), tmp_path / "figures/codebook.png")
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 500
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


@pytest.mark.skipif(not REAL.is_file(), reason="real motions are not here")
def test_real_plans_left_out_are_rebuilt_within_3_cm():
    centre = np.load(REAL).astype(float)  # (8192, 40, 3) at 10 Hz, of the box centre: 1.461 m ahead of nuPlan's rear axle
    tracks = np.concatenate([np.zeros((len(centre), 1, 3)), centre], axis=1)
    tracks = compose(np.array([1.461, 0.0, 0.0]), compose(tracks, np.array([-1.461, 0.0, 0.0])))
    order = np.random.default_rng(0).permutation(len(tracks))
    seen, left_out = tracks[order[:4096]], tracks[order[4096:], 5::5]
    segments, previous = segments_from_tracks(seen, np.ones(seen.shape[:2], bool), 0.1)
    fitted = KDiskTokenizer.fit(segments, previous_speed=previous)
    figures = report(fitted, left_out)
    assert abs(fitted.record.rear_axle_offset) < 0.2 and fitted.record.infeasible < 0.02 * len(segments)
    assert figures.ade <= 0.03 and figures.infeasible_tokens == 0
    assert figures.coverage is not None and figures.coverage > 0.97
