# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
"""py123d itself against `drive.datasets.py123d`: its scenes read what drive exports, and drive reads what its writers wrote. Skipped where it is not installed."""

from pathlib import Path

import numpy as np
import py123d_files as files
import pytest
import shapely

from drive.core.types import AgentType, LightState
from drive.datasets import py123d_layout as layout
from drive.datasets.logs import LogScenes
from drive.datasets.motion import ego_motion
from drive.datasets.py123d import Py123dReader
from drive.datasets.py123d_arrow import pack, unpack
from drive.datasets.py123d_export import write_log

pytest.importorskip("py123d", reason="py123d is not installed (pip install py123d==0.7.0)")
try:
    from py123d.api.map.arrow.arrow_map_writer import ArrowMapWriter  # type: ignore[import-not-found]
    from py123d.api.scene.arrow.arrow_log_writer import ArrowLogWriter, SyncConfig  # type: ignore[import-not-found]
    from py123d.api.scene.arrow.arrow_scene_builder import ArrowSceneBuilder  # type: ignore[import-not-found]
    from py123d.api.scene.arrow.utils.log_writer_config import LogWriterConfig  # type: ignore[import-not-found]
    from py123d.api.scene.scene_filter import SceneFilter  # type: ignore[import-not-found]
    from py123d.common.execution import SequentialExecutor  # type: ignore[import-not-found]
except ImportError as error:
    pytest.skip(f"py123d is installed in part: {error}", allow_module_level=True)

FAR = 1e-6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return files.log(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def scene(source, tmp_path_factory):
    """The log as one scene of py123d."""
    root = tmp_path_factory.mktemp("py123d")
    write_log(source, root)
    (found,) = ArrowSceneBuilder(root / "logs", root / "maps").get_scenes(SceneFilter(datasets=["made-up"], split_types=["val"], has_map=True), SequentialExecutor())
    return found


def test_py123d_finds_the_log(source, scene):
    about = scene.get_log_metadata()
    assert (about.dataset, about.split, about.log_name, scene.number_of_iterations) == ("made-up", "made-up_val", "town-1", files.STEPS)
    assert [t.time_us for t in scene.get_all_iteration_timestamps()] == [100_000 * k for k in range(files.STEPS)]
    assert scene.get_map_metadata().map_is_per_log


def test_py123d_reads_the_ego(source, scene):
    for step in (0, 17, files.STEPS - 1):
        ego = scene.get_ego_state_se3_at_iteration(step)
        x, y, yaw = source.ego.poses_world[step] + [*source.origin, 0.0]
        pose = ego.rear_axle_se3
        np.testing.assert_allclose([pose.x, pose.y, pose.z, pose.yaw], [x, y, 0.0, yaw], atol=FAR)
        state = ego.dynamic_state_se3
        np.testing.assert_allclose(state.velocity_3d.array[:2], source.ego.velocity_ego[step])
        np.testing.assert_allclose(state.acceleration_3d.array[:2], source.ego.acceleration_ego[step])
        assert state.angular_velocity.array[2] == pytest.approx(source.ego.yaw_rate[step])
        car = ego.metadata
        assert (car.length, car.width, car.height) == pytest.approx(source.ego_size) and 1.2 < car.rear_axle_to_center_longitudinal < 1.5


def test_py123d_reads_the_boxes(source, scene):
    kinds = {"VEHICLE": 0, "PERSON": 1, "TWO_WHEELER": 2, "TRAFFIC_CONE": 3, "BARRIER": 4, "GENERIC_OBJECT": 5}
    for step in (0, 25, 30, 60):
        boxes = {box.attributes.track_token: box for box in scene.get_box_detections_se3_at_iteration(step)}
        there = [k for k in range(6) if source.agents.valid[k, step]]
        assert sorted(boxes) == [f"agent-{k}" for k in there]
        for k in there:
            box = boxes[f"agent-{k}"]
            assert kinds[box.attributes.label.name] == source.agents.types[k]
            centre, shape = box.center_se3, box.bounding_box_se3
            np.testing.assert_allclose([centre.x, centre.y, centre.yaw], source.agents.poses_world[k, step] + [*source.origin, 0.0], atol=FAR)
            np.testing.assert_allclose([shape.length, shape.width, shape.height], source.agents.size[k])
            np.testing.assert_allclose(box.velocity_3d.array[:2], source.agents.velocity_world[k, step])


def test_py123d_reads_the_lights(source, scene):
    words = {"GREEN": LightState.GREEN, "YELLOW": LightState.YELLOW, "RED": LightState.RED, "UNKNOWN": LightState.UNKNOWN}
    for step in (0, 35, 55, 80):
        shown = {light.lane_id: words[light.status.name] for light in scene.get_traffic_light_detections_at_iteration(step)}
        assert shown == {int(lane): source.lights.states[k, step] for k, lane in enumerate(source.lights.lane_ids)}


def test_py123d_reads_the_cameras(source, scene):
    cameras = scene.get_camera_metadatas()
    assert {key.serialize() for key in cameras} == {"pcam_f0", "pcam_l0", "pcam_b0"}
    for index, name in enumerate(("pcam_f0", "pcam_l0", "pcam_b0")):
        taken = scene.get_camera_at_iteration(3, name)
        np.testing.assert_array_equal(taken.image, source.images[index][3].read())
        about = taken.metadata
        np.testing.assert_allclose(about.intrinsics.camera_matrix, source.cameras[index].intrinsics)
        np.testing.assert_allclose(about.camera_to_imu_se3.transformation_matrix, source.cameras[index].ego_from_camera, atol=FAR)
    assert scene.get_camera_at_iteration(2, "pcam_l0") is None  # every third is missing
    assert about.distortion.k1 == -0.3 and scene.get_camera_at_iteration(3, "pcam_f0").metadata.distortion is None
    # a box in front is seen where drive projects it
    front = scene.get_camera_at_iteration(0, "pcam_f0")
    point = np.array([12.0, 1.0, 0.5])
    x, y, yaw = source.ego.poses_world[0] + [*source.origin, 0.0]
    world = np.array([[x + np.cos(yaw) * 12.0 - np.sin(yaw), y + np.sin(yaw) * 12.0 + np.cos(yaw), 0.5]])
    pixel, seen, _ = front.project_points_global(world)
    local = np.linalg.inv(source.cameras[0].ego_from_camera) @ [*point, 1.0]
    wanted = source.cameras[0].intrinsics @ local[:3]
    assert seen[0] and np.allclose(pixel[0], wanted[:2] / wanted[2], atol=1e-4)


def test_py123d_reads_the_map(source, scene):
    from py123d.datatypes import MapLayer  # type: ignore[import-not-found]
    from py123d.geometry import Point2D  # type: ignore[import-not-found]

    plain, api = files.road_map(), scene.get_map_api()
    assert sorted(api.get_all_map_object_ids_in_layer(MapLayer.LANE)) == [10, 11, 20, 21, 30]
    for key, lane in plain.lanes.items():
        found = api.get_map_object_in_layer(int(key), MapLayer.LANE)
        for name, wanted in (("centerline_2d", lane.centerline[:, :2]), ("left_boundary_2d", lane.left), ("right_boundary_2d", lane.right)):
            np.testing.assert_allclose(getattr(found, name).array, wanted + source.origin, atol=FAR)
        assert [str(i) for i in found.successor_ids] == list(lane.successors) and [str(i) for i in found.predecessor_ids] == list(lane.predecessors)
        assert str(found.left_lane_id or "") == lane.left_neighbor and found.speed_limit_mps == lane.speed_limit
        group = found.lane_group
        assert str(group.object_id) == lane.roadblock and str(group.intersection_id or "") == lane.junction
        assert found.trimesh_mesh.area > 0.0
    assert api.get_map_object_in_layer(7, MapLayer.INTERSECTION).lane_group_ids == [2, 3]
    assert api.get_layer_graph(MapLayer.LANE_GROUP).number_of_edges() == 3
    near = api.get_map_objects_in_radius(Point2D(*(source.origin + [60.0, 0.0])), 1.0, [MapLayer.LANE, MapLayer.INTERSECTION, MapLayer.GENERIC_DRIVABLE])
    assert [lane.object_id for lane in near[MapLayer.LANE]] == [20] and len(near[MapLayer.INTERSECTION]) == len(near[MapLayer.GENERIC_DRIVABLE]) == 1
    assert len(list(api.get_all_map_objects_in_layer(MapLayer.CARPARK))) == 1


def _written(root, inferred, ipc=None, images="jpeg_binary"):
    """A log that py123d's own writers make: an IMU 0.5 m behind and 1 m above the rear axle, on a car that drives a bend; nuPlan's labels."""
    from py123d.datatypes import (  # type: ignore[import-not-found]
        BoxDetectionAttributes,
        BoxDetectionSE3,
        BoxDetectionsSE3,
        BoxDetectionsSE3Metadata,
        CameraID,
        EgoStateSE3,
        EgoStateSE3Metadata,
        LogMetadata,
        MapMetadata,
        PinholeCameraMetadata,
        PinholeIntrinsics,
        Timestamp,
        TrafficLightDetection,
        TrafficLightDetections,
        TrafficLightStatus,
    )  # fmt: skip
    from py123d.geometry import BoundingBoxSE3, PoseSE3, Vector3D  # type: ignore[import-not-found]
    from py123d.parser.base_dataset_parser import ModalitiesSync, ParsedCamera  # type: ignore[import-not-found]
    from py123d.parser.registry import NuPlanBoxDetectionLabel  # type: ignore[import-not-found]

    folder = root / "images"
    _, pictures = files.cameras(folder)
    chart = MapMetadata("nuplan", "somewhere", True, False)
    log = LogMetadata("nuplan", "nuplan-mini_val", "drive-1", "somewhere", chart)
    car = EgoStateSE3Metadata("car", 2.0, 5.0, 1.6, 3.0, PoseSE3(1.9, 0.0, 0.8 - 1.0, 1, 0, 0, 0), PoseSE3(0.5, 0.0, -1.0, 1, 0, 0, 0))
    camera = PinholeCameraMetadata("CAM_F0", CameraID.PCAM_F0, PinholeIntrinsics(40.0, 40.0, 24.0, 16.0), None, files.WIDTH, files.HEIGHT, PoseSE3(2.0, 0.1, 0.6, 0.5, -0.5, 0.5, -0.5))
    label, box_about = NuPlanBoxDetectionLabel, BoxDetectionsSE3Metadata(NuPlanBoxDetectionLabel)
    writer = ArrowLogWriter(LogWriterConfig(infer_ego_dynamics=inferred, infer_box_dynamics=inferred, camera_store_option=images), root / "logs", root / "sensors", ipc)
    assert writer.reset(log)
    for step in range(files.STEPS):
        now, yaw = Timestamp.from_us(1_700_000_000_000_000 + 100_000 * step), 0.01 * step
        axle = np.array([1000.0 + 60 * np.sin(yaw), 2000.0 + 60 * (1 - np.cos(yaw))])
        imu = PoseSE3(axle[0] - 0.5 * np.cos(yaw), axle[1] - 0.5 * np.sin(yaw), 31.0, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        boxes = [
            BoxDetectionSE3(BoxDetectionAttributes(kind, f"{kind.name}-{k}"), BoundingBoxSE3(PoseSE3(1010.0 + k + 0.2 * step, 2004.0, 30.5, np.cos(0.3), 0, 0, np.sin(0.3)), 4.0, 2.0, 1.5), None if inferred else Vector3D(2.0, 0.0, 0.0))
            for k, kind in enumerate((label.VEHICLE, label.PEDESTRIAN, label.CZONE_SIGN)) if k != 1 or step > 20
        ]  # fmt: skip
        lights = [TrafficLightDetection(3, TrafficLightStatus.RED if step < 50 else TrafficLightStatus.OFF), TrafficLightDetection(4, TrafficLightStatus.GREEN)]
        ref = pictures[0][step]
        taken = ParsedCamera(camera, now, PoseSE3(0, 0, 0, 1, 0, 0, 0), folder, ref.path.name)
        writer.write_sync(ModalitiesSync(now, [EgoStateSE3.from_imu(imu, car, now), BoxDetectionsSE3(boxes, now, box_about), TrafficLightDetections(lights, now), taken]))
    writer.close()
    _write_map(root, chart)
    return folder


def _write_map(root, chart):
    from py123d.datatypes import Carpark, Crosswalk, Intersection, IntersectionType, Lane, LaneGroup, LaneType  # type: ignore[import-not-found]
    from py123d.geometry import Polyline3D  # type: ignore[import-not-found]

    def line(left, *ends):
        return Polyline3D.from_array(np.array([[1000.0 + s, 2000.0 + left, 30.0] for s in ends]))

    writer = ArrowMapWriter(True, root / "maps", root / "logs")
    assert writer.reset(chart)
    for key, ends, group, after in ((3, (-20, 30), 1, [5]), (4, (-20, 30), 1, []), (5, (30, 60), 2, []), (6, (2000, 2050), 3, [])):
        left = 3.5 if key == 4 else 0.0
        writer.write_map_object(Lane(key, LaneType.SURFACE_STREET, line(left + 1.7, *ends), line(left - 1.7, ends[0], sum(ends) / 2, ends[1]), line(left, *ends), group,
                                     4 if key == 3 else None, 3 if key == 4 else None, [3] if key == 5 else [], after, 15.0 if key == 3 else None))  # fmt: skip
    writer.write_map_object(LaneGroup(1, [3, 4], line(5.2, -20, 30), line(-1.7, -20, 30), None, [], [2]))
    writer.write_map_object(LaneGroup(2, [5], line(1.7, 30, 60), line(-1.7, 30, 60), 9, [1], []))
    writer.write_map_object(LaneGroup(3, [6], line(1.7, 2000, 2050), line(-1.7, 2000, 2050)))
    writer.write_map_object(Intersection(9, IntersectionType.TRAFFIC_LIGHT, [2], shapely_polygon=shapely.box(1030, 1998, 1060, 2002)))
    writer.write_map_object(Crosswalk(1, shapely_polygon=shapely.box(1028, 1998, 1030, 2002)))
    writer.write_map_object(Carpark(1, shapely_polygon=shapely.box(1000, 2010, 1010, 2014)))
    writer.close()


@pytest.mark.parametrize("inferred", [False, True])
def test_what_py123d_writes_is_read(tmp_path, inferred):
    folder = _written(tmp_path, inferred)
    reader = Py123dReader(("pcam_f0",))
    (entry,) = reader.find(tmp_path)
    assert (entry.log_id, entry.split) == ("drive-1", "val")
    log = reader.read(entry)
    yaw = 0.01 * np.arange(files.STEPS)
    poses = np.column_stack([1000.0 + 60 * np.sin(yaw), 2000.0 + 60 * (1 - np.cos(yaw)), yaw])
    np.testing.assert_allclose(log.ego.poses_world + [*log.origin, 0.0], poses, atol=FAR)  # the rear axle, not the IMU
    np.testing.assert_allclose(log.ego.velocity_ego, ego_motion(poses).velocity_ego, atol=FAR)
    assert log.ego_size == (5.0, 2.0, 1.6) and log.notes["dataset"] == "nuplan" and log.notes["start_us"] == 1_700_000_000_000_000
    agents = log.agents.steps(0, log.steps)
    assert dict(zip(agents.ids, agents.types)) == {"VEHICLE-0": AgentType.VEHICLE, "PEDESTRIAN-1": AgentType.PEDESTRIAN, "CZONE_SIGN-2": AgentType.GENERIC_OBJECT}
    car, walker = agents.ids.index("VEHICLE-0"), agents.ids.index("PEDESTRIAN-1")
    assert not agents.valid[walker, :21].any() and agents.valid[walker, 21:].all()
    np.testing.assert_allclose(agents.poses_world[car, 10] + [*log.origin, 0.0], [1012.0, 2004.0, 0.6], atol=FAR)
    np.testing.assert_allclose(agents.velocity_world[agents.valid], np.tile([2.0, 0.0], (int(agents.valid.sum()), 1)), atol=1e-5)
    assert log.lights.lane_ids == ("3", "4") and log.lights.states[:, [0, 60]].tolist() == [[LightState.RED, LightState.UNKNOWN], [LightState.GREEN, LightState.GREEN]]
    camera, images = log.cameras[0], log.images[0]
    assert camera.name == "CAM_F0" and camera.ego_from_camera[:3, 3].tolist() == pytest.approx([1.5, 0.1, 1.6])  # from the axle, on the ground
    np.testing.assert_array_equal(images[12].read(), files.Image.open(folder / "front-12.jpeg"))
    road = LogScenes(log).road_map
    assert list(road.lanes) == ["3", "4", "5"]  # the sixth is 2 km away
    assert (road.lanes["5"].is_connector, road.lanes["5"].junction, road.lanes["3"].is_connector, road.lanes["3"].roadblock) == (True, "9", False, "1")
    assert road.lanes["3"].successors == ("5",) and road.lanes["5"].predecessors == ("3",) and road.lanes["3"].left_neighbor == "4" and road.lanes["3"].speed_limit == 15.0
    assert LogScenes(log).route.lane_ids[:1] == ("3",)


def test_images_that_py123d_names_are_found(tmp_path):
    folder = _written(tmp_path, False, images="path")
    log = Py123dReader(("pcam_f0",), folder).read(Py123dReader().find(tmp_path)[0])
    assert log.images[0][5].path == folder / "front-5.jpeg"


def test_compressed_logs_are_read_but_for_their_images(tmp_path):
    from drive.core.errors import DataError

    _written(tmp_path, False, ipc="zstd")
    (entry,) = Py123dReader().find(tmp_path)
    assert Py123dReader().read(entry).steps == files.STEPS
    with pytest.raises(DataError, match="compressed"):
        Py123dReader(("pcam_f0",)).read(entry)


def test_labels_carry_over_as_py123d_has_them():
    import py123d.parser.registry  # type: ignore[import-not-found]
    import py123d.parser.truckdrive.truckdrive_labels  # type: ignore[import-not-found]  # noqa: F401
    from py123d.datatypes.detections.box_detection_label import BOX_DETECTION_LABEL_REGISTRY  # type: ignore[import-not-found]

    letters = {"EGO": "e", "VEHICLE": "v", "TRAIN": "v", "TWO_WHEELER": "b", "PERSON": "p", "TRAFFIC_CONE": "c", "BARRIER": "r"}
    assert set(layout.LABELS) == set(BOX_DETECTION_LABEL_REGISTRY)
    for name, kind in BOX_DETECTION_LABEL_REGISTRY.items():
        assert "".join(letters.get(kind(k).to_default().name, "g") for k in range(len(kind))) == layout.LABELS[name], name


def test_names_and_numbers_are_py123ds():
    from py123d.common.utils.uuid_utils import UUID_NAMESPACE_123D  # type: ignore[import-not-found]
    from py123d.datatypes import CameraID, MapLayer, TrafficLightStatus  # type: ignore[import-not-found]

    assert {key: CameraID[key.upper()].value for key in layout.CAMERAS} == layout.CAMERAS and UUID_NAMESPACE_123D == layout.NAMESPACE
    assert [layer.value for layer in MapLayer] == list(range(len(layout.LAYERS))) and MapLayer.GENERIC_DRIVABLE.value == layout.GENERIC_DRIVABLE
    assert [status.name for status in TrafficLightStatus] == ["GREEN", "YELLOW", "RED", "OFF", "UNKNOWN"]


def test_messagepack_is_what_the_msgpack_package_reads_and_writes():
    import msgpack  # type: ignore[import-not-found]
    from py123d.common.utils.msgpack_utils import msgpack_decode_with_numpy, msgpack_encode_with_numpy  # type: ignore[import-not-found]

    value = {"a": [1, -5, 300, -70000, 2**40, 1.25, None, True, "x" * 300, b"\0" * 70000], "n": {"deep": {"er": list(range(20))}}, "f": [0.1] * 40}
    assert unpack(msgpack.packb(value), "x") == value == msgpack.unpackb(pack(value))
    lane = {"line": np.arange(12.0).reshape(4, 3), "ids": [1, 2]}
    for packed, read in ((pack(lane), msgpack_decode_with_numpy), (msgpack_encode_with_numpy(lane), lambda data: unpack(data, "x"))):
        back = read(packed)
        assert back["ids"] == [1, 2] and back["line"].tolist() == lane["line"].tolist()


def test_frames_that_py123d_aligns_later_are_read(tmp_path):
    """Its deferred alignment: ego states at 20 Hz, boxes at 10 Hz that lead."""
    from py123d.datatypes import (  # type: ignore[import-not-found]
        BoxDetectionsSE3,
        BoxDetectionsSE3Metadata,
        EgoStateSE3,
        EgoStateSE3Metadata,
        LogMetadata,
        Timestamp,
    )
    from py123d.datatypes.detections.box_detection_label import DefaultBoxDetectionLabel  # type: ignore[import-not-found]
    from py123d.geometry import PoseSE3  # type: ignore[import-not-found]

    writer = ArrowLogWriter(LogWriterConfig(), tmp_path / "logs", tmp_path, sync_config=SyncConfig("box_detections_se3.timestamp_us"))
    assert writer.reset(LogMetadata("x", "x_train", "async", None))
    car, about = EgoStateSE3Metadata("car", 2.0, 5.0, 1.6, 3.0, PoseSE3.identity(), PoseSE3.identity()), BoxDetectionsSE3Metadata(DefaultBoxDetectionLabel)
    for k in range(120):
        writer.write_async(EgoStateSE3.from_imu(PoseSE3(0.25 * k, 0, 0, 1, 0, 0, 0), car, Timestamp.from_us(50_000 * k)))
    for k in range(59):
        writer.write_async(BoxDetectionsSE3([], Timestamp.from_us(100_000 * k), about))
    writer.close()
    log = Py123dReader().read(Py123dReader().find(Path(tmp_path))[0])
    assert (log.steps, log.dt, log.split) == (59, 0.1, "train")
    np.testing.assert_allclose(log.ego.poses_world[:, 0], 0.5 * np.arange(59), atol=FAR)
