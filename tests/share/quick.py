#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The part of tests/share/run that `make check` has the time for."""
# timeout: 300
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
run = os.path.join(ROOT, "tests", "share", "run")
os.execv(sys.executable, [sys.executable, run, "--quick", "--build", os.environ["TEST_BUILD"]])
