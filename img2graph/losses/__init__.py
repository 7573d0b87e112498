"""How far a drawing is from an image, and what keeps graphs small and apart."""
