"""`python -m parity COMMAND`: start one command."""

import sys

from parity.cli import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
