"""The contract between methods and the engine as a test suite, for this package and for others.

from clbench.testing import check_method

def test_my_method():
check_method(MyMethod)
"""

from clbench.testing.checks import CHECKS, check_method

__all__ = ["CHECKS", "check_method"]
