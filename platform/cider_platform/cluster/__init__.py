"""Clusters: check the files that start them before money is spent, and their nodes at work."""
