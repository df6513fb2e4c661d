"""What the methods' functions share: checks of inputs, index operations, results, observers, weights."""
