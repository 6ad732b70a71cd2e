package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/awskms"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/gcpkms"
	"github.com/kernelgate/kernelgate/signer/pkcs11"
)

// generateTimeout leaves time for a smartcard to make an RSA key.
const generateTimeout = 3 * time.Minute

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
			chosen, err := algorithmFor(uri, algorithm)
			if err != nil {
				return usageError{err}
			}
			return a.generate(cmd.Context(), uri, chosen)
		},
	}
	cmd.Flags().StringVar(&uri, "key", "", "URI that the new key shall have; a token's needs object and id")
	cmd.Flags().StringVar(&algorithm, "algorithm", "", "ecdsa-p256-sha256, ecdsa-p384-sha384, ed25519, rsa-pss-sha256 or rsa-pkcs1-sha256 (default the URI's, else the first)")
	return cmd
}

// algorithmFor is the new key's, by the flag or the URI; they must agree.
func algorithmFor(uri, flag string) (signer.Algorithm, error) {
	inURI := ""
	switch {
	case strings.HasPrefix(uri, pkcs11.Scheme):
		u, err := pkcs11.ParseURI(uri)
		if err != nil {
			return "", err
		}
		if u.Object == "" || len(u.ID) == 0 {
			return "", errors.New("a new key's URI has object= and id=, which name it in the token")
		}
		inURI = string(u.Algorithm)
	case strings.HasPrefix(uri, awskms.Scheme):
		return "", errors.New("keys in AWS KMS are made by aws kms create-key; docs/keys/aws-kms.md says how")
	case strings.HasPrefix(uri, gcpkms.Scheme):
		return "", errors.New("keys in Cloud KMS are made by gcloud kms keys create; docs/keys/gcp-kms.md says how")
	}
	if flag != "" && inURI != "" && flag != inURI {
		return "", fmt.Errorf("--algorithm is %s, and the URI's algorithm is %s", flag, inURI)
	}
	switch a := signer.Algorithm(cmp.Or(flag, inURI, string(signer.ECDSAP256SHA256))); a {
	case signer.ECDSAP256SHA256, signer.ECDSAP384SHA384, signer.Ed25519, signer.RSAPSSSHA256, signer.RSAPKCS1SHA256:
		return a, nil
	}
	return "", fmt.Errorf("unknown algorithm %q; see kgctl key generate --help", flag)
}

func (a *app) generate(ctx context.Context, uri string, algorithm signer.Algorithm) error {
	name, err := redacted(uri)
	if err != nil {
		return err
	}
	a.say("Making a key, %s: %s", algorithm, name)
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
		ctx, cancel := context.WithTimeout(ctx, generateTimeout)
		defer cancel()
		if err := pkcs11.GenerateKey(ctx, u, pkcs11.Options{PIN: a.askPIN}); err != nil {
			return err
		}
		s, err := pkcs11.Open(ctx, u, pkcs11.Options{PIN: a.askPIN})
		if err != nil {
			return err
		}
		defer s.Close()
		made = generatedKey{s.Public().KeyID(), u.Text()}
	}
	return a.show(made, [][]string{{"KEY", made.KeyID}, {"URI", made.URI}})
}
