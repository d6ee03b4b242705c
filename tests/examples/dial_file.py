"""Dial every enode in a file, 64 at a time, and print what came of each: python -m tests.examples.dial_file FILE"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlpx.engine.client import connect

with connect() as engine, ThreadPoolExecutor(64) as threads:
    enodes = Path(sys.argv[1]).read_text().split()
    dials = [threads.submit(engine.dial, enode, wait=True) for enode in enodes]
    for enode, dial in zip(enodes, dials, strict=True):
        print(enode[:24], dial.exception() or "connected", flush=True)
