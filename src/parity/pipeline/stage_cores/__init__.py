"""One stage per file: read inputs, call one core function, write outputs."""
