"""How one checkpoint is made from others: recipe, plan, methods, stream, pipeline."""
