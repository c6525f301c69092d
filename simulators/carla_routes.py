"""Route files of CARLA's benchmarks: leaderboard 1.0 (longest6), leaderboard 2.0 and Bench2Drive (devtest, validation, bench2drive220).

Sources: carla-simulator/leaderboard route_parser.py and Bench2Drive's copy of it for the names of the elements. A route is
`<route id town>` with, in the newer form, `<waypoints><position/></waypoints>`, `<scenarios><scenario/></scenarios>` and
`<weathers><weather route_percentage/></weathers>`; in the older form with `<waypoint/>` and one `<weather/>` of its own, its
scenarios in another file. All coordinates stay in CARLA's frame: metres, left-handed, degrees.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError

Array = NDArray[np.float64]
LARGEST_FILE = 64 * 2**20  # bytes; the largest published file has 0.7 MB
DEEPEST = 32  # nested elements; a route file has five


@dataclass(frozen=True)
class WeatherPoint:
    """The weather at a share of the route; between two of them it is interpolated."""

    percentage: float  # 0..100 of the route
    values: Mapping[str, float]  # by the names of carla.WeatherParameters, in its units


@dataclass(frozen=True)
class CarlaScenario:
    """One scenario of a route."""

    name: str
    type: str
    trigger: Array  # (4,) x, y, z in m, yaw in degrees
    parameters: tuple[tuple[str, Mapping[str, str]], ...]  # the other elements as they stand: (tag, attributes)

    def value(self, tag: str, attribute: str = "value") -> str | None:
        """An attribute of the first element `tag`; None where the file has none, and the scenario takes its default."""
        return next((values[attribute] for name, values in self.parameters if name == tag and attribute in values), None)


@dataclass(frozen=True)
class CarlaRoute:
    """One route of a benchmark."""

    id: str
    town: str
    keypoints: Array  # (K, 3) x, y, z in m; K >= 2
    yaw: Array | None  # (K,) degrees, in leaderboard 1.0 alone
    scenarios: tuple[CarlaScenario, ...]
    weather: tuple[WeatherPoint, ...]  # by percentage; empty where the file leaves it to the benchmark


@dataclass(frozen=True)
class RouteSet:
    """All routes of one file, in its order."""

    name: str
    routes: tuple[CarlaRoute, ...]

    def __len__(self) -> int:
        return len(self.routes)

    def by_towns(self, towns: Collection[str]) -> tuple[tuple[CarlaRoute, ...], tuple[CarlaRoute, ...]]:
        """(routes in `towns`, routes whose town is missing). The missing ones stay in a benchmark's denominator."""
        here = tuple(route for route in self.routes if route.town in towns)
        return here, tuple(route for route in self.routes if route.town not in towns)

    def missing(self, towns: Collection[str]) -> str:
        """One line on the routes that cannot be driven in `towns`; empty where all can."""
        absent = self.by_towns(towns)[1]
        if not absent:
            return ""
        counts = {town: sum(route.town == town for route in absent) for town in sorted({route.town for route in absent})}
        listed = ", ".join(f"{town} ({count})" for town, count in counts.items())
        return f"{self.name}: {len(absent)} of {len(self)} routes have no map here and count 0: {listed}"


def read_routes(path: str | Path) -> RouteSet:
    """The routes of a file. Raises DataError, with the file and the route, on whatever cannot be driven as it stands."""
    path = Path(path)
    root = _parse(path)
    routes, seen = [], set()
    if root.tag != "routes":
        raise DataError(f"{path}: the outer element is <{root.tag}>, a route file has <routes>")
    for number, element in enumerate(root):
        if element.tag != "route":
            raise DataError(f"{path}: <{element.tag}> stands among the routes, only <route> may")
        where = f"{path}, route {element.get('id', f'number {number + 1}')}"
        route = _route(element, where)
        if route.id in seen:
            raise DataError(f"{where}: a second route of this id; results could not tell them apart")
        seen.add(route.id)
        routes.append(route)
    if not routes:
        raise DataError(f"{path} holds no routes")
    return RouteSet(path.stem, tuple(routes))


def read_weathers(path: str | Path) -> dict[str, tuple[WeatherPoint, ...]]:
    """Bench2Drive's weather.xml: the weather keypoints of each weather_id. Raises DataError on any other file."""
    path = Path(path)
    root, found = _parse(path), {}
    for case in root.findall("case"):
        name = _text(case, "weather_id", str(path))
        if name in found:
            raise DataError(f"{path}: two cases of weather_id {name}")
        found[name] = _weather(case.findall("weather"), f"{path}, weather_id {name}")
    if root.tag != "weathers" or not found:
        raise DataError(f"{path} is no file of weathers: <weathers> with a <case weather_id> each")
    return found


def _parse(path: Path) -> ElementTree.Element:
    """The root element. A document type is refused before any entity of it is looked at, so nothing can be expanded or fetched."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path} is larger than {LARGEST_FILE >> 20} MB: no file of routes is")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the route file {path} ({error.strerror or error})") from error
    depth = 0

    def refuse(*_: object) -> None:
        raise DataError(f"{path} declares a document type (<!DOCTYPE>), which no route file needs: remove it")

    def down(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"{path} nests more than {DEEPEST} elements: it is no route file")

    def up(*_: object) -> None:
        nonlocal depth
        depth -= 1

    scan = expat.ParserCreate()
    scan.StartDoctypeDeclHandler, scan.StartElementHandler, scan.EndElementHandler = refuse, down, up
    try:
        scan.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"{path} is not well-formed XML ({error}): fetch it again") from error


def _route(element: ElementTree.Element, where: str) -> CarlaRoute:
    old = element.findall("waypoint")
    points = old or element.findall("waypoints/position")
    if len(points) < 2:
        raise DataError(f"{where}: {len(points)} waypoints, a route takes at least two")
    rows = np.array([[_number(p, axis, where) for axis in "xyz"] for p in points])
    yaw = np.array([_number(p, "yaw", where) for p in old]) if old else None
    scenarios = tuple(_scenario(s, where) for s in element.findall("scenarios/scenario"))
    weather = _weather([*element.findall("weather"), *element.findall("weathers/weather")], where)
    return CarlaRoute(_text(element, "id", where), _text(element, "town", where), rows, yaw, scenarios, weather)


def _scenario(element: ElementTree.Element, where: str) -> CarlaScenario:
    name, kind = _text(element, "name", where), _text(element, "type", where)
    where = f"{where}, scenario {name}"
    triggers = element.findall("trigger_point")
    if len(triggers) != 1:
        raise DataError(f"{where}: {len(triggers)} trigger points, a scenario takes one")
    trigger = np.array([_number(triggers[0], axis, where) for axis in ("x", "y", "z", "yaw")])
    others = tuple((child.tag, dict(child.attrib)) for child in element if child.tag != "trigger_point")
    return CarlaScenario(name, kind, trigger, others)


def _weather(elements: list[ElementTree.Element], where: str) -> tuple[WeatherPoint, ...]:
    """Keypoints by percentage; leaderboard 1.0 has one weather, without a percentage and with an id that means nothing."""
    points = []
    for element in elements:
        values = {key: _number(element, key, where) for key in element.attrib if key not in ("id", "route_percentage")}
        percentage = _number(element, "route_percentage", where) if "route_percentage" in element.attrib else 0.0
        if not 0.0 <= percentage <= 100.0:
            raise DataError(f"{where}: a weather at {percentage:g} % of the route, it must lie between 0 and 100")
        points.append(WeatherPoint(percentage, values))
    return tuple(sorted(points, key=lambda point: point.percentage))


def _text(element: ElementTree.Element, name: str, where: str) -> str:
    value = element.get(name, "").strip()
    if not value:
        raise DataError(f"{where}: <{element.tag}> has no {name}")
    return value


def _number(element: ElementTree.Element, name: str, where: str) -> float:
    text = _text(element, name, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {name}={text!r} of <{element.tag}> is no finite number")
    return value
