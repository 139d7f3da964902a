"""A canvas to draw on, and what its strokes become: an image as the data of a trial have them."""
