"""The stages and commands of the command line, and what they share."""
