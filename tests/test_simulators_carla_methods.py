"""Every method that the 0.9.16 client can call, by name: known to the server, and answered in the shape that the client takes."""

import pytest
from carla_client import REPOSITORY, Raw, said

from drive.simulators.carla_process import ServerProcess

ZERO, WHERE, TURN = [0.0, 0.0, 0.0], [20.0, 400.0, 0.3], [0.0, 0.0, 0.0]
POSE = [WHERE, TURN]
LAMPS, HOST = [[1, ZERO, 1.0, 0, [255, 255, 255], True]], "127.0.0.1:2000"
PARAMETERS = [2.0, 50.0, 1.0, 0.6, True, True, True]


def is_v3(v):
    return len(v) == 3 and all(isinstance(x, float) for x in v)


def is_pose(v):
    return len(v) == 2 and is_v3(v[0]) and is_v3(v[1])


def is_box(v):
    return len(v) == 4 and all(map(is_v3, v[:3])) and isinstance(v[3], int)


def is_token(v):
    return isinstance(v, bytes) and len(v) == 24


def is_actor(v):
    identity = isinstance(v[0], int) and isinstance(v[1], int) and isinstance(v[2][1], str) and all(len(a) == 3 for a in v[2][2])
    return identity and is_box(v[3]) and isinstance(v[4], bytes) and isinstance(v[5], bytes) and len(v[5]) in (0, 24)


def is_settings(v):
    kinds = [bool, bool, list, bool, float, int, float, bool, float, float, bool]
    return [type(x) for x in v] == kinds and v[2] in ([False], [True, v[2][-1]])


def is_physics(v):
    return len(v) == 17 and len(v[15]) == 4 and all(len(wheel) == 10 and is_v3(wheel[9]) for wheel in v[15])


def floats(count):
    return lambda v: len(v) == count and all(isinstance(x, float) for x in v)


def each(check):
    return lambda v: isinstance(v, list) and all(map(check, v))


def some(check):
    return lambda v: isinstance(v, list) and len(v) > 0 and all(map(check, v))


def kind(*types):
    return lambda v: type(v) in types


def telemetry(v):
    return len(v) == 8 and all(len(wheel) == 11 for wheel in v[7])


def point(v):
    return is_v3(v[0]) and isinstance(v[1], int)


STR, BOOL, INT, FLOAT, BYTES = kind(str), kind(bool), kind(int), kind(float), kind(bytes)
VOID = "void"
REFUSED = "a text that says so"
CAR, WALKER, CAMERA, LIGHT = "car", "walker", "camera", "light"  # stand for the actors' numbers

TIER_A = {
    "version": ((), STR),
    "get_episode_info": ((), lambda v: isinstance(v[0], int) and is_token(v[1][0])),
    "get_sensor_token": ((77,), lambda v: is_token(v[0])),
    "get_episode_settings": ((), is_settings),
    "set_episode_settings": (([True, False, [True, 0.05], True, 0.01, 10, 0.0, True, 3000.0, 2000.0, True],), INT),
    "get_required_files": (("Nav",), each(STR)),
    "query_lights_state": ((HOST,), each(list)),
    "get_map_info": ((), lambda v: isinstance(v[0], str) and some(is_pose)(v[1])),
    "get_map_data": ((), lambda v: "<OpenDRIVE" in v),
    "get_actor_definitions": ((), some(lambda d: isinstance(d[0], int) and all(len(a) == 6 for a in d[3]))),
    "spawn_actor": (([1, "static.prop.trafficcone01", [["role_name", 4, "cone"]]], [[900.0, 0.0, 0.3], TURN]), is_actor),
    "get_actors_by_id": (([CAR, WALKER, 999_999],), lambda v: len(v) == 2 and all(map(is_actor, v))),
    "get_actor_bounding_box": ((CAR,), is_box),
    "tick_cue": ((), INT),
    "apply_control_to_vehicle": ((CAR, [0.5, 0.0, 0.0, False, False, False, 0]), VOID),
    "destroy_actor": (("victim",), BOOL),
}
TIER_B = {
    "get_available_maps": ((), some(lambda name: name.startswith("/Game/Carla/Maps/"))),
    "load_new_episode": (("Atlantis", True, 65535), REFUSED),
    "copy_opendrive_to_file": (("no map", PARAMETERS), REFUSED),
    "spawn_actor_with_parent": (([1, "sensor.other.imu", []], [ZERO, TURN], CAR, 0, ""), is_actor),
    "set_actor_transform": ((CAR, POSE), VOID),
    "set_actor_location": ((CAR, WHERE), VOID),
    "set_actor_target_velocity": ((CAR, ZERO), VOID),
    "set_actor_target_angular_velocity": ((CAR, ZERO), VOID),
    "enable_actor_constant_velocity": ((CAR, ZERO), VOID),
    "disable_actor_constant_velocity": ((CAR,), VOID),
    "set_actor_simulate_physics": ((CAR, True), VOID),
    "set_actor_collisions": ((CAR, True), VOID),
    "set_actor_enable_gravity": ((CAR, True), VOID),
    "set_actor_dead": ((CAR,), VOID),
    "set_actor_autopilot": ((CAR, True), VOID),
    "show_vehicle_debug_telemetry": ((CAR, True), VOID),
    "apply_control_to_walker": ((WALKER, [[1.0, 0.0, 0.0], 1.0, False]), VOID),
    "get_physics_control": ((CAR,), is_physics),
    "apply_physics_control": ((CAR, "physics"), VOID),
    "get_vehicle_light_state": ((CAR,), lambda v: type(v[0]) is int),
    "set_vehicle_light_state": ((CAR, [3]), VOID),
    "get_vehicle_light_states": ((), some(lambda v: type(v[0]) is int and type(v[1]) is int)),
    "get_weather_parameters": ((), floats(14)),
    "set_weather_parameters": (([0.0] * 14,), VOID),
    "get_spectator": ((), is_actor),
    "apply_batch": (([[[18, [CAR, 3]]]], False), None),  # a bare list, below
    "draw_debug_shape": (([[0, [WHERE, 0.1]], [255, 0, 0], 1.0, True],), VOID),
    "set_traffic_light_state": ((LIGHT, 2), VOID),
    "set_traffic_light_green_time": ((LIGHT, 10.0), VOID),
    "set_traffic_light_yellow_time": ((LIGHT, 3.0), VOID),
    "set_traffic_light_red_time": ((LIGHT, 2.0), VOID),
    "freeze_traffic_light": ((LIGHT, False), VOID),
    "freeze_all_traffic_lights": ((False,), VOID),
    "reset_traffic_light_group": ((LIGHT,), VOID),
    "reset_all_traffic_lights": ((), VOID),
    "get_group_traffic_lights": ((LIGHT,), some(INT)),
    "get_light_boxes": ((LIGHT,), some(is_box)),
    "is_traffic_manager_running": ((8000,), BOOL),
    "get_traffic_manager_running": ((8000,), lambda v: v == ["", 0]),
    "add_traffic_manager_running": ((["127.0.0.1", 8000],), BOOL),
    "destroy_traffic_manager": ((8000,), BOOL),
    "update_lights_state": ((HOST, LAMPS, False), VOID),
    "update_day_night_cycle": ((HOST, True), VOID),
    "start_recorder": (("methods.log", False), STR),
    "stop_recorder": ((), VOID),
    "project_point": ((WHERE, [0.0, 0.0, -1.0], 10.0), lambda v: type(v[0]) is bool and point(v[1])),
    "cast_ray": (([WHERE[0], WHERE[1], 5.0], [WHERE[0], WHERE[1], -5.0]), some(point)),
    "get_all_level_BBs": ((255,), each(is_box)),
    "get_environment_objects": ((255,), each(list)),
    "request_file": (("TM/a.bin",), REFUSED),
    "get_navigation_mesh": ((), BYTES),
    "get_imui_gravity": ((), FLOAT),
    "set_imui_gravity": ((9.81,), VOID),
}
PUSH = (CAR, [1.0, 0.0, 0.0])
TIER_C = {
    **{f"add_actor_{name}": (PUSH, VOID) for name in ("impulse", "force", "angular_impulse", "torque")},
    **{f"add_actor_{name}_at_location": ((*PUSH, WHERE), VOID) for name in ("impulse", "force")},
    "apply_ackermann_control_to_vehicle": ((CAR, [0.0, 0.0, 1.0, 0.0, 0.0]), VOID),
    "get_ackermann_controller_settings": ((CAR,), floats(6)),
    "apply_ackermann_controller_settings": ((CAR, [0.15, 0.0, 0.25, 0.01, 0.0, 0.01]), VOID),
    "open_vehicle_door": ((CAR, 6), VOID),
    "close_vehicle_door": ((CAR, 6), VOID),
    "set_wheel_steer_direction": ((CAR, 0, 10.0), VOID),
    "set_wheel_pitch_angle": ((CAR, 0, 10.0), VOID),
    "get_wheel_steer_angle": ((CAR, 0), FLOAT),
    "get_wheel_pitch_angle": ((CAR, 0), FLOAT),
    "get_telemetry_data": ((CAR,), telemetry),
    "get_vehicle_bone_world_transforms": ((CAR,), each(is_pose)),
    "enable_carsim": ((CAR, "a.sim"), VOID),
    "use_carsim_road": ((CAR, True), VOID),
    "enable_chrono_physics": ((CAR, 10, 0.01, "a", "b", "c", "d"), VOID),
    "restore_physx_physics": ((CAR,), VOID),
    **{f"get_actor_{name}_names": ((CAR,), each(STR)) for name in ("component", "bone", "socket")},
    **{f"get_actor_component_{name}_transform": ((CAR, "Mesh"), is_pose) for name in ("world", "relative")},
    **{f"get_actor_{part}_{name}_transforms": ((CAR,), each(is_pose)) for part in ("bone", "socket") for name in ("world", "relative")},
    "get_bones_transform": ((WALKER,), lambda v: v == [[]]),
    "set_bones_transform": ((WALKER, [[["crl_arm__L", [ZERO, TURN]]]]), VOID),
    "blend_pose": ((WALKER, 0.5), VOID),
    "get_pose_from_animation": ((WALKER,), VOID),
    "load_map_layer": ((65535,), VOID),
    "unload_map_layer": ((65535,), VOID),
    "get_names_of_all_objects": ((), each(STR)),
    "enable_environment_objects": (([1, 2], True), VOID),
    "set_annotations_traverse_translucency": ((True,), VOID),
    "apply_color_texture_to_objects": ((["a"], 0, [1, 1, [[0, 0, 0, 0]]]), VOID),
    "apply_float_color_texture_to_objects": ((["a"], 0, [1, 1, [[0.0, 0.0, 0.0, 0.0]]]), VOID),
    "clear_debug_shape": ((), VOID),
    "clear_debug_string": ((), VOID),
    "enable_gbuffers": ((CAMERA, True), VOID),
    "are_gbuffers_enabled": ((CAMERA,), BOOL),
    "get_gbuffer_token": ((CAMERA, 3), REFUSED),
    "set_ignored_vehicles": ((CAMERA, [CAR]), VOID),
    "enable_sensor_for_ros": ((5,), VOID),
    "disable_sensor_for_ros": ((5,), VOID),
    "is_sensor_enabled_for_ros": ((5,), BOOL),
    "send": ((CAMERA, "hello"), VOID),
    "show_recorder_file_info": (("methods.log", True), STR),
    "show_recorder_collisions": (("methods.log", 97, 97), STR),
    "show_recorder_actors_blocked": (("methods.log", 30.0, 10.0), REFUSED),
    "replay_file": (("methods.log", 0.0, 0.0, 0, False, [ZERO, TURN]), REFUSED),
    "stop_replayer": ((True,), VOID),
    "set_replayer_time_factor": ((1.0,), VOID),
    "set_replayer_ignore_hero": ((True,), VOID),
    "set_replayer_ignore_spectator": ((True,), VOID),
}
ALL = {**TIER_A, **TIER_B, **TIER_C}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("server"))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with ServerProcess("urban_a") as server, Raw(server.port) as raw:
            points = raw.call("get_map_info")[1]

            def spawn(type_id, k):
                return raw.call("spawn_actor", [1, type_id, []], points[k])[0]

            actors = {CAR: spawn("vehicle.tesla.model3", 0), "victim": spawn("vehicle.tesla.model3", 8), CAMERA: spawn("sensor.camera.rgb", 4)}
            actors[WALKER] = spawn("walker.pedestrian.0001", 12)
            everybody = raw.call("get_actors_by_id", list(range(1, 1000)))
            lights = [a[0] for a in everybody if a[2][1] == "traffic.traffic_light"]
            assert lights, "this town has no lights to ask about"
            actors[LIGHT] = lights[0]
            raw.call("tick_cue")
            yield server, raw, actors


def filled(value, actors, raw):
    """`value` with the actors' numbers and, for "physics", what the server itself says."""
    if isinstance(value, (list, tuple)):
        return [filled(item, actors, raw) for item in value]
    if value == "physics":
        return raw.call("get_physics_control", actors[CAR])
    return actors.get(value, value) if isinstance(value, str) else value


def test_the_client_has_128_methods():
    assert (len(TIER_A), len(TIER_B), len(TIER_C), len(ALL)) == (16, 53, 59, 128)


@pytest.mark.parametrize("name", ALL)
def test_method(world, name):
    server, raw, actors = world
    arguments, wanted = ALL[name]
    arguments = filled(arguments, actors, raw)
    if name == "apply_batch":
        assert raw.ask(name, *arguments) == (None, [[[1, actors[CAR]]]])
    elif wanted == REFUSED:
        assert len(raw.refused(name, *arguments)) > 20
    elif wanted == VOID:
        assert raw.call(name, *arguments) is None
    else:
        found = raw.call(name, *arguments)
        assert wanted(found), found
    assert "does not have" not in said(server) and "wrong shape" not in said(server)


@pytest.mark.parametrize("name", [k for k, (given, _) in {**TIER_B, **TIER_C}.items() if given and given[0] in (CAR, WALKER, LIGHT)])
def test_an_actor_that_has_gone(world, name):
    """The text of an error, or nothing where the method does nothing; never a wrong shape."""
    _, raw, actors = world
    gone = [888_888, *filled(ALL[name][0][1:], actors, raw)]
    error, result = raw.ask(name, *gone)
    assert error is None and (result[0][0] in (0, False) or result[0][1] in ([], [[]], 0.0, [[0.0] * 3] * 2)), result
