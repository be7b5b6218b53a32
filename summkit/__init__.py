"""summkit: fine-tune a small language model to summarise, and see what it learned and what it cost.

Importing this package costs nothing: torch, transformers and evaluate are imported where they are used.
"""

__version__ = "0.1.0"
