"""Task sequences and data sets: what a benchmark's recipe builds."""
