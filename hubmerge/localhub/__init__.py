"""A small Hub on this machine, for tests, demos and rehearsals without a network.

Unmodified Hugging Face clients use it through `HF_ENDPOINT`: huggingface_hub, hf_xet, transformers, datasets and the
`hf` command. It stores models, datasets and spaces with their commits, branches, tags, pull requests and discussions,
and can be told to fail (`faults`) and to tell what it was asked (`requests`).

It listens on loopback unless told otherwise and is not hardened for the open internet.
"""

from hubmerge.localhub.hub import LocalHub

__all__ = ["LocalHub"]
