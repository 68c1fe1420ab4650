"""Where a model comes from: its ancestors, read from the Hub, drawn, checked, and turned back into a recipe."""
