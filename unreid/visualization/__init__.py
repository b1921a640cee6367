"""Self-contained HTML report of one run, or comparison of several runs."""
