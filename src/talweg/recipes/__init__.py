"""Recipes that come with Talweg, as TOML files."""
