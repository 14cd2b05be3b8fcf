"""Superpixels: SLIC."""
