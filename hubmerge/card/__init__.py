"""The model card and the lock file that a merge is published with; no network but for `validate_card`."""
