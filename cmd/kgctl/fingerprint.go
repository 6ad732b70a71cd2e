package main

import (
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
		Use:     "fingerprint --manifest FILE --artifact FILE",
		Short:   "Print six words that name a change, to compare by voice",
		Example: `  kgctl fingerprint --manifest manifest.json --artifact change.tar`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "manifest", "artifact"); err != nil {
				return err
			}
			c, err := readChange(manifest, artifact)
			if err != nil {
				return err
			}
			words := fingerprint(c.digest, c.patch)
			return a.show(map[string]string{"words": words}, [][]string{{words}})
		},
	}
	cmd.Flags().StringVar(&manifest, "manifest", "", "manifest envelope")
	cmd.Flags().StringVar(&artifact, "artifact", "", "artifact that it is about")
	return cmd
}
