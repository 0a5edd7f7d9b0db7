"""Building blocks shared by recipes, one idea a file."""
