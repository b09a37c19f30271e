"""`python -m lagentlike.cli` is the `lagentlike` command."""

import sys

from . import main

sys.exit(main())
