"""Generation of scene sets: episodes over processes, resumable, the same for any number of workers."""

from __future__ import annotations

import multiprocessing
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from pathlib import Path

from tqdm import tqdm

from drive.core.errors import DataError, DriveError
from drive.core.files import PARTIAL
from drive.core.protocols import PrivilegedPlanner
from drive.core.workers import end_with_parent
from drive.datasets.card import CARD, Card, EpisodeEntry
from drive.datasets.episode import EpisodeConfig, record_episode
from drive.datasets.episode_file import EpisodeFile, episode_name, write_episode

PlannerFactory = Callable[[], PrivilegedPlanner]
EMPTY_EPISODES = 50  # in a row after which something must be wrong with the planner

_planner: PrivilegedPlanner | None = None  # of this worker process


def generate(
    folder: Path | str,
    config: EpisodeConfig,
    scenes: int,
    planner_factory: PlannerFactory,
    workers: int = 1,
    progress: bool = True,
) -> Card:
    """Fill `folder` with episodes until they hold `scenes` scenes, and write its card.

    `planner_factory` is called once in each process and must be picklable. Whole episodes already there are kept, broken ones
    done again. Raises DataError where the folder holds another set, or the planner leaves nothing to emit; DriveError on a full
    disk or when a worker is killed.
    """
    folder = Path(folder)
    if scenes < 1:
        raise DataError(f"a set has at least one scene, {scenes} were asked for")
    if (folder / CARD).exists() and Card.read(folder).config != config.plain():
        raise DataError(f"{folder} holds a set made with other settings: choose another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f".*{PARTIAL}"):
        stale.unlink()
    entries: list[EpisodeEntry] = []
    have = 0
    with tqdm(total=scenes, desc=f"{config.split} scenes", unit="scene", disable=not progress, dynamic_ncols=True) as bar:
        for entry in _episodes(folder, config, planner_factory, workers, scenes):
            entries.append(entry)
            bar.update(min(len(entry.presents), scenes - have))
            have += len(entry.presents)
            if have >= scenes:
                break
            if len(entries) >= EMPTY_EPISODES and not any(e.presents for e in entries[-EMPTY_EPISODES:]):
                raise DataError(
                    f"{folder}: the last {EMPTY_EPISODES} episodes gave no scene, the planner leaves the road or collides at once"
                )
    for path in folder.glob("episode-*.npz"):  # those that ran ahead of the number
        if path.name > episode_name(entries[-1].index):
            path.unlink()
    card = Card(scenes, planner_factory().name, config.plain(), tuple(entries))
    card.write(folder, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    return card


def make_episode(folder: Path, config: EpisodeConfig, index: int, planner: PrivilegedPlanner) -> EpisodeEntry:
    """The entry of episode `index`; its file is made unless it is there and whole."""
    path = folder / episode_name(index)
    if path.exists():
        try:
            episode = EpisodeFile.read(path)
            if episode.meta["config"] == config.plain():
                return EpisodeEntry.of(episode)
        except DataError:
            path.unlink()  # broken: made again below
    write_episode(path, record_episode(config, index, planner))
    return EpisodeEntry.of(EpisodeFile.read(path))


def _episodes(folder: Path, config: EpisodeConfig, factory: PlannerFactory, workers: int, scenes: int) -> Iterator[EpisodeEntry]:
    """Entries of episodes 0, 1, 2, ... in order, without end."""
    if workers <= 1:
        planner = factory()
        for index in count():
            yield make_episode(folder, config, index, planner)
    # spawn: a fork of a process that runs threads (torch, tqdm) may lock up
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, max(scenes // 4, 1)), mp_context=context, initializer=_start_worker, initargs=(factory,)
    )
    pending: deque[Future[EpisodeEntry]] = deque()
    indexes = count()
    try:
        while True:
            while len(pending) < 2 * workers:
                pending.append(pool.submit(_work, folder, config, next(indexes)))
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise DriveError(
            f"a worker that generates {folder} was killed (out of memory?): run the command again with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(factory: PlannerFactory) -> None:
    global _planner
    end_with_parent()
    _planner = factory()


def _work(folder: Path, config: EpisodeConfig, index: int) -> EpisodeEntry:
    if _planner is None:
        raise DriveError("a generating worker was not started by generate()")
    return make_episode(folder, config, index, _planner)
