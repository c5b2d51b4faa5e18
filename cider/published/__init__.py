"""The numbers that the paper prints in tables IV to XXII, every cell with an address.

``results.csv`` has tables IV, V and VII to XXII, ``complexity.csv`` has table VI; the numbers are
as printed. Source: arXiv 2506.10452.
"""

from cider.published.tables import TABLES, Cell, cell, cells, table_name

__all__ = ["TABLES", "Cell", "cell", "cells", "table_name"]
