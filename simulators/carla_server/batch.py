"""Commands that come in one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drive.simulators.carla_server.layouts import ServerError
from drive.simulators.carla_server.rpc import SHAPE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

SPAWN, CONSOLE = 0, 20
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


def run_batch(methods: dict[str, Callable[..., Any]], commands: list, new_id: int | None = None) -> list:
    """A Response<ActorId> for each command; `new_id` takes the place of the actor in commands that follow a spawn."""
    answers: list = []
    for command in commands:
        try:
            answers.append([[1, _run(methods, command[0][0], list(command[0][1]), new_id)]])
        except ServerError as error:
            answers.append([[0, [str(error)]]])
        except SHAPE_ERRORS as error:
            answers.append([[0, [f"a command of a wrong shape ({type(error).__name__}: {error})"]]])
    return answers


def _run(methods: dict[str, Callable[..., Any]], number: int, payload: list, new_id: int | None) -> int:
    if number == SPAWN:
        description, transform, parent = payload[0], payload[1], payload[2]
        if parent[0]:
            made = methods["spawn_actor_with_parent"](description, transform, parent[1])
        else:
            made = methods["spawn_actor"](description, transform)
        if len(payload) > 5:
            run_batch(methods, payload[5], made[0])
        return made[0]
    if number == CONSOLE:
        return 0
    if new_id is not None:
        payload[0] = new_id
    if NAMES.get(number) not in methods:
        raise ServerError(f"this server has no batch command {number}")
    methods[NAMES[number]](*([payload[0], [payload[1]]] if number == 18 else payload))
    return payload[0]
