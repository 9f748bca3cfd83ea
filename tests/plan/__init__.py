"""Plans against what torch really allocates, measures and counts."""
