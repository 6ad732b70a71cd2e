package filekey_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/filekey"
	"github.com/kernelgate/kernelgate/signer/signertest"
)

func TestConformance(t *testing.T) {
	dir := t.TempDir()
	uris := map[signer.Algorithm]filekey.URI{}
	for _, a := range signertest.Algorithms {
		u, _, err := filekey.Generate(filepath.Join(dir, string(a)), a)
		if err != nil {
			t.Fatal(err)
		}
		uris[a] = u
	}
	signertest.Run(t, func(t *testing.T, a signer.Algorithm) signer.Signer {
		u, err := filekey.ParseURI(uris[a].String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := filekey.Open(u)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, signertest.Algorithms...)
}

func TestGenerateGivesTheKeyThatOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	u, public, err := filekey.Generate(path, signer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	s, err := filekey.Open(u)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Public().Equal(public) {
		t.Fatal("another key was opened than generated")
	}
	before, _ := os.ReadFile(path)
	if _, _, err := filekey.Generate(path, signer.Ed25519); err == nil {
		t.Fatal("an existing key was overwritten")
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Fatal("a refused Generate changed the file")
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if _, _, err := filekey.Generate(good, signer.ECDSAP256SHA256); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string, mode os.FileMode) filekey.URI {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return filekey.URI{Path: path}
	}
	cases := map[string]filekey.URI{
		"missing":            {Path: filepath.Join(dir, "missing")},
		"a directory":        {Path: dir},
		"readable by others": write("open", string(pem), 0o644),
		"empty":              write("empty", "", 0o600),
		"two keys":           write("two", string(pem)+string(pem), 0o600),
		"other PEM":          write("other", strings.ReplaceAll(string(pem), "PRIVATE KEY", "EC PRIVATE KEY"), 0o600),
		"too long":           write("long", string(pem)+strings.Repeat(" ", 20<<10), 0o600),
		"wrong algorithm":    {Path: good, Algorithm: signer.Ed25519},
	}
	for name, u := range cases {
		if s, err := filekey.Open(u); !errors.Is(err, signer.ErrKey) || s != nil {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
	}
}

func TestParseURI(t *testing.T) {
	for text, want := range map[string]filekey.URI{
		"file:/a/b":                              {Path: "/a/b"},
		"file:///a/b":                            {Path: "/a/b"},
		"file:/a%20b?algorithm=rsa-pkcs1-sha256": {Path: "/a b", Algorithm: signer.RSAPKCS1SHA256},
	} {
		got, err := filekey.ParseURI(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
		if again, err := filekey.ParseURI(got.String()); err != nil || again != got {
			t.Errorf("%s: String %s gives %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "file:", "file:a", "file://host/a", "/a", "pkcs11:a", "file:/a?x=1", "file:/a?algorithm=md5",
		"file:/a?algorithm=ed25519&algorithm=ed25519", "file:/a#f", "file:/%00"} {
		if _, err := filekey.ParseURI(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
