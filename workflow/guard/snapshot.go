package guard

import (
	"bufio"
	"errors"
	"iter"
	"os"
	"path/filepath"
)

// snapshot is the memory's file on its way to be written anew, beside the old
// one, which takes every change meanwhile and stays the memory until the
// rename. So signing goes on, and a crash finds the one file or the other, whole.
type snapshot struct {
	file  file
	end   chain
	since []*change // what was appended to the old file since this one was begun
}

// due says whether the changes outweigh the snapshot, and none is being written.
func (j *journal) due() bool {
	return j.next == nil && j.end.size-j.snapshot > max(minGrowth, j.snapshot)
}

// write fills a new file, which no one else uses yet. It stops where stop says so.
func (s *snapshot) write(path string, fsys files, changes iter.Seq[*change], stop func() bool) error {
	f, err := fsys.Open(path+tempSuffix, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND)
	if err != nil {
		return err
	}
	s.file = f
	w := bufio.NewWriterSize(f, 1<<16)
	for c := range changes {
		if stop() {
			return errStopped
		}
		if err := s.end.write(w, c); err != nil {
			return err
		}
	}
	return errors.Join(w.Flush(), f.Sync())
}

var errStopped = errors.New("the guard was closed")

// catchUp adds what was remembered since the snapshot was begun.
func (s *snapshot) catchUp() error {
	if len(s.since) == 0 {
		return nil
	}
	w := bufio.NewWriterSize(s.file, 1<<16)
	for _, c := range s.since {
		if err := s.end.write(w, c); err != nil {
			return err
		}
	}
	return errors.Join(w.Flush(), s.file.Sync())
}

// giveUp leaves the old file as it is; the next snapshot is due when it has
// grown by as much again.
func (j *journal) giveUp(s *snapshot) {
	j.next, j.snapshot = nil, j.end.size
	if s.file != nil {
		_ = s.file.Close() // it is nobody's memory
	}
}

// adopt puts a written snapshot in the old file's place. After an error nobody
// knows which of them is there.
func (j *journal) adopt(s *snapshot) error {
	j.next = nil
	if err := errors.Join(j.files.Rename(j.path+tempSuffix, j.path), j.files.SyncDir(filepath.Dir(j.path))); err != nil {
		return errors.Join(err, s.file.Close())
	}
	old := j.file
	j.file, j.end, j.snapshot = s.file, s.end, s.end.size
	if old != nil {
		_ = old.Close() // every byte of it was synced, and it has no name any more
	}
	return nil
}

// replace writes a new file in the old one's place, and returns when it is there.
func (j *journal) replace(changes iter.Seq[*change]) error {
	s := new(snapshot)
	if err := s.write(j.path, j.files, changes, func() bool { return false }); err != nil {
		j.giveUp(s)
		return err
	}
	return j.adopt(s)
}

// compact writes the memory anew in the background. The caller holds g.mu.
func (g *Guard) compact() {
	s := new(snapshot)
	g.disk.next = s
	changes := g.mem.clone().changes
	g.snapshots.Go(func() {
		err := s.write(g.disk.path, g.disk.files, changes, g.closing.Load)
		g.mu.Lock()
		defer g.mu.Unlock()
		if err == nil {
			err = s.catchUp()
		}
		if err != nil || g.broken != nil || g.closing.Load() {
			// A full disk, say. The memory is whole without it; a write to the
			// memory itself that fails is found there.
			g.disk.giveUp(s)
			return
		}
		if err := g.disk.adopt(s); err != nil {
			g.broken = err
			g.publish()
		}
	})
}
