"""Reports of runs, data sets, comparisons and sweeps: pages, charts and tables."""
