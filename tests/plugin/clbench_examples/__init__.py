"""Methods for clbench that live in a package of their own."""
