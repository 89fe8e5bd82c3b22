"""Detectors and segmentation networks on a backbone of timm: feature pyramid, heads, folders.

Import the modules: this file imports none of them, since torchvision's detectors take a while to load.
"""
