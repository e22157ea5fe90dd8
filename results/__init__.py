"""The tables of ``RESULTS.md``: what is trained, what was published, and how a table is written."""
