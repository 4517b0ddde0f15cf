"""Checks FOCUS files with the FinOps Foundation's own validator: `make focus-check`.

The validator checks names, lists and types; that prices times quantities are costs, `tests/unit/focus` checks. It only
has the rules of FOCUS 1.2: those of 1.4 are published without a file that it could read.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.support.focus_rows import every_kind

from tallystream.agents.focus.files import write_csv, write_parquet

VALIDATOR = Path(os.environ.get("TALLYSTREAM_FOCUS_VALIDATOR", "nothing"))
"""The folder of a virtual environment with focus-validator."""
UNAVOIDABLE = {"InvoiceId-C-005-C"}
"""Says that InvoiceId must not be null. The rule beside it allows null where no invoice exists yet, and providers'
interfaces name no invoices."""
CRITERIA = (
    "ACCOUNT_NAMING_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED", "UNIT_PRICING_SUPPORTED", "SUB_ACCOUNT_SUPPORTED",
    "TAGGING_SUPPORTED",
)  # fmt: skip
"""What our data supports; rules about regions, resources or commitments do not apply."""
MIN_PASSED = 249
"""Rules that pass; fewer would mean that columns are missing, which the validator skips."""


def validate(file: Path) -> tuple[dict[str, int], set[str], str]:
    """Return the validator's counts, the rules that fail, and all that it printed."""
    (packages,) = VALIDATOR.resolve().glob("lib/python*/site-packages")
    done = subprocess.run(
        [
            VALIDATOR.resolve() / "bin" / "focus-validator", "--data-file", file, "--validate-version", "1.2",
            "--block-download", "--focus-dataset", "CostAndUsage", "--applicability-criteria", ",".join(CRITERIA),
        ],
        cwd=packages,  # it reads its list of currencies from the working directory
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    (line,) = re.findall(r"^Total: .*$", done.stdout, re.MULTILINE)  # the exit code is 0 whatever fails
    counts = {name: int(number) for name, number in re.findall(r"(\w+): (\d+)", line)}
    return counts, set(re.findall(r"(\S+): FAIL", done.stdout)), line


@pytest.mark.skipif(not VALIDATOR.exists(), reason="`make focus-check` installs the validator and runs this")
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_only_the_expected_focus_rule_fails(form: str, tmp_path: Path) -> None:
    file = tmp_path / f"focus.{form}"
    if form == "csv":
        with file.open("w", newline="", encoding="utf-8") as out:
            write_csv(every_kind("1.2"), out, "1.2")
    else:
        write_parquet(every_kind("1.2"), file, "1.2")
    counts, failed, line = validate(file)
    print(f"{form}: {line}")  # noqa: T201 - shown by `make focus-check`
    assert failed == UNAVOIDABLE, line
    assert counts["Fail"] == len(UNAVOIDABLE)
    assert counts["Pass"] >= MIN_PASSED, line


@pytest.mark.skipif(not VALIDATOR.exists(), reason="`make focus-check` installs the validator and runs this")
def test_focus_validator_detects_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "focus.csv"
    rows = [row | {"BillingCurrency": "DOLLAR"} for row in every_kind("1.2")]
    with file.open("w", newline="", encoding="utf-8") as out:
        write_csv(rows, out, "1.2")
    _, failed, _ = validate(file)
    assert any(rule.startswith("BillingCurrency") for rule in failed)
