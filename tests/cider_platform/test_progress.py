"""What a person sees of a search: the live table at several widths, lines without a terminal."""

import io

import pytest
from rich.console import Console

from cider_platform import progress
from cider_platform.progress import SearchProgress
from cider_platform.search.ledger import TrialRecord
from cider_platform.search.search import Change

VALUES = {"model.layers": 2, "model.attention_dropout": 0.1, "optimizer.lr": 0.00123456}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def on_terminal(width, height=24, **options):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None
    )
    return SearchProgress(metric="acc2", console=console, **options)


def text_of(shown, width, height=24):
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(shown.render())
    return console.file.getvalue()


def change(number, state="RUNNING", **facts):
    return Change(number=number, state=state, values=VALUES, run=f"{number:016x}", **facts)


def half_done(shown, clock):
    """Let a search of 20 trials on 3 slots run for two minutes."""
    shown.begin([], 20)
    for number in range(3):
        shown.change(change(number))
    clock(30)
    for number in range(3):
        shown.change(change(number, epoch=1, value=0.5 + number / 100))
    clock(10)
    shown.change(change(2, epoch=2, value=0.55))
    shown.change(change(0, "COMPLETE", epoch=8, value=0.6125))
    shown.change(change(3))
    shown.change(change(1, "PRUNED", epoch=1, value=0.51))
    clock(80)


def test_table_tells_counts_best_times_slots_and_every_running_trial(clock):
    shown = on_terminal(80, slots=3, epochs=8)
    half_done(shown, clock)
    assert [line.rstrip() for line in text_of(shown, 80).splitlines()] == [
        "trials: 1 complete, 2 running, 1 pruned of 20",
        "2 of 3 slots busy, 2 min 00 s gone, about 18 min 00 s left",
        "best acc2 0.6125: trial 0, 1 min 20 s ago",
        "  model.layers 2, model.attention_dropout 0.1, optimizer.lr 0.001235",
        "trial  epoch  best acc2  s/epoch  run",
        "    2    2/8     0.5500     20.0  0000000000000002",
        "    3    0/8          -        -  0000000000000003",
    ]


@pytest.mark.parametrize("width", [50, 30])
def test_table_keeps_its_lines_within_a_narrow_terminal(clock, width):
    shown = on_terminal(width, slots=3, epochs=8)
    half_done(shown, clock)
    lines = text_of(shown, width).splitlines()
    assert all(len(line) <= width for line in lines)
    joined = " ".join(" ".join(lines).split())
    assert "1 complete, 2 running, 1 pruned of 20" in joined
    assert "best acc2 0.6125: trial 0" in joined
    assert "0000000000000002" not in joined
    assert any(line.split() == ["2", "2/8", "0.5500", "20.0"] for line in lines)


def test_table_leaves_out_trials_that_do_not_fit_a_low_terminal(clock):
    shown = on_terminal(80, height=11, slots=30)
    shown.begin([], 40)
    for number in range(30):
        shown.change(change(number))
    lines = text_of(shown, 80, height=11).splitlines()
    assert len(lines) <= 11
    assert lines[-1].split() == ["+27"]


def test_trial_that_goes_on_from_a_checkpoint_does_not_count_its_past_as_time(clock):
    shown = on_terminal(80, slots=1)
    shown.begin([], 5)
    shown.change(change(0))
    clock(1)
    shown.change(change(0, epoch=40, value=0.5))
    clock(10)
    shown.change(change(0, epoch=41, value=0.5))
    assert "   41     0.5000     10.0" in text_of(shown, 80)


def test_most_epochs_of_a_trial_are_its_own_where_they_are_searched(clock):
    shown = on_terminal(80, slots=1, epochs=8)
    shown.begin([], 5)
    values = {"training.epochs": 4}
    shown.change(Change(number=0, state="RUNNING", values=values, run="r", epoch=1, value=0.5))
    assert " 1/4 " in text_of(shown, 80)


def earlier(number, state, value):
    record = dict.fromkeys(TrialRecord.__dataclass_fields__)
    facts = {"number": number, "state": state, "value": value, "params": VALUES, "epochs": 8}
    return TrialRecord(**(record | facts))


def test_trials_of_earlier_commands_count_but_tell_nothing_of_the_time_left(clock):
    shown = on_terminal(80, slots=1)
    shown.begin([earlier(0, "COMPLETE", 0.7), earlier(1, "FAIL", None)], 5)
    clock(60)
    text = text_of(shown, 80)
    assert "trials: 1 complete, 1 failed of 5" in text
    assert "1 min 00 s gone, about - left" in text
    assert "best acc2 0.7000: trial 0, from before" in text


def test_failure_is_printed_above_the_table_and_stays(clock):
    shown = on_terminal(60, slots=1)
    with shown:
        shown.begin([], 2)
        shown.change(change(0))
        shown.change(change(0, "FAIL", error="the loss is not finite"))
    written = shown._console.file.getvalue()
    assert "trial 0 failed: the loss is not finite" in written
    assert "trials: 1 failed of 2" in written


def test_without_a_terminal_there_is_a_line_per_change_of_state(capsys):
    shown = SearchProgress(metric="acc2")
    with shown:
        shown.begin([earlier(0, "PRUNED", 0.4)], 3)
        shown.change(change(1))
        shown.change(change(1, epoch=1, value=0.5))
        shown.change(change(1, epoch=2, value=0.5))
        shown.change(change(1, "COMPLETE", epoch=2, value=0.5))
        shown.change(change(2))
        shown.change(change(2, "PRUNED", epoch=1, value=0.4))
    captured = capsys.readouterr()
    assert captured.out == ""
    first = "trial 1 runs: model.layers 2, model.attention_dropout 0.1, optimizer.lr 0.001235"
    assert captured.err.splitlines() == [
        "continuing: 1 pruned of 3 trials",
        f"{first} (run 0000000000000001)",
        "trial 1 complete after epoch 2, acc2 0.5000 [1 complete, 1 pruned of 3], the best so far",
        first.replace("trial 1", "trial 2") + " (run 0000000000000002)",
        "trial 2 pruned at epoch 1, acc2 0.4000 [1 complete, 2 pruned of 3]",
    ]


def test_objective_that_is_not_the_score_is_named_and_may_be_better_when_less(clock):
    shown = on_terminal(80, slots=1, objective="parameters", minimise=True)
    shown.begin([], 3)
    for number, value in enumerate([900.0, 700.0, 800.0]):
        shown.change(change(number))
        shown.change(change(number, epoch=1, value=0.5))
        shown.change(change(number, "COMPLETE", epoch=1, value=value))
    assert "best parameters 700.0000: trial 1" in text_of(shown, 80)
