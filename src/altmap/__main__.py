"""``python -m altmap``: the same as the command ``altmap``."""

from altmap.cli import main

raise SystemExit(main())
