"""Side-by-side measurements: ratios within one run, medians of several; never run by the tests."""
