// Package gcpkmstest is a KeyManagementService over gRPC that does the part of
// Google Cloud KMS that signing needs, for tests: real keys in memory, CRC32C
// on both sides, and faults on order. It is written from the published API
// (https://cloud.google.com/kms/docs/reference/rpc/google.cloud.kms.v1).
package gcpkmstest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Fault is what the server does wrong. The zero value is nothing.
type Fault struct {
	Operation  string        // "GetPublicKey", "GetCryptoKeyVersion" or "AsymmetricSign"; "" is all
	Times      int           // how many requests; 0 is all
	Code       codes.Code    // answered instead of the reply
	Delay      time.Duration // before anything else; the client's going away ends it
	Drop       bool          // do the work, then close every connection without a reply
	OtherKey   bool          // as if another key of the same kind had the name
	OtherName  bool          // the reply names another key
	Corrupt    bool          // a signature with one bit changed, and its right checksum
	BadCRC     bool          // a wrong checksum beside what is right
	Unverified bool          // does not say that it verified the request's checksum
}

// Server is the service. Make one with New or Start.
type Server struct {
	kmspb.UnimplementedKeyManagementServiceServer
	endpoint string
	grpc     *grpc.Server
	listener *listener

	mu    sync.Mutex
	keys  map[string]*key // by the version's name
	fault Fault
	calls map[string]int
}

// New starts a server on loopback that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Start starts a server at a TCP address of this machine.
func Start(addr string) (*Server, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{endpoint: l.Addr().String(), grpc: grpc.NewServer(), listener: &listener{Listener: l},
		keys: map[string]*key{}, calls: map[string]int{}}
	kmspb.RegisterKeyManagementServiceServer(s.grpc, s)
	go func() { _ = s.grpc.Serve(s.listener) }() // ends by Close
	return s, nil
}

// Endpoint is the server's host:port, for a URI's endpoint.
func (s *Server) Endpoint() string { return s.endpoint }

// Close ends the server and its connections.
func (s *Server) Close() { s.grpc.Stop() }

// Set makes the requests that come from now on fail so.
func (s *Server) Set(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Calls is how many requests came for an operation.
func (s *Server) Calls(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// begin counts a request, waits or fails as ordered, and says what else is to
// go wrong with it.
func (s *Server) begin(ctx context.Context, operation string) (Fault, error) {
	f := s.next(operation)
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-ctx.Done():
			return f, status.FromContextError(ctx.Err()).Err()
		}
	}
	if f.Code != codes.OK {
		return f, status.Error(f.Code, "as the test ordered")
	}
	return f, nil
}

func (s *Server) next(operation string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[operation]++
	f := s.fault
	if f.Operation != "" && f.Operation != operation {
		return Fault{}
	}
	if f.Times == 1 {
		s.fault = Fault{}
	} else if f.Times > 1 {
		s.fault.Times--
	}
	return f
}

// listener remembers its connections, to drop them.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, c)
	}
	return c, err
}

func (l *listener) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}
