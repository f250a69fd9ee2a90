"""Optional imaging effects, each a module of pure functions, not traced when off."""
