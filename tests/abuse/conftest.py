"""The attacks use what the tests of the server use."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "server"))
