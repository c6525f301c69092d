"""Commands that come in one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_server.layouts import FARTHEST, LARGEST, ServerError
from drive.simulators.carla_server.physics_control import UP
from drive.simulators.carla_server.rpc import SHAPE_ERRORS
from drive.simulators.carla_server.vehicle_model import VX, VY, YAW, X, Y

if TYPE_CHECKING:
    from collections.abc import Callable

    from drive.simulators.carla_server.episode import Episode
    from drive.simulators.carla_server.vehicles import Vehicles

Array = NDArray[np.float64]
SPAWN, CONTROL, TRANSFORM, VELOCITY, CONSOLE = 0, 2, 6, 8, 20
FEW = 4  # commands of one kind that are worth an array
NAMES = {  # command number: the method that does the same
    1: "destroy_actor",
    2: "apply_control_to_vehicle",
    3: "apply_ackermann_control_to_vehicle",
    4: "apply_control_to_walker",
    5: "apply_physics_control",
    6: "set_actor_transform",
    7: "set_walker_state",
    8: "set_actor_target_velocity",
    9: "set_actor_target_angular_velocity",
    10: "add_actor_impulse",
    11: "add_actor_force",
    12: "add_actor_angular_impulse",
    13: "add_actor_torque",
    14: "set_actor_simulate_physics",
    15: "set_actor_enable_gravity",
    16: "set_actor_autopilot",
    17: "show_vehicle_debug_telemetry",
    18: "set_vehicle_light_state",
    19: "set_actor_location",
    21: "set_traffic_light_state",
}


def run_batch(methods: dict[str, Callable[..., Any]], commands: list, episode: Episode, new_id: int | None = None) -> list:
    """A Response<ActorId> for each command; `new_id` takes the place of the actor in commands that follow a spawn.

    A client that drives traffic of its own sends two commands a tick for each car: those of one kind that stand together are carried
    out as one array.
    """
    answers: list = []
    at = 0
    while at < len(commands):
        stop = _same_kind(commands, at) if new_id is None else at
        ids = _together(episode, commands[at:stop]) if stop - at >= FEW else []
        if ids:
            answers += [[[1, actor_id]] for actor_id in ids]
            at = stop
            continue
        for command in commands[at : max(stop, at + 1)]:
            answers.append(_answer(methods, command, episode, new_id))
        at = max(stop, at + 1)
    return answers


def _same_kind(commands: list, at: int) -> int:
    """Where the commands that begin at `at` and can be carried out together end; `at` where it is none of those."""
    stop = at
    try:
        number = commands[at][0][0]
        while number in (CONTROL, TRANSFORM, VELOCITY) and commands[stop][0][0] == number:
            stop += 1
    except SHAPE_ERRORS:  # the end of the list, or a command of a wrong shape
        pass
    return stop


def _together(episode: Episode, commands: list) -> list[int]:
    """Carry out commands of one kind as one; their actors. Nothing is done, and none returned, unless all are sound and for vehicles on their own."""
    vehicles = episode.vehicles
    try:
        number = commands[0][0][0]
        ids, values = zip(*(command[0][1] for command in commands))
        rows = [vehicles.row[actor_id] for actor_id in ids]
        table = np.array(values)
    except SHAPE_ERRORS:
        return []
    shape, most = {CONTROL: ((7,), LARGEST), TRANSFORM: ((2, 3), FARTHEST), VELOCITY: ((3,), LARGEST)}[number]
    if table.dtype.kind not in "biuf" or table.shape[1:] != shape or not (np.abs(table) <= most).all():
        return []
    if number == TRANSFORM:
        if any(episode.actors[actor_id].parent for actor_id in ids):
            return []
        _put(vehicles, rows, table.reshape(-1, 6))
    elif number == VELOCITY:
        _push(vehicles, rows, table)
    else:
        for actor_id in vehicles.ackermann.keys() & set(ids):
            vehicles.ackermann[actor_id].drive(None)
        _control(vehicles, rows, table)
    return list(ids)


def _put(vehicles: Vehicles, rows: list[int], poses: Array) -> None:
    """As Vehicles.put does."""
    state = vehicles.state
    state[rows, X], state[rows, Y], state[rows, YAW] = poses[:, 0], poses[:, 1], np.radians(poses[:, 4])
    vehicles.records["pose"][rows] = poses


def _push(vehicles: Vehicles, rows: list[int], velocities: Array) -> None:
    """As Vehicles.set_velocity does."""
    state = vehicles.state
    c, s = np.cos(state[rows, YAW]), np.sin(state[rows, YAW])
    state[rows, VX] = c * velocities[:, 0] + s * velocities[:, 1]
    state[rows, VY] = -s * velocities[:, 0] + c * velocities[:, 1]
    vehicles.records["velocity"][rows] = velocities


def _control(vehicles: Vehicles, rows: list[int], table: Array) -> None:
    """As Vehicles.apply does."""
    records, at = vehicles.records, np.array(rows)
    pedals = np.clip(table[:, :3], (0.0, -1.0, 0.0), 1.0)
    hand, reverse, manual = (table[:, 3:6] != 0).T
    gear = np.clip(table[:, 6], -1, len(UP) + 1).astype(np.int64)
    vehicles.control[at] = np.column_stack([pedals, hand, reverse | (manual & (gear < 0))])
    for k, name in enumerate(("throttle", "steer", "brake")):
        records[name][at] = pedals[:, k]
    records["hand_brake"][at], records["reverse"][at], records["manual"][at] = hand, reverse, manual
    records["gear"][at[manual]] = gear[manual]


def _answer(methods: dict[str, Callable[..., Any]], command: Any, episode: Episode, new_id: int | None) -> list:
    try:
        return [[1, _run(methods, command[0][0], list(command[0][1]), episode, new_id)]]
    except ServerError as error:
        return [[0, [str(error)]]]
    except SHAPE_ERRORS as error:
        return [[0, [f"a command of a wrong shape ({type(error).__name__}: {error})"]]]


def _run(methods: dict[str, Callable[..., Any]], number: int, payload: list, episode: Episode, new_id: int | None) -> int:
    if number == SPAWN:
        description, transform, parent = payload[0], payload[1], payload[2]
        if parent[0]:
            made = methods["spawn_actor_with_parent"](description, transform, parent[1])
        else:
            made = methods["spawn_actor"](description, transform)
        if len(payload) > 5:
            run_batch(methods, payload[5], episode, made[0])
        return made[0]
    if number == CONSOLE:
        return 0
    if new_id is not None:
        payload[0] = new_id
    if NAMES.get(number) not in methods:
        raise ServerError(f"this server has no batch command {number}")
    methods[NAMES[number]](*([payload[0], [payload[1]]] if number == 18 else payload))
    return payload[0]
