"""The other commands: one declaration in each file, code in `command_cores`."""
