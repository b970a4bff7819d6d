"""The code of the commands, imported only when one runs."""
