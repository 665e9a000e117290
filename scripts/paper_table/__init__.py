"""The paper's experiment: its pairs, registered and judged, beside the numbers it published."""
