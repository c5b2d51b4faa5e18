"""Optimisation, the epoch loop, evaluation, selection and checkpoints."""
