"""OUT: paths, tables, locks, and the plan of a run."""
