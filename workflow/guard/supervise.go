package guard

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/kernelgate/kernelgate/signer"
)

// The exit statuses by which a guard's process tells its supervisor why it
// ended (sysexits.h: EX_TEMPFAIL, EX_NOPERM).
const (
	ExitStuck = 75 // a device call did not return
	ExitPIN   = 77 // the PIN was refused; trying again would lock the token
)

// Supervisor keeps a guard's process running.
type Supervisor struct {
	// Command makes the process, not yet started, that serves the socket.
	Command  func() *exec.Cmd
	Socket   string
	Every    time.Duration // between two questions whether it lives
	Patience time.Duration // without an answer for this long, it is killed
	Backoff  time.Duration // before the first restart; doubled up to 30 s
	Log      func(message string, err error)
}

const maxBackoff = 30 * time.Second

// Supervise runs the process until ctx ends, and starts it again when it ends
// or stops answering. It returns signer.ErrPIN, and tries no more, when the
// process ends with ExitPIN.
func Supervise(ctx context.Context, s Supervisor) error {
	wait := s.Backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it ended because it was told to
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == ExitPIN {
			return fmt.Errorf("guard: %w; it is not started again, set the PIN right first", signer.ErrPIN)
		}
		if time.Since(began) > maxBackoff {
			wait = s.Backoff // it ran well for a while
		}
		s.Log("the guard ended and is started again", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, maxBackoff)
	}
	return nil
}

// runOnce runs the process to its end.
func (s *Supervisor) runOnce(ctx context.Context) error {
	cmd := s.Command()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	alive := time.Now()
	tick := time.NewTicker(s.Every)
	defer tick.Stop()
	client := NewClient(s.Socket)
	defer client.Close()
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			_ = cmd.Process.Kill() // its memory is safe at any moment
			return <-ended
		case <-tick.C:
			if s.answers(ctx, client) {
				alive = time.Now()
			} else if time.Since(alive) > s.Patience {
				_ = cmd.Process.Kill()
				return errors.Join(fmt.Errorf("guard: no answer for %s", s.Patience), <-ended)
			}
		}
	}
}

func (s *Supervisor) answers(ctx context.Context, client *Client) bool {
	ctx, cancel := context.WithTimeout(ctx, s.Patience)
	defer cancel()
	_, err := client.Status(ctx)
	return err == nil
}
