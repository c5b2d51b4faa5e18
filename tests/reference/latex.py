"""Compiling LaTeX in tests, where it is installed."""

import shutil
import subprocess

PDFLATEX = shutil.which("pdflatex") or ""


def compile_latex(text, path):
    """Write a document, compile it, and return what LaTeX said."""
    path.write_text(text, encoding="ascii")
    done = subprocess.run(
        [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", path.name],
        cwd=path.parent, capture_output=True, text=True, check=False, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert path.with_suffix(".pdf").stat().st_size > 10_000
    return done.stdout
