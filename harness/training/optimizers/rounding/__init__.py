"""State kept in fewer bits than it is computed in."""
