"""One module a command: its options, its examples, one call into an engine."""
