"""`python -m synthpix_torch inspect runs/a`."""

import sys

from synthpix_torch.cli import main

sys.exit(main())
