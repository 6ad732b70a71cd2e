package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// marker is the file by which a demo knows a directory as a demo's own.
const marker = ".kernelgate-demo"

// claim makes the directory. What an earlier demo left there is removed;
// anything else is not touched.
func claim(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case len(entries) == 0:
	default:
		if err := removeOld(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), []byte("made by kernelgate's demo, and replaced by the next one\n"), 0o600)
}

func removeOld(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, marker)); err != nil {
		return fmt.Errorf("%s holds something that is not an earlier demo's; choose another directory with DEMO_DIR, or remove it", dir)
	}
	// The lock of a gateway that still works there.
	lock, err := os.Open(filepath.Join(dir, "data", "kernelgate.db.lock"))
	if err == nil {
		defer func() { _ = lock.Close() }()
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			return fmt.Errorf("a gateway still works in %s; stop it first, or choose another directory with DEMO_DIR", dir)
		}
	}
	return os.RemoveAll(dir)
}

// leave writes a file for whoever looks at the demo afterwards.
func (d *demo) leave(name string, data []byte, mode os.FileMode) error {
	path := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, mode)
}

// path is a path in the demo's directory.
func (d *demo) path(names ...string) string {
	return filepath.Join(append([]string{d.dir}, names...)...)
}
