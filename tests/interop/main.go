// Interop is a small peer of an ipfs-cluster 1.1.6 cluster in CRDT mode, for the tests of
// this repository: public libp2p modules at the versions the reference uses, driven by
// lines on standard input, telling what happens as JSON lines on standard output.
// README.md lists both.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	logging "github.com/ipfs/go-log/v2"
)

// settings are the flags.
type settings struct {
	secret, key, security, cluster, trusted string
	listen, bootstrap                       multi
	heartbeat, rebroadcast, fetchLimit      time.Duration
	deaf                                    bool
}

func main() {
	var s settings
	flag.StringVar(&s.secret, "secret", "", "cluster secret, 64 hex digits; empty for no private network")
	flag.StringVar(&s.key, "key", "", "private key, base64 of the libp2p protobuf; a new one if absent")
	flag.StringVar(&s.security, "security", "noise,tls", "security transports, in order")
	flag.StringVar(&s.cluster, "name", "ipfs-cluster", "cluster name")
	flag.StringVar(&s.trusted, "trusted", "*", "peers whose heads count, comma-separated, or *")
	flag.Var(&s.listen, "listen", "multiaddress to listen on (repeatable)")
	flag.Var(&s.bootstrap, "bootstrap", "address of a peer to connect to, with /p2p/ID (repeatable)")
	flag.DurationVar(&s.heartbeat, "heartbeat", 10*time.Second, "of gossip")
	flag.DurationVar(&s.rebroadcast, "rebroadcast", time.Minute, "how often heads are announced again")
	flag.DurationVar(&s.fetchLimit, "fetch-timeout", 2*time.Minute, "limit of fetching CRDT nodes")
	flag.BoolVar(&s.deaf, "deaf", false, "announce and serve, but take no heads in")
	flag.Parse()

	logging.SetAllLoggers(logging.LevelFatal)
	if level := os.Getenv("INTEROP_LOG"); level != "" {
		logging.SetLogLevelRegex(".*", level)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		emit("fatal", M{"error": err.Error()})
		os.Exit(1)
	}
}

// run is the life of the peer; it ends with standard input.
func run(ctx context.Context, s settings) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p, err := newPeer(ctx, s)
	if err != nil {
		return err
	}
	defer p.close()
	go func() {
		defer stop()
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			answer, err := p.command(ctx, lines.Text())
			if answer == nil {
				answer = M{}
			}
			answer["error"] = errText(err)
			emit("done", answer)
		}
	}()
	<-ctx.Done()
	return nil
}

// M is the body of one line of output.
type M map[string]any

var (
	outMu sync.Mutex
	start = time.Now()
)

// emit prints one line: the event's name, milliseconds since start, and the fields.
func emit(event string, fields M) {
	fields["event"] = event
	fields["ms"] = time.Since(start).Milliseconds()
	line, err := json.Marshal(fields)
	if err != nil {
		line, _ = json.Marshal(M{"event": event, "unprintable": err.Error()})
	}
	outMu.Lock()
	defer outMu.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// multi is a flag that may be given more than once.
type multi []string

func (m *multi) String() string     { return fmt.Sprint(*m) }
func (m *multi) Set(s string) error { *m = append(*m, s); return nil }
