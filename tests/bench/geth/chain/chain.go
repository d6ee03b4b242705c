// Package chain is the one chain on which all sides of the bench are: what
// geth's own Status code asks of a blockchain.
package chain

import (
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/forkid"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/params"
)

// NetworkID is announced by all sides.
const NetworkID = 7332

const (
	genesisTime = 1_700_000_000
	headNumber  = 5000
	headTime    = genesisTime + 60_000
)

// All forks lie behind the head.
var (
	forkBlocks = []uint64{100, 200, 1000}
	forkTimes  = []uint64{genesisTime + 10_000, genesisTime + 20_000, genesisTime + 30_000}
)

// lengths are the messages by version: protocolLengths of eth/protocols/eth,
// which is not exported.
var lengths = map[uint]uint64{eth.ETH69: 18, eth.ETH70: 18, eth.ETH71: 20, eth.ETH72: 22}

// Chain implements forkid.Blockchain.
type Chain struct {
	config  *params.ChainConfig
	genesis *types.Block
	head    *types.Header
}

func (c *Chain) Config() *params.ChainConfig  { return c.config }
func (c *Chain) Genesis() *types.Block        { return c.genesis }
func (c *Chain) CurrentHeader() *types.Header { return c.head }

// New makes the chain.
func New() *Chain {
	big64 := func(n uint64) *big.Int { return new(big.Int).SetUint64(n) }
	extra := []byte("bench")
	return &Chain{
		config: &params.ChainConfig{
			ChainID:        big64(NetworkID),
			HomesteadBlock: big64(0),
			EIP150Block:    big64(forkBlocks[0]),
			ByzantiumBlock: big64(forkBlocks[1]),
			LondonBlock:    big64(forkBlocks[2]),
			ShanghaiTime:   &forkTimes[0],
			CancunTime:     &forkTimes[1],
			PragueTime:     &forkTimes[2],
		},
		genesis: types.NewBlockWithHeader(&types.Header{
			Number: new(big.Int), Difficulty: big64(131072), GasLimit: 30_000_000, Time: genesisTime, Extra: extra,
		}),
		head: &types.Header{
			Number: big64(headNumber), Difficulty: new(big.Int), GasLimit: 30_000_000, Time: headTime, Extra: extra,
		},
	}
}

// Range is the block range of a Status.
func (c *Chain) Range() eth.BlockRangeUpdatePacket {
	return eth.BlockRangeUpdatePacket{LatestBlock: headNumber, LatestBlockHash: c.head.Hash()}
}

// Status is what the load announces.
func (c *Chain) Status(version uint) *eth.StatusPacket {
	span := c.Range()
	return &eth.StatusPacket{
		ProtocolVersion: uint32(version),
		NetworkID:       NetworkID,
		Genesis:         c.genesis.Hash(),
		ForkID:          forkid.NewID(c.config, c.genesis, headNumber, headTime),
		LatestBlock:     span.LatestBlock,
		LatestBlockHash: span.LatestBlockHash,
	}
}

// Describe is the chain in the words of a chain file of ours.
func (c *Chain) Describe() map[string]any {
	return map[string]any{
		"genesis":      fmt.Sprintf("%x", c.genesis.Hash()),
		"network_id":   NetworkID,
		"genesis_time": genesisTime,
		"fork_blocks":  forkBlocks,
		"fork_times":   forkTimes,
	}
}

// Caps are the versions that both Go programs offer: those of geth itself.
func Caps() (caps []p2p.Cap) {
	for _, version := range eth.ProtocolVersions {
		caps = append(caps, p2p.Cap{Name: eth.ProtocolName, Version: version})
	}
	return caps
}

// Length is the number of messages of a version of eth.
func Length(version uint) uint64 { return lengths[version] }

// Genesis is the hash by which the load knows the other side's chain.
func (c *Chain) GenesisHash() common.Hash { return c.genesis.Hash() }
