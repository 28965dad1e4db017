"""Recipes (YAML): benchmarks/, methods/ and studies/. Data, never imported as code."""
