"""Figures against reference annotations: beat detection, published protocols, the model card."""
