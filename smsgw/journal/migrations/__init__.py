"""The tables of the journal, version by version."""
