"""Plugins for smsgw; one module each."""
