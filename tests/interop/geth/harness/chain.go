package harness

import (
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/forkid"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
)

// The fixed test chain. All forks up to the second time fork lie behind the
// default head, the third time fork lies ahead of it.
const (
	genesisTime = 1_700_000_000
	headNumber  = 5000
	headTime    = genesisTime + 60_000
)

var (
	forkBlocks = []uint64{100, 200, 1000}
	forkTimes  = []uint64{genesisTime + 10_000, genesisTime + 20_000, genesisTime + 100_000}
)

// Chain is the stub which geth's own handshake code asks for everything it
// puts into (or compares with) a Status. It implements forkid.Blockchain.
type Chain struct {
	NetworkID  uint64
	Earliest   uint64
	Latest     uint64
	LatestHash common.Hash

	config  *params.ChainConfig
	genesis *types.Block
	head    *types.Header
	times   []uint64
}

func (c *Chain) Config() *params.ChainConfig  { return c.config }
func (c *Chain) Genesis() *types.Block        { return c.genesis }
func (c *Chain) CurrentHeader() *types.Header { return c.head }

// ForkID is what geth announces for the head of the chain.
func (c *Chain) ForkID() forkid.ID {
	return forkid.NewID(c.config, c.genesis, c.head.Number.Uint64(), c.head.Time)
}

func newChain(o *options) *Chain {
	big64 := func(n uint64) *big.Int { return new(big.Int).SetUint64(n) }
	times := make([]uint64, len(forkTimes))
	for i, t := range forkTimes {
		times[i] = uint64(int64(t) + o.forkShift)
	}
	c := &Chain{
		NetworkID: o.networkID,
		times:     times,
		config: &params.ChainConfig{
			ChainID:        big64(o.networkID),
			HomesteadBlock: big64(0),
			EIP150Block:    big64(forkBlocks[0]),
			ByzantiumBlock: big64(forkBlocks[1]),
			LondonBlock:    big64(forkBlocks[2]),
			ShanghaiTime:   &times[0],
			CancunTime:     &times[1],
			PragueTime:     &times[2],
		},
		genesis: types.NewBlockWithHeader(&types.Header{
			Number:     new(big.Int),
			Difficulty: big64(131072),
			GasLimit:   30_000_000,
			Time:       genesisTime,
			Extra:      []byte("gethpeer test chain" + o.genesisSalt),
		}),
		head: &types.Header{
			Number:     big64(o.head),
			Difficulty: new(big.Int),
			GasLimit:   30_000_000,
			Time:       o.headTime,
			Extra:      []byte("gethpeer test chain" + o.genesisSalt),
		},
		Earliest: o.earliest,
	}
	if o.latest < 0 || uint64(o.latest) == o.head {
		c.Latest, c.LatestHash = o.head, c.head.Hash()
	} else {
		c.Latest = uint64(o.latest)
		c.LatestHash = crypto.Keccak256Hash(binary.BigEndian.AppendUint64(nil, c.Latest))
	}
	return c
}

func (c *Chain) describe(out *output) {
	id := c.ForkID()
	out.emit("chain",
		"genesis", fmt.Sprintf("%x", c.genesis.Hash()),
		"network_id", c.NetworkID,
		"genesis_time", c.genesis.Time(),
		"fork_blocks", forkBlocks,
		"fork_times", c.times,
		"head", map[string]any{
			"number": c.head.Number.Uint64(),
			"time":   c.head.Time,
			"hash":   fmt.Sprintf("%x", c.head.Hash()),
		},
		"fork_hash", fmt.Sprintf("%x", id.Hash),
		"fork_next", id.Next,
		"earliest", c.Earliest,
		"latest", c.Latest,
		"latest_hash", fmt.Sprintf("%x", c.LatestHash),
	)
}
