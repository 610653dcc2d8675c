"""What a live installation really does, held against what it should: see ``run``."""
