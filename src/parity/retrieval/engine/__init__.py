"""Packed forward passes: prefix trie, attention backends, devices."""
