"""Missing rates as people write them: a range with both ends, or a list."""

from __future__ import annotations

from cider.errors import UsageError

_MOST_RATES = 1_001


def parse_rates(text: str, what: str = "--rates") -> list[float]:
    """Return the missing rates that a text names.

    Args:
        text: ``FIRST:LAST:STEP`` with both ends included, or a list with commas.
        what: what the text belongs to, for the message.

    Raises:
        UsageError: if it is neither, or a rate lies outside [0, 1].
    """
    try:
        rates = _range(text) if ":" in text else [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 <= rate <= 1 for rate in rates):
        raise UsageError(
            f"{what} must be FIRST:LAST:STEP or a list with commas, of numbers in [0, 1], "
            f"got {text!r}"
        )
    return list(dict.fromkeys(rates))


def _range(text: str) -> list[float]:
    first, last, step = (float(part) for part in text.split(":"))
    if not (step > 0 and first <= last) or (last - first) / step > _MOST_RATES:
        raise ValueError(text)
    # A little more than the last, because steps accumulate binary rounding.
    count = int((last - first) / step + 1e-9) + 1
    return [round(first + index * step, 10) for index in range(count)]
