"""Export to ONNX, to a timm folder with a model card, and to the Hugging Face hub."""
