package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// checkpoint is the log's newest, as the gateway serves it to anyone: its second
// line is the count of events that it seals.
func (d *demo) checkpoint() (text []byte, size int64, err error) {
	response, err := http.Get(d.url + "/log/checkpoint") // our own server, on loopback
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if text, err = io.ReadAll(io.LimitReader(response.Body, 1<<16)); err != nil {
		return nil, 0, err
	}
	lines := strings.Split(string(text), "\n")
	if response.StatusCode != http.StatusOK || len(lines) < 2 {
		return nil, 0, fmt.Errorf("the log's checkpoint: %s", response.Status)
	}
	size, err = strconv.ParseInt(lines[1], 10, 64)
	return text, size, err
}

// keepCheckpoint does what an auditor does now and then.
func (d *demo) keepCheckpoint() error {
	text, size, err := d.checkpoint()
	if err != nil {
		return err
	}
	say("An auditor takes down what the audit log says of itself now, with %d events. At the end we hold the log to it.", size)
	return d.leave("kept-checkpoint.txt", text, 0o644)
}

// audited exports the log and checks it from the root, as an auditor does.
func (d *demo) audited(ctx context.Context, last *proposal) error {
	step("13. The audit log. It has every step that you saw, each signed and chained to the one before.")
	if err := d.sealed(ctx, last); err != nil {
		return err
	}
	file, kept := d.path("audit.jsonl"), d.path("kept-checkpoint.txt")
	if _, err := d.kgctl(ctx, "ops", "audit", "export", "-f", file); err != nil {
		return err
	}
	check := []string{"audit", "--root", d.root, "--checkpoint", kept, file}
	d.show(append([]string{"kgverify"}, check...)...)
	out, err := d.run(ctx, nil, "kgverify", check...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		fmt.Print("        " + line)
	}
	return nil
}

// sealed waits until a checkpoint covers what is logged of a proposal.
func (d *demo) sealed(ctx context.Context, p *proposal) error {
	token, err := os.ReadFile(d.path("people", "ops.token"))
	if err != nil {
		return err
	}
	gateway, err := client.New(d.url, strings.TrimSpace(string(token)), nil)
	if err != nil {
		return err
	}
	events, err := gateway.UpgradeEvents(ctx, envelope.UUID(p.id))
	if err != nil || len(events) == 0 {
		return fmt.Errorf("the log has nothing of %s: %w", p.name, err)
	}
	var failed error
	err = d.until(ctx, "the log is sealed", func() bool {
		_, size, err := d.checkpoint()
		failed = err
		return err != nil || size > events[len(events)-1].Seq
	})
	return errors.Join(failed, err)
}
