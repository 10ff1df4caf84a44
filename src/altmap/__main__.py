"""``python -m altmap``: the same as the command ``altmap``."""

from altmap.cli.main import main

raise SystemExit(main())
