"""The version, in the one place that the build, the lock file and the card read it from."""

__version__ = "0.1.0"

REPOSITORY = "hubmerge/hf-merge"
"""Where this is on GitHub; the `hf` command line installs extensions from repositories called `hf-...` only."""
