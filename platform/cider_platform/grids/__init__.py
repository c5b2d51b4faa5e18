"""Grids: job files, their cells and runs, what state they are in, and running what is missing."""
