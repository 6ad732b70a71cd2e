package pkcs11

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kernelgate/kernelgate/signer"
)

// parkTime is how long a permit rests whose session the token refused to open:
// another process has the token's sessions, and may give one up.
const parkTime = 250 * time.Millisecond

// session is a permit to use the token, and the session opened under it, if
// any. Who took it from the pool has it alone.
type session struct {
	gen    *generation // nil: no session open
	handle p11.SessionHandle
	lent   bool // handle is gen.login, and gen.lent is held
}

// pool holds as many permits as the token may have sessions of ours, and as
// many goroutines, which make the calls: a caller has to be able to leave one
// behind, and a new goroutine for each call costs a tenth of a signature.
type pool struct {
	free    chan *session
	jobs    chan func()
	waiting atomic.Int32
	queue   int32 // most callers that wait
}

func newPool(size, queue int) *pool {
	p := &pool{free: make(chan *session, size), jobs: make(chan func(), size), queue: int32(queue)}
	for range size {
		p.free <- &session{}
		go func() {
			for job := range p.jobs {
				job()
			}
		}()
	}
	return p
}

// run hands job, which holds a permit, to a goroutine of the pool. There are
// no more jobs than permits, so it does not wait.
func (p *pool) run(job func()) { p.jobs <- job }

// stop ends the goroutines, each after its job.
func (p *pool) stop() { close(p.jobs) }

// take waits for a permit until ctx ends. Where too many wait already it
// returns signer.ErrBusy at once.
func (p *pool) take(ctx context.Context) (*session, error) {
	select {
	case s := <-p.free:
		return s, nil
	default:
	}
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > p.queue {
		return nil, fmt.Errorf("%w: %d callers wait for its %d sessions already", signer.ErrBusy, p.queue, cap(p.free))
	}
	select {
	case s := <-p.free:
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: none of its %d sessions came free in time: %w", signer.ErrBusy, cap(p.free), ctx.Err())
	}
}

func (p *pool) give(s *session) { p.free <- s }

// park gives the permit back after a while.
func (p *pool) park(s *session) { time.AfterFunc(parkTime, func() { p.give(s) }) }

// closeAll closes the sessions that lie in the pool.
func (p *pool) closeAll(c *p11.Ctx, current *generation) {
	for range cap(p.free) {
		select {
		case s := <-p.free:
			s.discard(c, current)
		default:
			return
		}
	}
}

// open makes sure that s has a session of gen. Where the token has no session
// left it borrows the login session, if nobody has.
func (s *session) open(c *p11.Ctx, gen *generation) error {
	if s.gen == gen {
		return nil
	}
	s.discard(c, gen)
	handle, err := c.OpenSession(gen.slot, p11.CKF_SERIAL_SESSION)
	switch {
	case err == nil:
		s.gen, s.handle, s.lent = gen, handle, false
		return nil
	case is(err, p11.CKR_SESSION_COUNT) && gen.lent.TryLock():
		s.gen, s.handle, s.lent = gen, gen.login, true
		return nil
	}
	return fmt.Errorf("open a session: %w", err)
}

// giveBack ends the loan of the login session.
func (s *session) giveBack() {
	if s.lent {
		s.gen.lent.Unlock()
		*s = session{}
	}
}

// discard closes the session, unless its module's restart has done so. current
// is any generation that is good now.
func (s *session) discard(c *p11.Ctx, current *generation) {
	if s.gen != nil && !s.lent && current != nil && s.gen.epoch == current.epoch {
		_ = c.CloseSession(s.handle) // it may be dead already
	}
	s.giveBack()
	*s = session{}
}
