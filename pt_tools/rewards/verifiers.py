"""The scorer that runs verifiers, and the raters that build on them, over many records at once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math

from pt_tools import rewards, stop
from pt_tools.errors import NoSandbox
from pt_tools.rewards import raters as rating
from pt_tools.rewards import worker

SEEN = ("text", "finish", "token_ids")  # what a verifier sees of a completion
START_S, COMPLETION_S = 600, 120  # a batch's limit, far above the verifiers' own; it only ends what is stuck


class Verifiers:
    """Grades records with their own verifiers (`own`), the added ones, and the raters; `jobs` processes at once.

    `score` also sets `reward`: the raters' mean if there are any, else the sum of the verifiers' scores; None where
    one of them failed.
    """

    def __init__(self, own, raters=(), jobs=1):
        self.own, self.raters, self.jobs = own, tuple(raters), jobs
        self.used = set()  # names of the verifiers of the records checked
        # Their answers are this program's own: as large as the details that one process would have kept.
        self.pool = worker.Pool("pt_tools.rewards.verifiers:grade", jobs, 0, max_reply=math.inf) if jobs > 1 else None
        self.threads = concurrent.futures.ThreadPoolExecutor(jobs) if jobs > 1 else None

    def check(self, record):
        """ValueError if the record lacks a verifier, or has an unknown one."""
        if self.own or self.raters:
            rewards.specs(record)
        self.used.update(spec["name"] for _, spec, _ in rewards.graders(record, self.own or bool(self.raters)))
        if self.raters:
            rating.check(record, self.raters)

    def score(self, records):
        for record, found in zip(records, self._graded(records)):
            for completion, verdicts in zip(record["completions"], found):
                for verdict in verdicts:
                    rewards.put(completion, verdict)
                failed = any(verdict.reward is None for verdict in verdicts)
                completion["reward"] = None if failed else verdicts[-1].reward

    def close(self):
        if self.pool:
            self.pool.end()
            self.threads.shutdown(wait=True, cancel_futures=True)

    def _graded(self, records):
        if not self.pool:
            return [grade_record(record, self.own, self.raters) for record in records]
        size = max(1, len(records) // (4 * self.jobs))
        batches = [records[at : at + size] for at in range(0, len(records), size)]
        futures = [self.threads.submit(self._send, batch) for batch in batches]
        waiting = set(futures)
        while waiting:
            stop.check()
            _, waiting = concurrent.futures.wait(waiting, timeout=0.2)
        return [found for future in futures for found in future.result()]

    def _send(self, batch):
        """The verdicts of a batch from a worker; one that is lost is tried once more, record by record."""
        try:
            return self._call(batch)
        except (worker.Lost, worker.Timeout):
            return [self._send_alone(record) for record in batch]

    def _send_alone(self, record):
        try:
            return self._call([record])[0]
        except (worker.Lost, worker.Timeout) as error:
            asked = rewards.graders(record, self.own) if self.own or rewards.settings.added else []
            failed = dict.fromkeys([*(key for key, _, _ in asked), *self.raters], f"{type(error).__name__}: {error}")
            return [[rewards.Verdict(errors=dict(failed))] for _ in record["completions"]]

    def _call(self, batch):
        tasks = [{"verifier": record.get("verifier"), "completions": [
            {name: each[name] for name in SEEN if name in each} for each in record["completions"]]} for record in batch]
        payload = {"settings": dataclasses.asdict(rewards.settings), "own": self.own, "raters": self.raters, "tasks": tasks}
        limit = START_S + sum(_longest(task) * len(task["completions"]) for task in tasks)
        try:
            answer = self.pool.call(payload, limit)
        except worker.Failed as error:
            if str(error).startswith("NoSandbox: "):
                raise NoSandbox(str(error).removeprefix("NoSandbox: ")) from None
            raise
        return [[[rewards.Verdict(**verdict) for verdict in verdicts] for verdicts in found] for found in answer]


def _longest(record):
    """Seconds that grading one completion may take: every verifier that has a limit of its own is tried twice."""
    own = record.get("verifier")
    specs = [*(own if isinstance(own, list) else [own]), *rewards.settings.added]
    limits = [spec.get("timeout_s") for spec in specs if isinstance(spec, dict)]
    return COMPLETION_S + 2 * sum(each for each in limits if type(each) in (int, float) and 0 < each <= 86400)


def grade(payload):
    """A worker's side: the verdicts of some records as plain values."""
    settings = payload["settings"]
    if settings != dataclasses.asdict(rewards.settings):
        rewards.configure(added=tuple(settings["added"]), unsafe_local=settings["unsafe_local"])
    found = (grade_record(task, payload["own"], payload["raters"]) for task in payload["tasks"])
    return [[[dataclasses.asdict(verdict) for verdict in verdicts] for verdicts in graded] for graded in found]


def grade_record(record, own, raters):
    """For each completion its verdicts: the verifiers' (if any were asked for), then the raters'."""
    graded = []
    for completion in record["completions"]:
        stop.check()
        asked = [rewards.verify(record, completion, own)] if own or rewards.settings.added else []
        if raters:
            base = asked[0] if own and not rewards.settings.added else rewards.verify(record, completion, added=False)
            asked.append(rating.rate(record, completion, raters, base))
        graded.append(asked)
    return graded
