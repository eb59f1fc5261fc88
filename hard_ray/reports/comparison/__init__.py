"""The comparison of runs: groups over seeds, t-tests, tables, figures and the page."""
