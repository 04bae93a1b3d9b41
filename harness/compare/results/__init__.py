"""Result types of a comparison, and their JSON form."""
