"""Errors a user can cause, each with the exit code of the command that meets it."""

from __future__ import annotations


class CiderError(Exception):
    """A failure explained in one sentence: what, which value, what is allowed, what to do."""

    exit_code = 1


class UsageError(CiderError):
    """A command or a configuration field was given a value that is not allowed."""

    exit_code = 2


class StoreError(CiderError):
    """A feature file or feature store cannot be read, or does not hold what it should."""


class UnsafePickleError(StoreError):
    """A pickle asks for something other than arrays, containers, numbers and text."""


class NothingMatchedError(CiderError):
    """A name, id or filter matched nothing."""

    exit_code = 3


class SealedTestError(CiderError):
    """Something asked for test labels before the configuration was frozen."""

    exit_code = 5


class WorkerLostError(CiderError):
    """One of several workers that train a run together is gone; the run can go on without it."""


class TrainingError(CiderError):
    """A run cannot go on, for example because its loss is no longer finite."""
