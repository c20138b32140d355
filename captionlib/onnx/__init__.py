"""A captioner as ONNX graphs, which run without PyTorch.

caption.py is copied beside the graphs: it needs nothing from this package.
"""

from captionlib.onnx.export import export
from captionlib.onnx.graphs import write_graphs

__all__ = ["export", "write_graphs"]
