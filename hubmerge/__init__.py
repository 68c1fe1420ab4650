"""Merge language models from Hub to Hub: plan, stream, publish."""
