"""Merges that follow their parents: what changed since one was made, and the same merge made again from it."""
