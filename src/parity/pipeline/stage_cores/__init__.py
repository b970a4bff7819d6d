"""The code of the stages, imported only when one runs."""
