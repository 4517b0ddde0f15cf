"""Dead letters: `replay` sends them through the pipeline again."""
