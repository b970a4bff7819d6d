"""The stages of the pipeline: one declaration in each file, code in `stage_cores`."""
