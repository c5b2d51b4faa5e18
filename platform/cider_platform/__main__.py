"""``python -m cider_platform`` is ``cider-platform``."""

from __future__ import annotations

from cider_platform.cli import main

main()
