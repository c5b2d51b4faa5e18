"""What becomes of a grid's tasks: how many at a time, workers that die or stand still, an end.

Ray itself is a fake here, which does as its stages say; the real one is in ``test_grid_run`` and in
the fault suite.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError, WorkerCrashedError

from cider_platform.execution.capacity import Slots
from cider_platform.execution.cluster_watch import ClusterLostError
from cider_platform.grids import ray_runs
from cider_platform.grids.ray_runs import MAX_WORKER_DEATHS, run_tasks
from cider_platform.grids.tasks import Task
from cider_platform.layout import RunFolder
from cider_platform.lease import hold
from cider_platform.runs.assembly import Runtime

DIES = WorkerCrashedError()


@dataclass
class FakeRay:
    """Runs the oldest task to its end whenever it is asked to wait."""

    ends: dict = field(default_factory=dict)
    """Run -> what its attempts end with: text, an exception, or None for never."""
    begun: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    most: int = 0
    _running: list = field(default_factory=list)
    _next: int = 0

    def remote(self, **options):
        """Return what makes a task of a function, as the decorator does."""
        assert options["max_retries"] == 0, "the driver itself decides what is started again"
        return lambda work: SimpleNamespace(remote=self.start)

    def put(self, value):
        return value

    def start(self, task, train, runtime):
        self._next += 1
        reference = (self._next, task.run)
        self.begun.append(task.run)
        self._running.append(reference)
        self.most = max(self.most, len(self._running))
        return reference

    def wait(self, references, num_returns, timeout):
        assert set(references) == set(self._running)
        ready = [each for each in self._running if self._end(each) is not None][:num_returns]
        return ready, [each for each in references if each not in ready]

    def _end(self, reference):
        if reference in self.cancelled:
            return DIES
        ends = self.ends.get(reference[1], [""])
        return ends[min(self.begun[: reference[0]].count(reference[1]) - 1, len(ends) - 1)]

    def get(self, reference):
        self._running.remove(reference)
        end = self._end(reference)
        if isinstance(end, Exception):
            raise end
        return end

    def cancel(self, reference, force):
        assert force
        self.cancelled.append(reference)


@pytest.fixture
def fake(monkeypatch):
    made = FakeRay()
    monkeypatch.setattr(ray_runs, "ray", made)
    return made


@pytest.fixture
def run(fake, tmp_path):
    """Function that runs tasks and returns run -> error."""

    def go(count, *, slots=2, seconds=60.0, check=lambda: None, stop=lambda: False):
        tasks = [
            Task(number=number, run=f"{number:016x}", spec="", conditions=(), what="demo")
            for number in range(count)
        ]
        ended = {}
        run_tasks(
            tasks,
            lambda spec, runtime: iter(()),
            Runtime(tmp_path / "store", tmp_path / "results"),
            slots=Slots(slots=slots, cpus_per_trial=1, gpus_per_trial=0.0),
            progress_timeout=seconds,
            check=check,
            should_stop=stop,
            on_begin=lambda task: None,
            on_end=lambda each: ended.setdefault(each.task.run, each.error),
        )
        return ended

    return go


def name(number):
    return f"{number:016x}"


def test_tasks_begin_in_order_with_no_more_at_a_time_than_slots(fake, run):
    assert run(7, slots=3) == {name(number): "" for number in range(7)}
    assert fake.begun == [name(number) for number in range(7)]
    assert fake.most == 3


def test_task_whose_worker_dies_begins_again_and_others_are_not_touched(fake, run, tmp_path):
    RunFolder.of(tmp_path / "results", name(1)).root.mkdir(parents=True)
    fake.ends[name(1)] = [DIES, DIES, ""]
    assert run(3) == {name(number): "" for number in range(3)}
    assert fake.begun.count(name(1)) == 3
    assert fake.begun.count(name(0)) == 1
    log = RunFolder.of(tmp_path / "results", name(1)).log.read_text()
    assert log.count(" lost ") == 2


def test_task_whose_worker_dies_again_and_again_fails_and_its_run_says_so(fake, run, tmp_path):
    fake.ends[name(0)] = [DIES]
    ended = run(2)
    assert f"died {MAX_WORKER_DEATHS + 1} times" in ended[name(0)]
    assert ended[name(1)] == ""
    status = RunFolder.of(tmp_path / "results", name(0)).read_status()
    assert (status["state"], status["error"]) == ("FAILED", ended[name(0)])


def test_task_that_ends_with_an_error_of_its_own_fails_alone(fake, run):
    fake.ends[name(0)] = ["the loss is not finite"]
    fake.ends[name(1)] = [RayTaskError("work", "a traceback", ValueError("odd value"))]
    ended = run(3)
    assert ended[name(0)] == "the loss is not finite"
    assert "odd value" in ended[name(1)]
    assert ended[name(2)] == ""
    assert len(fake.begun) == 3, "what failed by itself is not started again"


def test_run_without_progress_is_ended_and_fails_and_is_not_started_again(fake, run, tmp_path):
    folder = RunFolder.of(tmp_path / "results", name(0))
    fake.ends[name(0)] = [None]
    with hold(folder.lease, "run"):
        ended = run(2, seconds=0.3)
    assert "made no progress for 0.3 s" in ended[name(0)]
    assert ended[name(1)] == ""
    assert fake.begun.count(name(0)) == 1


def test_task_that_waits_for_room_in_the_cluster_is_not_taken_for_stuck(fake, run):
    fake.ends[name(0)] = [None]
    looks = []

    def stop():
        looks.append(1)
        return len(looks) > 2_000

    assert run(1, seconds=0.001, stop=stop) == {}
    assert len(fake.cancelled) == 1, "it is ended by the stop, and not before"


def test_death_of_the_cluster_is_no_fault_of_a_run(fake, run, tmp_path):
    def check():
        raise ClusterLostError("Ray's head died")

    fake.ends[name(0)] = [DIES]
    with pytest.raises(ClusterLostError):
        run(1, check=check)
    assert RunFolder.of(tmp_path / "results", name(0)).state is None


def test_request_to_stop_ends_what_runs_and_begins_nothing_more(fake, run):
    fake.ends = {name(0): [None], name(1): [None]}
    asked = iter([False, False, True])
    assert run(5, stop=lambda: next(asked)) == {}
    assert fake.begun == [name(0), name(1)]
    assert [reference[1] for reference in fake.cancelled] == [name(0), name(1)]
