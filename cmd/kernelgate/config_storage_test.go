package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDatabaseURL(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte("open sesame\n"), 0o600))
	for url, want := range map[string]string{
		"postgres://kernelgate@db.example/kernelgate":                     "",
		"postgresql://kernelgate@127.0.0.1/kernelgate":                    "",
		"postgres:///kernelgate?host=/run/postgresql&user=kernelgate":     "",
		"postgres://kernelgate@a.example,b.example/kernelgate":            "",
		"postgres://kernelgate:secret@db.example/kernelgate":              "no password belongs in it",
		"postgres://kernelgate@db.example/kernelgate?password=secret":     "no password belongs in it",
		"postgres://kernelgate@db.example/kernelgate?sslmode=prefer":      "does not verify the server",
		"postgres://kernelgate@db.example/kernelgate?sslmode=disable":     "does not verify the server",
		"postgres://kernelgate@localhost,db.example/k?sslmode=disable":    "does not verify the server",
		"postgres://kernelgate@/k?host=db.example&sslmode=require":        "does not verify the server",
		"postgres://kernelgate:secret@db.example/%zz":                     "it is not a URL",
		"mysql://db.example/kernelgate":                                   "not a database that this version knows",
		"postgres://kernelgate@db.example/kernelgate?sslmode=verify-full": "",
	} {
		d := Database{URL: url, PasswordFile: file}
		err := d.settle(&Config{DataDir: t.TempDir()})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: the error shows the password: %v", url, err)
			}
			continue
		}
		config, err := d.session()
		must(t, err)
		if config.Password != "open sesame" {
			t.Errorf("%s: the password is %q", url, config.Password)
		}
		if strings.Contains(url, ".example") && (config.TLSConfig == nil || config.TLSConfig.InsecureSkipVerify || config.TLSConfig.ServerName == "") {
			t.Errorf("%s: the server is not verified", url)
		}
		for _, other := range config.Fallbacks {
			if strings.Contains(url, ".example") && other.TLSConfig == nil {
				t.Errorf("%s: falls back to plain text", url)
			}
		}
	}
	must(t, os.Chmod(file, 0o644))
	d := Database{URL: "postgres://kernelgate@db.example/kernelgate", PasswordFile: file}
	if err := d.settle(&Config{}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a password that others may read: %v", err)
	}
}
