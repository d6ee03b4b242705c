// Command gethnode is a go-ethereum node without a main loop: a chain that geth
// generated and executed, served by geth's own eth and snap handlers over
// p2p.Server on loopback. Each argument is one server and what it offers:
//
//	gethnode -blocks 1000 -export FOLDER eth/69,snap/1 eth/70
//
// Commands, one JSON object a line; "server" is the index of an argument:
//
//	{"do":"dial","server":0,"enode":"enode://..."}
//	{"do":"fetch","server":0,"count":1000,"head":"0x..."}  asks its peer for the blocks
//	{"do":"send","server":0,"count":5}                     sends new transactions
//	{"do":"get","server":0,"hashes":["0x..."]}             asks its peer for transactions
//
// Events: chain, listening, connected, refused, disconnected, fetched, sent,
// announced, got, error.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/protocols/eth"
	"github.com/ethereum/go-ethereum/eth/protocols/snap"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/p2p/enode"
)

// output writes one JSON object a line.
type output struct {
	mu sync.Mutex
	w  *json.Encoder
}

// emit prints an event; kv are alternating names and values.
func (o *output) emit(event string, kv ...any) {
	line := map[string]any{"event": event}
	for i := 0; i+1 < len(kv); i += 2 {
		line[kv[i].(string)] = kv[i+1]
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.w.Encode(line)
}

type command struct {
	Do     string        `json:"do"`
	Server int           `json:"server"`
	Enode  string        `json:"enode"`
	Count  int           `json:"count"`
	Head   common.Hash   `json:"head"`
	Hashes []common.Hash `json:"hashes"`
}

// server is one p2p.Server on the chain that all of them share.
type server struct {
	*ethBackend
	p2p *p2p.Server
}

func main() {
	var (
		blocks    = flag.Int("blocks", 0, "length of the chain; with 0 there is the genesis alone")
		largeLogs = flag.Int("large-logs", 0, "transactions of the last block that log 1 MiB each")
		folder    = flag.String("export", "", "folder to write chain.rlp and receipts.rlp to")
	)
	flag.Parse()
	out := &output{w: json.NewEncoder(os.Stdout)}
	if err := run(out, *blocks, *largeLogs, *folder); err != nil {
		out.emit("error", "error", err.Error())
		os.Exit(1)
	}
}

func run(out *output, blocks, largeLogs int, folder string) error {
	chain, err := newChain(blocks, largeLogs)
	if err != nil {
		return err
	}
	defer chain.Stop()
	if folder != "" {
		if err := export(chain, folder); err != nil {
			return err
		}
	}
	describe(out, chain)
	var servers []*server
	for i, offers := range flag.Args() {
		s, err := serve(i, strings.Split(offers, ","), chain, out)
		if err != nil {
			return err
		}
		defer s.p2p.Stop()
		servers = append(servers, s)
		url, _, _ := strings.Cut(s.p2p.Self().URLv4(), "?")
		out.emit("listening", "server", i, "enode", url)
	}
	return readCommands(os.Stdin, servers, out)
}

func describe(out *output, chain *core.BlockChain) {
	config, head := chain.Config(), chain.CurrentHeader()
	out.emit("chain",
		"network_id", networkID,
		"genesis", fmt.Sprintf("%x", chain.Genesis().Hash()),
		"genesis_time", genesisTime,
		"fork_blocks", []uint64{},
		"fork_times", []uint64{
			*config.ShanghaiTime, *config.CancunTime, *config.PragueTime, *config.OsakaTime, *config.AmsterdamTime,
		},
		"head", map[string]any{
			"number": head.Number.Uint64(), "hash": head.Hash(), "time": head.Time, "root": head.Root,
		},
	)
}

func serve(index int, offers []string, chain *core.BlockChain, out *output) (*server, error) {
	backend := &ethBackend{server: index, chain: chain, pool: &pool{txs: make(map[common.Hash]*types.Transaction)}, out: out}
	all := slices.Concat(eth.MakeProtocols(backend, networkID, nil), snap.MakeProtocols(&snapBackend{chain}, true))
	key, err := crypto.GenerateKey()
	if err != nil {
		return nil, err
	}
	config := p2p.Config{
		PrivateKey:  key,
		MaxPeers:    10,
		NoDiscovery: true,
		NoDial:      true,
		Name:        "gethnode/v1.17.10",
		ListenAddr:  "127.0.0.1:0",
		Protocols: slices.DeleteFunc(all, func(p p2p.Protocol) bool {
			return !slices.Contains(offers, fmt.Sprintf("%s/%d", p.Name, p.Version))
		}),
	}
	s := &server{backend, &p2p.Server{Config: config}}
	return s, s.p2p.Start()
}

// readCommands carries the commands out until the input ends.
func readCommands(in io.Reader, servers []*server, out *output) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var cmd command
		if err := json.Unmarshal(lines.Bytes(), &cmd); err != nil {
			return err
		}
		if err := servers[cmd.Server].command(&cmd); err != nil {
			out.emit("error", "server", cmd.Server, "do", cmd.Do, "error", err.Error())
		}
	}
	return lines.Err()
}

func (s *server) command(cmd *command) error {
	if cmd.Do == "dial" {
		return s.dial(cmd.Enode)
	}
	peer, err := s.peer()
	if err != nil {
		return err
	}
	switch cmd.Do {
	case "fetch":
		got, err := fetch(peer, s.chain.Genesis().Hash(), cmd.Head, cmd.Count)
		if err != nil {
			return err
		}
		s.out.emit("fetched", "server", s.server, "headers", got.headers, "transactions", got.transactions,
			"withdrawals", got.withdrawals, "receipts", got.receipts, "roundtrips", got.roundtrips)
		return nil
	case "send":
		txs := looseTransactions(s.chain, cmd.Count)
		s.pool.add(txs)
		hashes := make([]common.Hash, len(txs))
		for i, tx := range txs {
			hashes[i] = tx.Hash()
		}
		s.out.emit("sent", "server", s.server, "hashes", hashes)
		return peer.SendTransactions(txs)
	case "get":
		return peer.RequestTxs(cmd.Hashes)
	}
	return fmt.Errorf("unknown command %q", cmd.Do)
}

// The flag Server.SetupConn expects for an outbound connection; its type is not
// exported.
const dialledFlag = 1

func (s *server) dial(url string) error {
	node, err := enode.Parse(enode.ValidSchemes, url)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", node.TCP()))
	if err != nil {
		return err
	}
	return s.p2p.SetupConn(conn, dialledFlag, node)
}
