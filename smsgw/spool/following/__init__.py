"""What becomes of messages in smsd's folders, followed by the one process that owns the spool, for all others."""
