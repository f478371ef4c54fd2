"""The tables of ``history``, version by version."""
