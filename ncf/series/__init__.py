"""The phases of a series, registered to one fixed scan, each from its neighbour's result."""
