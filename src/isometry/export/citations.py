"""BibTeX entries of the methods that a run used."""

from isometry.config import GrowConfig, PruneConfig, TeacherConfig
from isometry.losses.base import parse_terms

RELATIONS = {"whole", "intra", "inter", "random"}
"""Terms of manifold distillation."""

MANIFOLD = """@inproceedings{hao2022manifold,
  title     = {Learning Efficient Vision Transformers via Fine-Grained Manifold Distillation},
  author    = {Hao, Zhiwei and Guo, Jianyuan and Jia, Ding and Han, Kai and Tang, Yehui and Zhang, Chao and Hu, Han and
               Wang, Yunhe},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  note      = {arXiv:2107.01378}
}"""

EXPANSION = """@inproceedings{ding2023expansion,
  title     = {Network Expansion for Practical Training Acceleration},
  author    = {Ding, Ning and Tang, Yehui and Han, Kai and Xu, Chao and Wang, Yunhe},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {20269--20279},
  year      = {2023}
}"""

DYNAMIC_PRUNING = """@inproceedings{tang2021manidp,
  title     = {Manifold Regularized Dynamic Network Pruning},
  author    = {Tang, Yehui and Wang, Yunhe and Xu, Yixing and Deng, Yiping and Xu, Chao and Tao, Dacheng and
               Xu, Chang},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {5018--5028},
  year      = {2021}
}"""


def papers(config: TeacherConfig, grow: GrowConfig, prune: PruneConfig) -> list[str]:
    """BibTeX of the methods that a run used: manifold distillation, growth, pruning by gates, papers of other terms."""
    terms = parse_terms(config.losses) if config.teacher else []
    used = {
        MANIFOLD: any(term.name in RELATIONS for term in terms),
        EXPANSION: grow.wanted,
        DYNAMIC_PRUNING: prune.wanted and prune.method == "gates",
    }
    cited = [term.loss.citation for term in terms if term.loss.citation]
    return [paper for paper, is_used in used.items() if is_used] + cited
