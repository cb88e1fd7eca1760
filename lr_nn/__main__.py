"""`python -m lr_nn` is the command `lr-nn`."""

import sys

from lr_nn.cli import main

if __name__ == "__main__":
    sys.exit(main())
