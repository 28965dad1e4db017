"""Studies: questions that a committed grid of runs answers, with figure, table and page."""
