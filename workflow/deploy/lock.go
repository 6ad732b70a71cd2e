package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lock takes the exclusive lock on a file in root, which holds among processes
// as among goroutines and ends with the process. It waits until ctx ends.
func lock(ctx context.Context, root *os.Root, name string) (unlock func() error, err error) {
	file, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another deployment holds %s: %w", name, ctx.Err()), file.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
