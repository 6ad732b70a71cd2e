package guard

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Endpoint is where a guard is reached: "unix:/path" or "tls://host:port". TLS
// is mutual, version 1.3; the files are PEM. CA signs the other side's
// certificate: use one that signs for nobody but this guard and its gateways.
type Endpoint struct {
	Address       string
	Cert, Key, CA string // files, looked at again for each connection; with tls only
	// Log, where set, is told when the files were replaced, or cannot be read again.
	Log func(message string, err error)
}

// Check refuses an address of neither form. It opens no file.
func (e Endpoint) Check() error {
	_, _, err := e.parse()
	return err
}

// Listen makes the guard's side.
func (e Endpoint) Listen() (net.Listener, error) {
	path, host, err := e.parse()
	if err != nil {
		return nil, err
	}
	if path != "" {
		return Listen(path)
	}
	files, err := openTLS(e)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", host)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return files.listen(l), nil
}

// Client makes the gateway's side. It connects when called.
func (e Endpoint) Client() (*Client, error) {
	path, host, err := e.parse()
	if err != nil {
		return nil, err
	}
	if path != "" {
		return NewClient(path), nil
	}
	files, err := openTLS(e)
	if err != nil {
		return nil, err
	}
	return newClient("https://"+host, &http.Transport{DialTLSContext: files.dial}), nil
}

func (e Endpoint) parse() (path, host string, err error) {
	if path, ok := strings.CutPrefix(e.Address, "unix:"); ok && strings.HasPrefix(path, "/") {
		return path, "", nil
	}
	u, err := url.Parse(e.Address)
	if err != nil || u.Scheme != "tls" || u.Port() == "" || u.Host == "" || e.Address != "tls://"+u.Host {
		return "", "", fmt.Errorf("guard: the address %.200q is neither unix:/path nor tls://host:port", e.Address)
	}
	return "", u.Host, nil
}
