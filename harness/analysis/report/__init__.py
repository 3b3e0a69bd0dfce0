"""A study as one page that people look at: its numbers, what they say, the figures, and the HTML around them."""
