// Package awskmstest is a server that speaks the part of AWS KMS that signing
// needs, for tests: AWS JSON 1.1 over HTTP, with each request's SigV4 checked,
// real keys in memory, and faults on order. It is written from the published
// API (https://docs.aws.amazon.com/kms/latest/APIReference/).
package awskmstest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// The credentials and the region that a Server knows; the secret is of no worth.
const (
	AccessKeyID     = "AKIDKERNELGATETEST01"
	SecretAccessKey = "secret-of-the-test-server"
	Region          = "eu-test-1"
	account         = "111122223333"
)

const maxRequest = 64 << 10 // bytes

// Fault is what the server does wrong. The zero value is nothing.
type Fault struct {
	Operation string        // "GetPublicKey" or "Sign"; "" is both
	Times     int           // how many requests; 0 is all
	Code      string        // an error code of AWS, answered instead of the reply
	Status    int           // HTTP status of Code; 0 is 400
	Delay     time.Duration // before anything else; the client's going away ends it
	Drop      bool          // do the work, then close the connection without a reply
	OtherKey  bool          // as if another key of the same kind had the name
	Corrupt   bool          // a signature with one bit changed
	NoDryRun  bool          // refuses the parameter DryRun, as a lesser service might
	DryRuns   bool          // ignores DryRun, and signs
	LongSalt  bool          // RSA-PSS with the longest salt instead of the hash's length
	Terse     bool          // names keys by id instead of ARN when it signs, and no usage
}

// Server is the service. Make one with New or Start.
type Server struct {
	endpoint string
	http     *http.Server

	mu    sync.Mutex
	keys  map[string]*key // by id and by alias name
	fault Fault
	calls map[string]int
}

// New starts a server on loopback that ends with the test, and gives the
// test's environment credentials for it and no others.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the KMS server: %v", err)
		}
	})
	for name, value := range Env() {
		t.Setenv(name, value)
	}
	return s
}

// Start starts a server at a TCP address of this machine.
func Start(addr string) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{endpoint: "http://" + listener.Addr().String(), keys: map[string]*key{}, calls: map[string]int{}}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.http.Serve(listener) }() // ends by Close
	return s, nil
}

// Env is the environment in which the SDK's default chain finds the server's
// credentials, and nothing of this machine's.
func Env() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": AccessKeyID, "AWS_SECRET_ACCESS_KEY": SecretAccessKey, "AWS_SESSION_TOKEN": "",
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
	}
}

// Endpoint is the server's URL, for a URI's endpoint.
func (s *Server) Endpoint() string { return s.endpoint }

// Close ends the server and its connections.
func (s *Server) Close() error { return s.http.Close() }

// Set makes the requests that come from now on fail so.
func (s *Server) Set(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Calls is how many requests for an operation had a valid signature.
func (s *Server) Calls(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// begin counts a request and says what goes wrong with it.
func (s *Server) begin(operation string) Fault {
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

// ServeHTTP answers one request of AWS JSON 1.1.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		reply(w, nil, fail("ValidationException", "request too long or cut"))
		return
	}
	if err := checkSignature(r, body, time.Now()); err != nil {
		reply(w, nil, err)
		return
	}
	operation, known := operations[r.Header.Get("X-Amz-Target")]
	if !known || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		reply(w, nil, fail("UnknownOperationException", "no such operation"))
		return
	}
	f := s.begin(operation)
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if f.Code != "" {
		reply(w, nil, &apiError{f.Code, "as the test ordered", f.Status})
		return
	}
	out, err := s.do(operation, body, f)
	if f.Drop {
		panic(http.ErrAbortHandler) // closes the connection
	}
	reply(w, out, err)
}

var operations = map[string]string{"TrentService.GetPublicKey": "GetPublicKey", "TrentService.Sign": "Sign"}

type apiError struct {
	code, message string
	status        int
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func fail(code, message string) error { return &apiError{code, message, 0} }

func reply(w http.ResponseWriter, out any, err error) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", "00000000-0000-4000-8000-000000000000")
	var api *apiError
	if errors.As(err, &api) {
		status := api.status
		if status == 0 {
			status = http.StatusBadRequest
		}
		w.WriteHeader(status)
		out = map[string]string{"__type": api.code, "message": api.message}
	} else if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		out = map[string]string{"__type": "KMSInternalException", "message": "internal"}
	}
	_ = json.NewEncoder(w).Encode(out) // the client may have gone
}
