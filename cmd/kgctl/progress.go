package main

import (
	"fmt"
	"io"
	"time"
)

// progress counts bytes that pass, and shows them on a terminal.
type progress struct {
	io.Reader
	a     *app
	what  string
	total int64 // 0: not known
	done  int64
	last  time.Time
	shown bool
}

const progressEvery = 200 * time.Millisecond

func (a *app) progress(what string, r io.Reader, total int64) *progress {
	return &progress{Reader: r, a: a, what: what, total: total, last: a.now(), shown: isTerminal(a.messages)}
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.done += int64(n)
	if now := p.a.now(); p.shown && (err != nil || now.Sub(p.last) >= progressEvery) {
		p.last = now
		p.show(err != nil)
	}
	return n, err
}

func (p *progress) show(end bool) {
	text := fmt.Sprintf("\r%s %s", p.what, size(p.done))
	if p.total > 0 {
		text = fmt.Sprintf("\r%s %s of %s (%d %%)", p.what, size(p.done), size(p.total), 100*p.done/p.total)
	}
	if end {
		text += "\n"
	}
	_, _ = io.WriteString(p.a.messages, text)
}

// Write counts what is written through, for downloads.
func (p *progress) Write(b []byte) (int, error) {
	p.done += int64(len(b))
	if now := p.a.now(); p.shown && now.Sub(p.last) >= progressEvery {
		p.last = now
		p.show(false)
	}
	return len(b), nil
}

// size is a number of bytes for people.
func size(n int64) string {
	for _, unit := range []struct {
		name string
		of   int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.of {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.of), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
