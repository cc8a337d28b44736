"""``python jobs/user_metrics ...``: makes the package importable under its name and hands over to ``main``."""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from user_metrics.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
