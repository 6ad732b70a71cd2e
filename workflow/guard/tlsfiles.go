package guard

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// tlsFiles are an endpoint's certificate, key and CA. They are looked at again
// before a connection is made, and taken as they are once they go together:
// whoever renews or replaces them restarts nothing. Until then the last ones hold.
type tlsFiles struct {
	Endpoint

	mu     sync.Mutex
	looked time.Time
	read   [3][]byte // as they were last seen
	last   *tls.Config
}

// tlsEvery is how seldom the files are looked at.
const tlsEvery = time.Second

func openTLS(e Endpoint) (*tlsFiles, error) {
	f := &tlsFiles{Endpoint: e}
	return f, f.look()
}

// look reads the files. Where they are as before, nothing happens.
func (f *tlsFiles) look() error {
	var data [3][]byte
	for i, name := range []string{f.Cert, f.Key, f.CA} {
		var err error
		if data[i], err = os.ReadFile(name); err != nil {
			return fmt.Errorf("guard: TLS: %w", err)
		}
	}
	if f.last != nil && bytes.Equal(data[0], f.read[0]) && bytes.Equal(data[1], f.read[1]) && bytes.Equal(data[2], f.read[2]) {
		return nil
	}
	f.read = data
	cert, err := tls.X509KeyPair(data[0], data[1])
	if err != nil {
		return fmt.Errorf("guard: certificate %s and key %s: %w", f.Cert, f.Key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data[2]) {
		return fmt.Errorf("guard: %s holds no certificate", f.CA)
	}
	// Without tickets: who left the CA does not come back by an old session.
	f.last = &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Certificates: []tls.Certificate{cert},
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	return nil
}

// config is for the next connection, on either side.
func (f *tlsFiles) config() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < tlsEvery {
		return f.last
	}
	f.looked = time.Now()
	before := f.last
	if err := f.look(); err != nil {
		f.log("the TLS files could not be read again; the last ones are used", err)
	} else if f.last != before {
		f.log("the TLS files were replaced, and hold for new connections", nil)
	}
	return f.last
}

func (f *tlsFiles) log(message string, err error) {
	if f.Log != nil {
		f.Log(message, err)
	}
}

func (f *tlsFiles) listen(l net.Listener) net.Listener {
	return tls.NewListener(l, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.config(), nil },
	})
}

func (f *tlsFiles) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: f.config()}).DialContext(ctx, network, address)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%s does not take the connection: %w", address, err)
	}
	return conn, err
}

const dialTimeout = 10 * time.Second
