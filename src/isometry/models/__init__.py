"""timm networks: build, weights, taps, teacher, cost, ONNX."""
