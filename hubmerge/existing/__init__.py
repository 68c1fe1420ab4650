"""Merges that are there already, whoever made them: read from their files, described, their cards renewed."""
