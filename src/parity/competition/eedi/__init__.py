"""Eedi - Mining Misconceptions in Mathematics."""
