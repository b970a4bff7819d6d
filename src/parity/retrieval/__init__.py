"""Prompts, prefix trie, encoder and the one `retrieve()`."""
