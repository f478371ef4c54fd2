"""Messages on their way into ``outgoing``: written, queued, let in, remembered by their key, and taken back."""
