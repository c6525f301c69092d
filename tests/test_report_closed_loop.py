"""Films filed by infraction, maps and the page of a closed-loop evaluation, from a hand-made drive."""

import io
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from drive.benchmarks.carla_drive import DriveConfig, DrivenRoute
from drive.benchmarks.carla_film import Film, Moment, RouteLog, Thought
from drive.benchmarks.carla_routes import ClosedLoop, Finished
from drive.cli.closed_loop import refuse_open_loop, videos_of
from drive.cli.data import inspect
from drive.cli.report import run as report
from drive.core.errors import ConfigError, DataError
from drive.core.geometry import compose
from drive.core.types import Camera, Command
from drive.metrics.carla_records import Event, Failure, Infraction
from drive.metrics.carla_scores import Rule, record_of
from drive.report.closed_loop_films import LIGHT_COLOURS, Scene, films_of, pictures, scenes_of, write_films
from drive.report.closed_loop_maps import picture_path, route_map
from drive.report.closed_loop_page import Pictures, Videos, write_page
from drive.report.pictures import ALARM, EGO_AT
from drive.report.plans import refuse_other_results
from drive.report.tables import PDMS
from drive.report.word_bar import BAR, VIEW
from drive.simulators.carla_routes import CarlaRoute
from drive.simulators.routes import route_along
from drive.simulators.towns import load_town

SECONDS = 14.0
HIT = Event(Infraction.VEHICLE, 200, "Agent collided against object with type=vehicle.audi.tt and id=7 at (x=1.0, y=2.0, z=0.0)")  # 10 s
AGAIN = replace(HIT, tick=220)  # 11 s: the first one's film shows it
RED = Event(Infraction.RED_LIGHT, 40, "Agent ran a red light 3 at (x=1.0, y=2.0, z=0.0)")
SLOW = Event(Infraction.MIN_SPEED, 100, "Average speed is 40.0% of the surrounding traffic's one", 40.0)


@pytest.fixture(scope="module")
def made() -> RouteLog:
    """14 s along a lane at 5 m/s behind a car that stands 60 m ahead; a light at its rear."""
    road_map = load_town("test_c")
    lane = max((lane for lane in road_map.lanes.values() if not lane.is_connector), key=lambda lane: lane.length)
    route = route_along(road_map, (lane.id,))
    times = np.arange(0.0, SECONDS, 0.05)
    rows = route.path[np.searchsorted(route.s, 5.0 + 5.0 * times)]
    other = route.path[[70]]
    camera = Camera.front()
    buffer = io.BytesIO()
    Image.fromarray(np.full((112, 112, 3), (200, 30, 200), np.uint8)).save(buffer, "jpeg")
    size, kind = np.array([[4.5, 1.9, 1.5]]), np.zeros(1, np.int64)
    moments = tuple(Moment(float(t), pose, 5.0, Command.LEFT, (7,), other, size, kind, ("Red",)) for t, pose in zip(times[::2], rows[::2]))
    ahead = compose(rows[0], np.column_stack([np.arange(1.0, 41.0), np.zeros(40), np.zeros(40)]))
    film = Film(moments, (Thought(0.0, 0.0, ahead, 0.1, "I follow the lane", "slow"),), ((0.0, buffer.getvalue()),), camera)
    return RouteLog(road_map, route, (compose(other, np.array([-10.0, 0.0, 0.0])),), times, compose(rows, np.array([1.4, 0.0, 0.0])), (), film)


def driven(log: RouteLog, *events: Event, completion: float = 100.0, failure: Failure | None = None) -> DrivenRoute:
    record = record_of("RouteScenario_a_rep0", events, completion, Rule.BENCH2DRIVE, failure=failure, texts={"town_name": "test_c"})
    return DrivenRoute(record, log.poses, 0.01, SECONDS, 1.0, 0.5, None, replace(log, events=events))


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def near(pixels: np.ndarray, colour: tuple[int, int, int], reach: int = 40) -> int:
    return int((np.abs(pixels.astype(int) - colour).max(-1) < reach).sum())


def test_each_infraction_has_its_scene(made):
    scenes = scenes_of(driven(made, RED, SLOW, HIT, AGAIN), clean=True)
    assert [(s.folder, s.at, s.start, s.end) for s in scenes] == [("red_light", 2.0, 0.0, 4.0), ("collisions_vehicle", 10.0, 2.0, 12.0)]
    assert scenes[1].actor == 7 and scenes[0].actor is None
    assert scenes_of(driven(made, SLOW), clean=False) == []
    (whole,) = scenes_of(driven(made, SLOW), clean=True)
    assert (whole.folder, whole.start, whole.end, whole.banner) == ("clean", 0.0, made.times[-1], "")


def test_a_failure_without_infraction_is_filmed(made):
    (scene,) = scenes_of(driven(made, completion=40.0, failure=Failure.AGENT), clean=False)
    assert (scene.folder, scene.at, scene.banner) == ("agent_crashed", made.times[-1], "AGENT CRASHED")
    blocked = Event(Infraction.BLOCKED, len(made.times) - 1, "Agent got blocked at (x=1.0, y=2.0, z=0.0)")
    assert [s.folder for s in scenes_of(driven(made, blocked, completion=40.0), clean=False)] == ["vehicle_blocked"]


def test_films_are_filed_by_kind(made, tmp_path):
    paths = write_films(tmp_path, "a", driven(made, RED, HIT), clean=False)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["videos/red_light/a_2.0s.mp4", "videos/collisions_vehicle/a_10.0s.mp4"]
    assert films_of(tmp_path, "a") == paths and films_of(tmp_path, "b") == []
    seen = frames(paths[1])
    assert len(seen) == 101 + 10 and seen[0].shape == (VIEW + BAR, 2 * VIEW, 3)
    before, after = seen[10], seen[100]
    band = (slice(30, 60), slice(VIEW - 60, VIEW + 60))
    assert near(after[band], ALARM) > 1000 and near(before[band], ALARM) == 0  # the banner comes with the infraction
    assert near(before[100:300, 20:200], (200, 30, 200)) > 10_000  # what the camera saw
    still = np.asarray(Image.open(paths[1].with_suffix(".jpg")))
    assert near(still[band], ALARM) > 1000
    (only,) = write_films(tmp_path, "a", driven(made, RED), clean=False)  # the route was driven again
    assert films_of(tmp_path, "a") == [only] and not paths[1].with_suffix(".jpg").exists()


def test_lights_and_who_is_hit_are_marked_from_above(made):
    scene = Scene("collisions_vehicle", 10.0, 9.0, 10.0, "VEHICLE HIT", "message", 7)
    picture = next(pictures(made, scene, "title"))[:VIEW, VIEW:]
    pose = min(made.film.moments, key=lambda m: abs(m.time - 9.0)).ego
    scale = VIEW / 80.0
    c, s = np.cos(pose[2]), np.sin(pose[2])

    def patch(world: np.ndarray, half: int) -> np.ndarray:
        dx, dy = world[:2] - pose[:2]
        row, column = VIEW * EGO_AT - scale * (c * dx + s * dy), VIEW / 2.0 - scale * (c * dy - s * dx)
        return picture[int(row) - half : int(row) + half, int(column) - half : int(column) + half]

    assert near(patch(made.stops[0][0], 6), LIGHT_COLOURS["Red"]) > 10
    other = made.film.moments[0].poses[0]
    assert near(patch(other, 30), ALARM, 25) > 40  # the ring
    without = next(pictures(made, replace(scene, actor=None), "title"))[:VIEW, VIEW:]
    assert (picture != without).any(-1).sum() > 40


def test_without_a_camera_the_view_is_drawn(made):
    drawn = replace(made, film=replace(made.film, camera=None, shots=()))
    picture = next(pictures(drawn, Scene("clean", 13.9, 5.0, 6.0, "", "", None), "title"))
    left = picture[:VIEW, :VIEW]
    assert left.std() > 20.0 and near(left[100:300], (200, 30, 200)) == 0


def test_the_map_shows_route_drive_and_infractions(made):
    clean, hit = route_map("a", driven(made)), route_map("a", driven(made, HIT))
    assert near(clean, (250, 214, 92)) > 300 and near(clean, (40, 120, 255)) > 300
    assert near(hit, ALARM, 20) > near(clean, ALARM, 20) + 100 and hit.shape[0] > clean.shape[0]  # a row of words more


def test_the_page_holds_maps_and_links(made, tmp_path):
    route = CarlaRoute("a", "test_c", np.zeros((2, 3)), None, (), ())
    show = Pictures(tmp_path, Videos.INFRACTIONS)
    show.draw(route, driven(made, HIT))
    assert show.film and not Pictures(tmp_path, Videos.NONE).film and picture_path(tmp_path, "a").is_file()
    record = driven(made, HIT).record
    lost = record_of("RouteScenario_b_rep0", (), 0.0, Rule.BENCH2DRIVE, failure=Failure.SIMULATION)
    result = ClosedLoop("<mine>", DriveConfig(Rule.BENCH2DRIVE), 2, (Finished(record, 0, 1, 1, 0.5, None), Finished(lost, 0, 0, 0, None, None)))
    page = write_page(tmp_path, result, "bench2drive_ds", ["a table <1>"]).read_text()
    assert "data:image/png;base64," in page and 'href="videos/collisions_vehicle/a_10.0s.mp4"' in page
    assert "a table &lt;1&gt;" in page and "&lt;mine&gt;" in page and "Simulation crashed" in page and "<mine>" not in page


def test_which_routes_are_filmed_is_a_word():
    assert [videos_of(word) for word in ("none", "infractions", "all", True, False)] == [Videos.NONE, Videos.INFRACTIONS, Videos.ALL, Videos.ALL, Videos.NONE]
    with pytest.raises(ConfigError, match="videos=some: give none, infractions, all"):
        videos_of("some")


def test_open_and_closed_loop_do_not_overwrite_each_other(tmp_path, capsys):
    closed, opened = tmp_path / "closed", tmp_path / "open"
    (closed / "routes").mkdir(parents=True)
    opened.mkdir()
    (closed / "results.json").write_text('{"_checkpoint": {"records": []}}')
    (opened / "results.json").write_text('{"benchmark": "pdms_v1_1", "format": 1, "results": []}')
    with pytest.raises(DataError, match="holds a closed-loop evaluation: name another folder"):
        refuse_other_results(closed, "f" * 64, None, PDMS)
    with pytest.raises(ConfigError, match="evaluation of another kind of benchmark"):
        refuse_open_loop(str(opened))
    refuse_open_loop(str(closed))
    refuse_open_loop(None)
    with pytest.raises(ConfigError, match="without its report"):
        report([str(closed)])
    (closed / "report.html").write_text("here")
    assert report([str(closed)]) == 0 and capsys.readouterr().out == f"{closed / 'report.html'}\n"


def test_inspect_tells_each_path_that_holds_nothing(tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "too").mkdir()
    assert inspect([str(tmp_path / "nothing"), str(tmp_path / "too")]) == 1
    assert capsys.readouterr().out.count("nothing there is of a source that drive knows") == 2
