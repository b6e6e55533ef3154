"""``python -m ecgmon``, the same as ``ecgmon``."""

import sys

from ecgmon.monitor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
