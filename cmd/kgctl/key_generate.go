package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// generatedKey is what key generate prints. The URI holds the pin-source,
// which names the place of a PIN and never the PIN.
type generatedKey struct {
	KeyID string `json:"keyId"`
	URI   string `json:"uri"`
}

func (a *app) keyGenerate() *cobra.Command {
	var uri, algorithm string
	cmd := &cobra.Command{
		Use:   "generate --key URI [--algorithm ALGORITHM]",
		Short: "Make a key pair in a token, or in a file for development",
		Example: `  kgctl key generate --key 'pkcs11:token=ryan;object=approver;id=%01?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/kg/pin'
  kgctl key generate --key file:/home/dev/key.pem --algorithm ed25519`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "key"); err != nil {
				return err
			}
			return a.generate(cmd.Context(), uri, signer.Algorithm(algorithm))
		},
	}
	cmd.Flags().StringVar(&uri, "key", "", "URI that the new key shall have; a token's needs object and id")
	cmd.Flags().StringVar(&algorithm, "algorithm", string(signer.ECDSAP256SHA256), "ecdsa-p256-sha256, ecdsa-p384-sha384, ed25519, rsa-pss-sha256 or rsa-pkcs1-sha256")
	return cmd
}

func (a *app) generate(ctx context.Context, uri string, algorithm signer.Algorithm) error {
	name, err := redacted(uri)
	if err != nil {
		return err
	}
	a.say("Making a %s key: %s", algorithm, name)
	var made generatedKey
	if strings.HasPrefix(uri, filekey.Scheme) {
		u, err := filekey.ParseURI(uri)
		if err != nil {
			return usageError{err}
		}
		u, public, err := filekey.Generate(u.Path, algorithm)
		if err != nil {
			return err
		}
		a.say("A key in a file is for development only.")
		made = generatedKey{public.KeyID(), u.String()}
	} else {
		u, err := pkcs11.ParseURI(uri)
		if err != nil {
			return usageError{err}
		}
		u.Algorithm = algorithm
		if err := generateInToken(u); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, signTimeout)
		defer cancel()
		s, err := pkcs11.Open(ctx, u, pkcs11.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		made = generatedKey{s.Public().KeyID(), u.Text()}
	}
	return a.show(made, [][]string{{"KEY", made.KeyID}, {"URI", made.URI}})
}
