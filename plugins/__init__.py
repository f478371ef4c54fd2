"""The plugins that are shipped, installed as ``smsgw_plugins``: one module a plugin, one class each."""
