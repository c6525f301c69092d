"""Scene sets: what a scene holds, resuming, determinism, and what happens to broken files."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely

from drive.core.errors import ConfigError, DataError
from drive.core.geometry import arc_length, box_corners, interpolate_poses, project, relative
from drive.core.types import Camera, Plan, Trajectory
from drive.core.vehicle import PACIFICA
from drive.datasets.card import Card
from drive.datasets.embedded import EmbeddedDataset, ensure_embedded, load_teacher
from drive.datasets.episode import EpisodeConfig, record_episode, town_map
from drive.datasets.episode_file import EpisodeFile, episode_name, write_episode
from drive.datasets.generate import generate
from drive.datasets.select import readable, spread
from drive.simulators.world_events import drivable_area

CAMERA = Camera.front(32, 32)
CONFIG = EpisodeConfig("val", 0, cameras=(CAMERA,))


class RouteFollower:
    """A teacher that keeps to the centreline at its speed, and stops for what is near ahead."""

    name = "route_follower"

    def reset(self) -> None:
        """Nothing to forget."""

    def plan_privileged(self, scenes):
        """One plan per scene."""
        return [self._plan(scene) for scene in scenes]

    def _plan(self, scene):
        line, ego = scene.centerline_world, scene.ego
        here = project(line, ego.pose_world[:2])[0]
        seen = relative(ego.pose_world, scene.agents.poses_world[:, 0])
        ahead = seen[(np.abs(seen[:, 1]) < 3.0) & (seen[:, 0] > 4.0), 0]
        room = max(float(ahead.min(initial=100.0)) - 11.0, 0.0)
        travelled = np.minimum(min(max(ego.speed, 2.0), 8.0) * 0.1 * np.arange(1, 51), room)
        poses = interpolate_poses(arc_length(line), line, here + travelled)
        return Plan(Trajectory(relative(ego.pose_world, poses), 0.1), reasoning=f"room {room:.0f} m")


class Reckless(RouteFollower):
    """A teacher that turns off the road at once."""

    name = "reckless"

    def _plan(self, scene):
        t = 0.1 * np.arange(1, 51)
        return Plan(Trajectory(np.outer(t, [8.0, 0.0, 0.5]) + np.outer(t * t, [0.0, 2.0, 0.0]), 0.1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "val"
    generate(path, CONFIG, 30, RouteFollower, progress=False)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("episode-*.npz"))}


def test_a_scene_holds_what_the_contract_says(folder):
    data = EmbeddedDataset(folder)
    assert len(data) == 30
    for scene in (data[0], data[17], data[-1]):
        assert scene.source == "embedded" and scene.split == "val" and scene.present == 15
        assert scene.ego.poses_world.shape == (66, 3) and scene.agents.valid.shape[1] == 66
        assert scene.teacher is not None and scene.teacher.poses.shape == (10, 3) and scene.teacher.dt == 0.5
        assert scene.reference_world is not None and scene.reference_world.shape == (51, 3)
        assert np.allclose(scene.reference_world[0], scene.ego.poses_world[15])
        assert np.allclose(relative(scene.reference_world[0], scene.reference_world[50]), scene.teacher.poses[9], atol=1e-9)
        assert scene.reasoning.startswith("room") and scene.frame_steps == (-15, -10, -5, 0)
        seen = scene.observation()
        assert seen.images.shape == (1, 4, 32, 32, 3) and seen.images.std() > 5.0
        assert scene.logged_future().poses.shape == (10, 3)
        s, d = project(scene.centerline_world, scene.ego.poses_world[15, :2])
        assert s < 21.5 and abs(d) < 2.5 and arc_length(scene.centerline_world)[-1] - s > 150.0


def test_frames_are_those_of_the_steps_they_stand_for(folder):
    """A frame of the past in one scene is the present of an earlier one."""
    data = EmbeddedDataset(folder)
    first, second = data[0], data[1]
    assert first.log_id == second.log_id and second.notes["episode_step"] - first.notes["episode_step"] == 10
    assert (first.observation().images[0, 3] == second.observation().images[0, 1]).all()
    assert np.allclose(first.ego.poses_world[15], second.ego.poses_world[5])


def test_logged_agents_move_at_their_logged_speed(folder):
    for scene in EmbeddedDataset(folder)[::7]:
        tracks = scene.agents
        moved = np.hypot(*np.moveaxis(np.diff(tracks.poses_world[..., :2], axis=1), -1, 0))
        speed = np.hypot(tracks.velocity_world[..., 0], tracks.velocity_world[..., 1])
        both = tracks.valid[:, 1:] & tracks.valid[:, :-1]
        mean = (speed[:, 1:] + speed[:, :-1]) / 2.0 * 0.1
        assert np.abs(moved - mean)[both].max() < 0.15


def test_about_half_of_the_drives_are_disturbed_and_their_labels_are_the_teachers(folder):
    card = Card.read(folder)
    assert 0 < sum(entry.disturbed for entry in card.episodes) < len(card.episodes)
    data = EmbeddedDataset(folder)
    drift = {True: [], False: []}
    for scene in data:
        assert scene.teacher is not None
        plan, driven = scene.teacher.poses[0], scene.logged_future().poses[0]
        drift[scene.notes["disturbed"]].append(np.hypot(*(plan - driven)[:2]))
    assert np.mean(drift[True]) > 2.0 * np.mean(drift[False])


def test_no_scene_after_the_car_has_left_the_road(tmp_path):
    """The teacher leaves the road within two seconds: what is emitted still stands on it."""
    config = EpisodeConfig("val", 0, seconds=8.0, disturbed_share=0.0, cameras=(CAMERA,))
    arrays = record_episode(config, 0, Reckless())
    meta = json.loads(arrays["meta"].tobytes())
    area = drivable_area(town_map(meta["town"]))
    left = next(step for step, text in meta["events"])
    assert left < 45
    for scene in meta["scenes"]:
        corners = box_corners(arrays["ego"][scene["present"], :3], PACIFICA.length, PACIFICA.width, PACIFICA.rear_to_center)
        assert scene["present"] < left and shapely.contains_xy(area, corners[:, 0], corners[:, 1]).all()
    assert len(meta["scenes"]) + len(meta["dropped"]) == len(config.presents)


def test_a_teacher_that_leaves_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("drive.datasets.generate.EMPTY_EPISODES", 2)
    with pytest.raises(DataError, match="gave no scene"):
        generate(tmp_path, EpisodeConfig("val", 1, seconds=9.0, cameras=(CAMERA,)), 50, Paralysed, progress=False)


class Paralysed(Reckless):
    """A teacher that is off the road before the first scene."""

    def _plan(self, scene):
        t = 0.1 * np.arange(1, 51)
        return Plan(Trajectory(np.column_stack([12.0 * t, 12.0 * t, np.full(50, 0.8)]), 0.1))


def test_generation_goes_on_where_it_stopped(folder, tmp_path):
    """A killed run leaves whole episodes and perhaps a partial file; broken ones are made again; the end is the same."""
    whole = contents(folder)
    names = list(whole)
    for name in names[:3]:
        (tmp_path / name).write_bytes(whole[name])
    (tmp_path / names[1]).write_bytes(whole[names[1]][:1000])
    (tmp_path / f".{names[3]}.1.partial").write_bytes(b"half")
    untouched = (tmp_path / names[0]).stat().st_mtime_ns
    card = generate(tmp_path, CONFIG, 30, RouteFollower, progress=False)
    assert contents(tmp_path) == whole and card.fingerprint() == Card.read(folder).fingerprint()
    assert (tmp_path / names[0]).stat().st_mtime_ns == untouched
    assert not list(tmp_path.glob(".*"))


def test_workers_do_not_change_the_set(folder, tmp_path):
    generate(tmp_path, CONFIG, 30, RouteFollower, workers=2, progress=False)
    assert contents(tmp_path) == contents(folder)


def test_another_seed_is_another_set(folder, tmp_path):
    generate(tmp_path, EpisodeConfig("val", 1, cameras=(CAMERA,)), 7, RouteFollower, progress=False)
    assert Card.read(tmp_path).fingerprint() != Card.read(folder).fingerprint()
    with pytest.raises(DataError, match="other settings"):
        generate(folder, EpisodeConfig("val", 1, cameras=(CAMERA,)), 7, RouteFollower, progress=False)


def test_broken_files_are_named_and_counted(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    cut = tmp_path / episode_name(0)
    cut.write_bytes(cut.read_bytes()[:-2000])
    poisoned = EpisodeFile.read(tmp_path / episode_name(1))
    ego = poisoned.arrays["ego"].copy()
    ego[20, 0] = np.nan
    meta = np.frombuffer(json.dumps(poisoned.meta).encode(), np.uint8)
    write_episode(poisoned.path, {"meta": meta, **poisoned.arrays, "ego": ego})
    data = EmbeddedDataset(tmp_path)
    good, faults = readable(data, range(len(data)))
    assert len(good) + len(faults) == len(data) == 30
    assert any(episode_name(0) in fault for fault in faults)
    assert any(episode_name(1) in fault and "ego" in fault for fault in faults)
    with pytest.raises(DataError, match=episode_name(0)):
        data[0]
    assert Card.read(tmp_path).damaged(tmp_path) == [0, 1]


def test_a_missing_set_tells_the_command(tmp_path):
    with pytest.raises(DataError, match="drive data generate"):
        EmbeddedDataset(tmp_path)


def test_ensure_makes_once_uses_a_part_and_goes_on(tmp_path):
    teacher = f"{__name__}:RouteFollower"
    make = partial(ensure_embedded, tmp_path, "val", progress=False, teacher=teacher)
    first = make(scenes=5)
    stamp = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "val").iterdir()}
    again = make(scenes=5)
    part = make(scenes=3)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "val").iterdir()} == stamp
    assert first.fingerprint == again.fingerprint != part.fingerprint
    assert (len(first.scenarios), len(part.scenarios)) == (5, 3) and part.scenarios[2].id == first.scenarios[2].id
    more = make(scenes=9)
    assert len(more.scenarios) == 9 and more.scenarios[4].id == first.scenarios[4].id
    with pytest.raises(DataError, match="other settings"):
        make(scenes=5, seed=1)


def test_a_teacher_is_named_by_its_place():
    assert load_teacher("drive.planners.pdm:PdmExpert").name == "pdm_expert"
    with pytest.raises(ConfigError, match="module:Class"):
        load_teacher("drive.planners.pdm:Nobody")


def test_the_card_counts(folder):
    card = json.loads((folder / "card.json").read_text())
    facts = card["facts"]
    assert sum(facts["scenes_by_kind"].values()) == sum(facts["scenes_by_town"].values()) == facts["scenes"] == 30
    assert facts["planner"] == "route_follower" and set(facts["scenes_by_town"]) == {"val_b"}
    assert str(folder.parent) not in (folder / "card.json").read_text()
    assert facts["fingerprint"] in (folder / "README.md").read_text()


def test_some_scenes_are_spread_over_the_set():
    assert spread(10, 10) == spread(10, 99) == list(range(10))
    assert spread(10, 4) == [0, 3, 6, 9] and spread(10, 1) == [0] and spread(0, 5) == []
