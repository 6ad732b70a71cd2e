package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/storage/auditlog/history"
	"github.com/kernelgate/kernelgate/workflow/client"
)

// auditPage is how many events are asked for at once, the most that the API gives.
const auditPage = 200

// maxKept bounds the files with a kept checkpoint or a policy, in bytes.
const maxKept = 1 << 20

func (a *app) auditCommand() *cobra.Command {
	audit := group("audit", "Take the audit log along, and judge it", exitHelp)
	audit.AddCommand(a.auditExportCommand(), a.auditVerifyCommand(), a.auditTail())
	return audit
}

func (a *app) auditExportCommand() *cobra.Command {
	var file string
	c := &cobra.Command{Use: "export", Short: "Write the sealed log to one file that verifies offline", Args: noArgs,
		Example: `  kgctl audit export -f audit.jsonl
  kgverify audit --root "$(cat root.txt)" --checkpoint kept.txt audit.jsonl`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "file"); err != nil {
				return err
			}
			return a.exportLog(cmd.Context(), file)
		}}
	c.Flags().StringVarP(&file, "file", "f", "", "file to write; it must not exist yet")
	return c
}

func (a *app) exportLog(ctx context.Context, file string) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	claim, size, err := s.claim(ctx)
	if err != nil {
		return err
	}
	header, err := history.NewHeader(s.registry().KernelID(), claim.Registry, claim.Checkpoint)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("%w (files are never overwritten)", err)
	}
	err = history.Write(f, header, a.counted(s.leaves(ctx, size), size))
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		// Half a log must not be taken for one.
		if removeErr := os.Remove(file); removeErr != nil {
			a.say("kgctl: %v", removeErr)
		}
		return err
	}
	a.say("%s has %d events. It is not verified yet: kgctl audit verify %s", file, size, file)
	return nil
}

// claim is what the gateway says of its log.
func (s *session) claim(ctx context.Context) (history.Claim, int64, error) {
	// The checkpoint first: the registry may only be newer than it.
	note, err := s.Checkpoint(ctx)
	if err != nil {
		return history.Claim{}, 0, err
	}
	entries, err := s.Registry(ctx)
	if err != nil {
		return history.Claim{}, 0, err
	}
	c, err := auditlog.ReadCheckpoint(note)
	return history.Claim{Registry: entries, Checkpoint: note}, c.Size, err
}

// leaves are the leaves of the events below end, from the gateway page by page.
// What the gateway does not give is the first bad event: one that is missing,
// or that it cannot read itself, which is looked for in ever smaller pages.
func (s *session) leaves(ctx context.Context, end int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		limit := int64(auditPage)
		for from := int64(0); from < end; {
			page, err := s.Events(ctx, from, int(min(limit, end-from)))
			var refused *client.Error
			switch {
			case errors.As(err, &refused) && refused.Class() != "" && limit > 1:
				limit /= 2
				continue
			case errors.As(err, &refused) && refused.Class() != "":
				err = &history.RowError{Seq: from, Err: failure.New(refused.Class(), "event %d: the gateway cannot read it: %s", from, refused.Detail)}
			case err == nil && len(page.Events) == 0:
				err = &history.RowError{Seq: from, Err: failure.New(failure.AuditProofInvalid, "event %d: the gateway does not give it, though its checkpoint seals %d", from, end)}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e.Leaf, nil) {
					return
				}
			}
			from += int64(len(page.Events))
		}
	}
}

// counted shows on a terminal how many events have passed.
func (a *app) counted(leaves iter.Seq2[[]byte, error], size int64) iter.Seq2[[]byte, error] {
	if !isTerminal(a.messages) {
		return leaves
	}
	return func(yield func([]byte, error) bool) {
		var done int64
		for leaf, err := range leaves {
			if !yield(leaf, err) {
				break
			}
			if done++; done%auditPage == 0 || done == size {
				fmt.Fprintf(a.messages, "\r%d of %d events ", done, size)
			}
		}
		fmt.Fprint(a.messages, "\r\033[K")
	}
}

func (a *app) logRoot() (envelope.Digest, error) {
	if a.connection.root == "" {
		return envelope.Digest{}, usagef("a file is judged from a pinned root: name it by --root or KGCTL_ROOT")
	}
	root, err := envelope.ParseDigest(a.connection.root)
	if err != nil {
		return root, usagef("--root: %w", err)
	}
	return root, nil
}
