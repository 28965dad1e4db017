"""Tables, figures and pages from results; knows no method and no data set by name."""
