package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// disconnected says of an error that is not the server's whether it came of a
// connection that is gone or could not be made.
func disconnected(err error) bool {
	for _, gone := range []error{
		driver.ErrBadConn, sql.ErrConnDone, sql.ErrTxDone, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		context.DeadlineExceeded, pgx.ErrTxClosed,
	} {
		if errors.Is(err, gone) {
			return true
		}
	}
	if broken := net.Error(nil); errors.As(err, &broken) {
		return true
	}
	if refused := new(pgconn.ConnectError); errors.As(err, &refused) {
		return true
	}
	return pgconn.SafeToRetry(err) || pgconn.Timeout(err)
}
