package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/p2p/enode"
)

// logTap is a log handler. geth does not report why a connection never became
// a peer anywhere but in its trace log, with the reason in the err attribute.
type logTap struct {
	next  slog.Handler
	attrs []slog.Attr
	srv   *server
}

// The messages of p2p/server.go and p2p/dial.go which end a connection attempt,
// and what was under way.
var failureStages = map[string]string{
	"Dial error":                      "tcp",
	"Rejected inbound connection":     "tcp",
	"Failed RLPx handshake":           "rlpx",
	"Setting up connection failed":    "rlpx",
	"Failed p2p handshake":            "hello",
	"Wrong devp2p handshake identity": "check",
	"Rejected peer":                   "check",
}

func (h *logTap) Enabled(context.Context, slog.Level) bool { return true }

func (h *logTap) WithGroup(name string) slog.Handler { return h }

func (h *logTap) WithAttrs(attrs []slog.Attr) slog.Handler {
	all := append(append([]slog.Attr{}, h.attrs...), attrs...)
	return &logTap{next: h.next.WithAttrs(attrs), attrs: all, srv: h.srv}
}

func (h *logTap) Handle(ctx context.Context, r slog.Record) error {
	stage, failed := failureStages[r.Message]
	if failed || r.Message == "Removing p2p peer" {
		found := make(map[string]any)
		for _, a := range h.attrs {
			found[a.Key] = a.Value.Any()
		}
		r.Attrs(func(a slog.Attr) bool {
			found[a.Key] = a.Value.Any()
			return true
		})
		if failed {
			h.failure(stage, found)
		} else if id, ok := found["id"].(enode.ID); ok {
			byRemote, _ := found["req"].(bool)
			h.srv.noteDrop(id, byRemote)
		}
	}
	if h.next.Enabled(ctx, r.Level) {
		return h.next.Handle(ctx, r)
	}
	return nil
}

func (h *logTap) failure(stage string, found map[string]any) {
	flags := fmt.Sprint(found["conn"])
	if flags == directFlagText {
		return // Server.SetupConn returns the error of these to us
	}
	err, _ := found["err"].(error)
	if err == nil {
		err = p2p.DiscUnexpectedIdentity // the only message without an err
	}
	event := "inbound_error"
	if strings.Contains(flags, "dial") {
		event = "dial_error"
	}
	kv := []any{"peer", h.srv.index, "stage", stage}
	if id, ok := found["id"].(enode.ID); ok {
		kv = append(kv, "remote", h.srv.remoteKey(id), "node_id", id.String())
	}
	if addr := found["addr"]; addr != nil {
		kv = append(kv, "addr", fmt.Sprint(addr))
	}
	h.srv.out.emit(event, append(kv, describeError(err)...)...)
}

// describeError gives the text of the innermost Disconnect reason, if there is
// one, else of the error itself.
func describeError(err error) []any {
	var reason p2p.DiscReason
	if errors.As(err, &reason) {
		return []any{"error", reason.Error(), "reason", uint8(reason)}
	}
	return []any{"error", err.Error()}
}
