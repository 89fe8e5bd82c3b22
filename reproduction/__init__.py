"""`python -m reproduction tables`: the paper's tables 2 to 7 and its Figure 4 as small experiments on the digits.

Paper: Jia et al., "Efficient Vision Transformers via Fine-Grained Manifold Distillation" (arXiv:2107.01378v1).
"""

from reproduction.command import ReproduceConfig, reproduce

__all__ = ["ReproduceConfig", "reproduce"]
