"""`python -m reproduction tables`: tables 2 to 7 and Figure 4 of a paper as small experiments on the digits.

Paper: Jia et al., "Efficient Vision Transformers via Fine-Grained Manifold Distillation" (arXiv:2107.01378v1).
"""

from reproduction.command import ReproduceConfig, reproduce

__all__ = ["ReproduceConfig", "reproduce"]
