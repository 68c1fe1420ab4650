"""Dense models upcycled into a mixture of experts (https://arxiv.org/abs/2212.05055)."""
