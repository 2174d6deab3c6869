"""`python -m jaxplain`."""

import sys

from jaxplain.cli import main

if __name__ == "__main__":
    sys.exit(main())
