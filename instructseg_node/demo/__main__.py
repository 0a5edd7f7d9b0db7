"""python -m instructseg_node.demo"""

import signal
import sys

from .run import main

if __name__ == "__main__":
    # As a time limit ends it: the other processes must not go on without us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
