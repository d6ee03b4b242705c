package harness

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/p2p/enode"
	"github.com/ethereum/go-ethereum/rlp"
)

// The flag Server.SetupConn expects for an outbound connection (its type is not
// exported), and how geth prints it. Connections of Server.AddPeer have another.
const (
	directFlag     = 1
	directFlagText = "dyndial"
)

// session is one running protocol of one connection.
type session struct {
	id       enode.ID
	remote   string
	peer     *p2p.Peer
	protocol string
	rw       p2p.MsgReadWriter
}

// server is one p2p.Server and what is known about its connections.
type server struct {
	index  int
	prog   *Program
	opts   *options
	chain  *Chain
	out    *output
	p2p    *p2p.Server
	dialer *loopbackDialer
	work   chan func()

	mu        sync.Mutex
	keys      map[enode.ID]string // node id to public key
	dropped   map[enode.ID]bool   // whether the remote asked for the end, by geth's log
	connected int                 // peers added and not dropped, by geth's events
	sessions  []*session
	stopping  bool
	done      chan struct{}
}

func newServer(index int, prog *Program, opts *options, chain *Chain, out *output, key *ecdsa.PrivateKey, logs slog.Handler) *server {
	s := &server{
		index:   index,
		prog:    prog,
		opts:    opts,
		chain:   chain,
		out:     out,
		dialer:  &loopbackDialer{d: net.Dialer{Timeout: 15 * time.Second}},
		work:    make(chan func(), 65536),
		keys:    make(map[enode.ID]string),
		dropped: make(map[enode.ID]bool),
		done:    make(chan struct{}),
	}
	if opts.ipPerPeer {
		s.dialer.d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+index/250), byte(1+index%250))}
	}
	config := p2p.Config{
		PrivateKey:      key,
		MaxPeers:        opts.maxPeers,
		MaxPendingPeers: opts.maxPending,
		DialRatio:       opts.dialRatio,
		NoDiscovery:     true,
		Name:            opts.name,
		Dialer:          s.dialer,
		// With NoDial all of MaxPeers is for inbound connections. It does not
		// forbid Server.SetupConn, only the scheduler behind Server.AddPeer.
		NoDial: opts.dialer == "direct",
		Logger: log.NewLogger(&logTap{next: logs, srv: s}),
	}
	if opts.listen {
		config.ListenAddr = "127.0.0.1:0"
	}
	for _, version := range opts.eth {
		config.Protocols = append(config.Protocols, p2p.Protocol{
			Name:    "eth",
			Version: version,
			Length:  prog.EthLengths[version],
			Run: func(p *p2p.Peer, rw p2p.MsgReadWriter) error {
				return s.runEth(version, p, rw)
			},
		})
	}
	for _, version := range opts.snap {
		config.Protocols = append(config.Protocols, p2p.Protocol{
			Name:    "snap",
			Version: version,
			Length:  prog.SnapLengths[version],
			Run: func(p *p2p.Peer, rw p2p.MsgReadWriter) error {
				return s.runSnap(version, p, rw)
			},
		})
	}
	s.p2p = &p2p.Server{Config: config}
	return s
}

func (s *server) start() error {
	events := make(chan *p2p.PeerEvent, 1024)
	sub := s.p2p.SubscribeEvents(events)
	go func() {
		defer sub.Unsubscribe()
		for {
			select {
			case ev := <-events:
				s.peerEvent(ev)
			case <-s.done:
				return
			}
		}
	}()
	go func() {
		for {
			select {
			case job := <-s.work:
				job()
			case <-s.done:
				return
			}
		}
	}()
	if err := s.p2p.Start(); err != nil {
		return err
	}
	self := s.p2p.Self()
	s.remember(self)
	if s.opts.listen {
		url, _, _ := strings.Cut(self.URLv4(), "?")
		s.out.emit("listening", "enode", url, "peer", s.index)
	}
	return nil
}

// stop returns when the last "disconnected" is printed. geth sends its events
// about them shortly after Stop returns.
func (s *server) stop() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.p2p.Stop()
	for range 200 {
		s.mu.Lock()
		left := s.connected
		s.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(s.done)
}

// loopbackDialer refuses everything but loopback addresses.
type loopbackDialer struct {
	d net.Dialer
}

func (l *loopbackDialer) Dial(ctx context.Context, dest *enode.Node) (net.Conn, error) {
	addr, ok := dest.TCPEndpoint()
	if !ok {
		return nil, fmt.Errorf("node does not provide TCP port")
	}
	if !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("%v is not a loopback address", addr)
	}
	return l.d.DialContext(ctx, "tcp", addr.String())
}

// dial makes one attempt in the background, or hands the node to geth's own
// dial scheduler.
func (s *server) dial(url string) {
	node, err := enode.Parse(enode.ValidSchemes, url)
	if err != nil {
		s.out.emit("error", "peer", s.index, "error", err.Error())
		return
	}
	s.remember(node)
	s.out.emit("sent", "do", "dial", "peer", s.index, "remote", s.remoteKey(node.ID()))
	if s.opts.dialer == "static" {
		s.p2p.AddPeer(node)
		return
	}
	go func() {
		conn, err := s.dialer.Dial(context.Background(), node)
		stage := "tcp"
		if err == nil {
			err = s.p2p.SetupConn(conn, directFlag, node)
			switch {
			case err == nil:
				return
			case strings.HasPrefix(err.Error(), "rlpx enc error"):
				stage = "rlpx"
			case strings.HasPrefix(err.Error(), "rlpx proto error"):
				stage = "hello"
			default:
				stage = "check"
			}
		}
		kv := []any{"peer", s.index, "stage", stage, "remote", s.remoteKey(node.ID()), "node_id", node.ID().String()}
		s.out.emit("dial_error", append(kv, describeError(err)...)...)
	}()
}

func (s *server) command(cmd *command) {
	switch cmd.Do {
	case "dial":
		s.dial(cmd.Enode)
	case "send":
		payload, err := hex.DecodeString(strings.TrimPrefix(cmd.Payload, "0x"))
		if err != nil {
			s.out.emit("error", "peer", s.index, "error", "payload: "+err.Error())
			return
		}
		s.work <- func() { s.send(cmd, payload) }
	case "disconnect":
		s.work <- func() { s.disconnect(cmd) }
	case "peers":
		s.work <- func() { s.out.emit("peers", "peer", s.index, "count", s.p2p.PeerCount()) }
	default:
		s.out.emit("error", "peer", s.index, "error", fmt.Sprintf("unknown command %q", cmd.Do))
	}
}

// selectSessions finds the sessions a command is for: all of one protocol, or of
// one remote.
func (s *server) selectSessions(protocol, remote string) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*session
	for _, sess := range s.sessions {
		if (protocol == "" || sess.protocol == protocol) && (remote == "" || sess.remote == remote) {
			found = append(found, sess)
		}
	}
	return found
}

func (s *server) send(cmd *command, payload []byte) {
	protocol := cmd.Protocol
	if protocol == "" {
		protocol = "eth"
	}
	count := 0
	for _, sess := range s.selectSessions(protocol, cmd.Remote) {
		for range max(cmd.Repeat, 1) {
			msg := p2p.Msg{Code: cmd.Code, Size: uint32(len(payload)), Payload: bytes.NewReader(payload)}
			if err := sess.rw.WriteMsg(msg); err != nil {
				s.out.emit("error", "peer", s.index, "remote", sess.remote, "error", "send: "+err.Error())
				break
			}
			count++
		}
	}
	s.out.emit("sent", "do", "send", "peer", s.index, "protocol", protocol, "code", cmd.Code, "count", count)
}

func (s *server) disconnect(cmd *command) {
	done := make(map[enode.ID]bool)
	for _, sess := range s.selectSessions("", cmd.Remote) {
		if !done[sess.id] {
			done[sess.id] = true
			sess.peer.Disconnect(p2p.DiscReason(cmd.Reason))
		}
	}
	s.out.emit("sent", "do", "disconnect", "peer", s.index, "reason", cmd.Reason, "count", len(done))
}

func (s *server) remember(n *enode.Node) string {
	key := ""
	if pub := n.Pubkey(); pub != nil {
		key = hex.EncodeToString(crypto.FromECDSAPub(pub)[1:])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[n.ID()] = key
	return key
}

func (s *server) remoteKey(id enode.ID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[id]
}

func (s *server) noteDrop(id enode.ID, byRemote bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped[id] = byRemote
}

// takeDrop waits for the log line about a drop, which geth writes while it sends
// the event. There is none when the server stops.
func (s *server) takeDrop(id enode.ID) bool {
	for range 100 {
		s.mu.Lock()
		byRemote, known := s.dropped[id]
		delete(s.dropped, id)
		stopping := s.stopping
		s.mu.Unlock()
		if known || stopping {
			return byRemote
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

func (s *server) peerEvent(ev *p2p.PeerEvent) {
	switch ev.Type {
	case p2p.PeerEventTypeAdd:
		s.mu.Lock()
		s.connected++
		s.mu.Unlock()
	case p2p.PeerEventTypeDrop:
		byRemote := s.takeDrop(ev.Peer)
		kv := []any{"peer", s.index, "remote", s.remoteKey(ev.Peer), "node_id", ev.Peer.String(),
			"addr", ev.RemoteAddress, "by_remote", byRemote, "error", ev.Error}
		for reason := p2p.DiscRequested; reason <= p2p.DiscSubprotocolError; reason++ {
			if reason.Error() == ev.Error {
				kv = append(kv, "reason", uint8(reason))
			}
		}
		s.out.emit("disconnected", kv...)
		s.mu.Lock()
		s.connected--
		s.mu.Unlock()
	}
}

func (s *server) open(protocol string, p *p2p.Peer, rw p2p.MsgReadWriter) *session {
	sess := &session{id: p.ID(), remote: s.remember(p.Node()), peer: p, protocol: protocol, rw: rw}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions = append(s.sessions, sess)
	return sess
}

func (s *server) close(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions = slices.DeleteFunc(s.sessions, func(other *session) bool { return other == sess })
}

// firstMessage keeps a copy of the first message read, which is the Status.
type firstMessage struct {
	p2p.MsgReadWriter
	seen    bool
	code    uint64
	payload []byte
}

func (f *firstMessage) ReadMsg() (p2p.Msg, error) {
	msg, err := f.MsgReadWriter.ReadMsg()
	if err != nil || f.seen {
		return msg, err
	}
	f.seen, f.code = true, msg.Code
	if f.payload, err = io.ReadAll(msg.Payload); err != nil {
		return msg, err
	}
	msg.Payload = bytes.NewReader(f.payload)
	return msg, nil
}

func (s *server) runEth(version uint, p *p2p.Peer, rw p2p.MsgReadWriter) error {
	caps := make([]string, len(p.Caps()))
	for i, c := range p.Caps() {
		caps[i] = c.String()
	}
	s.out.emit("connected", "peer", s.index, "remote", s.remember(p.Node()), "inbound", p.Inbound(),
		"name", p.Fullname(), "caps", caps, "addr", p.RemoteAddr().String(), "version", version)

	if !s.opts.skipStatus {
		first := &firstMessage{MsgReadWriter: rw}
		info, err := s.prog.Handshake(version, p, first, s.chain)
		if err != nil {
			s.out.emit("status", "peer", s.index, "version", version, "ok", false, "error", err.Error(), "remote", s.remoteKey(p.ID()))
			return err
		}
		kv := []any{"peer", s.index, "version", version, "ok", true, "remote", s.remoteKey(p.ID()), "payload", hex.EncodeToString(first.payload)}
		for name, value := range info {
			kv = append(kv, name, value)
		}
		s.out.emit("status", kv...)
	}
	sess := s.open("eth", p, rw)
	defer s.close(sess)
	if s.opts.blast != nil {
		go s.blast(sess)
	}
	return s.readLoop(version, sess)
}

func (s *server) runSnap(version uint, p *p2p.Peer, rw p2p.MsgReadWriter) error {
	s.out.emit("snap", "peer", s.index, "version", version, "remote", s.remember(p.Node()))
	sess := s.open("snap", p, rw)
	defer s.close(sess)
	return s.readLoop(version, sess)
}

func (s *server) readLoop(version uint, sess *session) error {
	for {
		msg, err := sess.rw.ReadMsg()
		if err != nil {
			return err
		}
		payload, err := io.ReadAll(msg.Payload)
		if err != nil {
			return err
		}
		packet, verdict := s.decode(sess.protocol, version, msg.Code, payload)
		shown := payload
		if s.opts.printMax >= 0 && len(shown) > s.opts.printMax {
			shown = shown[:s.opts.printMax]
		}
		s.out.emit("message", "peer", s.index, "protocol", sess.protocol, "version", version, "code", msg.Code,
			"payload", hex.EncodeToString(shown), "size", len(payload), "decode", verdict, "remote", sess.remote)
		if s.opts.answerEmpty && verdict == "ok" {
			if code, answer, ok := s.prog.Empty(version, packet); ok {
				if err := p2p.Send(sess.rw, code, answer); err != nil {
					return err
				}
				encoded, _ := rlp.EncodeToBytes(answer)
				s.out.emit("answered", "peer", s.index, "protocol", sess.protocol, "version", version, "code", code,
					"payload", hex.EncodeToString(encoded), "remote", sess.remote)
			}
		}
		if s.opts.readDelay > 0 {
			time.Sleep(s.opts.readDelay)
		}
	}
}

// decode gives the message to geth's decoder: "ok", "no handler" or the error
// for which geth would drop the peer.
func (s *server) decode(protocol string, version uint, code uint64, payload []byte) (any, string) {
	packet := s.prog.Packet(protocol, version, code)
	if packet == nil {
		return nil, "no handler"
	}
	msg := p2p.Msg{Code: code, Size: uint32(len(payload)), Payload: bytes.NewReader(payload)}
	if err := msg.Decode(packet); err != nil {
		return nil, err.Error()
	}
	if err := decodeItems(reflect.ValueOf(packet), 4); err != nil {
		return nil, err.Error()
	}
	return packet, "ok"
}

// decodeItems decodes the lists which newer releases of geth keep raw at first
// (rlp.RawList) as their handlers do later.
func decodeItems(v reflect.Value, depth int) error {
	if depth == 0 {
		return nil
	}
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		if items := v.MethodByName("Items"); items.IsValid() && items.Type().NumIn() == 0 && items.Type().NumOut() == 2 {
			result := items.Call(nil)
			if err, _ := result[1].Interface().(error); err != nil {
				return err
			}
			for i := range result[0].Len() {
				if err := decodeItems(result[0].Index(i).Addr(), depth-1); err != nil {
					return err
				}
			}
			return nil
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		f := v.Field(i)
		if !v.Type().Field(i).IsExported() {
			continue
		}
		if f.Kind() == reflect.Struct && f.CanAddr() {
			f = f.Addr()
		}
		if err := decodeItems(f, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// blast sends COUNT messages of SIZE incompressible bytes: a list of one byte
// string, so that it is valid RLP whatever the code.
func (s *server) blast(sess *session) {
	count, size, code := s.opts.blast[0], s.opts.blast[1], s.opts.blast[2]
	data := make([]byte, size)
	rand.Read(data)
	payload, _ := rlp.EncodeToBytes([][]byte{data})
	began, sent := time.Now(), uint64(0)
	for ; sent < count; sent++ {
		msg := p2p.Msg{Code: code, Size: uint32(len(payload)), Payload: bytes.NewReader(payload)}
		if err := sess.rw.WriteMsg(msg); err != nil {
			s.out.emit("error", "peer", s.index, "remote", sess.remote, "error", "blast: "+err.Error())
			break
		}
	}
	s.out.emit("blasted", "peer", s.index, "remote", sess.remote, "count", sent, "size", len(payload), "ms", time.Since(began).Milliseconds())
}
