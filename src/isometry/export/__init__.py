"""What leaves the workshop: a finished network as an ONNX file or a folder for timm, and its way to a hub.

command ─► onnx ─► quantize ─► comparing
       └─► folder ─► card ─► citations
hub: sends what folder wrote
"""

from isometry.export.command import ExportConfig, export
from isometry.export.hub import PushConfig, push

__all__ = ["ExportConfig", "PushConfig", "export", "push"]
