"""Micro-benchmarks of single ops, and the calibration that is fitted from them."""
