// Package harness is what the two gethpeer programs share: p2p.Server instances
// on loopback, driven by JSON lines on the standard input and reporting JSON
// lines on the standard output. It is compiled against both releases of
// go-ethereum; what differs between them is handed in as a Program.
//
// Commands, the member "peer" (default 0) being the index of one of -count:
//
//	{"do":"dial","enode":"enode://..."}
//	{"do":"send","protocol":"eth","code":2,"payload":"c0"}  also "remote", "repeat"
//	{"do":"disconnect","reason":4}                          also "remote"
//	{"do":"peers"}
//	{"do":"quit"}                                           as the end of the input
//
// Events: chain, listening, connected, status, snap, message, answered, blasted,
// disconnected, dial_error, inbound_error, sent, peers, error, stopped. A
// "remote" is the public key of the other side in 128 hex digits, a "node_id"
// its hash as geth logs it. The "stage" of a failed connection is tcp, rlpx
// (encryption handshake), hello (the remote ended it or sent a bad Hello) or
// check (this side refused).
package harness

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/p2p"
)

// Program is the part that depends on the release of go-ethereum.
type Program struct {
	Name        string          // client name of the Hello
	DefaultEth  string          // default of -eth
	EthLengths  map[uint]uint64 // messages by version of eth
	SnapLengths map[uint]uint64 // the same for snap

	// Handshake runs geth's Status exchange and returns more to report.
	Handshake func(version uint, p *p2p.Peer, rw p2p.MsgReadWriter, c *Chain) (map[string]any, error)

	// Packet gives a new value of the type geth decodes the message into, nil
	// if geth has no handler for that code.
	Packet func(protocol string, version uint, code uint64) any

	// Empty gives the answer of a server that has nothing, if the message (its
	// decoded packet) is a request.
	Empty func(version uint, packet any) (code uint64, answer any, ok bool)
}

type options struct {
	eth, snap    []uint
	count        int
	key          string
	name         string
	listen       bool
	dial         string
	dialer       string
	dialInterval time.Duration
	dialRatio    int
	ipPerPeer    bool
	maxPeers     int
	maxPending   int
	networkID    uint64
	genesisSalt  string
	forkShift    int64
	head         uint64
	headTime     uint64
	earliest     uint64
	latest       int64
	answerEmpty  bool
	skipStatus   bool
	readDelay    time.Duration
	printMax     int
	blast        []uint64
	verbose      bool
}

// parseVersions reads a list like "69,70". Every version must have a length.
func parseVersions(flagName, list string, lengths map[uint]uint64) ([]uint, error) {
	var versions []uint
	for _, s := range strings.Split(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || lengths[uint(n)] == 0 {
			return nil, fmt.Errorf("-%s: version %q is not offered by this geth", flagName, s)
		}
		versions = append(versions, uint(n))
	}
	return versions, nil
}

func parseFlags(prog *Program, args []string) (*options, error) {
	var (
		o                = new(options)
		fs               = flag.NewFlagSet("gethpeer", flag.ContinueOnError)
		eth, snap, blast string
		interval, delay  int
		err              error
	)
	fs.StringVar(&eth, "eth", prog.DefaultEth, "versions of eth to offer; empty for none")
	fs.StringVar(&snap, "snap", "", "versions of snap to offer")
	fs.IntVar(&o.count, "count", 1, "number of independent peers")
	fs.StringVar(&o.key, "key", "", "private key of peer 0 in hex; random if empty")
	fs.StringVar(&o.name, "name", prog.Name, "client name in the Hello")
	fs.BoolVar(&o.listen, "listen", false, "listen on 127.0.0.1, any port")
	fs.StringVar(&o.dial, "dial", "", "enode which every peer dials on start")
	fs.StringVar(&o.dialer, "dialer", "direct", "direct: one attempt through Server.SetupConn; static: Server.AddPeer, which redials after 35 s")
	fs.IntVar(&interval, "dial-interval-ms", 0, "pause between the peers when starting to dial")
	fs.IntVar(&o.dialRatio, "dial-ratio", 0, "Server.DialRatio, for -dialer static only")
	fs.BoolVar(&o.ipPerPeer, "ip-per-peer", false, "dial from 127.0.1.x, another address for each peer")
	fs.IntVar(&o.maxPeers, "max-peers", 50, "Server.MaxPeers")
	fs.IntVar(&o.maxPending, "max-pending", 0, "Server.MaxPendingPeers, 0 for the default of geth")
	fs.Uint64Var(&o.networkID, "network-id", 7331, "network id to announce and require")
	fs.StringVar(&o.genesisSalt, "genesis-salt", "", "changes the genesis header and its hash")
	fs.Int64Var(&o.forkShift, "fork-shift", 0, "seconds added to the fork times")
	fs.Uint64Var(&o.head, "head", headNumber, "number of the current header")
	fs.Uint64Var(&o.headTime, "head-time", headTime, "time of the current header")
	fs.Uint64Var(&o.earliest, "earliest", 0, "earliest block of the range (eth/69 and later)")
	fs.Int64Var(&o.latest, "latest", -1, "latest block of the range, -1 for the head")
	fs.BoolVar(&o.answerEmpty, "answer-empty", false, "answer every request as a server that has nothing")
	fs.BoolVar(&o.skipStatus, "skip-status", false, "neither send a Status nor treat the first message as one")
	fs.IntVar(&delay, "read-delay-ms", 0, "pause after each message read")
	fs.IntVar(&o.printMax, "print-payload", -1, "print at most so many payload bytes, -1 for all")
	fs.StringVar(&blast, "blast", "", "COUNT,SIZE,CODE: messages to send after the eth handshake")
	fs.BoolVar(&o.verbose, "v", false, "logs of geth (trace level) to stderr")
	if err = fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.eth, err = parseVersions("eth", eth, prog.EthLengths); err != nil {
		return nil, err
	}
	if o.snap, err = parseVersions("snap", snap, prog.SnapLengths); err != nil {
		return nil, err
	}
	if o.dialer != "direct" && o.dialer != "static" {
		return nil, fmt.Errorf("-dialer: %q is neither direct nor static", o.dialer)
	}
	if blast != "" {
		for _, s := range strings.Split(blast, ",") {
			n, err := strconv.ParseUint(strings.TrimSpace(s), 0, 32)
			if err != nil {
				return nil, fmt.Errorf("-blast: %v", err)
			}
			o.blast = append(o.blast, n)
		}
		if len(o.blast) != 3 {
			return nil, fmt.Errorf("-blast: COUNT,SIZE,CODE expected")
		}
	}
	o.dialInterval = time.Duration(interval) * time.Millisecond
	o.readDelay = time.Duration(delay) * time.Millisecond
	return o, nil
}

// Main runs the program and returns its exit code.
func Main(prog *Program) int {
	out := newOutput(os.Stdout)
	fail := func(err error) int {
		out.emit("error", "error", err.Error())
		return 2
	}
	opts, err := parseFlags(prog, os.Args[1:])
	if err != nil {
		return fail(err)
	}
	var logs slog.Handler = log.DiscardHandler()
	if opts.verbose {
		logs = log.NewTerminalHandlerWithLevel(os.Stderr, log.LevelTrace, false)
	}
	log.SetDefault(log.NewLogger(logs))

	chain := newChain(opts)
	chain.describe(out)

	servers := make([]*server, opts.count)
	for i := range servers {
		key, err := crypto.GenerateKey()
		if i == 0 && opts.key != "" {
			key, err = crypto.HexToECDSA(strings.TrimPrefix(opts.key, "0x"))
		}
		if err != nil {
			return fail(err)
		}
		servers[i] = newServer(i, prog, opts, chain, out, key, logs)
		if err := servers[i].start(); err != nil {
			return fail(err)
		}
	}

	quit := make(chan struct{})
	go func() {
		readCommands(os.Stdin, servers, out)
		close(quit)
	}()
	go func() {
		for i, s := range servers {
			if opts.dial == "" {
				return
			}
			if i > 0 && opts.dialInterval > 0 {
				time.Sleep(opts.dialInterval)
			}
			s.dial(opts.dial)
		}
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-quit:
	case <-signals:
	}
	stopAll(servers)
	out.emit("stopped")
	return 0
}

// stopAll stops the servers, each of which says "quitting" to its peers.
func stopAll(servers []*server) {
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s.stop()
		}()
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
}

// readCommands carries the commands out until the input ends or says so.
func readCommands(in io.Reader, servers []*server, out *output) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<16), 64<<20)
	for lines.Scan() {
		if len(strings.TrimSpace(lines.Text())) == 0 {
			continue
		}
		var cmd command
		if err := json.Unmarshal(lines.Bytes(), &cmd); err != nil {
			out.emit("error", "error", "bad command: "+err.Error())
			continue
		}
		if cmd.Do == "quit" {
			return
		}
		if cmd.Peer < 0 || cmd.Peer >= len(servers) {
			out.emit("error", "error", fmt.Sprintf("no peer %d", cmd.Peer))
			continue
		}
		servers[cmd.Peer].command(&cmd)
	}
}
