"""How good a finished network is: its answers, its features, and how it does on other images.

command ─► inference ─► scores (of its head)
                    └─► probes (of its features)
        └► transfer (fine-tuned on other folders)
"""

from isometry.evaluation.command import EvaluateConfig, evaluate

__all__ = ["EvaluateConfig", "evaluate"]
