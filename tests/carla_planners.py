"""Planners that fail in one way each, for tests of the closed-loop runner; worker processes import them by name."""

import os
import signal
from pathlib import Path

from drive.benchmarks import carla_routes
from drive.core.types import Plan, PlanStatus
from drive.planners.pdm import PdmExpert


class Fails(PdmExpert):
    """On its first route at the third plan, on the others from the start, and the fourth it cannot begin."""

    name = "fails"
    route = 0

    def reset(self) -> None:
        super().reset()
        self.route, self.asked = self.route + 1, 0
        if self.route == 4:
            raise ValueError("three are enough")

    def plan_privileged(self, scenes):
        self.asked += 1
        if self.route == 1 and self.asked == 3:
            raise ZeroDivisionError("the third plan is too much")
        if self.route == 2:
            return [Plan(None, PlanStatus.UNDECODABLE) for _ in scenes]
        return [None for _ in scenes] if self.route == 3 else super().plan_privileged(scenes)


class Kills(PdmExpert):
    """At its fifth plan of the first time it ends the server, later its own process too, as a fault of the client would."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder, self.asked = Path(folder), 0

    def plan_privileged(self, scenes):
        self.asked += 1
        flag = self.folder / ("worker" if (self.folder / "server").exists() else "server")
        if self.asked in (5, 30) and not flag.exists():
            flag.touch()
            kill_server()
            if flag.name == "worker":
                os._exit(139)
        return super().plan_privileged(scenes)


def kill_server() -> None:
    """End the server of this worker."""
    driver = carla_routes._driver
    if driver is not None and driver._server is not None and driver._server._process is not None:
        driver._server._process.kill()
        driver._server._process.wait()


class Ends(PdmExpert):
    """On its second route it ends the server of process `pid`, which nobody starts again."""

    name = "ends"

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid, self.routes = pid, 0

    def reset(self) -> None:
        super().reset()
        self.routes += 1
        if self.routes == 2:
            os.kill(self.pid, signal.SIGKILL)


class Breaks(PdmExpert):
    """Ends the server at its second plan on each of its first three drives, unless WELL is in the environment."""

    name = "breaks"

    def __init__(self) -> None:
        super().__init__()
        self.drives, self.asked = 0, 0

    def reset(self) -> None:
        super().reset()
        self.drives, self.asked = self.drives + 1, 0

    def plan_privileged(self, scenes):
        self.asked += 1
        if self.drives <= 3 and self.asked == 2 and "WELL" not in os.environ:
            kill_server()
        return super().plan_privileged(scenes)


class Dies(PdmExpert):
    """Ends its process at the third plan, where it is told to, as a fault of the client would."""

    name = "dies"

    def __init__(self, fatal: int) -> None:
        super().__init__()
        self.fatal, self.asked = bool(fatal), 0

    def plan_privileged(self, scenes):
        self.asked += 1
        if self.fatal and self.asked == 3:
            kill_server()
            os._exit(139)
        return super().plan_privileged(scenes)
