"""Where and how trainings execute: Ray sessions, capacity, workers, what goes wrong."""
