"""The engineering around ``cider``: search, training runs, results and the command line."""
