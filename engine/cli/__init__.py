"""The command line: one file a group of commands, which load what they run when called."""
