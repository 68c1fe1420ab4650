"""Whether a published merge is what its recipe makes of its parents: cheap checks first, then weights."""
