"""Measures as pure functions of arrays: classification, distances of images, significance."""
