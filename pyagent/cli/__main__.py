"""`python -m pyagent.cli`: the command line where the package is not installed."""

from __future__ import annotations

import sys

from pyagent.cli.main import main

sys.exit(main())
