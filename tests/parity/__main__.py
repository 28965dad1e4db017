"""Write the tables of docs/parity.md: ``python -m tests.parity``.

With ``--golden``, the tests that compare with golden tensors run first, and what they measure is
kept in ``reports/parity/golden.json``. The matrices are those of ``clbench sweep
experiments/studies/parity.yaml --out reports/parity``.
"""

from __future__ import annotations

import argparse

from clbench.core.errors import ClbenchError
from tests.parity import page


def main() -> None:
    """Measure if asked to, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--golden", action="store_true", help="run the tests first")
    try:
        if parser.parse_args().golden:
            from tests.parity import measuring  # pytest need not be there to write the page

            measuring.measure(page.MEASURED)
        page.write()
    except ClbenchError as error:
        raise SystemExit(f"clbench: {error}") from None


if __name__ == "__main__":
    main()
