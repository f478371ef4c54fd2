"""The tables of ``quota``, version by version."""
