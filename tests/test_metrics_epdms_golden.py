"""EPDMS v2.2 against NAVSIM's own outputs: every stage, sub-score and score of recorded cases; skipped where they are absent."""

import json

import numpy as np
import pytest
from test_metrics_pdms_golden import FOLDER, SCENES, load

from drive.metrics.epdms import EpdmsScene, combine, human_filter, score_epdms
from drive.metrics.epdms_comfort import FRAME_LIMITS, frame_differences, history_comfort, history_signals
from drive.metrics.epdms_judge import RedLight

pytestmark = pytest.mark.skipif(not SCENES, reason="recorded NAVSIM cases are not at hand")
NAMES = {
    "no_at_fault_collisions": "nc",
    "drivable_area_compliance": "dac",
    "driving_direction_compliance": "ddc",
    "traffic_light_compliance": "tlc",
    "time_to_collision": "ttc",
    "lane_keeping": "lk",
    "history_comfort": "hc",
}


def state(record):
    turn = [record[k] for k in ("tire_steering_angle", "tire_steering_rate", "angular_velocity", "angular_acceleration")]
    return [*record["rear_axle"], *record["velocity"], *record["acceleration"], *turn]


def load_v22(name):
    """(EpdmsScene, proposals, dt, expected arrays, human plan or None) of one recorded case."""
    pdm, proposals, dt, _ = load(name)
    info = json.loads((FOLDER / name / "scene.json").read_text())
    rings = {p["token"]: np.array(p["ring"]) for p in info["map_polygons"]}
    lights = tuple(
        RedLight(rings[light["lane_connector"]], np.array(light["red"], bool))
        for light in info["traffic_lights"]
        if light["lane_connector"] in info["route_lane_ids"]
    )
    history = info["ego_history"]
    scene = EpdmsScene(pdm, np.array([state(h) for h in history]), np.array([h["time_us"] for h in history]), lights)
    human = None if info["human_trajectory"] is None else np.array(info["human_trajectory"])
    return scene, proposals, dt, np.load(FOLDER / name / "expected_v22.npz"), human


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("against", ["reference", "group"])
def test_scores_equal_navsim(name, against):
    scene, proposals, dt, expected, _ = load_v22(name)
    got = score_epdms([scene], [proposals], dt, against)[0]
    prefix = "pair_" if against == "reference" else "batch_"
    for key, part in NAMES.items():
        np.testing.assert_array_equal(getattr(got, part), expected[prefix + key], err_msg=part)
    np.testing.assert_array_equal(got.product, expected[prefix + "multiplicative_product"])
    np.testing.assert_allclose(got.progress_raw, expected[prefix + "progress_raw"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(got.ep, expected[prefix + "ego_progress"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(got.score(), expected[prefix + "score"], rtol=0, atol=1e-8)
    np.testing.assert_array_equal(got.verdict.areas, expected["ego_areas"])
    np.testing.assert_allclose(got.verdict.collision_time, expected["at_fault_collision_time_s"], atol=1e-9)
    np.testing.assert_allclose(got.verdict.ttc_time, expected["ttc_infraction_time_s"], atol=1e-9)


@pytest.mark.parametrize("name", SCENES)
def test_reference_equals_navsim(name):
    scene, _, _, expected, _ = load_v22(name)
    metres, product = scene.reference
    assert metres == pytest.approx(float(expected["reference_progress_raw"]), abs=1e-7)
    assert product == float(expected["reference_multiplicative_product"])


@pytest.mark.parametrize("name", SCENES)
def test_history_comfort_equals_navsim(name):
    scene, *_, expected, _ = load_v22(name)
    signals = history_signals(scene.past, expected["sim_states"])
    np.testing.assert_allclose(signals.min(axis=2), expected["history_comfort_signal_min"], atol=5e-8)
    np.testing.assert_allclose(signals.max(axis=2), expected["history_comfort_signal_max"], atol=5e-8)
    np.testing.assert_array_equal(history_comfort(scene.past, expected["sim_states"]), expected["history_comfort_components"])


def test_extended_comfort_equals_navsim():
    cases = np.load(FOLDER / "two_frame_comfort_v22.npz")
    rms = frame_differences(cases["states_1"], cases["states_2"])
    np.testing.assert_allclose(rms, cases["rms"], rtol=0, atol=1e-8)
    np.testing.assert_array_equal((rms <= FRAME_LIMITS).all(axis=1), cases["two_frame_extended_comfort"])
    assert 0 < cases["two_frame_extended_comfort"].sum() < len(rms)


@pytest.mark.parametrize("name", [name for name in SCENES if name.startswith("av2")])
def test_human_filter_equals_navsim(name):
    scene, proposals, dt, expected, human = load_v22(name)
    got = score_epdms([scene], [proposals], dt)[0]
    assert human is not None
    alone = score_epdms([scene], [human[None]], 0.5, "group")[0]
    filtered, before = human_filter(got, alone), human_filter(got, alone, fixed=False)
    for key, part in {**NAMES, "ego_progress": "ep"}.items():
        np.testing.assert_allclose(getattr(filtered, part), expected["filtered_" + key], rtol=0, atol=1e-8, err_msg=part)
        np.testing.assert_array_equal(getattr(before, part), getattr(filtered, part))
    np.testing.assert_array_equal(filtered.product, expected["filtered_multiplicative_metrics_prod"])
    np.testing.assert_allclose(before.score(), expected["filtered_pdm_score"], rtol=0, atol=1e-8)
    parts = {part: expected["filtered_" + key] for key, part in {**NAMES, "ego_progress": "ep"}.items()}
    np.testing.assert_allclose(filtered.score(), combine(parts), rtol=0, atol=1e-8)
