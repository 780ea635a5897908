"""Build tables, intervals, figures and the page from finished runs, without torch."""
