"""Trained networks for other programs: exported files, quantisation, a server, a web page."""
