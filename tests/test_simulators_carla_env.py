"""CARLA as a Gymnasium environment: its contract, its seeds, what ends an episode, and servers that go. Each client in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import gymnasium
import numpy as np
import pytest
from carla_client import REPOSITORY

from drive.core.errors import ConfigError, DataError, DriveError
from drive.simulators.carla_env import CarlaEnv

pytestmark = pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="the carla wheel is not installed")
PRELUDE = """
import hashlib, json, os, sys, time, warnings
from pathlib import Path
import gymnasium
import numpy as np
import drive.simulators.carla_env as carla_env
from drive.core.errors import DriveError
from drive.core.seeds import numpy_rng
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_routes import CarlaRoute
from drive.simulators.carla_session import Session
from drive.simulators.gym_env import ROUTE_AHEAD
from drive.simulators.routes import sample_route
from drive.simulators.towns import load_town

def make(**options):
    return gymnasium.make("drive/Carla-v0", **{"split": "val", "size": 40, "vehicles": 0, "walkers": 0, **options})

def short(seed=0, metres=60.0, town="val_b"):
    path = sample_route(load_town(town), numpy_rng(seed, "short"), metres).path
    rows = path[[0, len(path) // 2, -1]]
    return CarlaRoute(f"short-{seed}", town, np.column_stack([rows[:, 0], -rows[:, 1], np.zeros(3)]), None, (), ())

def along(state, speed):
    "The trajectory action that follows the route's points of the state at `speed` m/s."
    points = np.concatenate([[[0.0, 0.0]], state[-2 * len(ROUTE_AHEAD):].reshape(-1, 2) * 50.0])
    s = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = speed * 0.5 * np.arange(11)
    x, y = np.interp(at, s, points[:, 0]), np.interp(at, s, points[:, 1])
    heading = np.arctan2(np.diff(y), np.diff(x))
    turn = np.diff(np.concatenate([[0.0], heading]))
    action = np.column_stack([2.0 * np.hypot(np.diff(x), np.diff(y)) / 15.0 - 1.0, np.zeros(10), turn / 0.6])
    return action.clip(-1.0, 1.0).astype(np.float32)

def drive(env, choose, steps, seed=None):
    "(what every step gave, digest of it all)"
    found, sha = [], hashlib.sha256()
    observation, info = env.reset(seed=seed)
    for _ in range(steps):
        sha.update(observation["image"].tobytes() + observation["state"].tobytes() + json.dumps(info, sort_keys=True).encode())
        observation, reward, terminated, truncated, info = env.step(choose(observation["state"]))
        sha.update(np.float64(reward).tobytes())
        found.append((reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return found, sha.hexdigest()

def kill(env):
    process = env.unwrapped._link._server._process
    process.kill()
    process.wait()

def sockets():
    return sum(os.readlink(p).startswith("socket:") for p in Path("/proc/self/fd").iterdir() if p.is_symlink())

def children():
    return [p for p in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]

def soon(true):
    "Whether it becomes so: what a client knows of another's ticks comes in its own time."
    until = time.monotonic() + 60.0
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()

def gone(fails, word):
    try:
        fails()
    except DriveError as error:
        assert word in str(error), error
        return str(error)
    raise AssertionError(f"no error of {word}")
"""


def run(script: str, *arguments: object, timeout: float = 240.0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parametrize("control", ["trajectory", "pedals"])
def test_passes_gymnasiums_own_check(control):
    run(
        """
        from gymnasium.utils.env_checker import check_env
        warnings.simplefilter("error")
        env = make(control=sys.argv[1], render_mode="rgb_array", vehicles=3)
        check_env(env.unwrapped)
        env.reset(seed=1)
        assert env.render().shape == (40, 40, 3) and env.render().std() > 1.0
        env.close()
        """,
        control,
    )


def test_stable_baselines_checks_it_and_learns_in_it():
    pytest.importorskip("stable_baselines3")
    told = run(
        """
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_checker import check_env
        env = make(control="pedals", vehicles=3, seconds=2.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(env.unwrapped)
        model = PPO("MultiInputPolicy", env, n_steps=16, batch_size=8, n_epochs=1, seed=0)
        before = [p.clone() for p in model.policy.parameters()]
        model.learn(32)
        assert model.num_timesteps == 32 and len(model.ep_info_buffer) >= 2
        assert any((a != b).any() for a, b in zip(before, model.policy.parameters()))
        env.close()
        print("learnt")
        """
    )
    assert told.endswith("learnt\n")


SEEDS = """
env = make(split="train", vehicles=8, walkers=4, seconds=4.0)
found = {}
for seed in map(int, sys.argv[1:]):
    found[seed] = drive(env, lambda state: along(state, 9.0), 8, seed)[1]
after = drive(env, lambda state: along(state, 9.0), 4)[1]  # goes on from the last seed
print(json.dumps([found, after]))
env.close()
"""


def test_one_seed_is_one_drive_to_the_byte():
    first, after = json.loads(run(SEEDS, 1, 2, 3))
    again, again_after = json.loads(run(SEEDS, 3, 1, 2))  # another process, another order
    assert first == again and len(set(first.values())) == 3 and after != again_after
    assert json.loads(run(SEEDS, 3)) == [{"3": first["3"]}, after]


def test_what_ends_an_episode():
    run(
        """
        env = make(routes=[short()], seconds=40.0)
        found, _ = drive(env, lambda state: along(state, 7.0), 80, 0)
        assert found[-1][1:3] == (True, False) and found[-1][3]["events"] == ["route_end"] and not found[-1][3]["crashed"], found[-1]
        assert sum(r for r, *_ in found) > 3.0 and all(abs(i["lateral"]) < 0.7 for *_, i in found), found

        still = sum(r for r, *_ in drive(env, lambda state: along(state, 0.0), 8, 0)[0])
        assert abs(still) < 0.2  # a car that stands gains nothing and loses nothing

        env.reset(seed=0)
        session, simulator = env.unwrapped._drive._session, env.unwrapped._drive.simulator
        library = session.world.get_blueprint_library()
        x, y, heading = simulator.route.path[25]
        wall = session.carla.Transform(session.carla.Location(x, -y, 0.5), session.carla.Rotation(yaw=-np.degrees(heading)))
        session.keep(session.world.spawn_actor(library.find("vehicle.carlamotors.firetruck"), wall))
        state = env.unwrapped._seen["state"]
        for _ in range(30):
            observation, reward, terminated, truncated, info = env.step(along(state, 9.0))
            state = observation["state"]
            if terminated:
                break
        assert terminated and info["crashed"] and info["events"] == ["collision vehicle.carlamotors.firetruck"] and reward < -4.0, info
        env.close()

        env = make(routes=[short()], control="pedals", seconds=1.0)
        found, _ = drive(env, lambda state: np.zeros(2, np.float32), 9, 0)
        assert [f[1:3] for f in found] == [(False, False)] * 4 + [(False, True)]
        env.close()
        env = make(routes=[short()], control="pedals")
        found, _ = drive(env, lambda state: np.array([0.7, 0.8], np.float32), 60, 0)
        assert found[-1][1] and found[-1][3]["events"] == ["off_road"] and found[-1][0] < -4.0, found[-1]
        left = found[3][3]["lateral"]
        assert left > 0.0  # the wheel's positive side is the left
        env.close()
        """
    )


def test_a_red_light_costs():
    run(
        """
        from dataclasses import replace
        lit = next(r for r in carla_env.embedded_routes("test").routes if any(s.type == "SignalizedJunctionLeftTurn" for s in r.scenarios))
        env = make(split="test", routes=[replace(lit, scenarios=())], control="trajectory", seconds=120.0)
        costs = {}
        for name in ("Red", "Green"):
            env.reset(seed=0)
            drive_ = env.unwrapped._drive
            assert drive_._lights
            colour = getattr(drive_._session.carla.TrafficLightState, name)
            for light in drive_._session.world.get_actors().filter("traffic.traffic_light*"):
                light.set_state(colour)
                light.freeze(True)
            state, passed = env.unwrapped._seen["state"], []
            for _ in range(200):
                observation, reward, terminated, truncated, info = env.step(along(state, 8.0))
                state = observation["state"]
                passed.append(info["red_lights"])
                if info["red_lights"] or terminated or truncated:
                    break
            costs[name] = (sum(passed), reward)
        assert costs["Red"][0] == 1 and costs["Green"][0] == 0 and costs["Red"][1] < 0.0, costs
        env.close()
        """
    )


def test_a_server_that_is_killed_truncates_the_episode_and_is_replaced():
    run(
        """
        env = make(routes=[short()], timeout=5.0)
        usual = drive(env, lambda state: along(state, 7.0), 6, 3)[1]
        for _ in range(2):
            first, _ = env.reset(seed=3)
            kill(env)
            observation, reward, terminated, truncated, info = env.step(along(first["state"], 7.0))
            assert (reward, terminated, truncated) == (0.0, False, True) and info["lost"] and not info["crashed"]
            assert env.observation_space.contains(observation) and not children()
        assert drive(env, lambda state: along(state, 7.0), 6, 3)[1] == usual
        kill(env)  # between two episodes
        assert drive(env, lambda state: along(state, 7.0), 6, 3)[1] == usual

        for k in range(3):
            env.reset(seed=3)
            kill(env)
            if k < 2:
                assert env.step(along(first["state"], 7.0))[3]
            else:
                told = gone(lambda: env.step(along(first["state"], 7.0)), "3 episodes in a row")
                assert "\\n" not in told
        env.close()
        assert not children()
        """,
        timeout=400.0,
    )


def test_closing_leaves_nothing():
    run(
        """
        with ServerProcess("val_b") as server, Session(server.host, server.port) as watcher:
            settings = watcher.world.get_settings()
            settings.synchronous_mode, settings.fixed_delta_seconds = False, None
            watcher.world.apply_settings(settings)
            before, held = sorted(a.id for a in watcher.world.get_actors()), sockets()
            env = make(routes=[short()], host=server.host, port=server.port, vehicles=4, walkers=2)
            drive(env, lambda state: along(state, 7.0), 3, 0)
            assert soon(lambda: len(watcher.client.get_world().get_actors()) > len(before) + 4)
            env.close()
            env.close()
            world = watcher.client.get_world()
            assert soon(lambda: sorted(a.id for a in world.get_actors()) == before) and not world.get_settings().synchronous_mode
            del env
            assert sockets() <= held, (sockets(), held)
            settings.synchronous_mode = False
        assert not children()

        held = sockets()
        env = make(routes=[short()])
        env.reset(seed=0)
        env.close()
        assert not children() and sockets() <= held
        env.reset(seed=0)  # begins anew
        env.close()

        both = gymnasium.vector.SyncVectorEnv([lambda: make(routes=[short()]), lambda: make(routes=[short()])])
        observation, _ = both.reset(seed=[4, 4])
        assert (observation["image"][0] == observation["image"][1]).all() and len(children()) == 2
        both.step(np.zeros(both.action_space.shape, np.float32))
        both.close()
        assert not children()
        """
    )


def test_errors_that_a_user_can_mend():
    with pytest.raises(ConfigError, match="pedals"):
        CarlaEnv(control="telepathy")
    with pytest.raises(ConfigError, match="at least one route"):
        CarlaEnv(routes=[])
    with pytest.raises(ConfigError, match="at least 0"):
        CarlaEnv(vehicles=-1)
    env = CarlaEnv(host="127.0.0.1", port=1, timeout=0.2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((10, 3), np.float32))
    with pytest.raises(DriveError, match=r"nobody listens on 127\.0\.0\.1:1"):
        env.reset(seed=0)
    env.close()
    run(
        """
        env = make(routes=[CarlaRoute("far", "Town99", short().keypoints, None, (), ())])
        gone(lambda: env.reset(seed=0), "route far: the server has no town Town99")
        env.close()
        env = make(routes=[CarlaRoute("off", "val_b", short().keypoints + 5000.0, None, (), ())])
        gone(lambda: env.reset(seed=0), "keypoint")
        env.close()
        env = make(routes=[short()], control="pedals").unwrapped
        env.reset(seed=0)
        for wrong in ([np.nan, 0.0], [0.0, 0.0, 0.0]):
            gone(lambda: env.step(np.array(wrong, np.float32)), "an action is finite, of shape (2,)")
        env.step(np.array([9.0, 0.0]))  # too much is as much as there is
        env.close()
        """
    )


def test_settings_need_no_server():
    env = CarlaEnv()
    assert env.action_space.shape == (10, 3) and env.render() is None
    assert env.observation_space.contains({"image": np.zeros((112, 112, 3), np.uint8), "state": np.zeros(25, np.float32)})
    with pytest.raises(DataError, match="split"):
        CarlaEnv(split="nowhere")
