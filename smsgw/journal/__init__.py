"""What became of messages: one database that the process which owns the spool writes, and that all processes read.

It holds what each message is now, and a list of events that only grows at its end. The spool can remake the first from
the files that are there; what is here outlives files that are gone. Knows no HTTP.
"""
