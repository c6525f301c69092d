"""The embedded world behind the Simulator protocol: a seed is a drive."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.core.seeds import numpy_rng, stream
from drive.core.types import Camera, Observation, Plan, PlanStatus, Privileged, Rollout, RolloutStatus
from drive.simulators.scenarios import KINDS, possible_kinds
from drive.simulators.towns import load_town
from drive.simulators.traffic import DT
from drive.simulators.world import FRAME_STEPS, World

RUN_UP = -min(FRAME_STEPS)  # steps driven before the planner takes over, so that its frames are real ones
STEPS_PER_PLAN = 5
PLACES = 8  # situations tried for one seed
FAILED = {PlanStatus.UNDECODABLE: RolloutStatus.UNDECODABLE, PlanStatus.FAILED: RolloutStatus.PLANNER_FAILED}


@lru_cache(maxsize=8)
def shipped_town(name: str) -> RoadMap:
    """A shipped town, loaded once."""
    return load_town(name)


def situation(towns: Sequence[str], kinds: Sequence[str], seed: int) -> World:
    """The world of `seed` in one of `towns` and of one of `kinds`, after its run-up.

    Raises DataError where no town has a place for any of the kinds.
    """
    rng = numpy_rng(seed, "situation")
    pairs = [(town, kind) for town in towns for kind in possible_kinds(shipped_town(town)) if kind in kinds]
    if not pairs:
        raise DataError(f"no town of {', '.join(towns)} has a place for {', '.join(kinds)}: choose other kinds or towns")
    reasons: list[str] = []
    for attempt in range(PLACES):
        town, kind = pairs[int(rng.integers(len(pairs)))]
        try:
            world = World(shipped_town(town), town, kind, stream(seed, "world", attempt))
        except DataError as error:
            reasons.append(str(error))
            continue  # this place did not do; the next one is as good
        world.coast(RUN_UP)
        if not world.over:
            return world
        reasons.append(f"the run-up in {town} ended early")
    raise DataError(f"{PLACES} situations of seed {seed} in {', '.join(towns)} could not be placed (the last: {reasons[-1]}): take another seed")


class EmbeddedSimulator:
    """Drives of at most `seconds` s in the given towns; they end early on a collision, off the road, stuck, at the route's end."""

    def __init__(
        self, towns: Sequence[str], kinds: Sequence[str] = KINDS, cameras: tuple[Camera, ...] | None = None, seconds: float = 30.0
    ) -> None:
        self.towns, self.kinds, self.seconds = tuple(towns), tuple(kinds), seconds
        self.cameras = cameras or (Camera.front(),)
        self._world: World | None = None
        self._plans: list[tuple[int, Plan]] = []
        self._status = RolloutStatus.COMPLETED

    @property
    def world(self) -> World:
        """The world being driven. Raises DataError before the first reset."""
        if self._world is None:
            raise DataError("the simulator has no world yet: call reset(seed) first")
        return self._world

    def reset(self, seed: int) -> Observation:
        """Start the drive of `seed`."""
        self._world = situation(self.towns, self.kinds, seed)
        self._plans, self._status = [], RolloutStatus.COMPLETED
        return self._world.observation(self.cameras)

    def step(self, plan: Plan) -> tuple[Observation, bool]:
        """Drive `plan` for 0.5 s; the new observation and whether the drive is over. A plan without trajectory ends it."""
        world = self.world
        self._plans.append((world.step, plan))
        if plan.trajectory is None:
            self._status = FAILED[plan.status]
            return world.observation(self.cameras), True
        world.drive(plan.trajectory, STEPS_PER_PLAN)
        if any(text == "stuck" for _, text in world.events):
            self._status = RolloutStatus.TIMED_OUT
        return world.observation(self.cameras), world.over or (world.step - RUN_UP) * DT >= self.seconds - 1e-6

    def privileged(self) -> Privileged:
        """The ground truth of the present instant."""
        return self.world.privileged()

    def rollout(self) -> Rollout:
        """The drive so far, with its run-up."""
        world = self.world
        name = f"{world.town}-{world.kind}-{world.seed}"
        return Rollout(name, world.ego_track(), world.tracks(), tuple(self._plans), world.events, self._status, DT)
