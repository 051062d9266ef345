"""How many cases the fuzz tests try: 60 a test, drawn the same way each time; FUZZ_CASES=N asks for N, drawn anew."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

CASES = os.environ.get('FUZZ_CASES')

settings.register_profile(
    'fuzz',
    max_examples=int(CASES or 60),
    derandomize=CASES is None,
    deadline=None,  # a machine that is busy with other tests is no fault
    database=None,
    print_blob=True,  # how to draw a failing case again
    # a fixture that is made once for all cases of a test is what such tests want
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.load_profile('fuzz')
