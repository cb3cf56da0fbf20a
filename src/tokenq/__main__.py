"""`python -m tokenq` is the command `tokenq`."""

import sys

from tokenq.cli import main

sys.exit(main())
