package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kernelgate/kernelgate/softhsm"
)

// demo is one play and what runs in it.
type demo struct {
	dir, bin string
	hsm      *softhsm.Env
	keys     map[string]string // URIs by holder
	root     string
	url      string // the gateway's
	serve    *exec.Cmd
	ended    chan error
	site     *http.Server
	siteURL  string
	temp     string // removed at the end
}

// start begins the Kernel, and starts a web server behind what is live and the gateway.
func (d *demo) start(ctx context.Context) error {
	step("3. The gateway. It starts the guard, the one process that can use the Kernel's keys.")
	if err := d.startSite(); err != nil {
		return err
	}
	if err := d.configure(); err != nil {
		return err
	}
	if _, err := d.run(ctx, nil, "kernelgate", "init", "--config", d.path("kernelgate.yaml"), "--root", d.root, "--registry", d.path("registry.json")); err != nil {
		return err
	}
	say("kernelgate init: the guard has judged the registry by the root, and the audit log has begun.")
	if err := d.makeTokens(ctx); err != nil {
		return err
	}
	if err := d.startGateway(ctx); err != nil {
		return err
	}
	say("The gateway serves at %s. It changes a web page, which you see at %s.", d.url, d.siteURL)
	say("Here gateway, guard and people share one user and one machine. In production the guard has its own user or host, and people's " +
		"keys are in hardware tokens or in a cloud's KMS.")
	return nil
}

// configure writes the gateway's configuration.
func (d *demo) configure() error {
	socket, err := d.socket()
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`# The demo's gateway; docs/configuration.md says what else there is.
root: %s
listen: 127.0.0.1:%d
guard:
  recordsKey: %q
  auditKey: %q
  socket: %q
targets:
  web:
    release:
      dir: web
      keep: 3
%s`, d.root, port, d.keys["kernel-records"], d.keys["kernel-audit"], socket, d.canaryConfig())
	return d.leave("kernelgate.yaml", []byte(config), 0o600)
}

// freePort is one for the gateway, whose configuration must name it: passkeys
// are bound to it. From 8420 on, where no system takes ports by itself.
func freePort() (int, error) {
	for port := 8420; port < 8520; port++ {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("every port from 8420 to 8519 is taken")
}

// socket is the guard's, elsewhere where the demo's directory is too deep for
// the 103 bytes that a socket's address holds.
func (d *demo) socket() (string, error) {
	socket := d.path("data", "guard.sock")
	if len(socket) <= 103 {
		return socket, nil
	}
	dir, err := os.MkdirTemp("", "kg")
	d.temp = dir
	return filepath.Join(dir, "guard.sock"), err
}

func (d *demo) makeTokens(ctx context.Context) error {
	for _, h := range holders {
		if h.role == "" {
			continue
		}
		if err := d.makeToken(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// makeToken makes what lets a person call the API, and decide nothing by it.
func (d *demo) makeToken(ctx context.Context, h holder) error {
	token, err := d.run(ctx, nil, "kernelgate", "token", "create", "--config", d.path("kernelgate.yaml"), "--name", h.id, "--role", h.role)
	if err != nil {
		return err
	}
	return d.leave("people/"+h.id+".token", token, 0o600)
}

func (d *demo) startGateway(ctx context.Context) error {
	log, err := os.OpenFile(d.path("gateway.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()                                                                         // the gateway has its own
	d.serve = exec.Command(filepath.Join(d.bin, "kernelgate"), "serve", "--config", d.path("kernelgate.yaml")) // stopped by stop, not by ctx
	d.serve.Env = append(os.Environ(), d.hsm.Environ())
	d.serve.Stderr = log
	// A Ctrl-C is for the demo, which lets the gateway drain.
	d.serve.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.serve.Start(); err != nil {
		return err
	}
	d.ended = make(chan error, 1)
	go func() { d.ended <- d.serve.Wait() }()
	return d.until(ctx, "the gateway is ready", func() bool {
		if d.url == "" {
			d.url = d.readURL()
		}
		return d.url != "" && answers(d.url+"/readyz")
	})
}

// readURL looks in the log for where the gateway serves.
func (d *demo) readURL() string {
	data, err := os.ReadFile(d.path("gateway.log"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		var entry struct {
			Message string `json:"msg"`
			URL     string `json:"url"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "the gateway serves" {
			return entry.URL
		}
	}
	return ""
}

func answers(url string) bool {
	response, err := http.Get(url) // our own server, on loopback
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// until waits for what must come by itself, while the gateway runs.
func (d *demo) until(ctx context.Context, what string, f func() bool) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if f() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-d.ended:
			d.ended <- err
			return fmt.Errorf("the gateway ended (%w); see %s", err, d.path("gateway.log"))
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("not after a minute: %s; see %s", what, d.path("gateway.log"))
}

// startSite serves what is live at the target, as the world sees it.
func (d *demo) startSite() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.siteURL = "http://" + l.Addr().String()
	files := http.FileServer(http.Dir(d.path("web", "current"))) // the symlink is followed anew by each request
	d.site = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		files.ServeHTTP(w, r)
	})}
	go func() { _ = d.site.Serve(l) }() // until stop
	return nil
}

// stop ends what was started, the gateway by a drain.
func (d *demo) stop() error {
	var failed []error
	if d.site != nil {
		failed = append(failed, d.site.Close())
	}
	if d.ended != nil {
		_ = d.serve.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-d.ended; err != nil {
			failed = append(failed, fmt.Errorf("the gateway's end: %w; see %s", err, d.path("gateway.log")))
		}
	}
	if d.temp != "" {
		failed = append(failed, os.RemoveAll(d.temp))
	}
	return errors.Join(failed...)
}
