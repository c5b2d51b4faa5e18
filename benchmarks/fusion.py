"""Forward and backward pass of the fusion attention: blockwise against seven masked softmaxes.

``one`` is a single ordinary attention over the same sequence: no form of seven can be faster. With
``--compile`` blockwise and plain also run through ``torch.compile``, which needs a C++ compiler.

Shapes: B batch, L fused steps, D width.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import measuring
import torch
from measuring import MIB, PeakMemory, Report, interleaved, paired_ratio, scaled, spread, text_of
from plain_forms import plain_fusion

from cider.modules.fusion import CompositeAttention, PlainAttention

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from torch import Tensor

FORMS = ("blockwise", "plain", "one")
COMPILED = ("compiled", "plain compiled")


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lengths", type=int, nargs=3, default=(50, 50, 50), help="segments")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1, help="of the cases with dropout")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="also compiled by torch.compile")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--peaks", action="store_true", help="only peak memory: the child process")
    return parser


@dataclass(frozen=True)
class Case:
    """One setting that all forms run in."""

    dropout: float
    padded: bool

    @property
    def name(self) -> str:
        dropout = f"dropout {self.dropout:g}" if self.dropout else "no dropout"
        return f"{dropout}, {'padding mask' if self.padded else 'no mask'}"


def cases(args: argparse.Namespace) -> list[Case]:
    return [
        Case(dropout, padded)
        for dropout in dict.fromkeys((0.0, args.dropout))
        for padded in (False, True)
    ]


class Passes:
    """The forms of one case: same input, same parameters, each with its gradient."""

    def __init__(self, args: argparse.Namespace, case: Case) -> None:
        torch.manual_seed(args.seed)
        self.lengths = list(args.lengths)
        shape = (args.batch_size, sum(self.lengths), args.width)
        self.composite = CompositeAttention(args.width, args.heads, case.dropout, dropout_all=False)
        self.single = PlainAttention(args.width, args.heads, case.dropout)
        self.compiled = {
            name: torch.compile(form)
            for name, form in zip(COMPILED, (self.composite, plain_fusion), strict=True)
            if args.compile
        }
        self.x_BLD = torch.randn(shape, requires_grad=True)
        self.grad_BLD = torch.randn(shape)
        self.valid_BL = None
        if case.padded:
            self.valid_BL = self._padding(args)
            self.grad_BLD *= self.valid_BL.unsqueeze(-1)

    def _padding(self, args: argparse.Namespace) -> Tensor:
        """Return True at content: a tenth to nine tenths of a segment, the same in all three."""
        shares_B1 = torch.rand(args.batch_size, 1) * 0.8 + 0.1
        return torch.cat(
            [torch.arange(n) < (shares_B1 * n).ceil().clamp(min=1) for n in self.lengths], dim=1
        )

    def run(self, form: str) -> tuple[Tensor, Tensor]:
        """Return the output and the gradient of the input."""
        self.x_BLD.grad = None
        module = self.single if form == "one" else self.composite
        module.zero_grad(set_to_none=True)
        arguments = (self.x_BLD, self.lengths, self.valid_BL)
        if form.startswith("plain"):
            plain = self.compiled.get(form, plain_fusion)
            fused_BLD, _ = plain(module, *arguments)
        else:
            fused_BLD, _ = self.compiled.get(form, module)(*arguments)
        fused_BLD.backward(self.grad_BLD)
        return fused_BLD.detach(), self.x_BLD.grad

    def difference(self) -> float:
        """Return the largest difference of the two forms in output and gradient, at content."""
        largest = 0.0
        self.composite.eval()
        for got, wanted in zip(self.run("blockwise"), self.run("plain"), strict=True):
            difference_BLD = (got - wanted).abs()
            if self.valid_BL is not None:
                difference_BLD = difference_BLD * self.valid_BL.unsqueeze(-1)
            largest = max(largest, float(difference_BLD.max()))
        self.composite.train()
        return largest


def time_case(args: argparse.Namespace, case: Case) -> dict[str, Any]:
    passes = Passes(args, case)
    forms = forms_of(args)
    compiled = {name: _first_run(passes, name) for name in forms if name in COMPILED}
    forms = tuple(name for name in forms if not isinstance(compiled.get(name), str))

    def form(name: str) -> Callable[[int], object]:
        return lambda _: passes.run(name)

    seconds = interleaved({name: form(name) for name in forms}, args.repetitions, warmup=2)
    return {
        "milliseconds": {name: spread(scaled(seconds[name], 1e3)) for name in forms},
        "compile_seconds": compiled,
        "plain_over_blockwise": paired_ratio(seconds["plain"], seconds["blockwise"]),
        "blockwise_over_one": paired_ratio(seconds["blockwise"], seconds["one"]),
        "largest_difference": passes.difference(),
    }


def forms_of(args: argparse.Namespace) -> tuple[str, ...]:
    return FORMS + COMPILED if args.compile else FORMS


def _first_run(passes: Passes, form: str) -> float | str:
    """Return the seconds of the first pass of a form, in which it is compiled, or why it is not."""
    began = time.perf_counter()
    try:
        passes.run(form)
    except RuntimeError as error:  # the base of all that torch.compile raises
        return f"failed: {str(error).strip().splitlines()[0]}"
    return time.perf_counter() - began


def peaks(args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Return by case and form how far one pass raises resident memory, in bytes."""
    found: dict[str, dict[str, int]] = {}
    for case in cases(args):
        passes = Passes(args, case)
        found[case.name] = {}
        for form in FORMS:
            passes.run(form)
            with PeakMemory() as peak:
                passes.run(form)
            found[case.name][form] = peak.rise_bytes
    return found


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    measuring.set_threads(args)
    if args.peaks:
        print(json.dumps(peaks(args)))
        return
    report = Report("fusion", args)
    for case in cases(args):
        measuring.progress(case.name)
        report.results[case.name] = time_case(args, case)
    report.table(
        "Forward and backward pass, milliseconds: median (min-max)",
        ["case", *forms_of(args), "plain / blockwise", "blockwise / one", "largest difference"],
        [_time_row(name, found, forms_of(args)) for name, found in report.results.items()],
    )
    if args.compile:
        report.table(
            "First pass, compilation included, seconds",
            ["case", *COMPILED],
            [
                [name, *(_compiled_text(found["compile_seconds"][form]) for form in COMPILED)]
                for name, found in report.results.items()
            ],
        )
    if not args.no_memory:
        measuring.progress("peak memory")
        for name, found in measuring.run_child("fusion", [*argv, "--peaks"]).items():
            report.results[name]["peak_bytes"] = found
        report.table(
            "Rise of resident memory in one pass, MiB",
            ["case", *FORMS, "plain / blockwise"],
            [_memory_row(name, found["peak_bytes"]) for name, found in report.results.items()],
        )
    report.show()


def _compiled_text(found: float | str) -> str:
    return found if isinstance(found, str) else f"{found:.1f}"


def _time_row(name: str, found: dict[str, Any], forms: tuple[str, ...]) -> list[str]:
    times = found["milliseconds"]
    return [
        name,
        *(text_of(times[form]) if form in times else "failed" for form in forms),
        text_of(found["plain_over_blockwise"], 2),
        text_of(found["blockwise_over_one"], 2),
        f"{found['largest_difference']:.1e}",
    ]


def _memory_row(name: str, found: dict[str, int]) -> list[str]:
    ratio = found["plain"] / max(found["blockwise"], 1)
    return [name, *(f"{found[form] / MIB:.0f}" for form in FORMS), f"{ratio:.2f}"]


if __name__ == "__main__":
    main(sys.argv[1:])
