package storage_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kernelgate/kernelgate/storage/storagetest"
	"github.com/kernelgate/kernelgate/workflow"
)

// A database that keeps its connections and says nothing holds nobody who asks
// without a deadline of his own; what was waiting is answered too; and work goes
// on when it speaks again.
func TestDatabaseThatHangs(t *testing.T) {
	server := storagetest.Shared(t)
	cutNext.Store("")
	proxy, url := through(t, server, server.Database(t))
	s := keyed(t, url)
	s.Hurry(2 * time.Second)
	ctx := context.Background()
	look := func() error {
		return s.View(ctx, func(r workflow.Reader) error { _, err := r.LogSize(); return err })
	}
	write := func() error {
		return s.Update(ctx, func(tx workflow.Tx) error { return tx.PutCursor("follower", 7) })
	}
	if err := errors.Join(look(), write()); err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(`{"name":"silence","type":"timeout","stream":"downstream"}`)); err != nil {
		t.Fatal(err)
	}
	answers := make(chan error, 24)
	var group sync.WaitGroup
	for i := range cap(answers) {
		ask := look
		if i%2 == 0 {
			ask = write
		}
		group.Go(func() { answers <- ask() })
	}
	go func() { group.Wait(); close(answers) }()
	late := time.After(time.Minute)
	for range cap(answers) {
		select {
		case err := <-answers:
			if !errors.Is(err, workflow.ErrStoreUnavailable) {
				t.Errorf("a database that says nothing: %v", err)
			}
		case <-late:
			t.Fatal("somebody still waits")
		}
	}
	if err := proxy.Toxics.RemoveToxic(ctx, "silence"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := errors.Join(look(), write())
		if err == nil {
			return
		}
		if !errors.Is(err, workflow.ErrStoreUnavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
