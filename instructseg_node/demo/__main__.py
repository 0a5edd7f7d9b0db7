"""python -m instructseg_node.demo"""

import signal
import sys

from .run import main

if __name__ == "__main__":
    # As a time limit or a closed terminal ends it: the node must not go on without us.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
