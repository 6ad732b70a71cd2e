package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// settingsName is where the settings are for people.
const settingsName = "~/.config/kgctl/config.yaml"

// settings is what a person need not say each time. It holds no secret: the
// token is in a file of its own, and a key's URI names where its PIN is.
type settings struct {
	Server    string `yaml:"server"`
	TokenFile string `yaml:"tokenFile"`
	Root      string `yaml:"root"`
	CAFile    string `yaml:"caFile"`
	Key       string `yaml:"key"`
}

// readSettings reads the file strictly; one that is not there says nothing,
// but where KGCTL_CONFIG names it.
func readSettings() (f settings, err error) {
	path := os.Getenv("KGCTL_CONFIG")
	named := path != ""
	if !named {
		dir, err := os.UserConfigDir()
		if err != nil {
			return f, nil //nolint:nilerr // nowhere to look
		}
		path = filepath.Join(dir, "kgctl", "config.yaml")
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return f, nil
	}
	if err != nil {
		return f, usageError{fmt.Errorf("settings: %w", err)}
	}
	if info.Mode().Perm()&0o022 != 0 {
		return f, usagef("settings %s: others may write it, and it says which root you trust: chmod go-w it", path)
	}
	data, err := readFile(path, 64<<10)
	if err != nil {
		return f, usageError{fmt.Errorf("settings: %w", err)}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&f); err != nil && !errors.Is(err, io.EOF) { // EOF: an empty file
		return settings{}, usageError{fmt.Errorf("settings %s: %w; known are server, tokenFile, root, caFile and key", path, err)}
	}
	for _, p := range []*string{&f.TokenFile, &f.CAFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	return f, nil
}

// setKey gives a command that signs its key, where no flag does. A key that is
// to be made is named each time.
func (f settings) setKey(cmd *cobra.Command) error {
	key := cmp.Or(os.Getenv("KGCTL_KEY"), f.Key)
	flag := cmd.Flags().Lookup("key")
	if key == "" || flag == nil || flag.Changed || cmd.Name() == "generate" {
		return nil
	}
	return cmd.Flags().Set("key", key)
}
