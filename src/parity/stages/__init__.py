"""One verb a file: check inputs, call a core, write nouns, append evidence, manifest last."""
