"""Merges that run by themselves: repositories of recipes, jobs on the Hub, webhooks, and the `hf` command line."""
