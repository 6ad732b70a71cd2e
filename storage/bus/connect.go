package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

const (
	connectTime = 5 * time.Second
	// dedupWindow is how long the stream that we make knows message ids.
	dedupWindow = 2 * time.Minute
	// maxCredentials bounds the credentials file, in bytes.
	maxCredentials = 64 << 10
)

// checkURL wants servers that can be reached safely: by TLS, or on this machine.
func checkURL(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		switch {
		case err != nil || u.Hostname() == "":
			return errors.New("url is a list of servers, as in tls://nats.example:4222") // not told: it may hold a password
		case u.User != nil:
			return errors.New("url holds a name or a password; put them into a credentials file")
		case u.Scheme == "tls":
		case u.Scheme != "nats":
			return fmt.Errorf("url: %s is neither nats nor tls", u.Scheme)
		case !loopback(u.Hostname()):
			return fmt.Errorf("url: to another host than this one use tls://%s", u.Host)
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// dialer ends an attempt to connect with its context.
type dialer struct{ ctx context.Context }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, connectTime)
	defer cancel()
	return new(net.Dialer).DialContext(ctx, network, address)
}

// connect opens a connection that is never mended: whatever happens to it, a
// new session looks first where the stream ends.
func (b *Bus) connect(ctx context.Context, failed func(error)) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name("kernelgate"), nats.NoReconnect(), nats.Timeout(connectTime), nats.SetCustomDialer(dialer{ctx}),
		nats.PingInterval(b.pace.check), nats.MaxPingsOutstanding(2), nats.NoEcho(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { failed(err) }),
	}
	if b.TLS != nil {
		options = append(options, nats.Secure(b.TLS.Clone()))
	}
	login, err := credentials(b.Credentials)
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(b.URL, append(options, login...)...)
	if err != nil {
		return nil, fmt.Errorf("no connection to %s: %w", b.URL, err)
	}
	return conn, nil
}

// credentials reads the file anew for each connection, so that it can be replaced.
func credentials(file string) ([]nats.Option, error) {
	if file == "" {
		return nil, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if info.Size() > maxCredentials {
		return nil, fmt.Errorf("credentials: %s is larger than %d bytes", file, maxCredentials)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	defer clear(data)
	if bytes.Contains(data, []byte("BEGIN NATS USER JWT")) {
		return []nats.Option{nats.UserCredentials(file)}, nil
	}
	key, err := nkeys.FromSeed(bytes.TrimSpace(data))
	if err != nil {
		return nil, fmt.Errorf("credentials: %s is neither a NATS credentials file nor an nkey's seed", file)
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("credentials: %s holds no private key", file)
	}
	return []nats.Option{nats.Nkey(public, key.Sign)}, nil
}

// openStream finds the stream, or makes it.
func (b *Bus) openStream(ctx context.Context, js jetstream.JetStream, kernelID envelope.ID) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, b.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, jetstream.StreamConfig{
			Name: b.Stream, Description: "Audit events and records of the Kernel " + string(kernelID), Subjects: []string{Subject(kernelID) + ".>"},
			Storage: jetstream.FileStorage, Replicas: b.Replicas, Duplicates: dedupWindow, DenyDelete: true, DenyPurge: true,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", b.Stream, err)
	}
	c := stream.CachedInfo().Config
	if c.NoAck || c.Mirror != nil {
		return nil, fmt.Errorf("stream %s acknowledges nothing that is published to it; name another", b.Stream)
	}
	if len(c.Subjects) != 1 || c.Subjects[0] != Subject(kernelID)+".>" {
		return nil, fmt.Errorf("stream %s has the subjects %q, where it must have %s.> and no other", b.Stream, c.Subjects, Subject(kernelID))
	}
	return stream, nil
}
