// Package payload makes the contents of the bench's messages: the same bytes
// for all sides, valid RLP, and of the kind that snappy meets on the network.
package payload

import (
	"encoding/binary"
	"fmt"
	"math/rand"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/rlp"
)

const (
	seed = 1
	// A word of call data: random ones are hashes and signatures, the others
	// small numbers with zeros before them.
	wordBytes = 32
	// StampBytes at the end of a payload take the time at which it was sent.
	StampBytes = 8
)

// Transactions is a list of one string, of size bytes in all, of which every
// second word is random.
func Transactions(size int) []byte {
	random := rand.New(rand.NewSource(seed))
	content := make([]byte, size)
	for start := 0; start < size; start += 2 * wordBytes {
		random.Read(content[start:min(start+wordBytes, size)])
		if end := start + 2*wordBytes; end <= size {
			content[end-1] = byte(random.Intn(256))
		}
	}
	for length := size; ; length-- {
		encoded, err := rlp.EncodeToBytes([][]byte{content[:length]})
		if err != nil {
			panic(err)
		}
		if len(encoded) <= size {
			return encoded
		}
	}
}

// Stamp writes a time into the end of a payload.
func Stamp(payload []byte, nanoseconds int64) {
	binary.BigEndian.PutUint64(payload[len(payload)-StampBytes:], uint64(nanoseconds))
}

// Announcement names so many pooled transactions, in the form of a version.
func Announcement(version uint, hashes int) []byte {
	random := rand.New(rand.NewSource(seed))
	packet := eth.NewPooledTransactionHashesPacket71{
		Types:  make([]byte, hashes),
		Sizes:  make([]uint32, hashes),
		Hashes: make([]common.Hash, hashes),
	}
	for i := range hashes {
		packet.Types[i] = types.DynamicFeeTxType
		packet.Sizes[i] = uint32(100 + random.Intn(900))
		random.Read(packet.Hashes[i][:])
	}
	var form any = &packet
	if version >= eth.ETH72 {
		form = &eth.NewPooledTransactionHashesPacket72{
			Types: packet.Types, Sizes: packet.Sizes, Hashes: packet.Hashes,
		}
	}
	encoded, err := rlp.EncodeToBytes(form)
	if err != nil {
		panic(fmt.Sprintf("announcement: %v", err))
	}
	return encoded
}
