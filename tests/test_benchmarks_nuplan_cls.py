# pyright: reportOptionalMemberAccess=false
"""nuPlan's closed-loop metrics of one plan: hand-made drives, failures, and what the benchmark refuses."""

from dataclasses import replace

import numpy as np
import pytest
from toy_scenes import straight_road, toy_scenario

from drive.benchmarks.evaluate import evaluate
from drive.benchmarks.nuplan_cls import KEPT, NuplanCls, expert_poses
from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses
from drive.core.roadmap import Layer, Polygons, RoadMap
from drive.core.types import EgoTrack, Plan, PlanStatus, Trajectory
from drive.planners.constant_velocity import ConstantVelocity
from drive.report.tables import text_table

FREE, BLOCKED = 1, 0  # every third toy scene has a stopped car ahead


class Scaled(ConstantVelocity):
    """Constant velocity times `factor`, `left` m to the left at once; fails on scene `fails`."""

    name = "scaled"

    def __init__(self, factor=1.0, left=0.0, fails=""):
        self.factor, self.left, self.fails = factor, left, fails

    def plan(self, observations):
        """Changed plans."""
        out = []
        for observation, plan in zip(observations, super().plan(observations)):
            changed = Plan(
                Trajectory(plan.trajectory.poses * [self.factor, 1.0, 1.0] + [0.0, self.left, 0.0], plan.trajectory.dt)
            )
            out.append(Plan(None, PlanStatus.FAILED) if observation.id == self.fails else changed)
        return out


def parts_of(scenario, planner):
    row = evaluate(NuplanCls(), [scenario], planner).rows[0]
    return {**row.parts, "score": row.score}


def ego_steps(scenario, cut):
    ego = scenario.ego
    return EgoTrack(ego.poses_world[cut], ego.velocity_ego[cut], ego.acceleration_ego[cut], ego.yaw_rate[cut])


def test_a_steady_drive_like_the_experts_is_perfect():
    assert list(parts_of(toy_scenario(FREE), ConstantVelocity()).values()) == pytest.approx([1.0] * 9)


def test_each_fault_shows_in_its_column():
    hit = parts_of(toy_scenario(BLOCKED), ConstantVelocity())  # the expert brakes for the stopped car
    assert hit["ttc"] == 0.0 and hit["score"] < 0.75
    rammed = parts_of(toy_scenario(BLOCKED), Scaled(1.6))
    assert rammed["nc"] == rammed["score"] == 0.0
    off = parts_of(toy_scenario(FREE), Scaled(left=-3.0))
    assert off["dac"] == off["score"] == 0.0
    slow = parts_of(toy_scenario(FREE), Scaled(0.05))
    assert slow["mp"] == 1.0 and 0.2 < slow["ep"] < 0.5 and slow["comfort"] == 0.0  # a car of 6 m/s and more cannot stop at once
    assert slow["score"] == pytest.approx((5 * slow["ep"] + 5 * slow["ttc"] + 4 * slow["sl"]) / 16)


def test_fails_count_zero_and_the_heading_says_what_it_is_not():
    scenes = [toy_scenario(FREE), toy_scenario(FREE + 1)]
    result = evaluate(NuplanCls(), scenes, Scaled(fails=scenes[0].id))
    assert result.coverage == 0.5 and result.mean() == pytest.approx(0.5) and result.mean("comfort") == pytest.approx(0.5)
    table = text_table([result], "toy test", NuplanCls.style)
    assert "nuplan_cls_4s" in table and "not nuPlan's closed loop of 15 s" in table and "0-100" in table


def test_a_log_that_ends_within_four_seconds_is_not_in_the_set():
    scene = toy_scenario(FREE)
    benchmark = NuplanCls()

    def cut(steps, **fields):
        return replace(
            scene,
            ego=ego_steps(scene, slice(scene.present + 1 + steps)),
            agents=scene.agents.steps(0, scene.present + 1 + steps),
            **fields,
        )

    assert benchmark.accepts(cut(40, reference_world=None)) and not benchmark.accepts(cut(39, reference_world=None))
    with pytest.raises(DataError, match="none of the 1 scenes"):
        evaluate(benchmark, [cut(39, reference_world=None)], ConstantVelocity())


def test_the_expert_is_the_log_and_else_the_reference():
    scene = toy_scenario(FREE)
    np.testing.assert_array_equal(expert_poses(scene), scene.ego.poses_world[scene.present : scene.present + 41])
    coarse = replace(scene, dt=0.5, present=0, ego=ego_steps(scene, slice(scene.present, None, 5)))
    np.testing.assert_allclose(
        expert_poses(coarse),
        interpolate_poses(0.1 * np.arange(51), scene.ego.poses_world[scene.present :], 0.1 * np.arange(41)),
        atol=1e-9,
    )
    reference = np.cumsum(np.ones((51, 3)), axis=0)
    short = replace(scene, ego=ego_steps(scene, slice(scene.present + 2)))
    np.testing.assert_array_equal(expert_poses(replace(short, reference_world=reference)), reference[:41])


def test_maps_without_lanes_are_refused_and_corridors_left_out():
    scene = toy_scenario(FREE)
    road = straight_road()
    bare = RoadMap("bare", road.lanes, Polygons.from_rings([("road", Layer.DRIVABLE_AREA, road.polygons.ring(2))]))
    with pytest.raises(DataError, match="no polygon of a lane"):
        evaluate(NuplanCls(), [replace(scene, road_map=bare)], ConstantVelocity())
    with pytest.raises(DataError, match="needs a map"):
        evaluate(NuplanCls(), [replace(scene, notes={"map": "corridor"})], ConstantVelocity())


def test_scenes_that_share_a_map_share_its_index():
    benchmark = NuplanCls()
    scenes = [toy_scenario(i) for i in range(3)]
    assert [benchmark.accepts(scene) for scene in scenes] == [True] * 3 and len(benchmark._indices) == 1
    other = replace(scenes[0], road_map=straight_road().shifted(np.array([1000.0, 0.0])))
    benchmark.accepts(other)
    assert len(benchmark._indices) == 2


def test_few_indices_are_kept_those_used_last():
    benchmark, scene = NuplanCls(), toy_scenario(FREE)
    roads = [straight_road().shifted(np.zeros(2)) for _ in range(KEPT + 3)]
    for road in roads:
        assert benchmark.accepts(replace(scene, road_map=roads[0])) and benchmark.accepts(replace(scene, road_map=road))
    assert len(benchmark._indices) == KEPT and {id(roads[0]), id(roads[-1])} < set(benchmark._indices) and id(roads[1]) not in benchmark._indices


def test_a_map_without_lanes_costs_its_own_scenes_alone():
    scene, road = toy_scenario(FREE), straight_road()
    bare = RoadMap("bare", road.lanes, Polygons.from_rings([("road", Layer.DRIVABLE_AREA, road.polygons.ring(2))]))
    broken = replace(scene, road_map=bare)
    result = evaluate(NuplanCls(), [broken, scene, broken], ConstantVelocity(), expected=6, faults=("one before",))
    assert len(result.rows) == 1 and result.expected == 6 and result.coverage == pytest.approx(1 / 6) and result.mean() == pytest.approx(1 / 6)
    assert result.faults[0] == "one before" and "2 of the 3 scenes cannot be judged by nuplan_cls_4s: map bare has no polygon of a lane" in result.faults[1]
