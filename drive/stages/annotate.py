"""Reasoning texts for a dataset: by rule, or by a teacher; resumable, within a budget, everything counted.

Every finished scene is one line that is on the disk before the next is begun; a killed run loses the requests in flight and nothing else. Ctrl-C and
errors wait for those: what a teacher has been asked is paid for.
"""

from __future__ import annotations

import contextlib
import json
import platform
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from drive.core.errors import DataError, DriveError
from drive.core.files import atomic_write_text
from drive.core.types import Scenario
from drive.datasets.annotations import (
    CARD,
    LINES,
    Annotation,
    AnnotationLog,
    Verdict,
    data_identity,
    differences,
    latest,
    read_card,
)
from drive.datasets.select import Selected
from drive.stages.annotate_client import Stopped

GIVE_UP = 8  # scenes in a row that the teacher did not answer, above the number asked about at once, end the run
FAULTS_SHOWN = 20  # unreadable scenes named in the card
LOOK_S = 0.2  # s between two looks for Ctrl-C while answers are waited for


class Annotator(Protocol):
    """Who writes the texts."""

    name: str
    concurrency: int  # scenes worked on at once

    def identity(self) -> dict[str, Any]:
        """All that shapes the texts: a folder is continued with the same only."""
        ...

    def start(self) -> None:
        """Raises DriveError where it cannot work."""
        ...

    def stop(self) -> None:
        """Called before the last tasks are waited for."""
        ...

    def cost(self, row: Annotation) -> float:
        """What a line cost."""
        ...

    def task(self, index: int, scenario: Scenario) -> Callable[[], Annotation]:
        """What is to be done for a scene; called in the main thread, the result in a worker. Either may raise DataError."""
        ...


@dataclass
class _Run:
    """One run over a folder."""

    log: AnnotationLog
    annotator: Annotator
    max_cost: float  # 0 sets no limit
    unread: list[str] = field(default_factory=list)  # scenes that could not be read, and why
    failed_in_a_row: int = 0
    spent: float = 0.0
    dearest: float = 0.0  # scene so far
    out_of_money: bool = False

    def affordable(self, in_flight: int) -> bool:
        """Whether one more scene fits the budget, if it and those in flight cost as much as the dearest so far."""
        if self.max_cost and (self.spent >= self.max_cost or self.spent + (in_flight + 1) * self.dearest > self.max_cost):
            self.out_of_money = True
        return not self.out_of_money

    def write(self, row: Annotation) -> None:
        """Append a line and take it into account. Raises DriveError where going on makes no sense."""
        self.log.append(row)
        cost = self.annotator.cost(row)
        self.spent, self.dearest = self.spent + cost, max(self.dearest, cost)
        if self.max_cost and row.unmetered:
            raise DriveError("the teacher's server tells no token usage, so max_cost cannot be kept: give teacher.max_cost=0 to go on without")
        self.failed_in_a_row = self.failed_in_a_row + 1 if row.verdict is Verdict.FAILED else 0
        if self.failed_in_a_row >= GIVE_UP + self.annotator.concurrency:
            raise DriveError(f"{self.failed_in_a_row} scenes in a row had no answer, the last: {row.reasons[-1]}; mend the server and run the same command again")


def annotate(
    data: Selected,
    config: Mapping[str, Any],
    split: str,
    annotator: Annotator,
    folder: Path | str,
    indexes: Sequence[int],
    command: str,
    max_cost: float = 0.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Annotate the scenes `indexes` of `data` into `folder`, going on where an earlier run ended; returns the card.

    config: the dataset's section, with `name`. Raises DataError where the folder holds annotations of other data or by other means, DriveError where the teacher cannot be asked.
    """
    folder = Path(folder)
    identity = {**data_identity(data, config, split), **annotator.identity()}
    _refuse_other(folder, identity)
    annotator.start()
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(AnnotationLog(folder), annotator, max_cost)
    for row in run.log.rows:
        run.spent, run.dearest = run.spent + annotator.cost(row), max(run.dearest, annotator.cost(row))
    _write_card(folder, _card(run, identity, data, indexes, command))
    done = {row.index for row in latest(run.log.rows).values() if row.verdict is not Verdict.FAILED}
    with _interrupts() as check:
        try:
            with tqdm(total=len(indexes), initial=len(done & set(indexes)), desc=f"annotating {split}", unit="scene", disable=not progress, dynamic_ncols=True) as bar:
                _work(run, data.scenarios, [i for i in indexes if i not in done], bar, check)
        finally:
            card = _card(run, identity, data, indexes, command)
            _write_card(folder, card)
    return card


def _work(run: _Run, scenarios: Sequence[Scenario], indexes: list[int], bar: tqdm, check: Callable[[], None]) -> None:
    """Keep as many tasks in flight as the annotator takes; write what they give, also when the run is ended by an error or Ctrl-C (`check`)."""
    pool = ThreadPoolExecutor(run.annotator.concurrency)
    pending: set[Future[Annotation]] = set()
    tasks = _tasks(run, scenarios, indexes, bar, check)

    def collect() -> None:
        for future in wait(pending, LOOK_S, FIRST_COMPLETED).done:
            pending.discard(future)
            row = _result(future, run)
            if row is not None:
                run.write(row)
            bar.update()
            if run.spent:
                bar.set_postfix_str(f"{run.spent:.2f} spent", refresh=False)

    try:
        for task in tasks:
            check()
            while len(pending) >= run.annotator.concurrency:
                collect()
                check()
            if not run.affordable(len(pending)):
                break
            pending.add(pool.submit(task))
        while pending:
            check()
            collect()
    finally:
        run.annotator.stop()
        pool.shutdown(wait=True)
        for future in pending:
            if future.exception() is None:
                run.log.append(future.result())


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt where there was a Ctrl-C inside the block; a second one is raised at once.

    Raised where it arrives, it would be dropped in what compiled code calls back (numba's dispatcher, numpy's look-ups: every seventh while a scene is
    prepared), and lose an answer that has come and is not yet a line.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None  # the caller's to handle
        return
    caught: list[int] = []

    def note(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check() -> None:
        if caught:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _tasks(run: _Run, scenarios: Sequence[Scenario], indexes: list[int], bar: tqdm, check: Callable[[], None]) -> Iterator[Callable[[], Annotation]]:
    """The tasks of scenes that can be read."""
    for index in indexes:
        check()
        try:
            task = run.annotator.task(index, scenarios[index])
        except DataError as error:
            run.unread.append(str(error))
            bar.update()
            continue
        yield task


def _result(future: Future[Annotation], run: _Run) -> Annotation | None:
    """The line of a finished task; None where its scene could not be read, or the run stopped before it was asked about."""
    try:
        return future.result()
    except DataError as error:
        run.unread.append(str(error))
    except Stopped:
        pass
    return None


def _refuse_other(folder: Path, identity: dict[str, Any]) -> None:
    """Raises DataError where `folder` holds annotations of another identity, or lines without a card."""
    if not (folder / CARD).exists():
        if (folder / LINES).exists():
            raise DataError(f"{folder} holds {LINES} without a {CARD}: choose another folder, or put the card back")
        return
    other = differences(read_card(folder)["identity"], identity)
    if other:
        raise DataError(f"{folder} holds annotations made otherwise ({other}): choose another folder, or delete it")


def _card(run: _Run, identity: dict[str, Any], data: Selected, indexes: Sequence[int], command: str) -> dict[str, Any]:
    """What stands in card.json."""
    rows = run.log.rows
    asked = set(indexes)
    last = [row for row in latest(rows).values() if row.index in asked]
    verdicts = Counter(row.verdict.value for row in last)
    wanted = {row.index for row in last if row.verdict is not Verdict.FAILED}
    words = [len(row.reasoning.split()) for row in last if row.reasoning]
    return {
        "identity": identity,
        "facts": {
            "scenes_asked_for": len(indexes),
            "scenes_done": len(wanted),
            "scenes_of_other_runs": len(latest(rows)) - len(last),  # kept, and not counted below
            **{verdict.value: verdicts.get(verdict.value, 0) for verdict in Verdict},
            "complex": sum(bool(row.complex) for row in last if row.reasoning),
            "unread": len(run.unread) + len(data.faults),
            "refusals": dict(Counter(reason.partition(":")[0] for row in rows for reason in row.reasons).most_common()),
            "accepted_by_action": dict(Counter(row.action for row in last if row.reasoning).most_common()),
            "rejected_by_action": dict(Counter(row.action for row in last if row.verdict is Verdict.REJECTED).most_common()),
            "mean_words": round(sum(words) / max(len(words), 1), 1),
            "answers": sum(row.asks for row in rows),
            "answers_without_usage": sum(row.unmetered for row in rows),
            "prompt_tokens": sum(row.prompt_tokens for row in rows),
            "completion_tokens": sum(row.completion_tokens for row in rows),
            "cost": round(sum(run.annotator.cost(row) for row in rows), 6),
            "stopped_by_budget": run.out_of_money,
            "seconds_of_work": round(sum(row.seconds for row in rows), 1),
        },
        "unread": [*data.faults, *run.unread][:FAULTS_SHOWN],
        "command": command,
        "versions": {"python": platform.python_version(), "drive-vla": metadata.version("drive-vla")},
    }


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    atomic_write_text(folder / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    atomic_write_text(folder / "README.md", _readme(card))


def _readme(card: dict[str, Any]) -> str:
    facts, identity = card["facts"], card["identity"]
    who = "the expert's rules" if identity["source"] == "rule" else f"the teacher {identity['model']}"

    def table(title: str, counts: dict[str, int]) -> str:
        return "\n".join([f"| {title} | count |", "|---|---|", *(f"| {name} | {count} |" for name, count in counts.items())])

    return f"""# Reasoning by {who}: {identity["split"]}

{facts["scenes_done"]} of {facts["scenes_asked_for"]} scenes done ({identity["scenes"]} in the dataset): {facts["accepted"]} texts accepted,
{facts["rejected"]} scenes without an acceptable text, {facts["failed"]} without an answer (tried again by the next run), {facts["unread"]} unreadable;
{facts["scenes_of_other_runs"]} more scenes of earlier runs are in the file.
{facts["mean_words"]} words a text; {facts["complex"]} scenes noted as complex.

{facts["answers"]} answers, {facts["prompt_tokens"]} + {facts["completion_tokens"]} tokens, cost {facts["cost"]:g}; {facts["answers_without_usage"]} answers
without a token count.

{table("refused because of", facts["refusals"])}

{table("accepted, by driven action", facts["accepted_by_action"])}

{table("without a text, by driven action", facts["rejected_by_action"])}

Command: `{card["command"]}`

Versions: {", ".join(f"{name} {version}" for name, version in card["versions"].items())}

Fingerprint of the dataset: `{identity["fingerprint"]}`
"""
