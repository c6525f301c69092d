"""Tables, plots, videos, HTML and cards."""
