"""Reports: one typed model of finished runs, and the pages, tables and figures made of it."""
