package main

import (
	"context"
	"crypto/sha256"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tyler-smith/go-bip39/wordlists"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// fingerprintWords times eleven bits are 66 bits of the hash.
const fingerprintWords = 6

// fingerprint is six words of the BIP-39 English list, from the first 66 bits
// of SHA-256(manifestDigest "\n" patchHash), both as text.
func fingerprint(manifest, patch envelope.Digest) string {
	sum := sha256.Sum256([]byte(manifest.String() + "\n" + patch.String()))
	words := make([]string, fingerprintWords)
	for i := range words {
		index := 0
		for bit := i * 11; bit < (i+1)*11; bit++ {
			index = index<<1 | int(sum[bit/8]>>(7-bit%8)&1)
		}
		words[i] = wordlists.English[index]
	}
	return strings.Join(words, " ")
}

func (a *app) fingerprintCommand() *cobra.Command {
	var manifest, artifact string
	cmd := &cobra.Command{
		Use:   "fingerprint ID [--artifact FILE] | fingerprint --manifest FILE --artifact FILE",
		Short: "Print six words that name a change, to compare by voice or to type",
		Long: `Print six words that name a change, computed here from the artifact's bytes and the manifest: of the
upgrade ID, whose proposer's signature is verified from the pinned root, or of files, without a gateway.`,
		Example: `  kgctl fingerprint 0190a5e0-0000-7000-8000-000000000001
  kgctl fingerprint --manifest manifest.json --artifact change.tar`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && manifest != "" {
				return nil
			}
			return oneUpgrade(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.fingerprintOf(cmd.Context(), envelope.UUID(args[0]), artifact)
			}
			if err := need(cmd, "artifact"); err != nil {
				return err
			}
			c, err := readChange(manifest, artifact)
			if err != nil {
				return err
			}
			a.sayUnverified(c)
			return a.showWords(c.digest, c.patch)
		},
	}
	cmd.Flags().StringVar(&manifest, "manifest", "", "manifest envelope")
	cmd.Flags().StringVar(&artifact, "artifact", "", "artifact that it is about; else it is downloaded")
	return cmd
}

func (a *app) fingerprintOf(ctx context.Context, id envelope.UUID, artifact string) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	r, err := a.look(ctx, s, id)
	if err != nil {
		return err
	}
	_, done, err := a.artifact(ctx, s.Client, r.manifest.PatchHash, artifact)
	if err != nil {
		return err
	}
	done()
	a.say("%s at %s, proposed by %s (signature verified): %s", r.manifest.Type, r.manifest.Target.Name, r.manifest.ProposedBy, indented(r.manifest.Rationale))
	return a.showWords(r.digest, r.manifest.PatchHash)
}

func (a *app) showWords(manifest, patch envelope.Digest) error {
	words := fingerprint(manifest, patch)
	return a.show(map[string]string{"words": words}, [][]string{{words}})
}
