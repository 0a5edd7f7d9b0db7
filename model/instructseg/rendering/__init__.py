"""Pictures for people, and what messages say about a mask: NumPy and OpenCV only."""
