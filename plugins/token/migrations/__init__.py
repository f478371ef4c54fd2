"""The tables of ``token``, version by version."""
