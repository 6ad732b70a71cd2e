package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"
)

// takeover is how long Hold waits for the server to notice that the process
// which had the name before is gone.
const takeover = 5 * time.Second

// Hold takes an instance's name for this process: of two gateways with one
// name the second is refused, since each would give up the other's claims. The
// server takes the name back when the session ends, however it ends.
func (p *Postgres) Hold(ctx context.Context, instance string) (release func() error, err error) {
	session, err := p.read.Conn(ctx)
	if err != nil {
		return nil, err
	}
	last := time.Now().Add(takeover)
	for {
		var held bool
		err = session.QueryRowContext(ctx, "SELECT pg_try_advisory_lock(hashtextextended('kernelgate instance ' || $1, 0))", instance).Scan(&held)
		if err == nil && held {
			return func() error { end(session); return nil }, nil
		}
		if err != nil || time.Now().After(last) || !pause(ctx, 100*time.Millisecond) {
			break
		}
	}
	if err == nil {
		err = fmt.Errorf("another gateway with the instance name %q uses this database; give each its own (instance, in the configuration)", instance)
	}
	end(session)
	return nil, err
}

// end ends a session, which else would be used again as it is, lock and all.
func end(session *sql.Conn) {
	_ = session.Raw(func(any) error { return driver.ErrBadConn })
	_ = session.Close()
}
