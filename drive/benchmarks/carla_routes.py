"""Closed-loop benchmarks: many routes, each driven in a worker process with a server of its own, or on a server that is there.

Every finished route leaves a file, so that a killed evaluation goes on where it was. A server, client or worker that crashes or hangs is
started again and its route driven again, RETRIES times; then the route counts as crashed, with 0, until the evaluation is run again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from drive.benchmarks.carla_drive import DriveConfig, DrivenRoute, drive_route, tell, undriven
from drive.core.errors import DataError, DriveError
from drive.core.files import atomic_write_text
from drive.core.workers import deaf_to_interrupts
from drive.metrics.carla_records import Failure, RouteRecord, record_from_json
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_routes import CarlaRoute
from drive.simulators.carla_session import Session

RETRIES = 2
SILENT = 2  # routes in a row without a server after which it is waited for no more
ROUTES = "routes"  # folder of the finished routes
DIFFERS = {"planner": "the planner, its settings or weights, or the maps", "cameras": "the cameras"}  # too long to show


@dataclass(frozen=True)
class Where:
    """Where to drive: a server that is there, or one of our own for each worker."""

    host: str = ""  # empty starts our own
    port: int = 2000
    maps: Path | None = None  # folder of .xodr files for our own
    timeout_s: float = 30.0  # of any answer; a server that takes longer hangs


@dataclass(frozen=True)
class Finished:
    """A route that is done."""

    record: RouteRecord
    plan_seconds: float
    driven_seconds: float
    wall_seconds: float
    comfort: float | None  # Bench2Drive's smoothness, 0..1
    junction: float | None  # share of the route at which its first junction counts as passed

    @property
    def crashed(self) -> bool:
        """Whether the simulation crashed in every try: nothing of the planner's, and driven again when asked again."""
        return self.record.status.endswith(Failure.SIMULATION.value)

    @property
    def failed(self) -> bool:
        """Whether the planner failed: what it had driven by then counts, and the route is driven again when asked again."""
        return self.record.status.endswith((Failure.AGENT.value, Failure.AGENT_SETUP.value))


@dataclass(frozen=True)
class Missing:
    """A route that cannot be driven."""

    route: str
    town: str
    why: str


@dataclass(frozen=True)
class ClosedLoop:
    """What an evaluation found; `routes` were scheduled, and what has no record counts 0."""

    planner: str
    config: DriveConfig
    routes: int
    finished: tuple[Finished, ...]  # in the order of the route file
    missing: tuple[Missing, ...] = field(default=())  # in the order of the route file

    @property
    def records(self) -> list[RouteRecord]:
        """Of the routes that were driven, or crashed."""
        return [f.record for f in self.finished]

    @property
    def crashed(self) -> tuple[Finished, ...]:
        """Those whose simulation crashed in every try."""
        return tuple(f for f in self.finished if f.crashed)

    @property
    def failed(self) -> tuple[Finished, ...]:
        """Those on which the planner failed: it raised, or gave no plan."""
        return tuple(f for f in self.finished if f.failed)

    @property
    def coverage(self) -> float:
        """Share of the scheduled routes that were driven to an end."""
        return (len(self.finished) - len(self.crashed) - len(self.failed)) / max(self.routes, 1)


class Show(Protocol):
    """Draws a route that has been driven; pickled to the workers."""

    @property
    def film(self) -> bool:
        """Whether `DrivenRoute.log.film` is wanted."""
        ...

    def draw(self, route: CarlaRoute, driven: DrivenRoute) -> None:
        """Write its pictures."""
        ...


class _Absent(DriveError):
    """The server does not have the route's town, or the route does not fit it."""


class _Unreachable(DriveError):
    """No route can be driven: there is no server, or none that fits."""


class _Driver:
    """A worker's server, session and planner, made when first needed and again after a crash."""

    def __init__(self, make_planner: Callable[[], Any], where: Where, config: DriveConfig, add: Callable[..., Any] | None, show: Show | None) -> None:
        self._planner = make_planner()
        self._where, self._config, self._add, self._show = where, config, add, show
        self._server: ServerProcess | None = None
        self._session: Session | None = None
        self._met = False  # whether there ever was a server
        self._silent = 0  # routes in a row for which a server that is not ours could not be reached

    def drive(self, route: CarlaRoute) -> DrivenRoute:
        """Drive a route; a server that fails is replaced and the route tried again. Raises _Absent where it cannot be driven at all."""
        for attempt in range(RETRIES + 1):
            try:
                session = self._connected()
                if route.town not in session.towns():
                    way = "" if self._where.host else ": maps= takes a folder of .xodr files"
                    raise _Absent(f"route {route.id}: the server has no town {route.town}; it has {', '.join(session.towns())}{way}")
                driven = drive_route(session, route, self._planner, self._config, self._add, self._show is not None and self._show.film)
                self._silent = 0
                return driven
            except (DataError, _Absent) as error:
                raise _Absent(f"route {route.id}: {str(error).removeprefix(f'route {route.id}: ')}") from error
            except _Unreachable:
                raise
            except (RuntimeError, DriveError) as error:  # of the carla client: time-out, lost connection; a camera that stays silent
                gone = self._session is None and bool(self._where.host)
                self.close()
                if attempt == RETRIES:
                    self._silent = self._silent + 1 if gone else 0
                    if self._silent >= SILENT:
                        raise _Unreachable(
                            f"the server at {self._where.host}:{self._where.port} could not be reached for {SILENT} routes in a row ({error}): "
                            "start it again; with out= the same command goes on where this one was"
                        ) from error
                    return self._crashed(route, str(error))
        raise AssertionError("unreachable")

    def show(self, route: CarlaRoute, driven: DrivenRoute) -> None:
        """Draw what is asked for. A picture that fails is told and costs no score."""
        if self._show is None or driven.log is None:
            return
        try:
            self._show.draw(route, driven)
        except Exception as error:  # hours of driving must not be lost to a full disk or a picture
            tell(f"route {route.id}: no pictures ({type(error).__name__}: {error})")

    def _crashed(self, route: CarlaRoute, why: str) -> DrivenRoute:
        tell(f"route {route.id}: the simulation crashed {RETRIES + 1} times ({why})")
        return undriven(route, self._config, Failure.SIMULATION)

    def _connected(self) -> Session:
        try:
            return self._connect()
        except (RuntimeError, DriveError) as error:
            if self._met:
                raise
            self.close()
            raise _Unreachable(str(error)) from error

    def _connect(self) -> Session:
        if self._session is None:
            where = self._where
            host, port = where.host, where.port
            if not host:
                self._server = ServerProcess(seed=self._config.seed, maps=where.maps)
                self._server.start()
                host, port = self._server.host, self._server.port
            self._session = Session(host, port, timeout_s=where.timeout_s)
            self._met = True
        return self._session

    def close(self) -> None:
        """Leave the server; end it if it is ours."""
        if self._session is not None and (self._server is None or self._server.alive):
            self._session.close()
        self.stop_server()
        self._session = self._server = None

    def stop_server(self) -> None:
        """End the server if it is ours."""
        if self._server is not None:
            self._server.stop()


_driver: _Driver | None = None


def _start(*args: Any) -> None:
    global _driver
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _driver = _Driver(*args)


def _end_with_parent() -> None:
    """As `drive.core.workers.end_with_parent`, the server first: nobody else would end it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        if _driver is not None:
            _driver.stop_server()
        os._exit(1)


def _work(route: CarlaRoute, path: Path, digest: Digest) -> str:
    """Drive a route and leave its file; what is wrong where it could not be driven."""
    assert _driver is not None
    try:
        driven = _driver.drive(route)
    except _Absent as error:
        return str(error)
    _write(path, driven, digest)  # before the pictures: what goes wrong with those costs no score
    _driver.show(route, driven)
    return ""


def _write(path: Path, driven: DrivenRoute, digest: Digest) -> None:
    kept = ("plan_seconds", "driven_seconds", "wall_seconds", "comfort", "junction")
    data = {"digest": digest.value, "settings": digest.settings, "record": driven.record.to_json(), **{name: getattr(driven, name) for name in kept}}
    atomic_write_text(path, json.dumps(data, indent=1) + "\n")


def _stop() -> int:
    if _driver is not None:
        _driver.close()
    return os.getpid()


def evaluate_routes(
    routes: Sequence[CarlaRoute],
    name: str,
    make_planner: Callable[[], Any],
    where: Where,
    config: DriveConfig,
    out: Path,
    add: Callable[..., Any] | None = None,
    workers: int = 1,
    progress: bool = True,
    show: Show | None = None,
    identity: str = "",
) -> ClosedLoop:
    """Drive all `routes` with the planner that `make_planner` makes in each worker, as `name`; finished ones of `out` are kept.

    `identity` is what else tells one evaluation from another: the planner's settings and weights, the maps.

    Routes whose simulation crashed, or on which the planner failed, are driven again. Raises DriveError where there is no server to begin with or every worker dies,
    DataError where `out` holds another evaluation.
    """
    if where.host:
        workers = 1
    folder = out / ROUTES
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(f"{name} {identity}", config)
    digests = {route.id: Digest(_digest(route, settings), settings) for route in routes}
    paths = {route.id: folder / f"{plain(route.id)}.json" for route in routes}
    before = {route.id: _read(paths[route.id], digests[route.id]) for route in routes}
    waiting = [route for route in routes if (found := before[route.id]) is None or found.crashed or found.failed]
    missing: dict[str, str] = {}
    deaths: dict[str, int] = {}
    bar = tqdm(total=len(routes), initial=len(routes) - len(waiting), desc="routes", disable=not progress, dynamic_ncols=True)
    made = (make_planner, where, config, add, show)
    while waiting:
        others = [route for route in waiting if route.id not in deaths]
        suspects = [route for route in waiting if route.id in deaths]  # later, and alone, so that no other is to blame
        if others:
            waiting = suspects + _round(others, paths, digests, missing, deaths, bar, made, min(workers, len(others)))
        else:
            waiting = _round(suspects, paths, digests, missing, deaths, bar, made, 1)
        driven = any(path.is_file() for path in paths.values())
        if not driven and sum(deaths.values()) > 3 * RETRIES * workers:
            raise DriveError(f"processes that drive routes died {sum(deaths.values())} times and no route was driven: max_routes=1 shows why")
        for route in [route for route in waiting if deaths.get(route.id, 0) > RETRIES]:
            why = f"the process that drives route {route.id} died {deaths[route.id]} times: run it alone to see why"
            if not driven:
                raise DriveError(why)
            tell(why)
            _write(paths[route.id], undriven(route, config, Failure.SIMULATION), digests[route.id])
            waiting.remove(route)
            bar.update()
    bar.close()
    found = [_read(paths[route.id], digests[route.id]) for route in routes if route.id not in missing]
    absent = tuple(Missing(route.id, route.town, missing[route.id]) for route in routes if route.id in missing)
    return ClosedLoop(name, config, len(routes), tuple(f for f in found if f is not None), absent)


def _round(waiting, paths, digests, missing, deaths, bar, made, workers) -> list[CarlaRoute]:
    """One pool's life: drive what waits; what is left when a worker dies (the client may take its process with it)."""
    context = multiprocessing.get_context("spawn")
    left, others = list(waiting), set(multiprocessing.active_children())
    running: dict[Future[str], CarlaRoute] = {}
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=made) as pool:
        queue = iter(waiting)
        try:
            while True:
                while len(running) < workers and (route := next(queue, None)) is not None:
                    with deaf_to_interrupts():
                        running[pool.submit(_work, route, paths[route.id], digests[route.id])] = route
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    route = running[future]
                    if said := future.result():
                        missing[route.id] = said
                    del running[future]
                    left.remove(route)
                    bar.update()
            for future in [pool.submit(_stop) for _ in range(workers)]:
                future.result()
        except KeyboardInterrupt:  # a route that is half driven is not waited for; a worker's server ends with it
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        except BrokenProcessPool:
            for route in running.values():
                deaths[route.id] = deaths.get(route.id, 0) + 1
            return left
    return []


def plain(route_id: str) -> str:
    """A route's id as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in route_id).lstrip(".") or "_"


class Digest(NamedTuple):
    """What decides the outcome of a route: all of it, and the settings apart, to tell which of them differ."""

    value: str
    settings: dict[str, Any]


def _settings(name: str, config: DriveConfig) -> dict[str, Any]:
    cameras = [[c.name, c.width, c.height, c.intrinsics.tolist(), c.ego_from_camera.tolist()] for c in config.cameras]
    return {**{k: str(v) for k, v in asdict(config).items() if k != "cameras"}, "cameras": cameras, "planner": name}


def _digest(route: CarlaRoute, settings: dict[str, Any]) -> str:
    text = json.dumps([settings, route.id, route.town, route.keypoints.tolist(), repr(route.scenarios), repr(route.weather)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path, digest: Digest) -> Finished | None:
    """A finished route, None where there is none. Raises DataError where the file is of other settings, or torn."""
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["digest"] != digest.value:
            told = data.get("settings", {})
            other = [DIFFERS.get(k, f"{k} was {told[k]}, now {v}") for k, v in digest.settings.items() if k in told and told[k] != v]
            raise DataError(f"{path} is of an evaluation with other settings ({'; '.join(other) or 'the route itself differs'}): choose another out=")
        seconds = data["plan_seconds"], data["driven_seconds"], data["wall_seconds"]
        return Finished(record_from_json(data["record"], str(path)), *seconds, data["comfort"], data["junction"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it, its route is driven again") from error
