package filekey

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/kernelgate/kernelgate/signer"
)

// maxFile bounds a key file, in bytes: RSA-4096 takes about 3,300.
const maxFile = 16 << 10

const pemType = "PRIVATE KEY"

// Generate makes a key and writes it to path as PKCS#8 PEM, mode 0600. It
// never overwrites a file.
func Generate(path string, algorithm signer.Algorithm) (URI, signer.PublicKey, error) {
	private, err := newKey(algorithm)
	if err != nil {
		return URI{}, signer.PublicKey{}, fmt.Errorf("generate %q key: %w", algorithm, err)
	}
	public, err := signer.NewPublicKey(private.Public())
	if err != nil {
		return URI{}, signer.PublicKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return URI{}, signer.PublicKey{}, fmt.Errorf("encode the key: %w", err)
	}
	defer clear(der)
	if err := writeNew(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})); err != nil {
		return URI{}, signer.PublicKey{}, fmt.Errorf("write the key: %w", err)
	}
	return URI{Path: path, Algorithm: algorithm}, public, nil
}

func writeNew(path string, data []byte) error {
	defer clear(data)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

func readKey(path string) (crypto.Signer, error) {
	// O_NONBLOCK: opening a FIFO must not hang.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key file %s can be read by others or is no regular file (mode %v): chmod 600 it", path, info.Mode())
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer clear(data)
	block, rest := pem.Decode(data)
	if len(data) > maxFile || block == nil || block.Type != pemType || len(rest) > 0 {
		return nil, fmt.Errorf("key file %s does not hold one PKCS#8 key in PEM (\"BEGIN PRIVATE KEY\")", path)
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key file %s is not PKCS#8", path) // the cause could quote the key
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key file %s holds a key that does not sign", path)
	}
	return private, nil
}
