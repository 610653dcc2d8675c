"""The policy: pure functions over frozen data, standard library and numpy only."""
