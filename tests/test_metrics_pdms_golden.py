"""PDMS v1.1 against NAVSIM's own outputs: every stage, sub-score and score of recorded cases; skipped where they are absent."""

import json
from pathlib import Path

import numpy as np
import pytest

from drive.core.geometry import wrap_angle
from drive.core.roadmap import Layer, Polygons
from drive.core.types import AgentType
from drive.core.vehicle import simulate, targets_from_plan
from drive.metrics.pdms import score_pdms
from drive.metrics.pdms_comfort import comfort_signals
from drive.metrics.pdms_scene import PdmScene

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "golden" / "navsim"
SCENES = sorted(path.parent.name for path in FOLDER.glob("*/scene.json"))
pytestmark = pytest.mark.skipif(not SCENES, reason="recorded NAVSIM cases are not at hand")


def load(name):
    """(PdmScene, proposals (N, T, 3), dt, expected arrays) of one recorded case."""
    with open(FOLDER / name / "scene.json") as file:
        info = json.load(file)
    inputs, expected = np.load(FOLDER / name / "inputs.npz"), np.load(FOLDER / name / "expected_v11.npz")
    ego, agents = info["ego"], info["agents"]
    rings = [(p["token"], Layer[p["layer"].upper()], np.array(p["ring"])) for p in info["map_polygons"]]
    turn = [ego["tire_steering_angle"], ego["tire_steering_rate"], ego["angular_velocity"], ego["angular_acceleration"]]
    scene = PdmScene(
        polygons=Polygons.from_rings(rings),
        on_route=np.array([token in info["route_lane_ids"] for token, _, _ in rings]),
        centerline=np.array(info["centerline"]),
        initial=np.array([*ego["rear_axle"], *ego["velocity"], *ego["acceleration"], *turn]),
        agent_pose=inputs["agent_pose"],
        agent_velocity=inputs["agent_velocity"],
        agent_valid=inputs["agent_valid"],
        agent_size=np.array([[a["length"], a["width"]] for a in agents]).reshape(-1, 2),
        agent_types=np.array([AgentType[a["type"].upper()] for a in agents], np.int64),
        reference_poses=inputs["reference_poses"],
        time_us=ego["time_us"],
        id=name,
    )
    return scene, inputs["proposals"], info["proposals"]["interval_s"], expected


def state_gap(states, expected):
    gap = states - expected
    gap[..., 2] = wrap_angle(gap[..., 2])
    return np.abs(gap)


@pytest.mark.parametrize("name", SCENES)
def test_simulation_equals_navsim(name):
    scene, proposals, dt, expected = load(name)
    targets = targets_from_plan(proposals, dt, scene.initial[:3], 40, scene.time_us)
    assert state_gap(targets, expected["target_poses"]).max() < 1e-8
    states = simulate(np.repeat(scene.initial[None], len(proposals), axis=0), targets)
    assert state_gap(states, expected["sim_states"]).max() < 1e-7
    assert state_gap(scene.reference_states, expected["reference_sim_states"]).max() < 1e-7


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("against", ["reference", "group"])
def test_scores_equal_navsim(name, against):
    scene, proposals, dt, expected = load(name)
    got = score_pdms([scene], [proposals], dt, against)[0]
    prefix = "pair_" if against == "reference" else "batch_"
    for key, field in {
        "no_at_fault_collisions": "nc",
        "drivable_area_compliance": "dac",
        "driving_direction_compliance": "ddc",
        "time_to_collision": "ttc",
        "comfort": "comfort",
    }.items():
        np.testing.assert_array_equal(getattr(got, field), expected[prefix + key], err_msg=field)
    np.testing.assert_array_equal(got.nc * got.dac, expected[prefix + "multiplicative_product"])
    np.testing.assert_allclose(got.progress_raw, expected[prefix + "progress_raw"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(got.ep, expected[prefix + "ego_progress"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(got.score, expected[prefix + "score"], rtol=0, atol=1e-8)
    np.testing.assert_array_equal(got.areas, expected["ego_areas"])
    np.testing.assert_array_equal(got.comfort_components, expected["comfort_components"])
    np.testing.assert_allclose(got.collision_time, expected["at_fault_collision_time_s"], atol=1e-9)
    np.testing.assert_allclose(got.ttc_time, expected["ttc_infraction_time_s"], atol=1e-9)


@pytest.mark.parametrize("name", SCENES)
def test_comfort_signals_equal_navsim(name):
    *_, expected = load(name)
    signals = comfort_signals(expected["sim_states"])
    np.testing.assert_allclose(signals.min(axis=2), expected["comfort_signal_min"], atol=2e-8)
    np.testing.assert_allclose(signals.max(axis=2), expected["comfort_signal_max"], atol=2e-8)


def test_scenes_in_one_call_equal_scenes_alone():
    cases = [load(name) for name in SCENES if load(name)[2] == 0.5]
    together = score_pdms([c[0] for c in cases], [c[1] for c in cases], 0.5)
    for case, got in zip(cases, together):
        np.testing.assert_allclose(got.score, case[3]["pair_score"], rtol=0, atol=1e-8)
