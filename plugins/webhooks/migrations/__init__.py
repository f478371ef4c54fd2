"""The tables of ``webhooks``, version by version."""
