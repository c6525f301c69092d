"""Batches of commands: carried out as arrays they come to what they come to one by one, answers and all."""

import random

import pytest

pytest.importorskip("carla")
pytest.importorskip("msgpack")

from carla_world import CAR, World

from drive.simulators.carla_server import batch

CARS = 8


class Crowd:
    """Cars in a row, a walker, a trailer that hangs on the last car, and a car that an Ackermann controller drives."""

    def __init__(self) -> None:
        self.world = World()
        points = self.world.episode.town.spawn_points
        self.cars = [self.world.spawn(CAR, points[k]).id for k in range(CARS)]
        self.walker = self.world.spawn("walker.pedestrian.0001", points[CARS]).id
        self.trailer = self.world.spawn(CAR, [-8.0, 0.0, 0.0, 0.0, 0.0, 0.0], self.world.episode.actors[self.cars[-1]]).id
        self.call("apply_ackermann_control_to_vehicle", self.cars[0], [0.1, 0.0, 5.0, 1.0, 0.0])

    def call(self, name: str, *arguments):
        return self.world.server.methods[name](*arguments)

    def state(self) -> bytes:
        vehicles = self.world.episode.vehicles
        tables = (vehicles.state, vehicles.control, vehicles.records, self.world.episode.walkers, self.world.episode.things)
        return b"".join(table.tobytes() for table in tables)


def commands(rng: random.Random, crowd: Crowd) -> list:
    """Runs of commands of one kind, most of them sound."""
    found: list = []
    for _ in range(rng.randint(1, 4)):
        number = rng.choice([2, 6, 8, 9])
        ids: list = [rng.choice(crowd.cars) for _ in range(rng.randint(1, 12))]
        if rng.random() < 0.3:
            ids[rng.randrange(len(ids))] = rng.choice([crowd.walker, crowd.trailer, 99999, None, "x"])
        found += [[[number, [actor_id, value(rng, number)]]] for actor_id in ids]
    if rng.random() < 0.2:
        found.insert(rng.randrange(len(found) + 1), rng.choice([None, [], [[2]], [[6, [crowd.cars[0]]]], [[[], []]], 7, "ab"]))
    return found


def value(rng: random.Random, number: int):
    """What a command gives its actor."""
    if rng.random() < 0.03:
        return rng.choice([None, [], [float("nan")] * 7, [[1e9, 0.0, 0.0], [0.0] * 3], ["1", "2", "3"], [1.0, [2.0], 3.0], [10**400] * 7])
    if number == 2:
        pedals = [rng.uniform(-0.5, 1.5), rng.uniform(-2.0, 2.0), rng.uniform(-0.5, 1.5)]
        return [*pedals, rng.random() < 0.3, rng.random() < 0.3, rng.random() < 0.3, rng.randint(-3, 9)]
    vector = [rng.uniform(-300.0, 300.0) for _ in range(3)]
    return [vector, [rng.uniform(-200.0, 200.0) for _ in range(3)]] if number == 6 else vector


def test_commands_together_come_to_the_same_as_one_by_one(monkeypatch):
    rng, together, single = random.Random(3), Crowd(), Crowd()
    arrays = 0
    carry_out = batch._together

    def counted(episode, run):
        nonlocal arrays
        ids = carry_out(episode, run)
        arrays += bool(ids)
        return ids

    for k in range(150):
        given = commands(rng, together)
        with monkeypatch.context() as patch:
            patch.setattr(batch, "_together", counted)
            answers = together.call("apply_batch", given, k % 5 == 0).value
        with monkeypatch.context() as patch:
            patch.setattr(batch, "FEW", 10**6)
            assert single.call("apply_batch", given, k % 5 == 0).value == answers
        assert len(answers) == len(given)
        assert together.state() == single.state(), given
    assert arrays > 100
    assert together.world.episode.vehicles.ackermann[together.cars[0]].target is None


def test_a_run_with_one_wrong_command_carries_out_the_others():
    crowd = Crowd()
    given = [[[6, [k, [[10.0 * i, 5.0, 0.0], [0.0, 90.0, 0.0]]]]] for i, k in enumerate(crowd.cars)]
    given[3][0][1][0] = 99999
    answers = crowd.call("apply_batch", given, False).value
    assert [answer[0][0] for answer in answers] == [1, 1, 1, 0, 1, 1, 1, 1] and "99999" in answers[3][0][1][0]
    moved = [crowd.world.episode.pose(k)[:2].tolist() for k in crowd.cars]
    assert [place == [10.0 * i, 5.0] for i, place in enumerate(moved)] == [True, True, True, False, True, True, True, True]
