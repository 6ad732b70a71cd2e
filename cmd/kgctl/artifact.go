package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/client"
)

func (a *app) artifactCommand() *cobra.Command {
	cmd := group("artifact", "Store and fetch artifacts", "Artifacts are streamed, and hashed here on their way in either direction.")
	cmd.AddCommand(a.artifactPush(), a.artifactPull())
	return cmd
}

func (a *app) artifactPush() *cobra.Command {
	return &cobra.Command{
		Use: "push FILE", Short: "Store an artifact and print its digest", Args: oneFile,
		Example: "  kgctl artifact push change.tar.gz",
		RunE: func(cmd *cobra.Command, args []string) error {
			gateway, err := a.connect()
			if err != nil {
				return err
			}
			digest, err := a.push(cmd.Context(), gateway, args[0])
			if err != nil {
				return err
			}
			return a.show(map[string]string{"digest": digest.String()}, [][]string{{digest.String()}})
		},
	}
}

// push sends a file; the digest is of the bytes that were sent.
func (a *app) push(ctx context.Context, gateway *client.Client, path string) (envelope.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return envelope.Digest{}, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return envelope.Digest{}, err
	}
	return gateway.PutArtifact(ctx, a.progress("Sending", f, info.Size()))
}

func (a *app) artifactPull() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "pull DIGEST -f FILE", Short: "Fetch an artifact; its bytes are the digest's or the file is not kept",
		Example: "  kgctl artifact pull sha256:... -f change.tar.gz",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s takes one DIGEST", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "file"); err != nil {
				return err
			}
			digest, err := envelope.ParseDigest(args[0])
			if err != nil {
				return usageError{err}
			}
			gateway, err := a.connect()
			if err != nil {
				return err
			}
			written, err := a.pull(cmd.Context(), gateway, digest, file)
			if err != nil {
				return err
			}
			return a.show(map[string]any{"digest": digest, "file": file, "size": written}, [][]string{{digest.String(), file, size(written)}})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file to write")
	return cmd
}

// pull writes a new file, which is gone again unless its bytes are the digest's.
func (a *app) pull(ctx context.Context, gateway *client.Client, digest envelope.Digest, path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, fmt.Errorf("%w (files are never overwritten)", err)
	}
	count := a.progress("Receiving", nil, 0)
	err = gateway.GetArtifact(ctx, digest, io.MultiWriter(f, count))
	if count.shown {
		count.show(true)
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return count.done, err
}

// artifact is the path of an artifact's bytes, hashed here: file where it is
// given, else a download, which done removes.
func (a *app) artifact(ctx context.Context, gateway *client.Client, digest envelope.Digest, file string) (path string, done func(), err error) {
	if file == "" {
		dir, err := os.MkdirTemp("", "kgctl-")
		if err != nil {
			return "", nil, err
		}
		done = func() { _ = os.RemoveAll(dir) }
		path = dir + "/artifact"
		if _, err := a.pull(ctx, gateway, digest, path); err != nil {
			done()
			return "", nil, err
		}
		return path, done, nil
	}
	got, err := hashFile(file)
	if err != nil {
		return "", nil, err
	}
	if got != digest {
		return "", nil, failure.New(failure.ArtifactMismatch, "%s is %s, but the manifest is about %s", file, got, digest)
	}
	return file, func() {}, nil
}
