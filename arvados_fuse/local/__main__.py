"""`python -m arvados_fuse.local`: run and look after an embedded Arvados."""

import sys

from arvados_fuse.local.command import main

sys.exit(main(sys.argv[1:]))
