"""Serve the headers of a chain in files (chain_file.py): python -m tests.examples.serve_headers BLOCKS RECEIPTS"""

import sys
from pathlib import Path

from rlpx.engine.client import connect
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders
from tests.examples.chain_file import Chain

chain = Chain(Path(sys.argv[1]), Path(sys.argv[2]))
with connect() as engine:
    engine.respond(
        "eth.GetBlockHeaders", lambda request: BlockHeaders(0, chain.headers(request.decode_as(GetBlockHeaders).query, 1024))
    ).wait()
