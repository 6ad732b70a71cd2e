package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An identity provider that would let in nobody, anybody or somebody else is
// refused when the configuration is read.
func TestIdentityProviderIsRefused(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("hush\n"), 0o600))
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, []byte("\n"), 0o600))
	base := []string{"issuer: https://id.example.org", "clientId: kernelgate", "clientSecretFile: " + secret, "people: [{value: ryan@example.org, person: ryan, role: approver}]"}
	read := func(lines []string) error {
		c, err := load(t, "root: "+someRoot+"\ncommandPad:\n  oidc:\n    "+strings.Join(lines, "\n    ")+"\n")
		if err == nil {
			_, err = c.CommandPad.OIDC.provider()
		}
		return err
	}
	if err := read(base); err != nil {
		t.Fatalf("what is right is refused: %v", err)
	}
	for name, c := range map[string]struct {
		at         int
		line, want string
	}{
		"plain http":            {0, "issuer: http://id.example.org", "https://"},
		"no host":               {0, "issuer: https:///x", "https://"},
		"no client":             {1, "clientId: ''", "clientId"},
		"no secret":             {2, "clientSecretFile: ''", "clientSecretFile"},
		"a missing secret":      {2, "clientSecretFile: " + secret + "-none", "clientSecretFile"},
		"an empty secret":       {2, "clientSecretFile: " + empty, "is empty"},
		"nobody":                {3, "people: []", "nobody"},
		"no value":              {3, "people: [{value: '', person: ryan, role: approver}]", "empty or stands twice"},
		"a value twice":         {3, "people: [{value: a, person: ryan, role: approver}, {value: a, person: eve, role: approver}]", "empty or stands twice"},
		"an unknown role":       {3, "people: [{value: a, person: ryan, role: root}]", "the role"},
		"a person that is none": {3, "people: [{value: a, person: Ryan!, role: approver}]", "people"},
		"an unknown key":        {1, "clientID: kernelgate", "clientID"},
	} {
		lines := append([]string{}, base...)
		lines[c.at] = c.line
		if err := read(lines); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
