module gethpeer/harness

go 1.23.0

// The lowest go-ethereum the shared code is compiled against (geth68). The
// gethpeer module raises it to its own, newer release.
require github.com/ethereum/go-ethereum v1.15.11
