"""Agents are to conversations what `nn.Module` is to tensors."""

__version__ = "0.1.0"
