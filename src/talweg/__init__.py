"""Talweg trains deep networks to the bottom of the valley."""
