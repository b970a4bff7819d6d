"""Prompts, tokenizer, encoder and the one `retrieve()`."""
