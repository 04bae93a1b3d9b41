"""Tables and sentences for page, terminal and Markdown."""
